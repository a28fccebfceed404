"""Paper 1, large scale: one given model, each layer re-randomised; what runs found, beside the published values.

    python -m raylab.run experiment=cifar_resnet model.source=FILE data.root=FOLDER results=results/resnet20
    python analysis/pretrained.py results/resnet20 [RESULTS ...] --output analysis

Published: "Efficacy of data-free metrics: robust and critical evidence from robust and critical layers", Tables 2, 3,
Figures 5, 6, 8 to 11. Their models are others than ours: rows stand beside each other, uncompared.
Writes pretrained.md, its figures to figures/, both tables (Markdown, LaTeX, Parquet) to tables/. Reads results only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylab.errors import UserError
from raylab.report import figures, labels, perturbed, publish
from raylab.report import target as targets
from raylab.report.findings import findings
from raylab.report.picture import Picture
from raylab.results import frame, load, read_run_info
from raylab.results.correlate import correlate
from raylab.results.differences import PREFIX, differences
from raylab.results.text import TextTable, number, p_value
from raylab.types import ORIGINAL

SHOWN = ("metrics", "accuracy_by_layer", "loss_by_layer", "alpha_by_layer", "rho_by_metric", "changes")
# Model, parameters [million], data, baseline loss [nats], top-1 [%] or perplexity, mean layer alpha, its SEM, rho, tau.
PUBLISHED = (
    ("ResNet34", 21.8, "ImageNet-1k val", 1.071, "73.302 %", 3.380, 0.195, 0.006, 0.005),
    ("ViT-B/16", 86.6, "ImageNet-1k val", 0.825, "78.852 %", 4.711, 0.271, -0.051, -0.035),
    ("GPT-2", 127.0, "WikiText-103 test", 3.399, "perplexity 29.941", 3.865, 0.136, 0.028, 0.018),
    ("GPT-2-large", 774.0, "WikiText-103 test", 2.967, "perplexity 19.436", 4.013, 0.091, 0.116, 0.078),
)
PUBLISHED_BY = "paper"
# What rows do not tell of the models that were run for the page in this folder.
ABOUT = {
    "resnet20": "The ResNets are those of He et al. (2016), trained by others on the original CIFAR-10; the test "
    "images here are JPEG copies of it, which costs about ten points.",
    "gpt2_small": "The small GPT-2 (6 layers, 256 wide) was trained on WikiText-103's validation split for this "
    "(`python -m raylab.train_language gpt2_small --text VALIDATION.parquet --held-out TEST.parquet --tokenizer FOLDER "
    "--epochs 18 --dropout 0.2`), and is evaluated on the first 20,480 tokens of the test split.",
}
PROTOCOL = ("crop", "context", "stride", "joining", "normaliser", "subset")
STATISTICS = ("rho", "rho_lo", "rho_hi", "rho_p", "tau", "tau_lo", "tau_hi", "tau_p")


@dataclass(frozen=True)
class Run:
    """One results folder."""

    folder: Path
    rows: pa.Table
    info: dict[str, Any]
    name: str
    target: targets.Target
    correlations: pa.Table

    @classmethod
    def of(cls, folder: str) -> Run:
        """Load and correlate. Raises UserError for a folder that holds no single perturbed model."""
        rows = load(folder)
        results, target = frame.ok(rows), targets.of(rows)
        if target is None or not frame.one_model(results) or len(frame.conditions(results)) < 2:
            raise UserError(f"{folder} is not of one given model, evaluated: give results of kind perturb_pretrained.")
        name = next(iter(frame.texts(results, "model")))
        return cls(Path(folder), rows, read_run_info(folder), name, target, perturbed.correlated(rows))


def main(folders: Sequence[str], output: Path) -> Iterator[Path]:
    """Write the page, the figures and the tables."""
    runs = [Run.of(folder) for folder in folders]
    two, three = table_2(runs), table_3(runs)
    commands = "\n".join(publish.command(run.info) for run in runs)
    parts = [
        "# Given models, each layer re-randomised: measured beside published\n",
        "Made by these commands; the rows themselves are not kept in the repository.\n",
        f"```bash\n{commands}\npython analysis/pretrained.py RESULTS ... --output analysis\n```\n",
        *(f"**{run.name}**: {publish.provenance(run.rows, run.info)}\n" for run in runs),
        *(f"{ABOUT[run.name]}\n" for run in runs if run.name in ABOUT),
        *(table.markdown() for table in (as_text_2(two), as_text_3(three), as_text_changes(runs))),
    ]
    for run in runs:
        parts += [f"## {run.name}\n", "\n".join(f"- {text}" for text in findings(run.rows, run.correlations)) + "\n"]
        for picture, file in drawn(run):
            yield from picture.save(output / file)
            parts.append(f"![{picture.title}]({file})\n\n*{run.name}: {picture.title}.*\n")
    tables = output / "tables"
    yield from publish.table(tables, "pretrained_table_2", as_text_2(two), pa.Table.from_pylist(two))
    yield from publish.table(tables, "pretrained_table_3", as_text_3(three), pa.Table.from_pylist(three))
    page = output / "pretrained.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    yield page


# -- Table 2 -----------------------------------------------------------------------------------------------------------


def table_2(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The models as they are: a row each, the paper's first."""
    paper = [
        {
            "source": PUBLISHED_BY, "model": model, "parameters": f"{size:g} million", "layers": None, "data": data,
            "loss": loss, "performance": performance, "alpha": alpha, "alpha_sem": sem,
        }
        for model, size, data, loss, performance, alpha, sem, *_ in PUBLISHED
    ]  # fmt: skip
    return paper + [baseline(run) for run in runs]


