"""Pictures of two trained CIFAR-10 networks, ResNet20 and ResNet56, for the README.

    python -m raylab.run "model=[resnet20-12fca82f.th,resnet56-4bfd9763.th]" results=results/resnets
    python analysis/resnet_spectra.py results/resnets

The weights are those of the public implementation `akamaster/pytorch_resnet_cifar10`. Reads results only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.compute as pc

from raylab import plot
from raylab.errors import UserError
from raylab.results import load

FIGURES = Path(__file__).parent / "figures"
MODEL, LAYER = "resnet56-4bfd9763", "layer3.8.conv1"


def main(folder: str) -> None:
    """Draw the figures and print the name of each."""
    table = load(folder)
    larger = table.filter(pc.field("model") == MODEL)
    drawn = {"resnet56_esd": plot.esd(larger, LAYER), "resnet56_alpha_by_depth": plot.alpha_by_depth(larger)}
    for name, picture in drawn.items():
        for path in picture.save(FIGURES / f"{name}.png"):
            print(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python analysis/resnet_spectra.py RESULTS")
    try:
        main(sys.argv[1])
    except UserError as error:
        print(f"resnet_spectra: {error}", file=sys.stderr)
        raise SystemExit(2) from None
