import re

import made_up
import made_up_spectra
import pyarrow.compute as pc
import pytest

from raylab.report import html, spectra, views
from raylab.report.layerwise import models
from raylab.results import load
from raylab.results.query import query

# Two with a fit, one without a power law, one too small to be measured.
FEW = ["transformer.wte", "transformer.h.0.mlp.c_fc", "lm_head", "tiny"]


@pytest.fixture(scope="module")
def small():
    return made_up_spectra.analyzed(made_up_spectra.gpt(2))


@pytest.fixture(scope="module")
def one(small, tmp_path_factory):
    return made_up_spectra.folder(tmp_path_factory.mktemp("one"), {"gpt": small})


@pytest.fixture(scope="module")
def two(small, tmp_path_factory):
    large = made_up_spectra.analyzed(made_up_spectra.gpt(12, seed=1))
    return made_up_spectra.folder(tmp_path_factory.mktemp("two"), {"gpt": small, "gpt-large": large})


@pytest.fixture(scope="module")
def drawn(small, tmp_path_factory):
    """Two models whose page is drawn for real, once: of few layers, as every panel takes a good part of a second."""
    large = made_up_spectra.analyzed(made_up_spectra.gpt(1, seed=1))
    gpt, gpt_large = (table.filter(pc.field("layer").isin(FEW)) for table in (small, large))
    folder = made_up_spectra.folder(tmp_path_factory.mktemp("drawn"), {"gpt": gpt, "gpt-large": gpt_large})
    return folder, html.write(folder).read_text()


def test_spectra_alone_are_told_from_experiments(one, finished):
    assert spectra.Spectra.of(load(one))
    assert not spectra.Spectra.of(load(finished))


def test_figures_of_one_model_and_of_two(one, two):
    common = ["alpha_by_depth", "alpha_histogram"]
    assert [each.name for each in spectra.pictures(load(one))] == [*common, "esd_by_layer", "metrics_by_depth"]
    names = [each.name for each in spectra.pictures(load(two))]
    assert names == [*common, "compare", "esd_by_layer", "esd_by_layer_2", "metrics_by_depth"]


def test_what_is_missing_says_what_it_needs(one):
    drawn = spectra.pictures(load(one).drop_columns(["evals"]))
    assert spectra.missing(drawn) == ["spectra (there are no eigenvalues: measure with the metric esd)"]


def test_model_table_is_the_mean_over_the_layers_with_a_fit(two, small):
    shown = spectra.model_table(models(load(two)))
    row = dict(zip(shown.header, shown.rows[0], strict=True))
    good = small.to_pandas().query("status == 'ok'")
    assert [row[name] for name in ("model", "measured", "failed", "skipped")] == ["gpt", "10", "1", "1"]
    assert row["mean α"] == f"{good.alpha.mean():.3f}" and row["weighted α"] == f"{good.alpha_hat.mean():.3f}"
    assert row["log α-norm"] == f"{good.log_alpha_norm.mean():.3f}" and row["log norm"] == f"{good.log_norm.mean():.3f}"


def test_layer_table_has_a_row_a_layer(one, small):
    (_, shown) = spectra.tables(load(one))
    rows = {row[0]: dict(zip(shown.header, row, strict=True)) for row in shown.rows}
    assert list(rows) == small["layer"].to_pylist()
    head = small.to_pandas().set_index("layer").loc["lm_head"]
    assert rows["lm_head"]["α ± σ"] == f"{head.alpha:.3f} ± {head.sigma:.3f}"
    assert rows["lm_head"]["tail"] == f"{head.num_tail:.0f}" and rows["lm_head"]["status"] == "ok"
    assert rows["transformer.h.0.mlp.c_fc"]["status"] == "failed: no power law: all eigenvalues are equal"
    assert rows["tiny"]["status"].startswith("skipped: ") and rows["tiny"]["α ± σ"] == "–"


def test_a_terminal_gets_the_first_rows(two):
    made = views.of(load(two)).summary()
    assert [each.title for each in made] == ["Layers of gpt", "Layers of gpt-large", "Models"]
    assert len(made[1].rows) == spectra.TERMINAL_ROWS
    assert made[1].note.startswith("... and 12 more: see the report.")


def test_findings_name_the_layers(one, small):
    said = " ".join(spectra.findings(load(one)))
    good = small.to_pandas().query("status == 'ok'")
    within = good.alpha.between(2, 6).sum()
    assert f"Mean α is {good.alpha.mean():.2f}; of 10 layers, {within} have α in 2 to 6" in said
    worst = good.loc[good.D.idxmax()]
    assert f"by D, in {worst.layer} ({worst.D:.3f})" in said
    assert "1 layer without a power law: transformer.h.0.mlp.c_fc (all eigenvalues are equal)" in said
    trapped = small.to_pandas().query("num_traps > 0")
    assert len(trapped) and f"{len(trapped)} layer" in said.partition("by D")[2]


def test_the_page_tells_of_two_models(drawn):
    folder, text = drawn
    plain = " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<svg.*?</svg>|<style.*?</style>", "", text)).split())
    for words in ("Layers of gpt-large", "gpt-large: mean α", "α by depth", "Spectra of gpt", "skipped: "):
        assert words in plain
    assert "correlations.csv" not in text and "Accuracy" not in plain
    assert not {"nan", "NaN", "None"} & set(re.findall(r"\w+", plain.partition("Query")[0]))
    assert text.count("<svg") == sum(len(each.panels) for each in spectra.pictures(load(folder)))
    assert {path.name for path in (folder / "figures").iterdir()} >= {"compare.png", "esd_by_layer_2.svg"}


def test_the_query_of_the_page_runs(two, drawn):
    _, text = drawn
    assert spectra.QUERY in text
    assert query(two, spectra.QUERY).num_rows == 12 + 52


def test_an_experiment_keeps_its_report(finished, sparing):
    text = html.write(finished).read_text()
    assert 'id="alpha_by_layer"' in text and 'id="alpha_by_depth"' not in text and "correlations.csv" in text
    assert "perturbation, avg(accuracy)" in text and made_up.LAYERS.keys() <= set(re.findall(r"fc\d", text))
