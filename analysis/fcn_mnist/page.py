"""Paper 1, small scale, on one page: what `experiment=fcn_mnist` found beside what is published, and why they differ.

    python -m raylab.run experiment=fcn_mnist data.root=FOLDER
    python analysis/fcn_mnist/page.py results/fcn_mnist --output analysis

Writes fcn_mnist.md, its figures (PNG) to figures/, all tables (Markdown, LaTeX, Parquet) to tables/. Reads results
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import figure_2_right
import figure_3
import figure_4
import figure_7
import figure_12
import figure_13
import numpy as np
import published
import pyarrow as pa
import table_1
import verdict
from study import SIGNS, Study, signed

from raylab.report import publish
from raylab.report.picture import Picture
from raylab.results import frame
from raylab.results.text import TextTable, number
from raylab.types import ORIGINAL

STEM = "fcn_mnist"
RESAMPLED = 100_000
# What was tried once on trained checkpoints, which rows do not hold.
FC6_FITS = (
    "No rule of fitting that was tried gives the published mean. On the FC6 of 16 models of this recipe: least KS "
    "distance over tails of 2 to 10 eigenvalues (`small_sample=standard`, used here) 5.85, and the same with powerlaw "
    "2.0.0 where alpha may be above 3; powerlaw's default, which caps alpha at 3, 1.87; weightwatcher 0.7.7 "
    "(`oracle`: tails of at least 8; also with `fix_fingers=clip_xmax` and `detX`) 1.82; `xmin_peak` has no fit; tails "
    "of 2, 3, 4, 5, 6, 7, 8, 9, 10 eigenvalues 20.9, 10.0, 8.27, 5.61, 3.01, 2.27, 2.14, 2.10, 1.73."
)
Section = tuple[str, list[Picture], list[tuple[str, TextTable, pa.Table]]]


def sections(study: Study) -> Iterator[Section]:
    """Title, figures and tables of each part of the page."""
    first, fc6 = table_1.table(study), table_1.fc6(study)
    yield "Table 1: trained models", [], [("table_1", *first), ("table_1_fc6", *fc6)]
    pictures = [figure_2_right.picture(study)]
    yield "Figure 2, right: alpha", pictures, [(figure_2_right.NAME, *figure_2_right.table(study))]
    pictures = [figure_3.picture(study), figure_3.whiskers(study)]
    yield "Figure 3: eight data-free metrics", pictures, [(figure_3.NAME, *figure_3.table(study))]
    pictures = [figure_4.picture(study)]
    yield "Figure 4: three data-based metrics", pictures, [(figure_4.NAME, *figure_4.table(study))]
    if SIGNS in frame.conditions(study.rows):
        tables = [("figure_12", *figure_12.accuracies(study)), ("figure_12_metrics", *figure_12.table(study))]
        yield "Figure 12: initial signs alone", [figure_12.by_layer(study), figure_12.metrics(study)], tables
    yield "Figure 7: by layer", [figure_7.picture(study)], [(figure_7.NAME, *figure_7.table(study))]
    pictures = [figure_7.picture(study, figure_13.METRICS, figure_13.NAME)]
    yield "Figure 13: by layer", pictures, [(figure_13.NAME, *figure_7.table(study, figure_13.METRICS))]
    yield "Beyond the paper: a verdict on every metric", study.scores.pictures(), verdict.tables(study.scores)


def head(study: Study) -> str:
    """What was run, and by which commands."""
    models = len(np.unique(frame.codes(study.rows, *frame.MODEL)))
    return (
        f"# `fcn_mnist`: measured beside published\n\n{models} networks 784-512x5-10 on MNIST, each of their six "
        "layers re-initialised, re-randomised, and given its initial signs on fresh magnitudes. Made by these "
        "commands; the rows themselves are not kept in the repository. A script in `analysis/fcn_mnist/` makes each "
        "figure and table by itself; the numbers in full precision are in `tables/`.\n\n"
        f"```bash\n{publish.command(study.info)}\npython analysis/fcn_mnist/page.py RESULTS --output analysis\n```\n\n"
        f"{models} models, {publish.provenance(study.rows, study.info)}\n"
    )


def differences(study: Study) -> str:
    """Where measured and published values differ, and what is known of why."""
    rows = table_1.numbers(study).to_pylist()
    most = max(rows[1:6], key=lambda row: abs(row["combined_sems"]))
    ten, given = (", ".join(number(row[name]) for row in rows[2:6]) for name in ("sem_of_ten", "published_sem"))
    rho, tau = study.mean_separation()
    said = [
        f"**Table 1, FC1 to FC5**: the largest difference is {signed(most['difference'])} "
        f"({abs(most['combined_sems']):.1f} combined SEM). The paper does not print its recipe; plain SGD (learning "
        "rate .05, batches of 256, 12 epochs) is the nearest that was found, not the paper's.",
        f"**Its standard errors**: FC2 to FC5 have {given} in the paper. Ten of the models here would have {ten}, a "
        "hundred a third of that: the SEMs in Table 1 are like those of about ten models.",
        f"**Accuracy**: {_accuracy(study)}",
        f"**FC6**: {_fc6(study)} {FC6_FITS} How often the fit keeps the whole spectrum depends on the trained weights, "
        "and so on a recipe that is not known.",
        f"**Correlations**: separation of the two groups alone gives {number(rho)} (tau {number(tau)}). Activation "
        "disagreement is about that far from zero, here and in the paper; within each condition its correlation with "
        "accuracy is near zero (Figure 4). The eight data-free metrics do not even tell the groups apart (Figure 3).",
        "**JS divergence and linear CKA** are weaker than activation disagreement in the paper. No definition tried "
        "(before and after ReLU, the network's output; pooled, mean over layers) gives that for both (LOG.md).",
    ]
    return "## What differs, and why\n\n" + "\n".join(f"- {text}" for text in said) + "\n"


def _accuracy(study: Study) -> str:
    values = 100 * np.sort(frame.floats(frame.select(frame.ok(study.rows), "", None), "accuracy"))
    rest = values[len(values) // 10 :]
    without = np.std(rest, ddof=1) / np.sqrt(len(rest)) if len(rest) > 1 else np.nan
    return (
        "with a constant learning rate a few models dip at the last epoch: median "
        f"{number(np.median(values), 2)} %, lowest {', '.join(number(value, 2) for value in values[:3])}. Without the "
        f"lowest tenth the SEM would be {number(without)}."
    )


def _fc6(study: Study) -> str:
    """How often ten of the models here have a mean alpha of FC6 as small as the published one."""
    alpha = frame.floats(frame.select(frame.ok(study.rows), table_1.LAST, ORIGINAL), "alpha")
    alpha, (mean, sem) = alpha[np.isfinite(alpha)], published.ALPHA[table_1.LAST]
    drawn = np.random.default_rng(0).choice(alpha, (RESAMPLED, table_1.TEN))
    share = 100 * np.mean(drawn.mean(axis=1) <= mean)
    of_all, of_ten = (number(sem * models**0.5, 1) for models in (published.MODELS, table_1.TEN))
    return (
        f"alpha is bimodal here, from {number(alpha.min(), 2)} to {number(alpha.max(), 2)}, mean "
        f"{number(alpha.mean(), 2)}, SD {number(alpha.std(ddof=1), 2)}. {mean} ± {sem} would be an SD of {of_all} if "
        f"that is the SEM of {published.MODELS} models (values in this range can have {number(np.ptp(alpha) / 2, 1)} "
        f"at most), and one of {of_ten} if it is that of ten. Ten of the models here, drawn at random, have a mean so "
        f"small in {number(share, 1)} % of draws."
    )


def main(folder: str, output: Path) -> Iterator[Path]:
    """Write the page, its figures and its tables."""
    study = Study.of(folder)
    parts = [head(study)]
    for title, pictures, tables in sections(study):
        parts.append(f"## {title}\n")
        for picture in pictures:
            file = f"figures/{STEM}_{picture.name}.png"
            yield from picture.save(output / file)
            parts.append(publish.embedded(picture, file))
        for stem, text, values in tables:
            yield from publish.table(output / "tables", f"{STEM}_{stem}", text, values)
            parts.append(replace(text, title="").markdown())
        if title.startswith("Table 1"):
            parts.append(differences(study))
    parts.append("\n".join(f"- {sentence}" for sentence in study.scores.findings()) + "\n")
    page = output / f"{STEM}.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    yield page


if __name__ == "__main__":
    publish.script(main, __doc__)
