"""Accuracy against timm's own way of validating: its loader, its transform, its `accuracy`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raylab.data import images
from raylab.evaluate import PrefixWalk
from raylab.experiments.pretrained import _prepare
from raylab.models.networks import of_module
from raylab.models.vision import cifar_resnet

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = SHARED / "pretrained" / "resnet20-12fca82f.th"
SAMPLES = 256

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="the shared data are not here")


class Shown(torch.utils.data.Dataset):
    """The first images of the parquet file, as PIL opens them."""

    transform = None

    def __init__(self) -> None:
        import io

        import pyarrow.parquet as pq
        from PIL import Image

        (path,) = (SHARED / "cifar10" / "plain_text").glob("test-*.parquet")
        rows = pq.read_table(path).slice(0, SAMPLES).to_pylist()
        self.items = [(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"), row["label"]) for row in rows]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int):
        image, label = self.items[k]
        return self.transform(image), label


def as_timm_does(model: torch.nn.Module, config: dict) -> tuple[float, float, float]:
    from timm.data.loader import create_loader
    from timm.utils.metrics import accuracy

    sized = {key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")}
    loader = create_loader(Shown(), batch_size=64, use_prefetcher=False, num_workers=0, device="cpu", **sized)
    top1, top5, loss = [], [], []
    with torch.no_grad():
        for x, y in loader:
            logits = model(x)
            first, fifth = accuracy(logits, y, topk=(1, 5))
            top1.append(float(first) / 100)
            top5.append(float(fifth) / 100)
            loss.append(float(torch.nn.functional.cross_entropy(logits, y)))
    return float(np.mean(top1)), float(np.mean(top5)), float(np.mean(loss))


def test_top1_top5_and_loss_are_what_timm_validates():
    network = of_module("resnet20", cifar_resnet(20, WEIGHTS), None)
    data = images.load(network, SHARED / "cifar10" / "plain_text", split="test", samples=SAMPLES, subset="first")
    found = PrefixWalk(network.module(), data.x, data.y, 64, _prepare(data, "cpu", torch.float32)).evaluate()
    top1, top5, loss = as_timm_does(network.module(), dict(network.preprocessing or {}))
    assert 0.7 < top1 < top5 < 1
    assert found.accuracy == pytest.approx(top1, abs=1e-9)
    assert found.top5 == pytest.approx(top5, abs=1e-9)
    assert found.loss == pytest.approx(loss, rel=1e-6)
