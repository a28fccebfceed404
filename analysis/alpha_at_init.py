"""Paper 1, Figure 2, left: which alphas layers have before any training.

    python -m raylab.run experiment=alpha_at_init
    python analysis/alpha_at_init.py results/alpha_at_init --output analysis

Published: "Efficacy of data-free metrics: robust and critical evidence from robust and critical layers", Figure 2: a
histogram of 10,000 initialisations of a 512 x 512 layer, some of which have alpha in [2, 6]; no numbers are printed.
`EARLIER`: 1,000 draws of the same layer by an earlier, independent implementation. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import draws, publish
from raylab.results import load, read_run_info
from raylab.results.text import TextTable, number

DRAWS = 10_000  # of each layer, as in the paper, where there are more
EARLIER_SHAPE, EARLIER_DRAWS = "512 x 512", 1000
EARLIER_QUANTILES = (4.13, 4.95, 6.81, 9.2, 13.7, 25.3, 38.0)  # at draws.QUANTILES
EARLIER_SHARES = (0.149, 0.128, 0.031)  # of draws.RANGES


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the page, the figure and the table."""
    rows, info = load(folder), read_run_info(folder)
    if not draws.Draws.of(rows):
        raise UserError(f"{folder} is not of initial layers: give results of experiment=alpha_at_init.")
    found = draws.populations(rows, DRAWS)
    picture, text = draws.histograms(found), compared(found)
    yield from publish.figure(output / "figures", picture)
    yield from publish.table(output / "tables", "alpha_at_init", text, numbers(found))
    page = output / "alpha_at_init.md"
    parts = [
        "# α of layers before any training\n",
        f"```bash\n{publish.command(info)}\npython analysis/alpha_at_init.py RESULTS --output analysis\n```\n",
        f"{publish.provenance(rows, info)} The first {DRAWS:,} draws of each layer are shown.\n",
        publish.embedded(picture, f"figures/{picture.name}.png"),
        "\n".join(f"- {sentence}" for sentence in said(found)) + "\n",
        text.markdown(),
    ]
    page.write_text("\n".join(parts), encoding="utf-8")
    yield page


def said(found: list[draws.Population]) -> list[str]:
    """What it means."""
    product = np.prod([each.share(*draws.RANGES[0])[0] ** len(each.stands_for.split(", ")) for each in found])
    return [
        *(draws.finding(each) for each in found),
        "alpha in 2 to 6 needs no training: it is what a fit to the tail of a Marchenko-Pastur bulk gives by chance. "
        f"All layers of one network have it with probability {float(product):.1e}.",
    ]


def numbers(found: list[draws.Population]) -> pa.Table:
    """Measured quantiles and shares, and those of the earlier implementation, a row each."""
    measured = [row | {"by": "raylab"} for row in draws.numbers(found).to_pylist()]
    earlier = {"by": "earlier", "layer": "", "shape": EARLIER_SHAPE, "n": EARLIER_DRAWS}
    earlier |= {f"q{100 * q:g}": value for q, value in zip(draws.QUANTILES, EARLIER_QUANTILES, strict=True)}
    for (low, high), share in zip(draws.RANGES, EARLIER_SHARES, strict=True):
        earlier[f"p_{low:g}_{high:g}"] = share
    return pa.Table.from_pylist([*measured, earlier])


def compared(found: list[draws.Population]) -> TextTable:
    """Quantiles and shares, measured and by the earlier implementation."""
    lines = []
    for row in numbers(found).to_pylist():
        shares = []
        for low, high in draws.RANGES:
            p, least, most = (row[f"p_{low:g}_{high:g}{end}"] for end in ("", "_lo", "_hi"))
            shares.append(f"{100 * p:.1f}" + (f" [{100 * least:.1f}, {100 * most:.1f}]" if least is not None else ""))
        name = f"{row['shape']} ({row['stands_for']})" if row["by"] == "raylab" else f"{row['shape']}, earlier"
        lines.append([name, f"{row['n']:,}", *(number(row[f"q{100 * q:g}"], 2) for q in draws.QUANTILES), *shares])
    ranges = (f"in {low:g} to {high:g} [%]" for low, high in draws.RANGES)
    header = ("layer", "n", *(f"{100 * q:g} %" for q in draws.QUANTILES), *ranges)
    note = "Quantiles of alpha, and the share of draws within three ranges with Wilson's 95 % interval."
    return TextTable("alpha of layers as they are initialised", header, lines, note=note)


if __name__ == "__main__":
    publish.script(main, __doc__)
