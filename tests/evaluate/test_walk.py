"""A walk against whole forward passes, and what it runs on the way."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raylab.data import digits
from raylab.evaluate import PrefixWalk
from raylab.evaluate.boundary import Boundary
from raylab.evaluate.walk import WATCHED
from raylab.models.fcn import FCN
from raylab.perturb import perturbed
from tests.evaluate.whole_passes import whole

DATA = digits.load()
X, Y = torch.from_numpy(DATA.test_x), torch.from_numpy(DATA.test_y)


def network() -> FCN:
    model = FCN(64, 10, depth=4, width=33)
    return model.load(model.initial_state(np.random.default_rng(1)))


def new_weights(model: nn.Module, layer: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    named = model.get_submodule(layer).named_parameters(prefix=layer)
    return {name: rng.standard_normal(p.shape).astype(np.float32) * 0.2 for name, p in named}


def names_of(model: nn.Module, layer: str) -> list[str]:
    return [name for name, _ in model.get_submodule(layer).named_parameters(prefix=layer)]


class Calls:
    """Counts how often modules run, but for the two samples on which a cut is tried."""

    def __init__(self, model: nn.Module) -> None:
        self.names: list[str] = []
        for name, module in model.named_children():
            own = module.forward
            module.forward = lambda x, name=name, own=own: self.names.extend([name] * (len(x) > WATCHED)) or own(x)

    def taken(self) -> list[str]:
        taken, self.names[:] = list(self.names), []
        return taken


class TinyResNet(nn.Module):
    """A skip connection, two layers in one block, batch norm, dropout: what a walk must respect."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 1)})
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.block["b"](self.block["a"](x).relu())
        return self.head(self.drop(x.mean((2, 3))))


def models():
    torch.manual_seed(0)
    return [(network(), X), (TinyResNet().train(), X.view(-1, 1, 8, 8))]


@pytest.mark.parametrize("batch_size", [1, 100, 497, 1000])
@pytest.mark.parametrize("which", [0, 1], ids=["fcn", "resnet"])
def test_every_layer_of_a_walk_gives_what_whole_forward_passes_give_bit_for_bit(which, batch_size):
    model, x = models()[which]
    count = 40 if batch_size == 1 else len(Y)  # a batch is a few milliseconds of Python
    x, y = x[:count], Y[:count]
    walk = PrefixWalk(model, x, y, batch_size)
    for layer in [name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        walk.advance_to(names_of(model, layer))
        for arrays in ({}, new_weights(model, layer)):
            with perturbed(model, arrays):
                assert walk.evaluate() == whole(model, x, y, batch_size)


def test_modules_below_the_boundary_do_not_run_again():
    model = network()
    walk, calls = PrefixWalk(model, X, Y, 1000), Calls(model)
    walk.advance_to(["fc3.weight", "fc3.bias"])
    assert calls.taken() == ["fc1", "fc2"]
    walk.evaluate()
    assert calls.taken() == ["fc3", "fc4", "fc5"]
    walk.advance_to(["fc4.bias"])  # on from there
    assert calls.taken() == ["fc3"]
    walk.advance_to(["fc4.weight"])
    assert calls.taken() == []
    assert len(list(walk.outputs("fc4"))) == 1
    assert calls.taken() == ["fc4"]


def test_a_walk_goes_one_way_and_can_begin_again():
    model = network()
    walk, calls = PrefixWalk(model, X, Y), Calls(model)
    expected = walk.evaluate()
    walk.advance_to(["fc5.weight"])
    for layer in ("fc4", "fc1"):
        with pytest.raises(ValueError, match="cannot walk from cut 3 back to"):
            walk.advance_to([f"{layer}.weight"])
    calls.taken()
    walk.rewind()
    assert walk.depth_reached == -1 and walk.evaluate() == expected
    assert calls.taken() == ["fc1", "fc2", "fc3", "fc4", "fc5"]


def test_the_deepest_of_several_layers_does_not_set_the_boundary():
    walk = PrefixWalk(network(), X, Y)
    assert walk.depth(["fc5.weight", "fc2.weight"]) == walk.depth(["fc2.weight"]) < walk.depth(["fc3.weight"])
    assert walk.depth(["fc1.weight"]) == -1


def test_watching_gives_the_layers_own_output_also_inside_a_block():
    model, x = models()[1]
    walk = PrefixWalk(model, x, Y, 100)
    walk.advance_to(["block.b.weight"])
    inner = model.block["b"]
    seen: dict[int, Tensor] = {}
    plain = walk.evaluate()
    assert walk.evaluate(("block.b", seen.__setitem__)) == plain
    with torch.no_grad():
        stem = [model.norm(model.stem(batch)) for batch in x.split(100)]
        expected = [inner(model.block["a"](batch).relu()) for batch in stem]
    assert list(seen) == list(range(5))
    for k, output in enumerate(walk.outputs("block.b")):
        assert torch.equal(output, expected[k]) and torch.equal(seen[k], expected[k])
    assert not inner._forward_hooks


def test_a_module_that_no_pass_comes_by_gives_no_output():
    model = network()
    model.spare = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="does not come by spare"):
        list(PrefixWalk(model, X, Y).outputs("spare"))


