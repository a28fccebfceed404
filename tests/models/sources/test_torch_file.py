import collections

import numpy as np
import pytest
import torch

from raylab.errors import UserError
from raylab.layers import find_layers
from raylab.models.sources import open_model

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.weight": torch.ones(2, 2, dtype=torch.bfloat16)}


def opened(tmp_path, content, **options):
    torch.save(content, tmp_path / "m.pt", **options)
    return open_model(tmp_path / "m.pt")


def assert_is_the_state(model):
    assert list(model) == list(STATE)
    assert all(torch.equal(model[name], STATE[name]) and model[name].dtype == STATE[name].dtype for name in STATE)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "best_prec1": 91.2}, "state_dict"),
        ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3, 4)}}}},
         "model_state_dict"),
        ({"epoch": 3, "model": {"state_dict": STATE}}, "model.state_dict"),
        ({"ema": STATE, "optimizer": {"x": torch.ones(2, 2)}}, "ema"),
        ({"model": STATE, "ema": {"a.weight": torch.zeros(3, 4)}}, "model"),
        ({f"module.{name}": tensor for name, tensor in STATE.items()}, ""),
        ({"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in STATE.items()}}, "state_dict"),
        ({"a": {"weight": STATE["a.weight"]}, "b": {"weight": STATE["b.weight"]}, "lr_scheduler": {"t": torch.ones(2)}},
         ""),
        (collections.OrderedDict(STATE), ""),
    ],
)  # fmt: skip
def test_the_state_dict_is_found(tmp_path, content, place):
    source = opened(tmp_path, content)
    assert_is_the_state(source.model)
    assert source.origin == (f"{tmp_path / 'm.pt'} (its {place})" if place else str(tmp_path / "m.pt"))


def test_a_prefix_that_not_all_share_stays(tmp_path):
    state = {"module.a": torch.ones(2, 2), "head": torch.ones(2, 2)}
    assert list(opened(tmp_path, state).model) == ["module.a", "head"]


def test_files_of_before_torch_1_6(tmp_path):
    assert_is_the_state(opened(tmp_path, STATE, _use_new_zipfile_serialization=False).model)


def test_tied_tensors_stay_tied(tmp_path):
    shared = torch.randn(12, 9)
    found, skipped = find_layers(opened(tmp_path, {"a.weight": shared, "b.weight": shared}).model)
    assert [layer.name for layer in found] == ["a"] and "tied" in skipped[0].reason


@pytest.mark.parametrize("name", ["resnet20-12fca82f", "resnet56-4bfd9763"])
def test_real_files(shared, name):
    source = open_model(shared / "data" / "pretrained" / f"{name}.th")
    assert source.name == name and "conv1.weight" in source.model
    found, _ = find_layers(source.model)
    depth = int(name[6:8])
    assert len([layer for layer in found if len(layer.shape) == 4]) == depth - 1
    assert all(np.isfinite(np.asarray(tensor)).all() for tensor in source.model.values())


class Marker:
    ran = False

    def __reduce__(self):
        return Marker._run, ()

    @staticmethod
    def _run():
        Marker.ran = True


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_is_run(tmp_path, zipped):
    with pytest.raises(UserError, match=r"m\.pt holds Python objects.*could run any code.*state_dict\(\)") as caught:
        opened(tmp_path, {"state_dict": STATE, "extra": Marker()}, _use_new_zipfile_serialization=zipped)
    assert "\n" not in str(caught.value) and not Marker.ran


def test_a_whole_module_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds Python objects \(torch\.nn\.modules\.linear\.Linear\)"):
        opened(tmp_path, torch.nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore")  # torch says that TorchScript is deprecated
def test_a_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "m.pt")
    with pytest.raises(UserError, match="TorchScript"):
        open_model(tmp_path / "m.pt")


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {"loss": torch.tensor(1.0)}, torch.ones(3, 3), {}])
def test_what_holds_no_state_dict(tmp_path, content):
    with pytest.raises(UserError, match=r"m\.pt holds no state dict"):
        opened(tmp_path, content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_file(tmp_path, share, zipped):
    path = tmp_path / "m.pt"
    torch.save({"w": torch.randn(50, 50)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"m\.pt is no sound") as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"# a text\n", b"<html>not found</html>", bytes(100)])
def test_what_torch_never_wrote(tmp_path, content):
    (tmp_path / "m.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.bin is no sound") as caught:
        open_model(tmp_path / "m.bin")
    assert "\n" not in str(caught.value)
