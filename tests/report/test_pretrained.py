"""Reports of one given model: made-up rows of a network for images, and of a language model."""

import itertools
from dataclasses import asdict, replace

import made_up_pretrained
import numpy as np
import pyarrow as pa
import pytest

from raylab.report import figures, findings, html, perturbed, tables
from raylab.report import target as targets
from raylab.results import load
from raylab.results.correlate import Resampling, correlate

FEW = Resampling(bootstrap=20, permutations=50)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return load(made_up_pretrained.folder(tmp_path_factory.mktemp("image")))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return load(made_up_pretrained.folder(tmp_path_factory.mktemp("text"), text=True))


def drawn(table, metrics=None):
    """The pictures by name; metrics: that are correlated, where a test is about few, as each takes its time."""
    target = targets.of(table)
    found = figures.pictures(table, correlate(table, target.column, metrics, resampling=FEW))
    return {picture.name: picture for picture in found}


@pytest.fixture(scope="module")
def of_image(image):
    return drawn(image)


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def test_images_are_held_against_accuracy_and_texts_against_loss(image, text):
    assert targets.of(image) is targets.ACCURACY and targets.of(text) is targets.LOSS
    assert set(perturbed.correlated(text)["target"].to_pylist()) == {"loss"}
    assert targets.of(pa.table({"layer": ["a"], "alpha": [2.0], "status": ["ok"]})) is None


def test_many_layers_are_drawn_by_depth_and_the_extreme_ones_named(image, of_image):
    ax = axes(of_image["accuracy_by_layer"].panels[0])
    written = {each.get_text() for each in ax.texts}
    assert {"conv1", "linear"} <= written and len(written) < 7
    means = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() in ("v", "P")])
    frame = image.to_pandas().query("perturbation == 'rerandomize'")
    assert sorted(means) == pytest.approx(sorted(100 * frame.groupby("layer").accuracy.mean()))
    points = np.concatenate([each.get_offsets() for each in ax.collections if len(each.get_offsets()) > 1])
    assert sorted(points[:, 1]) == pytest.approx(sorted(100 * frame.accuracy))


def test_a_language_model_has_figures_of_loss_only(text):
    found = drawn(text)
    assert list(found) == ["loss_by_layer", "alpha_by_layer", "metrics", "changes", "rho_by_metric"]
    assert not [name for name, each in found.items() if "accuracy" in each.title + each.caption]
    assert axes(found["loss_by_layer"].panels[0]).get_yscale() == "log"  # one draw is far worse than all others
    assert axes(found["metrics"].panels[0]).get_ylabel().startswith("loss [nats")


def test_unperturbed_layers_are_marked_at_the_level_of_the_model(image, of_image):
    picture = of_image["metrics"]
    marked = axes(picture.panels[0]).collections[0].get_offsets()
    trained = image.to_pandas().query("perturbation == 'original' and layer.notna()").alpha
    assert sorted(marked[:, 0]) == pytest.approx(sorted(trained)) and set(marked[:, 1]) == {90.0}
    assert "unperturbed layer" in [key.text for key in picture.keys]


def test_findings_name_robust_and_critical_layers(image, text):
    said = " ".join(findings.findings(image, correlate(image, resampling=FEW)))
    frame = image.to_pandas().query("perturbation == 'rerandomize'").groupby("layer").accuracy.mean()
    robust, critical = (frame >= 0.8).sum(), (frame < 0.45).sum()
    assert f"on average over draws: {robust} (" in said and f"below 45.0 %): {critical} (" in said
    assert "resnet20 reaches an accuracy of 90.00 %" in said and "(n = 210)" in said
    said = " ".join(findings.findings(text, correlate(text, "loss", resampling=FEW)))
    assert "a perplexity of 33.12 per token, over 250,000 tokens" in said and "accuracy" not in said
    assert "beyond 4.50" in said


def several(layers, perturbations, draws, text=True):
    """Rows of one given model, re-initialised once a layer, and with a metric of someone's own."""
    plan = made_up_pretrained.trials(layers, draws=draws)
    unperturbed = [trial for trial in plan if trial.perturbation == "original"]
    perturbed = [
        replace(trial, perturbation=name)
        for name in perturbations
        for trial in plan[len(unperturbed) :]
        if name != "reinit" or trial.draw == 0
    ]
    rows = []
    for trial in unperturbed + perturbed:
        values = dict(made_up_pretrained.result(trial, layers, text).values)
        own = {"gini": trial.rng("gini").random()} if trial.layer else {}
        rows.append({**asdict(trial), "status": "ok", "origin": "random weights", **values, **own})
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def long_names(count):
    return {f"transformer.h.{at}.mlp.c_proj": ("hf_conv1d", 256, 64) for at in range(17, 17 + count)}