def test_the_walk_puts_the_model_into_evaluation_mode_and_needs_no_gradients():
    model, x = models()[1]
    walk = PrefixWalk(model, x, Y)
    assert not model.training
    assert walk.evaluate() == walk.evaluate()  # dropout would differ
    assert not any(output.requires_grad for output in walk.outputs("stem"))


def test_a_walk_leaves_no_trace_on_the_model():
    model, x = models()[1]
    before = {name: dict(module.__dict__) for name, module in model.eval().named_modules()}
    walk = PrefixWalk(model, x, Y, 100)
    walk.advance_to(["head.weight"])
    walk.evaluate()
    list(walk.outputs("head"))
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before


class SmallMemory:
    """A device that runs out of memory when a module gets more than so many rows; a cut is tried on two."""

    def __init__(self, module: nn.Module, rows: int) -> None:
        self.sizes: list[int] = []
        self.rows = rows
        module.register_forward_pre_hook(self.check)

    def check(self, module, inputs):
        self.sizes += [len(inputs[0])] * (len(inputs[0]) > WATCHED)
        if len(inputs[0]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_when_memory_runs_out_the_batch_is_halved_and_the_result_stays():
    model, x = models()[1]
    expected = PrefixWalk(model, x, Y, 8).evaluate()
    memory = SmallMemory(model.head, 60)
    walk = PrefixWalk(model, x, Y, 400)
    memory.sizes.clear()
    seen: list[Tensor] = []
    result = walk.evaluate(("stem", lambda k, output: seen.append(output)))
    assert (result.correct, result.num_samples) == (expected.correct, 497)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert walk.batch_size == 50 and memory.sizes[:4] == [400, 200, 100, 50]
    assert [len(output) for output in seen] == [400, 97]  # whole batches, each once, whatever the halving


def test_memory_that_runs_out_on_the_way_or_above_the_boundary_halves_the_batch_too():
    model, x = models()[1]
    with perturbed(model.eval(), new_weights(model, "head")):
        expected = whole(model, x, Y, 8)
    below = SmallMemory(model.stem, 60)
    walk = PrefixWalk(model, x, Y, 400)
    below.sizes.clear()
    walk.advance_to(["block.b.weight"])
    assert walk.batch_size == 50 and below.sizes[:4] == [400, 200, 100, 50]
    above = SmallMemory(model.drop, 20)
    walk.advance_to(["head.weight"])
    assert walk.batch_size == 12 and above.sizes[:3] == [50, 25, 12]
    with perturbed(model, new_weights(model, "head")):
        result = walk.evaluate()
    assert (result.correct, result.num_samples) == (expected.correct, 497)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)


