import itertools

import made_up_spectra
import numpy as np
import pyarrow as pa
import pytest

from raylab.report.esd import MOST_PANELS, Esd, esd, esd_by_layer
from raylab.report.layerwise import models


@pytest.fixture(scope="module")
def layers():
    return models(made_up_spectra.analyzed(made_up_spectra.gpt(8)))[0]


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def panels(layers, name):
    return [axes(panel) for panel in esd(layers, layers.names.index(name)).panels]


def stairs(ax):
    from matplotlib.patches import StepPatch

    return [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]


def test_bins_hold_every_eigenvalue_and_break_at_xmin(layers):
    place = layers.names.index("lm_head")
    density, _, _ = panels(layers, "lm_head")
    (body, edges, floor), (tail, _, _) = stairs(density)
    counts = np.where(body > floor, body, 0) + np.where(tail > floor, tail, 0)
    assert (counts * np.diff(edges)).sum() == pytest.approx(1)
    xmin = layers.floats("xmin")[place]
    first = np.flatnonzero(tail > floor)[0]
    assert edges[first] == pytest.approx(xmin)
    share = (tail * np.diff(edges))[tail > floor].sum()
    assert share == pytest.approx(layers.floats("num_tail")[place] / layers.floats("num_evals")[place])


def test_the_line_is_the_fitted_law_over_the_tail(layers):
    place = layers.names.index("lm_head")
    density, _, rank = panels(layers, "lm_head")
    alpha, xmin = layers.floats("alpha")[place], layers.floats("xmin")[place]
    x, y = density.lines[-1].get_data()
    assert (x[0], x[-1]) == pytest.approx((xmin, layers.floats("xmax")[place]))
    assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(-alpha)
    share = layers.floats("num_tail")[place] / layers.floats("num_evals")[place]
    assert np.trapezoid(y, x) == pytest.approx(share * (1 - (x[-1] / xmin) ** (1 - alpha)), rel=1e-3)
    x, y = rank.lines[-2].get_data()
    assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(1 - alpha)
    assert y[0] == pytest.approx(share)


def test_the_bulk_is_the_law_that_was_fitted():
    rng = np.random.default_rng(0)
    weights = {"wide.weight": rng.normal(size=(300, 150)), "square.weight": rng.normal(size=(200, 200))}
    found = models(made_up_spectra.analyzed(weights))[0]
    for place, name in enumerate(found.names):
        one = Esd.of(found, place)
        x = np.linspace(0.05, 0.95, 10) * one.bulk_edge
        law = one.bulk(x)
        share = np.histogram(one.evals, x)[0] / len(one.evals)
        between = [np.trapezoid(one.bulk(g := np.linspace(*pair, 200)), g) for pair in itertools.pairwise(x)]
        assert share == pytest.approx(between, abs=0.03), name
        assert np.isfinite(law).all()
    assert "quarter-circle" in esd(found, 1).caption and "quarter-circle" not in esd(found, 0).caption


def test_edge_and_spikes_are_marked():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(300, 150))
    weights += 4 * np.outer(rng.normal(size=300), rng.normal(size=150)) / np.sqrt(150) * 2
    found = models(made_up_spectra.analyzed({"a.weight": weights}))[0]
    assert found.floats("num_spikes")[0] == 1
    picture = esd(found, 0)
    assert picture.panels[1].note.endswith("1 spike")
    bulk = axes(picture.panels[1])
    edge = [line.get_xdata()[0] for line in bulk.lines if len(line.get_xdata()) == 2]
    assert edge == [pytest.approx(found.floats("bulk_edge")[0])]


def test_a_failed_fit_is_drawn_without_its_line_and_says_why(layers, tmp_path):
    place = layers.names.index("transformer.h.0.mlp.c_fc")
    picture = esd(layers, place)
    assert picture.panels[0].note == "no power law: all eigenvalues are equal"
    assert not axes(picture.panels[0]).lines
    assert [key.text for key in picture.keys] == ["eigenvalues"]
    assert picture.save(tmp_path / "a.png")[0].stat().st_size > 1000


def test_layers_are_chosen_evenly_by_depth_and_the_caption_says_so(layers):
    found = esd_by_layer(layers)
    assert len(found.panels) == MOST_PANELS
    assert found.panels[0].title == "transformer.wte" and found.panels[-1].title == "lm_head"
    assert f"{MOST_PANELS} of 35 layers" in found.caption
    places = [layers.names.index(panel.title) for panel in found.panels]
    assert set(np.diff(places)) <= {1, 2}
    few = models(made_up_spectra.analyzed(made_up_spectra.gpt(1)))[0]
    assert esd_by_layer(few).caption.startswith("All layers") and "1 layer without a line" in esd_by_layer(few).caption


def test_without_eigenvalues_there_is_no_picture(layers):
    assert esd(layers, layers.names.index("tiny")) is None
    bare = models(layers.table.drop_columns(["evals"]))[0]
    assert esd(bare, 0) is None and esd_by_layer(bare) is None


@pytest.mark.parametrize("evals", [[2.0], [0.0, 0.0, 3.0], [1e-30, 1.0, 2.0], [np.nan, 1.0, 4.0], [1e-12, 5e-12]])
def test_odd_spectra_are_drawn(evals, tmp_path):
    row = {"layer": "a", "status": "failed", "reason": "no power law: too_few", "alpha": np.nan, "evals": evals}
    found = models(pa.Table.from_pylist([{**row, "N": 4, "M": 3}]))[0]
    assert esd(found, 0).save(tmp_path / "a.png")[0].stat().st_size > 1000
    assert esd_by_layer(found).save(tmp_path / "b.png")[0].stat().st_size > 1000


@pytest.mark.parametrize("evals", [[], [0.0, 0.0], None])
def test_spectra_of_nothing_are_left_out(evals):
    row = {"layer": "a", "status": "failed", "alpha": 2.0, "evals": evals}
    table = pa.table({key: [value] for key, value in row.items() if key != "evals"})
    table = table.append_column("evals", pa.array([evals], pa.list_(pa.float64())))
    assert esd(models(table)[0], 0) is None
