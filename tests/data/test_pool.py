"""What models are made of: alpha of the draws that an experiment has measured."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylab.data import pool
from raylab.errors import UserError


def kept(folder, rows):
    """rows: draw, alpha, status of one population."""
    (folder / "trials").mkdir()
    head = {"checkpoint": "c", "perturbation": "initial", "seed": 0}
    table = [head | {"draw": draw, "alpha": alpha, "status": status} for draw, alpha, status in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "trials" / "part.parquet")
    return folder


def test_draws_are_in_their_order_and_one_without_a_fit_is_nan(tmp_path):
    folder = kept(tmp_path, [(2, 4.0, "ok"), (0, 2.0, "ok"), (1, None, "ok")])
    np.testing.assert_array_equal(pool.alphas(folder, "initial", 0)["c"], [2, np.nan, 4])
    with pytest.raises(UserError, match="no draws of seed 1"):
        pool.alphas(folder, "initial", 1)


@pytest.mark.parametrize("gap", [[], [(1, None, "failed")]])
def test_nothing_is_taken_from_beyond_a_gap(tmp_path, gap):
    """It may be filled, and model k must not be made of other draws then."""
    folder = kept(tmp_path, [(0, 2.0, "ok"), *gap, (2, 4.0, "ok")])
    np.testing.assert_array_equal(pool.alphas(folder, "initial", 0)["c"], [2])
