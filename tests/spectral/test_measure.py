import math

import numpy as np
import pytest

from raylab.errors import UserError
from raylab.spectral import columns, measure, measure_many, measure_spectrum, power_law, resolve, spectrum, version
from raylab.types import Layer, SpectralOptions

CPU = SpectralOptions(device="cpu")
LAYER = Layer("fc", 0, "linear", (40, 30))
WEIGHTS = np.random.default_rng(0).standard_t(3, size=(40, 30))


def largest(spectrum):
    return spectrum.evals[-1]


def pair(spectrum):
    return {"first": np.float32(1.5), "count": np.int64(3), "word": "yes"}


def fails_on_forty(spectrum):
    if spectrum.N == 40 and spectrum.M == 30:
        raise ZeroDivisionError("forty")
    return {"good": 1.0, "number": 2}


def gives_nan_on_forty(spectrum):
    return math.nan if spectrum.M == 30 else 1.0


def always_fails(spectrum):
    raise KeyError("nothing")


def gives_an_array(spectrum):
    return spectrum.evals[-2:]


def gives_text(spectrum):
    return "0.5"


def gives_an_array_of_text(spectrum):
    return np.array(["a"])


def numbers_its_columns(spectrum):
    return {0: 1.0}


class Changeable:
    """Gives one thing for the small test spectrum and another for a layer."""

    def __init__(self, first, then):
        self.__name__, self.given = "changeable", {24: first, 30: then}

    def __call__(self, spectrum):
        return self.given[spectrum.M]


def gives_a_list(spectrum):
    return [1, 2]


def test_names_become_functions():
    assert [metric.__name__ for metric in resolve(["standard", f"{__name__}:largest"])] == ["standard", "largest"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("standart", "Did you mean 'standard'"),
        (f"{__name__}:largets", "Did you mean 'largest'"),
        ("no_such_module:x", "Cannot import 'no_such_module'"),
        (f"{__name__}:WEIGHTS", "is a ndarray, not a function"),
    ],
)
def test_a_wrong_name_is_one_clear_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve([name])
    assert "\n" not in str(caught.value)


def test_columns_and_their_types():
    found = columns(resolve(["standard", "marchenko_pastur", "randomized", f"{__name__}:largest"]), CPU)
    assert found["alpha"] is float
    assert found["num_tail"] is int
    assert found["erg_gap"] is int
    assert found["fit_status"] is str
    assert found["largest"] is float
    assert found["metric_error"] is str
    assert columns([gives_an_array], CPU) == {"gives_an_array": list, "metric_error": str}
    assert measure(WEIGHTS, LAYER, [gives_an_array], CPU)["gives_an_array"].shape == (2,)
    assert columns([pair], CPU) == {"first": float, "count": int, "word": str, "metric_error": str}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([always_fails], "'always_fails' fails on a small test spectrum: KeyError: 'nothing'"),
        ([gives_a_list], "'gives_a_list' gives a list for 'gives_a_list'"),
        ([gives_text], "'gives_text' gives text, '0.5': return a number"),
        ([gives_an_array_of_text], "gives an array of <U1 for 'gives_an_array_of_text'"),
        ([numbers_its_columns], "names a column 0: give its values names"),
        ([lambda spectrum: 1j], "gives a complex"),
        ([largest, largest], "Two metrics give the column 'largest'"),
    ],
)
def test_a_broken_metric_is_one_clear_line_on_the_driver(metrics, message):
    with pytest.raises(UserError, match=message) as caught:
        columns(metrics, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"estimator": "x"}, {"conv": "x"}, {"dtype": "x"}, {"device": "x"}, {"threshold_kind": "x"}]
)
def test_a_wrong_option_is_found_on_the_driver(wrong):
    with pytest.raises(UserError, match="x"):
        columns(resolve(["standard"]), SpectralOptions(**wrong))


