"""What a search says on the terminal, and what is kept of each of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from raylab import places, session
from raylab.errors import UserError, last_line
from raylab.report import samples as shown
from raylab.results import estimate
from raylab.results.text import TextTable
from raylab.samples import Plan, Samples
from raylab.types import Trial

if TYPE_CHECKING:
    from raylab.cluster.tuning import Ended


def line(plan: Plan, opened: Samples, params: Mapping[str, Any], last: Mapping[str, Any], error: str | None) -> str:
    """A sample that is over, on the screen."""
    values = ", ".join(f"{key.rpartition('.')[2]}={_short(text)}" for key, text in opened.sample(params).items())
    if error is not None:
        return f"  {values}: failed, {last_line(error)}"
    metric, left = plan.config.tune.metric, int(last.get("epochs_left") or 0)
    told = f"{metric} {shown.shown(last.get(metric), metric)}{' %' if metric in shown.PERCENT else ''}"
    if "epoch" not in last:
        return f"  {values}: {told}"
    epoch = int(last["epoch"])
    after = f"stopped after epoch {epoch} of {epoch + left}" if left else f"{epoch} epochs"
    return f"  {values}: {told}, {after}"


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def sample(plan: Plan, opened: Samples, ended: Ended) -> dict[str, Any]:
    """A row of samples.parquet."""
    sample, last, metric = opened.sample(ended.params), ended.last, plan.config.tune.metric
    keys = {key: opened.columns.get(key, key) for key in opened.space}
    epoch, left = last.get("epoch"), last.get("epochs_left", 0)
    how = shown.FAILED if ended.failed else shown.STOPPED if left else shown.FINISHED
    return {
        **{name: opened.value(key, sample[key]) for key, name in keys.items()},
        metric: last.get(metric),
        shown.EPOCHS: None if epoch is None else int(epoch),
        shown.PLANNED: None if epoch is None else int(epoch + left),
        shown.ENDED: how,
    }


def plan_table(
    plan: Plan, trials: Sequence[Trial], status: Mapping[str, str], means: estimate.Means, folder: Path
) -> TextTable:
    """Of a sweep that of raylab.run; of a search, what is searched and how."""
    if not isinstance(plan.open, Samples):
        return session.plan_table(plan.experiment, trials, status, means, places.at(folder))
    tune = plan.config.tune
    lines = [[key, str(dimension)] for key, dimension in plan.open.space.items()]
    ranked = f"{'highest' if tune.mode == 'max' else 'lowest'} {tune.metric} first"
    notes = [f"search: {tune.search}, {plan.samples} samples of up to {len(trials):,} rows, {ranked}"]
    if tune.scheduler == "asha":
        steps = ", ".join(str(tune.grace * tune.reduction**k) for k in range(3))
        notes.append(f"asha: at epochs {steps}, ... the best 1 in {tune.reduction} of the samples seen there go on")
    notes += [f"{what}: {much}" for what, much in plan.experiment.work(trials).items()]
    notes.append(f"results: {folder}, {len(status):,} rows there" if status else f"results: {folder}")
    return TextTable(
        f"Search over {len(lines)} key{'s' * (len(lines) > 1)}", ["key", "over"], lines, (0, 1), "\n".join(notes)
    )


def farewell(console: Console, plan: Plan, table: Any, first_error: str | None) -> int:
    """The samples, best first, where they are, and what to type next. Returns the exit code."""
    folder, metric = Path(plan.config.results), plan.config.tune.metric
    text = shown.samples_table(table, metric)
    try:
        (folder / "samples.md").write_text(text.markdown(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {folder}/samples.md: {error.strerror}. The rows are kept.") from error
    names = table.column_names[: table.column_names.index(metric)]
    by, best = ", ".join(f'"{name}"' for name in names), f"{plan.config.tune.mode}({metric})"
    order = "DESC" if plan.config.tune.mode == "max" else "ASC"
    query = f"SELECT {by}, {best} AS best FROM trials WHERE layer IS NULL GROUP BY ALL ORDER BY best {order}"
    return session.farewell(console, plan.config, first_error, [text], query)