def baseline(run: Run) -> dict[str, Any]:
    """The row of one of our models."""
    results = frame.ok(run.rows)
    whole = frame.select(results, "", None)
    inside = (frame.texts(results, "layer") != "") & (frame.texts(results, "perturbation") == ORIGINAL)
    originals = results.filter(pa.array(inside))
    alpha = frame.mean_over_draws(originals, "alpha")  # a row is a layer here
    top1, perplexity = (frame.mean_over_models(whole, name).mean for name in ("accuracy", "perplexity"))
    size = weights(originals)
    return {
        "source": "here",
        "model": run.name,
        "parameters": f"{size / 1e6:,.2f} million weights in layers" if np.isfinite(size) else "–",
        "layers": len(frame.layers(results)),
        "data": protocol(run, whole),
        "loss": frame.mean_over_models(whole, "loss").mean,
        "performance": f"perplexity {number(perplexity)}" if np.isfinite(perplexity) else f"{number(100 * top1)} %",
        "alpha": alpha.mean,
        "alpha_sem": alpha.sem,
    }


def weights(originals: pa.Table) -> float:
    """How many entries the measured layers have; NaN if the rows do not tell.

    Rows know no other parameters (biases, normalisation). Pooled, a layer of k matrices has k M eigenvalues, so that it
    has N times as many entries as eigenvalues.
    """
    if set(frame.texts(originals, "conv")) != {"pooled"}:
        return np.nan
    return float((frame.floats(originals, "N") * frame.floats(originals, "num_evals")).sum())


def protocol(run: Run, whole: pa.Table) -> str:
    """The data and how they were evaluated, as one text."""
    named = run.info.get("config", {}).get("data", {})
    count = frame.mean_over_models(whole, "num_samples").mean
    said = [str(named.get("name") or named.get("hub_id") or named.get("_target_", "data").split(".")[-2:][0])]
    said += [f"{count:,.0f} {'tokens' if run.target is targets.LOSS else 'images'}"] if np.isfinite(count) else []
    for name in PROTOCOL:
        values = [value for value in dict.fromkeys(frame.texts(whole, name)) if value]
        said += [f"{name} {values[0]}"] if values else []
    return ", ".join(said)


def as_text_2(rows: Sequence[dict[str, Any]]) -> TextTable:
    """Table 2 to read."""
    header = (
        "",
        "model",
        "parameters",
        "layers",
        "data and protocol",
        "loss [nats]",
        "top-1 or perplexity",
        "mean layer alpha ± SEM",
    )
    cells = [
        (
            row["source"], row["model"], row["parameters"], "" if row["layers"] is None else str(row["layers"]),
            row["data"],
            number(row["loss"]), row["performance"], f"{number(row['alpha'])} ± {number(row['alpha_sem'])}",
        )
        for row in rows
    ]  # fmt: skip
    note = "SEM over layers. Weights in layers: of the measured layers, without biases and normalisation."
    return TextTable("Table 2: the models as they are", header, cells, texts=(0, 1, 2, 4), note=note)