def test_what_lay_in_memory_when_it_ran_out_is_gone_when_room_is_made(monkeypatch):
    model, left, freed, make = network(), [], [], PrefixWalk._make_room
    walk = PrefixWalk(model, X, Y, 400)
    own = model.fc3.forward

    def forward(x: Tensor) -> Tensor:
        out = own(x)
        left.append(weakref.ref(out))
        if len(x) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    def make_room(self: PrefixWalk) -> bool:
        freed.append(left[-1]() is None)
        return make(self)

    model.fc3.forward = forward
    monkeypatch.setattr(PrefixWalk, "_make_room", make_room)
    assert walk.evaluate().num_samples == len(Y) and freed == [True]


def test_a_single_sample_that_does_not_fit_is_an_error():
    model = network()
    walk = PrefixWalk(model, X, Y, 4)
    SmallMemory(model.get_submodule("fc5"), 0)
    with pytest.raises(torch.OutOfMemoryError):
        walk.evaluate()


def test_batches_are_prepared_where_the_model_is():
    model, pixels = network(), (X * 16).to(torch.uint8)
    walk = PrefixWalk(model, pixels.numpy(), DATA.test_y, 100, prepare=lambda batch: batch.float() / 16)
    walk.advance_to(["fc3.weight"])
    assert walk.evaluate() == whole(model, pixels.float() / 16, Y, 100)


def test_what_cannot_be_walked_is_refused():
    with pytest.raises(ValueError, match="497 samples and 3 labels"):
        PrefixWalk(network(), X, Y[:3])
    with pytest.raises(ValueError, match="0 samples"):
        PrefixWalk(network(), X[:0], Y[:0])


class NoLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> str:
        self.fc(x)
        return "logits"


def test_a_model_without_logits_is_refused():
    with pytest.raises(ValueError, match="gives a str, in which no logits"):
        PrefixWalk(NoLogits(), X, Y).evaluate()


def test_one_sample_is_enough():
    model = network()
    walk = PrefixWalk(model, X[:1], Y[:1])
    walk.advance_to(["fc4.weight"])
    assert walk.evaluate() == whole(model, X[:1], Y[:1], 1)


class LastStates(nn.Module):
    """Classifies by the last state of the upper of two recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (states, _) = self.rnn(x)
        return self.head(states[-1])


def test_two_layers_of_states_are_not_taken_for_two_samples():
    torch.manual_seed(0)
    model, x, y = LastStates(), torch.randn(7, 4, 5), torch.arange(7) % 3
    walk = PrefixWalk(model, x, y, 3)  # the last batch has a single sample
    walk.advance_to(["head.weight"])
    assert walk.evaluate() == whole(model, x, y, 3)


def test_maps_of_two_by_two_pixels_are_no_reason_not_to_cut():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Flatten(), nn.Linear(16, 2))
    walk = PrefixWalk(model, torch.randn(5, 3, 4, 4), torch.arange(5) % 2, 5)
    assert walk.depth(["1.weight"]) == 0 and walk.capacity(["1.weight"]) == 1
    assert {"0.weight", "1.weight", "3.weight"} <= walk.anatomy.contained


def test_an_advance_that_fails_half_way_leaves_no_mixture_behind(monkeypatch):
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(4)))
    x, y = torch.randn(9, 4), torch.arange(9) % 4
    walk = PrefixWalk(model, x, y, 3)
    walk.advance_to(["1.0.weight"])
    with monkeypatch.context() as full:
        keep = Boundary.__setitem__
        full.setattr(Boundary, "__setitem__", lambda self, k, x: keep(self, k, x) if k < 2 else _no_space())
        with pytest.raises(OSError, match="no space"):
            walk.advance_to(["3.0.weight"])
    assert walk.evaluate() == whole(model, x, y, 3)
    walk.advance_to(["2.0.weight"])
    assert walk.evaluate() == whole(model, x, y, 3)


def _no_space() -> None:
    raise OSError("no space")
