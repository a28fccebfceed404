import numpy as np
import pyarrow as pa
import pytest

from raylab.report import against, figures, labels, views
from raylab.report.picture import INK, Panel, Picture
from raylab.results import load
from raylab.results.correlate import Resampling, correlate

FEW = Resampling(bootstrap=20, permutations=20)


@pytest.fixture(scope="module")
def drawn(finished):
    table = load(finished)
    return {picture.name: picture for picture in figures.pictures(table, correlate(table, resampling=FEW))}


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def test_a_full_run_has_every_figure(drawn):
    assert list(drawn) == ["accuracy_by_layer", "alpha_by_layer", "metrics", "rho_by_metric", "similarity"]
    assert [panel.title for panel in drawn["metrics"].panels] == [labels.metric(name) for name in labels.PRIMARY]
    assert "(fc1)" in drawn["accuracy_by_layer"].caption


def test_points_are_the_rows(drawn, finished):
    ax = axes(drawn["metrics"].panels[0])
    frame = load(finished).to_pandas().query("status == 'ok' and perturbation != 'original' and alpha == alpha")
    points = np.concatenate([collection.get_offsets() for collection in ax.collections])
    assert len(points) == len(frame)
    assert sorted(points[:, 0]) == pytest.approx(sorted(frame.alpha))
    assert sorted(points[:, 1]) == pytest.approx(sorted(100 * frame.accuracy))


def test_colours_are_those_of_the_conditions(drawn):
    from matplotlib.colors import to_hex

    ax = axes(drawn["metrics"].panels[0])
    used = {to_hex(color) for collection in ax.collections for color in collection.get_facecolors()}
    assert used == {labels.style(name).color.lower() for name in ("reinit", "rerandomize", "reinit_signs")}


def test_files_are_png_and_svg_and_the_same_every_time(drawn, tmp_path):
    png, svg = drawn["rho_by_metric"].save(tmp_path)
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    first = svg.read_text()
    assert first.startswith("<?xml") and "Date" not in first
    drawn["rho_by_metric"].save(tmp_path)
    assert svg.read_text() == first


def test_inline_svg_follows_the_page(drawn):
    parts = drawn["metrics"].inline()
    assert len(parts) == 8
    for part in parts:
        assert part.startswith("<svg viewBox=") and 'role="img"' in part and "var(--ink)" in part
        assert INK not in part and "http" not in part and "<metadata" not in part
    assert "metrics-0-" in parts[0] and "metrics-0-" not in parts[1]


def test_results_without_perturbations_leave_out_what_they_have_nothing_for():
    rows = [
        {"layer": f"l{at}", "layer_index": at, "perturbation": "original", "status": "ok", "alpha": 2.0 + at}
        for at in range(30)
    ]
    table = pa.Table.from_pylist(rows)
    found = views.of(table).pictures()
    assert [picture.name for picture in found] == ["alpha_by_depth", "alpha_histogram"]


def test_own_metrics_get_a_figure(finished):
    table = load(finished)
    table = table.append_column("my_entropy", table["entropy"]).append_column("rand_entropy", table["entropy"])
    correlations = correlate(table, metrics=["my_entropy", "rand_entropy"], resampling=FEW)
    found = {picture.name: picture for picture in figures.pictures(table, correlations)}
    assert [panel.title for panel in found["own_metrics"].panels] == ["my entropy"]


def test_a_failed_metric_everywhere_is_no_panel(finished):
    table = load(finished)
    alpha = table.column_names.index("alpha")
    table = table.set_column(alpha, "alpha", pa.array(np.full(len(table), np.nan)))
    found = {picture.name: picture for picture in figures.pictures(table, correlate(table, resampling=FEW))}
    assert "alpha_by_layer" not in found and len(found["metrics"].panels) == 7


def test_wide_positive_values_get_a_logarithmic_axis():
    for values, scale in (([1.0, 100.0], "log"), ([0.0, 100.0], "linear"), ([1.0, 2.0], "linear")):
        ax = axes(Panel("", lambda ax, values=values: against.scale(ax, np.array(values))))
        assert ax.get_xscale() == scale


def test_more_layers_than_markers_and_unknown_conditions_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "layer": f"layer{at}", "layer_index": at, "perturbation": condition, "status": "ok", "alpha": rng.random(),
            "accuracy": rng.random(), "replicate": model, "draw": 0,
        }
        for at in range(24) for condition in ("my_rotation", "reinit") for model in range(3)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    for picture in figures.pictures(table, correlate(table, resampling=FEW)):
        assert isinstance(picture, Picture)
        assert all(path.stat().st_size > 1000 for path in picture.save(tmp_path))
        assert any(key.text == "my rotation" for key in picture.keys) or picture.name == "rho_by_metric"
