"""Reports of initial layers: made-up draws with known quantiles and shares."""

import math

import numpy as np
import pyarrow as pa
import pytest

from raylab.report import draws, html, views

RNG = np.random.default_rng(3)
ALPHA = {"fc1": np.exp(RNG.normal(2.2, 0.5, 400)), "fc2": np.exp(RNG.normal(1.6, 0.2, 250))}
SHAPES = {"fc1": (64, 16, "fc1"), "fc2": (16, 16, "fc2, fc3, fc4, fc5")}


@pytest.fixture(scope="module")
def table():
    rows = []
    for at, (layer, alphas) in enumerate(ALPHA.items()):
        n, m, stands_for = SHAPES[layer]
        about = {"model": "fcn", "checkpoint": layer, "layer": layer, "layer_index": at, "perturbation": "initial"}
        about |= {"N": n, "M": m, "law": "U(-0.1, 0.1)", "stands_for": stands_for}
        rows += [about | {"draw": k, "alpha": a, "status": "ok"} for k, a in enumerate(alphas)]
        rows.append(about | {"draw": len(alphas), "alpha": None, "status": "failed"})
    order = RNG.permutation(len(rows))
    return pa.Table.from_pylist([rows[k] for k in order])


def test_draws_are_told_from_other_results(table):
    view = views.of(table)
    assert isinstance(view, draws.Draws)
    assert [(each.layer, each.shape, each.without) for each in view.found] == [
        ("fc1", "64 x 16", 1),
        ("fc2", "16 x 16", 1),
    ]


def test_quantiles_and_shares_are_those_of_the_draws(table):
    for row in draws.numbers(draws.populations(table)).to_pylist():
        alpha = ALPHA[row["layer"]]
        assert row["n"] == len(alpha)
        assert row["q5"] == np.quantile(alpha, 0.05) and row["q50"] == np.median(alpha)
        p, n, z = np.mean((alpha >= 2) & (alpha <= 6)), len(alpha), 1.959963984540054
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))  # Wilson 1927
        assert row["p_2_6"] == p
        assert row["p_2_6_lo"] == pytest.approx((middle - half) / (1 + z * z / n), rel=1e-9)
        assert row["p_2_6_hi"] == pytest.approx((middle + half) / (1 + z * z / n), rel=1e-9)


def test_the_first_draws_can_be_had_alone(table):
    assert [len(each.alpha) for each in draws.populations(table, 100)] == [100, 100]
    assert draws.populations(table, 100)[0].alpha.tolist() == sorted(ALPHA["fc1"][:100].tolist())


def test_what_is_said_and_drawn(table):
    view = views.of(table)
    share = 100 * np.mean((ALPHA["fc2"] >= 2) & (ALPHA["fc2"] <= 6))
    assert f"Of 250 fresh layers of 16 x 16, {share:.1f} % [" in view.findings()[1]
    assert "1 draw without a power law left out" in view.findings()[1]
    (picture,) = view.pictures()
    from matplotlib.figure import Figure

    for panel, alpha in zip(picture.panels, ALPHA.values(), strict=True):
        ax = Figure().subplots()
        panel.fill(ax)
        (steps,) = [patch for patch in ax.patches if hasattr(patch, "get_data")]
        assert steps.get_data().values.sum() == pytest.approx(100)
        assert ax.lines[0].get_xdata()[0] == pytest.approx(np.median(alpha))


def test_draws_without_a_fit_have_a_report_that_says_so():
    row = {"model": "m", "checkpoint": "c", "layer": "fc1", "layer_index": 0, "perturbation": "initial", "draw": 0}
    row |= {"N": 4, "M": 4, "law": "l", "stands_for": "fc1", "status": "failed", "alpha": None}
    view = views.of(pa.Table.from_pylist([row]))
    assert view.pictures() == [] and view.missing([]) and view.findings() == []
    assert [cell for table in view.tables() for cell in table.rows[0][2:]] == ["–"] * (len(draws.QUANTILES) + 3)


def test_the_page_counts_draws_and_no_models(table, tmp_path):
    page = html.render(tmp_path, table, views.of(table), [], {})
    assert "<span>trials ok</span>" in page and "<span>models</span>" not in page
