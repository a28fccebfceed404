import made_up_spectra
import numpy as np
import pyarrow as pa

from raylab.report.compare import compare, comparisons, match
from raylab.report.layerwise import Layers, models


def axes(panel):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    panel.fill(ax)
    return ax


def made(model, alphas):
    rows = [{"layer": name, "kind": "linear", "status": "ok", "alpha": alpha} for name, alpha in alphas.items()]
    return Layers(model, models(pa.Table.from_pylist(rows))[0].table)


def test_layers_of_one_name_belong_together():
    a, b = made("A", {"x": 2.0, "y": 3.0, "z": 4.0}), made("B", {"z": 5.0, "w": 9.0, "x": 2.5})
    pairs = match(a, b)
    assert pairs.by_name and list(zip(pairs.a, pairs.b, strict=True)) == [(0, 2), (2, 0)]
    picture = compare(a, b)
    assert picture.title == "A and B: mean α 3.00 and 3.75"
    assert "2 layers matched by name" in picture.caption and "Without a partner: 1 of A, 1 of B." in picture.caption
    assert "larger in B in 2, smaller in 0" in picture.caption
    points = np.concatenate([each.get_offsets() for each in axes(picture.panels[0]).collections])
    assert points[np.isfinite(points).all(axis=1)].tolist() == [[2.0, 2.5], [4.0, 5.0]]
    dots = [line for line in axes(picture.panels[1]).lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert [(list(dot.get_xdata()), list(dot.get_ydata())) for dot in dots] == [([0, 2], [0.5, 1.0])]


def test_without_a_shared_name_the_order_tells_if_there_are_as_many():
    a, b = made("A", {"x": 2.0, "y": 3.0}), made("B", {"p": 2.0, "q": 5.0})
    assert "by order, since no name is shared" in compare(a, b).caption
    assert compare(a, made("C", {"p": 2.0})) is None


def test_layers_without_a_fit_are_left_out_and_counted():
    a, b = made("A", {"x": 2.0, "y": 3.0}), made("B", {"x": np.nan, "y": 4.0})
    picture = compare(a, b)
    assert "1 pair left out" in picture.caption and picture.title.endswith("3.00 and 4.00")
    assert compare(made("A", {"x": 2.0}), b) is None


def test_the_first_is_compared_with_those_that_follow(tmp_path):
    found = [Layers(str(at), models(made_up_spectra.analyzed(made_up_spectra.gpt(1, at)))[0].table) for at in range(3)]
    pictures = comparisons(found)
    assert [each.name for each in pictures] == ["compare", "compare_2"]
    assert all(path.stat().st_size > 1000 for each in pictures for path in each.save(tmp_path))
    assert comparisons(found[:1]) == []
