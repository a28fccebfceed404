import pytest

from raylab.errors import UserError
from raylab.registry import Registry, bind, call, load


def test_a_name_is_registered_once():
    registry: Registry = Registry("shape")
    registry.register("round")(len)
    with pytest.raises(ValueError, match="two owners of the shape 'round': builtins:len and builtins:print"):
        registry.register("round")(print)


def test_an_unknown_name_suggests_the_nearest():
    registry: Registry = Registry("shape")
    registry.register("round")(len)
    with pytest.raises(UserError, match=r"Unknown shape 'ronud'. Did you mean 'round'\? Available: round."):
        registry.resolve("ronud")


@pytest.mark.parametrize("target", ["math:sqrt", "math.sqrt"])
def test_a_name_may_point_into_any_module(target):
    assert Registry("function").resolve(target)(9) == 3


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("math:sqrd", "'math' has no 'sqrd' (for the function 'math:sqrd'). Did you mean 'sqrt'?"),
        ("no_such_module:x", "Cannot import 'no_such_module'"),
        ("math", "write it as module:name"),
        (":x", "write it as module:name"),
    ],
)
def test_a_wrong_target_is_one_line(target, says):
    with pytest.raises(UserError) as error:
        load(target, "function")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_only_what_a_module_defines_is_suggested(tmp_path, monkeypatch):
    source = "import numpy as np\nfrom math import gcd\nLIMIT = 3\ndef gini(spectrum): return 1.0\nclass Nose: pass\n"
    (tmp_path / "lab_to_suggest.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as error:
        load("lab_to_suggest:nope", "metric")
    assert str(error.value).endswith("(for the metric 'lab_to_suggest:nope'). Available: Nose, gini.")
    (tmp_path / "lab_without.py").write_text("import numpy as np\n")
    with pytest.raises(UserError, match=r"'lab_without:nope'\)\.$"):
        load("lab_without:nope", "metric")


def test_arguments_are_checked_before_any_work():
    assert bind({"_target_": "math:gcd"}, "model")(4, 6) == 2
    assert bind({"_target_": "math:isclose", "rel_tol": 0.5}, "model")(1.0, 1.4)
    with pytest.raises(UserError, match=r"model 'math:isclose' takes no 'reltol'\. Did you mean 'rel_tol'"):
        bind({"_target_": "math:isclose", "reltol": 0.5}, "model")
    with pytest.raises(UserError, match=r"give model._target_=module:function"):
        bind({"width": 5}, "model")


def test_what_a_function_of_ones_own_raises_is_one_line_that_says_where():
    def fails() -> None:
        raise RuntimeError("no weights on this disk")

    with pytest.raises(
        UserError, match=r"model 'my_lab.load' fails: RuntimeError: no weights on this disk \(test_registry"
    ):
        call(fails, {"_target_": "my_lab.load"}, "model")
    with pytest.raises(RuntimeError, match="no weights"):  # a mistake of raylab's own is seen whole
        call(fails, {"_target_": "raylab.models.fcn.FCN"}, "model")
