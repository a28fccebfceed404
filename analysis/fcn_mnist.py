"""Paper 1, small scale: what `experiment=fcn_mnist` found, beside the published values, point by point.

    python -m raylab.run experiment=fcn_mnist data.root=FOLDER
    python analysis/fcn_mnist.py results/fcn_mnist > analysis/fcn_mnist.md
    for f in results/fcn_mnist/figures/*.png; do cp $f analysis/figures/fcn_mnist_$(basename $f); done

Published: "Efficacy of data-free metrics: robust and critical evidence from robust and critical layers", Table 1 (mean
and standard error over 100 models), Figures 2, 3, 4, 7, 12 and 13. `EARLIER`: seven models of an earlier, independent
implementation, for what the paper shows only as a figure. Reads results only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import labels
from raylab.results import frame, load, read_run_info
from raylab.results.correlate import correlate
from raylab.results.text import TextTable

LAYERS = ("fc1", "fc2", "fc3", "fc4", "fc5", "fc6")
TABLE_1 = {
    "fc1": (4.82, 0.025),
    "fc2": (4.205, 0.039),
    "fc3": (4.126, 0.038),
    "fc4": (4.135, 0.035),
    "fc5": (4.193, 0.034),
    "fc6": (3.793, 0.805),
}
ACCURACY = (0.96822, 0.00057)
EARLIER_ACCURACY = {
    "reinit": (0.669, 0.952, 0.967, 0.971, 0.968, 0.947),
    "reinit_signs": (0.526, 0.911, 0.945, 0.960, 0.955, 0.918),
}
# Mean over layers, re-initialised and re-randomised rows together; (rho, tau), None where nothing is printed.
CORRELATIONS = {
    "alpha": (-0.053, -0.035),
    "activation_disagreement": (-0.776, -0.5375),
    "js_divergence": (None, None),
    "linear_cka": (None, None),
}
EARLIER_CORRELATIONS = {"activation_disagreement": -0.792, "js_divergence": -0.791, "linear_cka": 0.686}
PAIR = "reinit+rerandomize"
FIGURES = {
    "accuracy_by_layer": "Accuracy after each layer is re-initialised, re-randomised, or given its initial signs",
    "metrics": "Accuracy against the paper's eight data-free metrics",
    "rho_by_metric": "Spearman rho with accuracy, all perturbed layers together and within each perturbation",
    "similarity": "Accuracy against three similarities to the trained model",
    "alpha_by_layer": "alpha of trained and perturbed layers",
}
METRICS = (*labels.PRIMARY, *labels.SIMILARITY)


def main(folder: str) -> None:
    """Print the comparison as Markdown."""
    rows = load(folder)
    info = read_run_info(folder)
    print("# `fcn_mnist`: measured beside published\n")
    print("Made by these commands; the rows themselves are not kept in the repository.\n")
    print(f"```bash\n{info['command']}\npython analysis/fcn_mnist.py RESULTS > analysis/fcn_mnist.md\n```\n")
    print(f"{provenance(rows, info)}\n")
    for name, caption in FIGURES.items():
        print(f"![{caption}](figures/fcn_mnist_{name}.png)\n\n*{caption}.*\n")
    for table in (table_1(rows), accuracies(rows), correlations(rows)):
        print(f"## {table.title}\n\n{replace(table, title='').markdown()}")


def provenance(rows: pa.Table, info: dict) -> str:
    """What was run, in a paragraph."""
    status = frame.texts(rows, "status")
    failed = int(np.sum(status == "failed"))
    hours = np.nansum(frame.floats(rows, "seconds")) / 3600
    models = len(np.unique(frame.codes(rows, *frame.MODEL)))
    trained = int(np.sum(frame.floats(rows, "train_seconds") > 0))
    return (
        f"{models} models ({trained} trained by this command, {models - trained} from checkpoints that an earlier one "
        f"had left), {rows.num_rows:,} rows, {failed} failed; {hours:.2f} core-hours of work in the rows; "
        f"code {info['code']}, seed {info['config']['seed']}, config digest `{info['digest']}`."
    )


def table_1(rows: pa.Table) -> TextTable:
    """alpha of the trained layers and the test accuracy."""
    lines = []
    whole = frame.select(rows, "", None)
    each = frame.floats(whole, "accuracy")
    baseline = frame.mean_over_models(whole, "accuracy")
    lines.append(compared("test accuracy [%]", baseline, ACCURACY, scale=100))
    for layer in LAYERS:
        mean = frame.mean_over_models(frame.select(rows, layer, "original"), "alpha")
        lines.append(compared(f"alpha {layer.upper()}", mean, TABLE_1[layer]))
    header = ("", "measured (mean ± SEM)", "n", "published (mean ± SEM)", "difference", "in combined SEM")
    lowest = ", ".join(f"{100 * value:.2f}" for value in np.sort(each)[:3])
    note = (
        "The paper does not print its training recipe; the one used here is the nearest that was found. With a "
        "constant learning rate of .05 the accuracy of some models dips at the last epoch, which is what makes the SEM "
        f"of the accuracy large: median {100 * np.median(each):.2f}, lowest {lowest}. FC6 has ten eigenvalues: its "
        "alpha is a fit to a handful of points, heavy-tailed over models, and its mean is dominated by few of them."
    )
    return TextTable("Table 1", header, lines, note=note)


def compared(name: str, mean: frame.Mean, published: tuple[float, float], scale: float = 1) -> Sequence[str]:
    """A line of measured against published."""
    difference = mean.mean - published[0]
    sigmas = difference / np.hypot(mean.sem, published[1])
    return (
        name,
        f"{scale * mean.mean:.3f} ± {scale * mean.sem:.3f}",
        str(mean.n),
        f"{scale * published[0]:.3f} ± {scale * published[1]:.3f}",
        f"{scale * difference:+.3f}",
        f"{sigmas:+.1f}",
    )


def accuracies(rows: pa.Table) -> TextTable:
    """Accuracy after each perturbation of each layer."""
    lines = []
    for condition in ("reinit", "rerandomize", "reinit_signs"):
        cells = []
        for layer in LAYERS:
            mean = frame.mean_over_models(frame.select(rows, layer, condition), "accuracy")
            cells.append(f"{100 * mean.mean:.2f} ± {100 * mean.sem:.2f}")
        lines.append((condition, *cells))
        if condition in EARLIER_ACCURACY:
            lines.append(("earlier, 7 models", *(f"{100 * value:.1f}" for value in EARLIER_ACCURACY[condition])))
    note = "The paper shows these as Figures 2, 3, 7 and 12; for re-randomised layers 10 to 12 everywhere."
    header = ("", *(layer.upper() for layer in LAYERS))
    return TextTable("Accuracy [%] of perturbed models", header, lines, note=note)


def correlations(rows: pa.Table) -> TextTable:
    """rho and tau of accuracy against each metric."""
    found = correlate(rows, metrics=METRICS)
    lines = [tuple(line) for line in correlation_lines(found.to_pylist())]
    header = (
        "metric",
        "rho [95 % CI], mean over layers",
        "p",
        "published rho",
        "earlier rho",
        "tau",
        "published tau",
        "rho within reinit",
        "rho within rerandomize",
        "rho pooled",
        "tau pooled",
    )
    note = (
        "Re-initialised and re-randomised rows together, as in the paper, and within each of the two: perfect "
        "separation of the two groups alone gives rho -.755, so that a number near it says no more than that."
    )
    return TextTable("Correlation of accuracy with each metric", header, lines, note=note)


def correlation_lines(found: list[dict]) -> Iterator[list[str]]:
    """A line a metric."""
    by_key = {(row["metric"], row["scope"], row["condition"]): row for row in found}
    for metric in METRICS:
        both = by_key[metric, "mean", PAIR]
        rho, tau = CORRELATIONS.get(metric, (None, None))
        yield [
            f"`{metric}`",
            f"{both['rho']:+.3f} [{both['rho_lo']:+.3f}, {both['rho_hi']:+.3f}]",
            f"{both['rho_p']:.3f}",
            "" if rho is None else f"{rho:+.3f}",
            f"{EARLIER_CORRELATIONS[metric]:+.3f}" if metric in EARLIER_CORRELATIONS else "",
            f"{both['tau']:+.3f}",
            "" if tau is None else f"{tau:+.4f}",
            f"{by_key[metric, 'mean', 'reinit']['rho']:+.3f}",
            f"{by_key[metric, 'mean', 'rerandomize']['rho']:+.3f}",
            f"{by_key[metric, 'pooled', PAIR]['rho']:+.3f}",
            f"{by_key[metric, 'pooled', PAIR]['tau']:+.3f}",
        ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python analysis/fcn_mnist.py RESULTS")
    try:
        main(sys.argv[1])
    except UserError as error:
        print(f"fcn_mnist: {error}", file=sys.stderr)
        sys.exit(2)
