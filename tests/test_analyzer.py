import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

import raylab
from raylab.errors import UserError
from raylab.types import SpectralOptions

CPU = SpectralOptions(device="cpu")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Conv2d(3, 12, 3), nn.Linear(40, 5), nn.Linear(40, 30))


def test_a_row_a_layer_with_the_leading_columns_first():
    table = raylab.analyze(model(), options=CPU)
    leading = ["layer", "kind", "N", "M", "matrices", "alpha", "D", "xmin", "sigma", "num_tail", "status"]
    assert table.column_names[:11] == leading
    assert table["layer"].to_pylist() == ["0", "2", "3", "4"]
    assert table["status"].to_pylist() == ["ok", "ok", "skipped", "ok"]
    assert table["reason"].to_pylist() == [None, None, "5 eigenvalues are fewer than min_evals=8", None]
    assert (table["N"].to_pylist(), table["M"].to_pylist()) == ([60, 12, 40, 40], [40, 3, 5, 30])
    assert table["matrices"].to_pylist() == [1, 9, 1, 1]
    assert table["alpha"].to_pylist()[2] is None


def test_the_bulk_is_measured_unless_metrics_are_named():
    table = raylab.analyze(model(), options=CPU)
    assert {"alpha", "mp_softrank", "mp_sigma", "bulk_edge", "num_spikes"} <= set(table.column_names)
    assert "num_traps" not in table.column_names
    assert table["mp_softrank"][0].as_py() > 0 and table["bulk_edge"][0].as_py() > 0


def test_a_tensor_that_is_no_weight_is_a_skipped_row():
    rows = raylab.analyze({"w": np.eye(20, 30), "index": np.ones((20, 30), int)}, options=CPU).to_pylist()
    assert (rows[1]["status"], rows[1]["reason"]) == ("skipped", "dtype int64 is not floating point")


def test_the_eigenvalues_themselves_are_a_column_of_lists():
    table = raylab.analyze(model(), ("norms", "esd"), CPU)
    weight = model()[0].weight.detach().numpy().astype(np.float64)
    assert table["evals"].type == pa.list_(pa.float64())
    expected = np.sort(np.linalg.svd(weight, compute_uv=False) ** 2)
    np.testing.assert_allclose(table["evals"][0].as_py(), expected, rtol=1e-9)
    assert table["evals"][2].as_py() is None  # a skipped layer


def test_it_can_be_called_again():
    first = raylab.analyze(model(), options=CPU)
    assert raylab.analyze(model(), options=CPU).equals(first)


def test_a_state_dict_gives_the_same_numbers():
    table = raylab.analyze(model(), options=CPU)
    assert raylab.analyze(model().state_dict(), options=CPU).equals(table)
    arrays = {name: tensor.numpy() for name, tensor in model().state_dict().items()}
    assert raylab.analyze(arrays, options=CPU).equals(table)


def test_the_model_is_left_alone():
    subject = model()
    before = {name: tensor.clone() for name, tensor in subject.state_dict().items()}
    raylab.analyze(subject, ("standard", "marchenko_pastur", "randomized"), CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.state_dict().items())


def test_chosen_layers_and_a_metric_of_ones_own():
    def ratio(spectrum):
        return spectrum.N / spectrum.M

    table = raylab.analyze(model(), ("norms", ratio), CPU, layers=("[04]",))
    assert table["layer"].to_pylist() == ["0", "4"]
    assert table["ratio"].to_pylist() == pytest.approx([1.5, 4 / 3])
    assert "alpha" not in table.column_names


def test_a_layer_without_a_power_law_failed_and_says_why():
    rows = raylab.analyze({"dead": np.zeros((20, 30)), "bad": np.full((20, 30), np.nan)}, options=CPU).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("failed", "no power law: fewer than two eigenvalues above the threshold"),
        ("failed", "no power law: a weight is not finite"),
    ]
    assert all(math.isnan(row["alpha"]) for row in rows)


def test_slices_are_rows():
    table = raylab.analyze(model(), options=SpectralOptions(conv="slices", device="cpu", min_evals=3), layers=("2",))
    assert table["slice"].to_pylist() == list(range(9))
    assert set(table["layer"].to_pylist()) == {"2"}
    assert set(table["matrices"].to_pylist()) == {1}


def test_parts_are_rows_on_request():
    mixer = nn.MultiheadAttention(16, 2)
    whole = raylab.analyze(mixer, ("norms",), CPU).to_pylist()
    parts = raylab.analyze(mixer, ("norms",), SpectralOptions(device="cpu", split=True)).to_pylist()
    assert [row["layer"] for row in parts] == [f"in_proj_weight[{part}]" for part in "qkv"] + ["out_proj"]
    squared = [row["frobenius_norm"] ** 2 for row in parts[:3]]
    assert sum(squared) == pytest.approx(whole[0]["frobenius_norm"] ** 2)


def test_a_row_of_what_is_no_matrix_has_no_sizes():
    rows = raylab.analyze({"fc.weight": np.eye(9), "scale": np.ones((9, 1, 1))}, ("norms",), CPU).to_pylist()
    assert (rows[1]["status"], rows[1]["N"], rows[1]["M"], rows[1]["matrices"]) == ("skipped", None, None, None)


def test_every_treatment_of_convolutions_is_measured_with_its_control():
    for conv, count in (("pooled", 9), ("reshape", 1), ("fft", 1024)):
        options = SpectralOptions(device="cpu", conv=conv, min_evals=3)
        row = raylab.analyze(model(), ("standard", "randomized"), options, layers=("2",)).to_pylist()[0]
        assert (row["status"], row["matrices"], row["metric_error"]) == ("ok", count, None)
        assert row["num_evals"] == count * row["M"]
        assert row["rand_lambda_max"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ("standrad",)}, "Did you mean 'standard'"),
        ({"layers": ("fc*",)}, r"'fc\*' matches no layer"),
        ({"options": SpectralOptions(conv="ftt")}, "conv=ftt.*Did you mean 'fft'"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        raylab.analyze(model(), **arguments)
    assert "\n" not in str(caught.value)


def test_importing_raylab_loads_nothing_heavy():
    heavy = "{'torch', 'pyarrow', 'ray', 'cupy', 'scipy', 'numpy'}"
    code = (
        f"import sys, raylab; assert not {heavy} & set(sys.modules); raylab.analyze; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_measuring_an_array_on_a_machine_without_gpu_does_not_import_torch():
    code = (
        "import sys, numpy, raylab\n"
        "raylab.analyze({'a': numpy.random.default_rng(0).normal(size=(30, 20))})\n"
        "from raylab.spectral.backend import _driver_present\n"
        "assert _driver_present() or 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_spectral_room_needs_numpy_alone_to_load():
    code = "import sys, raylab.spectral; assert not {'torch', 'cupy', 'pyarrow', 'ray', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_row_says_its_dtype():
    model = {"a.weight": np.eye(20) + 1, "tiny.weight": np.eye(2)}
    for dtype in ("float64", "float32"):
        table = raylab.analyze(model, ["norms"], SpectralOptions(device="cpu", dtype=dtype))
        assert table["dtype"].to_pylist() == [dtype, dtype]