def test_findings_are_as_rich_for_each_of_several_perturbations():
    table = several(made_up_pretrained.text_layers(), ["reinit", "rerandomize", "my_lab:noisy"], 6)
    said = findings.findings(table, correlate(table, "loss", resampling=FEW))
    assert "a perplexity of 33.12 per token, over 250,000 tokens" in said[0] and "trained" not in " ".join(said)
    deeds = {"reinit": "when re-initialised", "rerandomize": "when re-randomised", "my_lab:noisy": "under my_lab:noisy"}
    for name, deed in deeds.items():
        left = table.to_pandas().query("perturbation == @name").groupby("layer").loss.mean()
        robust, critical = (left <= 3.6).sum(), (left > 4.5).sum()
        (line,) = [text for text in said if text.startswith(f"Robust {deed},")]
        assert f": {robust} (" in line and ("on average over draws" in line) == (name != "reinit")
        (line,) = [text for text in said if text.startswith(f"Critical {deed} ")]
        assert f"beyond 4.50): {critical} (" in line
        (line,) = [text for text in said if text.startswith(f"With one layer {deed.removeprefix('when ')}, ")]
        lowest = table.to_pandas().query("perturbation == @name and layer == @left.idxmin()").loss.mean()
        assert f"the perplexity between {np.exp(lowest):.2f} and ∞" in line


def test_findings_of_too_few_rows_have_no_correlation():
    for layers, draws, says in (
        (1, 4, "Too few perturbed rows for correlations with metrics: 4"),
        (2, 2, "Too few perturbed rows for correlations with metrics: 4"),
        (3, 3, "Too few rows of each layer for correlations within a layer: 3"),
        (3, 5, None),
    ):
        table = several(long_names(layers), ["rerandomize"], draws)
        said = findings.findings(table, correlate(table, "loss", resampling=FEW))
        assert any("ρ" in text for text in said) == (layers * draws > 4)
        assert [text for text in said if text.startswith("Too few")] == [text for text in said if says and says in text]
        assert bool(says) == any(text.startswith("Too few") for text in said)


def boxes(figure, artists):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # where things lie is all that is asked
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists()]


@pytest.mark.parametrize("count", [2, 3, 8, 12])
def test_long_names_of_layers_do_not_overlap(count):
    pictures = drawn(several(long_names(count), ["rerandomize", "reinit"], 3), ["alpha"])
    for name in ("loss_by_layer", "alpha_by_layer"):
        figure = pictures[name].figure()
        (ax,) = figure.axes
        found = boxes(figure, ax.get_xticklabels)
        assert len(found) == count and ax.get_xticklabels()[0].get_text() == "…17.mlp.c_proj"
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(found))
        assert ax.get_position().height * figure.get_figheight() > 2, "names take the room of the points"


def test_a_single_panel_of_ones_own_metric_is_drawn_as_large_as_others():
    for layers in (long_names(3), long_names(9), made_up_pretrained.text_layers()):
        pictures = drawn(several(layers, ["rerandomize"], 3), ["alpha", "gini"])
        (panel,) = pictures["own_metrics"].panels
        (other,) = pictures["rho_by_metric"].panels
        assert panel.width == other.width
        figure = pictures["own_metrics"].figure()
        (legend,) = boxes(figure, lambda figure=figure: figure.legends)
        assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and legend.y1 <= figure.bbox.y1


def test_of_rows_across_layers_alone_nothing_is_said_within():
    picture = drawn(several(long_names(3), ["rerandomize"], 3))["rho_by_metric"]
    assert picture.title == "Correlation with loss, across layers"
    assert "mean over layers" not in axes(picture.panels[0]).get_xlabel()


def test_layers_in_tables_on_the_terminal_are_the_extremes(text):
    shown = tables.layer_table(text, "loss", 6)
    mean = text.to_pandas().query("perturbation == 'rerandomize'").groupby("layer").loss.mean().sort_values()
    assert {row[0] for row in shown.rows} == {*mean.index[:3], *mean.index[-3:]}
    assert "of 26 layers" in shown.note and len(tables.layer_table(text, "loss").rows) == 26


def test_draws_of_a_single_model_have_a_standard_error(image):
    row = dict(
        zip(*(tables.layer_table(image, "accuracy").header, tables.layer_table(image, "accuracy").rows[0]), strict=True)
    )
    draws = 100 * image.to_pandas().query("perturbation == 'rerandomize' and layer == 'conv1'").accuracy
    assert (
        row["re-randomised"] == f"{draws.mean():.2f} ± {draws.std() / np.sqrt(10):.2f}"
        and row["unperturbed"] == "90.00"
    )


def test_perplexities_have_a_geometric_mean_and_infinite_ones_are_not_dropped(text):
    rows = {row[0]: row for row in tables.layer_table(text, "perplexity").rows}
    draws = text.to_pandas().query("perturbation == 'rerandomize' and layer == 'transformer.h.3.attn.c_proj'")
    assert rows["transformer.wpe"][2] == "∞"
    assert float(rows["transformer.h.3.attn.c_proj"][2]) == pytest.approx(np.exp(draws.loss.mean()), abs=0.01)