def test_values_fill_exactly_the_columns():
    metrics = resolve(["standard", "marchenko_pastur", "randomized"])
    values = measure(WEIGHTS, LAYER, metrics, CPU)
    expected = columns(metrics, CPU)
    assert values.keys() == expected.keys()
    for column, value in values.items():
        assert column == "metric_error" or type(value) is expected[column], column
    assert values["metric_error"] is None


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (1.5, "2.5", "changeable is '2.5', and was a float"),
        (1.5, "high", "changeable is 'high', and was a float"),
        (1, 2.5, "changeable is 2.5, and was an int"),  # which would be cut to 2
        (1, "2", "changeable is '2', and was an int"),
        (1.5, [1.5], "changeable is list, and was a float"),
        (np.ones(2), "12", "changeable is '12', and was an array"),
    ],
)
def test_what_is_another_kind_of_value_for_a_layer_is_no_number(first, then, says):
    values = measure(WEIGHTS, LAYER, [Changeable(first, then), largest], CPU)
    assert says in values["metric_error"] and values["largest"] > 0
    missing = values["changeable"]
    assert math.isnan(missing) if isinstance(first, float) else missing is None


@pytest.mark.parametrize(("first", "then"), [(1.5, 2), (1.5, np.float32(2)), (1, True), (1, np.int8(1))])
def test_whole_numbers_may_stand_where_fractions_do(first, then):
    values = measure(WEIGHTS, LAYER, [Changeable(first, then)], CPU)
    assert values["changeable"] == then and type(values["changeable"]) is type(first)
    assert values["metric_error"] is None


def test_a_metric_that_raises_costs_no_other_its_values():
    metrics = [largest, fails_on_forty, pair]
    values = measure(WEIGHTS, LAYER, metrics, CPU)
    assert values["largest"] > 0
    assert values["word"] == "yes"
    assert math.isnan(values["good"])
    assert values["number"] is None
    assert values["metric_error"] == "fails_on_forty: ZeroDivisionError: forty"


def test_a_users_nan_is_reported():
    values = measure(WEIGHTS, LAYER, [gives_nan_on_forty, largest], CPU)
    assert values["metric_error"] == "gives_nan_on_forty: gives_nan_on_forty is nan"


def test_our_own_nan_is_told_by_its_status_instead():
    values = measure(np.zeros((40, 30)), LAYER, resolve(["standard"]), CPU)
    assert math.isnan(values["alpha"])
    assert (values["fit_status"], values["metric_error"]) == ("too_few", None)


def test_one_fit_serves_all_metrics(monkeypatch):
    calls = []
    fit_evals = power_law.fit_evals
    monkeypatch.setattr(power_law, "fit_evals", lambda *args: calls.append(1) or fit_evals(*args))
    one = spectrum(WEIGHTS, LAYER, CPU)
    metrics = resolve(["power_law", "erg"])
    columns(metrics, CPU)
    calls.clear()
    measure_spectrum(one, metrics)
    assert len(calls) == 1


def test_many_are_as_one_by_one():
    items = [(WEIGHTS, LAYER), (WEIGHTS[:, :20].copy(), Layer("b", 1, "linear", (40, 20)))]
    metrics = resolve(["standard", "randomized"])
    many = measure_many(items, metrics, CPU, seeds=[3, 4])
    assert many == [measure(*items[0], metrics, CPU, seed=3), measure(*items[1], metrics, CPU, seed=4)]


def test_the_version_follows_what_changes_the_answer(tmp_path, monkeypatch):
    first = version(["standard"], CPU)
    assert version(["standard"], SpectralOptions(device="auto")) == first
    assert version(["standard"], SpectralOptions(threshold=1e-6)) != first
    assert version(["standard", "marchenko_pastur"]) == version(["marchenko_pastur", "standard"]) != first


def test_the_version_follows_a_users_code(tmp_path, monkeypatch):
    import importlib
    import sys

    lab = tmp_path / "lab_of_mine.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    digests = []
    for body in ("return 1.0", "return 2.00"):
        lab.write_text(f"def entropy(spectrum):\n    {body}\n")
        importlib.invalidate_caches()
        sys.modules.pop("lab_of_mine", None)
        digests.append(version(["lab_of_mine:entropy"]))
    assert digests[0] != digests[1]
