import itertools

import made_up_spectra
import numpy as np
import pyarrow as pa
import pytest

from raylab.report import by_depth
from raylab.report.layerwise import Layers, models


@pytest.fixture(scope="module")
def two():
    tables = [made_up_spectra.analyzed(made_up_spectra.gpt(blocks, seed)) for blocks, seed in ((3, 0), (6, 1))]
    return [Layers(name, models(table)[0].table) for name, table in zip(("small", "large"), tables, strict=True)]


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def test_points_are_the_layers_with_a_fit_at_their_depth(two):
    picture = by_depth.alpha_by_depth(two[:1])
    ax = axes(picture.panels[0])
    drawn = sorted((x, y) for bars in ax.containers for x, y in zip(*bars.lines[0].get_data(), strict=True))
    alpha = two[0].floats("alpha")
    assert drawn == [(at, pytest.approx(alpha[at])) for at in np.flatnonzero(two[0].ok)]
    assert [key.text for key in picture.keys] == ["attention", "MLP", "embedding", "head", "no fit"]
    mean = alpha[two[0].ok].mean()
    assert f"Mean α {mean:.2f} over 14 layers (1 failed and 1 skipped left out)" in picture.caption


def test_bars_are_the_standard_errors(two):
    ax = axes(by_depth.alpha_by_depth(two[:1]).panels[0])
    lengths = sorted(
        np.ptp(segment[:, 1]) for bars in ax.containers for part in bars.lines[2] for segment in part.get_segments()
    )
    assert lengths == pytest.approx(sorted(2 * two[0].floats("sigma")[two[0].ok]))


def test_models_share_one_axis_of_alpha(two, tmp_path):
    picture = by_depth.alpha_by_depth(two)
    assert [panel.note for panel in picture.panels] == ["small", "large"]
    assert len({axes(panel).get_ylim() for panel in picture.panels}) == 1
    assert all(path.stat().st_size > 1000 for path in picture.save(tmp_path))


def test_a_histogram_counts_every_layer(two):
    ax = axes(by_depth.alpha_histogram(two[:1]).panels[0])
    counts = ax.patches[-1].get_data().values
    assert counts.sum() == two[0].ok.sum()
    both = by_depth.alpha_histogram(two)
    assert [key.text for key in both.keys] == ["small", "large"]
    for patch in axes(both.panels[0]).patches[-2:]:
        assert patch.get_data().values.sum() == pytest.approx(100)


def test_an_outlier_does_not_flatten_the_histogram():
    alphas = [*np.linspace(2, 5, 60), 250.0]
    rows = [{"layer": f"l{at}", "status": "ok", "alpha": alpha} for at, alpha in enumerate(alphas)]
    picture = by_depth.alpha_histogram(models(pa.Table.from_pylist(rows)))
    assert "Beyond the right end: 1 layer." in picture.caption
    assert axes(picture.panels[0]).get_xlim()[1] < 12


def test_other_metrics_get_a_panel_where_there_are_numbers(two):
    picture = by_depth.metrics_by_depth(two, ["stable_rank", "num_spikes", "no_such_metric"])
    assert [panel.title for panel in picture.panels] == ["stable rank", "spikes"]
    for line, each in zip(axes(picture.panels[0]).lines, two, strict=True):
        assert line.get_ydata() == pytest.approx(each.floats("stable_rank"), nan_ok=True)
    assert by_depth.metrics_by_depth(two, ["no_such_metric"]) is None


def test_without_a_fit_there_is_no_picture():
    rows = [{"layer": "a", "status": "failed", "alpha": np.nan}]
    found = models(pa.Table.from_pylist(rows))
    assert by_depth.alpha_by_depth(found) is None and by_depth.alpha_histogram(found) is None
    assert by_depth.alpha_by_depth([]) is None and by_depth.metrics_by_depth([]) is None


@pytest.mark.parametrize("count", [1, 12, 220])
def test_labels_of_many_layers_with_long_names_do_not_overlap(count):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = [f"model.decoder.layers.{at}.self_attn.out_proj" for at in range(count)]
    rows = [{"layer": name, "status": "ok", "alpha": 3.0 + at % 4, "sigma": 0.2} for at, name in enumerate(names)]
    figure = by_depth.alpha_by_depth(models(pa.Table.from_pylist(rows))).figure()
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels() if text.get_text()]
    inside = sorted((box for box in boxes if box.x1 > 0), key=lambda box: box.x0)
    assert inside and all(one.x1 <= other.x0 + 1 for one, other in itertools.pairwise(inside))
    assert all(box.y0 >= 0 for box in inside)