def test_changes_are_drawn_against_the_cost(image, of_image):
    ax = axes(of_image["changes"].panels[0])
    points = np.concatenate([each.get_offsets() for each in ax.collections])
    frame = image.to_pandas()
    before = frame.query("perturbation == 'original' and layer.notna()").set_index("layer").alpha
    after = frame.query("perturbation == 'rerandomize'")
    assert sorted(points[:, 0]) == pytest.approx(sorted(after.alpha - after.layer.map(before)))
    assert sorted(points[:, 1]) == pytest.approx(sorted(100 * (0.9 - after.accuracy)))


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_a_mean_over_few_layers_is_not_called_the_strongest(image):
    frame = image.to_pandas()
    few = frame.layer.isin(["conv1", "linear"])
    table = with_column(image, "stable_rank", np.where(few, frame.accuracy, 1.0))  # rho 1 in two layers, none elsewhere
    correlations = correlate(table, resampling=FEW)
    (found,) = [
        row for row in correlations.to_pylist() if (row["metric"], row["scope"]) == ("stable_rank", "mean")
    ]  # fmt: skip
    assert (found["status"], found["n"]) == ("partial", 20) and found["rho"] == pytest.approx(1)
    said = findings.findings(table, correlations)
    assert not [text for text in said if "stable rank" in text and "within a layer, Spearman ρ" in text]
    (within,) = [text for text in said if " metrics within a layer" in text]
    assert f"strongest of {comparable(correlations)} metrics within" in within


def comparable(correlations):
    return sum(row["scope"] == "mean" and row["status"] == "ok" for row in correlations.to_pylist())


def test_n_is_said_of_each_scope_where_they_differ(image):
    frame = image.to_pandas()
    table = with_column(image, "alpha", np.where(frame.layer == "conv1", 2.0, frame.alpha))
    (said,) = [text for text in findings.findings(table, correlate(table, resampling=FEW)) if text.startswith("α: ")]
    assert said.startswith("α: within a layer, Spearman ρ with accuracy is ") and "; across layers, it is " in said
    assert "(n = 200); across" in said and said.endswith("(n = 210).")


def test_layers_that_leave_the_same_are_said_once(image, text):
    frame = image.to_pandas()
    lost = with_column(image, "accuracy", np.where(frame.perturbation == "rerandomize", 0.0, frame.accuracy))
    said = findings.findings(lost, correlate(lost, resampling=FEW))
    assert "With one layer re-randomised, 0.0 % is left whichever it is." in said
    frame = text.to_pandas()
    lost = with_column(text, "loss", np.where(frame.perturbation == "rerandomize", 900.0, frame.loss))
    lost = with_column(lost, "perplexity", np.where(frame.perturbation == "rerandomize", np.inf, frame.perplexity))
    said = findings.findings(lost, correlate(lost, "loss", resampling=FEW))
    assert "With one layer re-randomised, the loss is 900.00 nats whichever it is, the perplexity ∞." in said


@pytest.mark.parametrize("largest", [8e5, 9500.0, 0.9, 0.0099, 3e-5])
def test_ticks_of_changes_do_not_overlap_and_are_right(image, largest):
    frame = image.to_pandas()
    values = np.where(frame.perturbation == "rerandomize", -largest * np.random.default_rng(0).random(len(frame)), 0.0)
    figure = drawn(with_column(image, "spectral_norm", values), ["spectral_norm"])["changes"].figure()
    (ax,) = [each for each in figure.axes if "spectral norm" in each.get_xlabel()]
    found = [box for box in boxes(figure, ax.get_xticklabels) if box.width]
    assert len(found) >= 3 and all(one.x1 < other.x0 for one, other in itertools.pairwise(found))
    read = [float(label.get_text().replace("−", "-")) for label in ax.get_xticklabels()]
    assert read == pytest.approx(list(ax.get_xticks()), abs=1e-9 * largest)


def test_a_metric_that_never_changes_has_no_rho_above_its_changes(image):
    still = with_column(image, "spectral_norm", np.ones(len(image)))
    notes = {panel.title: panel.note for panel in drawn(still, ["alpha"])["changes"].panels}
    assert notes["change of spectral norm λmax"] == "" and notes["change of α"].startswith("ρ ")


def test_the_figure_by_depth_names_the_perturbation(of_image):
    (panel,) = of_image["accuracy_by_layer"].panels
    assert axes(panel).get_title(loc="left") + axes(panel).get_title() == "accuracy by depth, one layer re-randomised"
    both = several(made_up_pretrained.image_layers(), ["reinit", "rerandomize"], 2, text=False)
    picture = drawn(both)["accuracy_by_layer"]
    assert not picture.panels[0].note and {"re-initialised", "re-randomised"} <= {key.text for key in picture.keys}


def test_the_page_of_a_language_model_folds_no_sentence_about_accuracy_into_its_findings(tmp_path, sparing):
    page = html.write(made_up_pretrained.folder(tmp_path, text=True, share=0.6)).read_text()
    head = page.partition('id="tables"')[0].partition("<body>")[2]
    assert "accuracy" not in head and "Unfinished" in head and "avg(loss)" in page