# -- Table 3 -----------------------------------------------------------------------------------------------------------


def table_3(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Correlations with performance: a row a model, metric and scope (mean over layers, pooled), the paper's first."""
    nothing = dict.fromkeys(STATISTICS, np.nan)
    paper = [
        {
            "source": PUBLISHED_BY,
            "model": row[0],
            "metric": "alpha",
            "target": "performance",
            "scope": "mean",
            "n": None,
        }
        | nothing
        | {"rho": row[-2], "tau": row[-1]}
        for row in PUBLISHED
    ]
    ours = [
        {
            "source": "here",
            "model": run.name,
            **{key: row[key] for key in ("metric", "target", "scope", "n", *STATISTICS)},
        }
        for run in runs
        for metric in labels.PRIMARY
        for row in run.correlations.to_pylist()
        if (row["metric"], row["condition"]) == (metric, "all") and row["scope"] in ("mean", "pooled") and row["n"]
    ]
    return paper + ours


def as_text_3(rows: Sequence[dict[str, Any]]) -> TextTable:
    """Table 3 to read."""
    header = ("", "model", "metric", "target", "scope", "n", "rho [95 % CI]", "p", "tau [95 % CI]", "p")
    cells = [
        (
            row["source"], row["model"], row["metric"], row["target"],
            "mean over layers" if row["scope"] == "mean" else "pooled", "" if row["n"] is None else f"{row['n']:,}",
            interval(row, "rho"), p_value(row["rho_p"]), interval(row, "tau"), p_value(row["tau_p"]),
        )
        for row in rows
    ]  # fmt: skip
    note = (
        "Mean over layers: of the correlation among the draws of each layer, as in the paper; draws are resampled. "
        "Pooled: all draws of all layers; whole layers are resampled and permuted. A loss is better the smaller it is: "
        "its sign is the opposite of that of accuracy, and ranks are those of perplexity."
    )
    return TextTable("Table 3: correlation with performance", header, cells, texts=(0, 1, 2, 3, 4), note=note)


def interval(row: dict[str, Any], name: str) -> str:
    """A correlation with its interval, where it has one."""
    low, high = number(row[f"{name}_lo"]), number(row[f"{name}_hi"])
    return number(row[name]) + ("" if "–" in (low, high) else f" [{low}, {high}]")


def as_text_changes(runs: Sequence[Run]) -> TextTable:
    """What a perturbation changes in performance against what it changes in each metric, all layers pooled."""
    cells = []
    for run in runs:
        made = differences(run.rows)
        names = [PREFIX + name for name in labels.PRIMARY if np.isfinite(frame.floats(made, PREFIX + name)).any()]
        for row in correlate(made, PREFIX + run.target.column, names).to_pylist():
            if (row["scope"], row["condition"]) == ("pooled", "all"):
                about = (run.name, row["metric"], row["target"], f"{row['n']:,}")
                cells.append((*about, interval(row, "rho"), p_value(row["rho_p"]), interval(row, "tau")))
    header = ("model", "metric", "target", "n", "rho [95 % CI]", "p", "tau [95 % CI]")
    note = (
        "d_: perturbed less original. Within a layer these are the correlations of Table 3: the original is one number."
    )
    return TextTable("Changes: all layers pooled", header, cells, texts=(0, 1, 2), note=note)


# -- figures -----------------------------------------------------------------------------------------------------------


def drawn(run: Run) -> list[tuple[Picture, str]]:
    """The figures that are shown, and the file of each, seen from the page."""
    found = {picture.name: picture for picture in figures.pictures(run.rows, run.correlations)}
    stem = run.name.replace("/", "_")
    return [(found[name], f"figures/{stem}_{name}.png") for name in SHOWN if name in found]


if __name__ == "__main__":
    publish.script(main, __doc__, several=True)
