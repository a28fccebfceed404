"""What models are made of: alpha of the draws that an experiment has measured."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylab.data import pool
from raylab.errors import UserError


def kept(folder, rows):
    """rows: draw, alpha, status of one population."""
    (folder / "trials").mkdir()
    head = {"checkpoint": "c", "perturbation": "initial", "seed": 0, "N": 8, "M": 4, "seconds": 0.5}
    table = [head | {"draw": draw, "alpha": alpha, "status": status} for draw, alpha, status in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "trials" / "part.parquet")
    return folder


def test_draws_are_in_their_order_and_one_without_a_fit_is_nan(tmp_path):
    folder = kept(tmp_path, [(2, 4.0, "ok"), (0, 2.0, "ok"), (1, None, "ok")])
    np.testing.assert_array_equal(pool.draws(folder, "initial", 0)["c"].alpha, [2, np.nan, 4])
    with pytest.raises(UserError, match="no draws of seed 1"):
        pool.draws(folder, "initial", 1)


@pytest.mark.parametrize("gap", [[], [(1, None, "failed")]])
def test_nothing_is_taken_from_beyond_a_gap(tmp_path, gap):
    """It may be filled, and model k must not be made of other draws then."""
    folder = kept(tmp_path, [(0, 2.0, "ok"), *gap, (2, 4.0, "ok")])
    np.testing.assert_array_equal(pool.draws(folder, "initial", 0)["c"].alpha, [2])


def test_how_much_a_draw_costs_and_how_large_it_is(tmp_path):
    found = pool.draws(kept(tmp_path, [(0, 2.0, "ok"), (1, 5.0, "ok")]), "initial", 0)["c"]
    assert (found.seconds, found.shape, found.within(4, 6).tolist()) == (0.5, (8, 4), [1])


def test_a_pool_is_filled_by_the_command_that_made_it(tmp_path):
    assert pool.command(tmp_path, 9) == f"python -m raylab.run experiment=alpha_at_init results={tmp_path} draws=9"
    made_by = "uv run python -m raylab.run experiment=alpha_at_init draws=5 'layers=[fc1]' model.width=3"
    (tmp_path / "run.json").write_text(json.dumps({"command": made_by}))
    assert pool.command(tmp_path, 9) == "uv run python -m raylab.run experiment=alpha_at_init model.width=3 draws=9"
