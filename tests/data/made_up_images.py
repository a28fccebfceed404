"""Images like ImageNet's, made here: photographs of CIFAR-10 scaled to odd sizes, as folders and as parquet."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZES = ((281, 240), (230, 330), (224, 224), (500, 375), (90, 64), (301, 299))  # width, height


def smooth(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A picture with structure on several scales, for which interpolation matters."""
    coarse = rng.integers(0, 256, (max(2, height // 7), max(2, width // 7), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def class_folders(root: Path, names: list[str], each: int, sizes=SIZES) -> list[Path]:
    """`each` JPEG files in every folder of `names`; their paths in order."""
    rng, paths = np.random.default_rng(0), []
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            path = root / name / f"ILSVRC2012_val_{number:08}.JPEG"
            path.write_bytes(encoded(smooth(rng, *sizes[len(paths) % len(sizes)])))
            paths.append(path)
    return paths


def parquet_file(path: Path, contents: list[bytes], labels: list, column: str = "image", **options) -> Path:
    images = pa.array([{"bytes": content, "path": f"{place}.JPEG"} for place, content in enumerate(contents)])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: images, "label": labels}), path, **options)
    return path
