"""Pictures of two trained CIFAR-10 networks, ResNet20 and ResNet56, for the README.

    python -m raylab.run "model=[resnet20-12fca82f.th,resnet56-4bfd9763.th]" results=results/resnets
    python analysis/resnet_spectra.py results/resnets --output analysis/figures

The weights are those of the public implementation `akamaster/pytorch_resnet_cifar10`. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from raylab import plot
from raylab.report import publish
from raylab.results import load

MODEL, LAYER = "resnet56-4bfd9763", "layer3.8.conv1"


def main(folder: str, output: Path) -> Iterator[Path]:
    """Draw the figures."""
    table = load(folder)
    larger = table.filter(pc.field("model") == MODEL)
    for name, picture in {"esd": plot.esd(larger, LAYER), "alpha_by_depth": plot.alpha_by_depth(larger)}.items():
        yield from picture.save(output / f"resnet56_{name}.png")


if __name__ == "__main__":
    publish.script(main, __doc__)
