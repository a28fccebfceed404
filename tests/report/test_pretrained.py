"""Reports of one given model: made-up rows of a network for images, and of a language model."""

import made_up_pretrained
import numpy as np
import pyarrow as pa
import pytest

from raylab.report import figures, html, tables
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


def drawn(table):
    target = targets.of(table)
    found = figures.pictures(table, correlate(table, target.column, resampling=FEW))
    return {picture.name: picture for picture in found}


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def test_images_are_held_against_accuracy_and_texts_against_loss(image, text):
    assert targets.of(image) is targets.ACCURACY and targets.of(text) is targets.LOSS
    assert set(html.correlated(text)["target"].to_pylist()) == {"loss"}
    assert targets.of(pa.table({"layer": ["a"], "alpha": [2.0], "status": ["ok"]})) is None


def test_many_layers_are_drawn_by_depth_and_the_extreme_ones_named(image):
    ax = axes(drawn(image)["accuracy_by_layer"].panels[0])
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


def test_trained_layers_are_marked_at_the_level_of_the_model(image):
    picture = drawn(image)["metrics"]
    marked = axes(picture.panels[0]).collections[0].get_offsets()
    trained = image.to_pandas().query("perturbation == 'original' and layer.notna()").alpha
    assert sorted(marked[:, 0]) == pytest.approx(sorted(trained)) and set(marked[:, 1]) == {90.0}
    assert "layer as trained" in [key.text for key in picture.keys]


def test_findings_name_robust_and_critical_layers(image, text):
    said = " ".join(html.findings(image, correlate(image, resampling=FEW)))
    frame = image.to_pandas().query("perturbation == 'rerandomize'").groupby("layer").accuracy.mean()
    robust, critical = (frame >= 0.8).sum(), (frame < 0.45).sum()
    assert f"on average over draws: {robust} (" in said and f"below 45.0 %): {critical} (" in said
    assert "resnet20 reaches an accuracy of 90.00 %" in said and "(n = 210)" in said
    said = " ".join(html.findings(text, correlate(text, "loss", resampling=FEW)))
    assert "a perplexity of 33.12 per token, over 250,000 tokens" in said and "accuracy" not in said
    assert "beyond 4.50" in said


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
    assert row["re-randomised"] == f"{draws.mean():.2f} ± {draws.std() / np.sqrt(10):.2f}" and row["trained"] == "90.00"


def test_perplexities_have_a_geometric_mean_and_infinite_ones_are_not_dropped(text):
    rows = {row[0]: row for row in tables.layer_table(text, "perplexity").rows}
    draws = text.to_pandas().query("perturbation == 'rerandomize' and layer == 'transformer.h.3.attn.c_proj'")
    assert rows["transformer.wpe"][2] == "∞"
    assert float(rows["transformer.h.3.attn.c_proj"][2]) == pytest.approx(np.exp(draws.loss.mean()), abs=0.01)


def test_changes_are_drawn_against_the_cost(image):
    ax = axes(drawn(image)["changes"].panels[0])
    points = np.concatenate([each.get_offsets() for each in ax.collections])
    frame = image.to_pandas()
    before = frame.query("perturbation == 'original' and layer.notna()").set_index("layer").alpha
    after = frame.query("perturbation == 'rerandomize'")
    assert sorted(points[:, 0]) == pytest.approx(sorted(after.alpha - after.layer.map(before)))
    assert sorted(points[:, 1]) == pytest.approx(sorted(100 * (0.9 - after.accuracy)))


def test_the_page_of_a_language_model_folds_no_sentence_about_accuracy_into_its_findings(tmp_path):
    page = html.write(made_up_pretrained.folder(tmp_path, text=True, share=0.6)).read_text()
    head = page.partition('id="tables"')[0].partition("<body>")[2]
    assert "accuracy" not in head and "Unfinished" in head and "avg(loss)" in page
