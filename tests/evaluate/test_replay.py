"""Passes taken up at every cut of models that are wired at random."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from raylab.evaluate.anatomy import examine
from raylab.evaluate.cuts import Cut
from raylab.evaluate.replay import Replay, logits_of, replaced_forward
from tests.evaluate.whole_passes import shaken, visible

WIDTH = 4
X = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
ONE = ("linear", "linear", "linear", "again", "identity", "add", "add", "add_", "relu_", "tanh", "view", "block")
OPERATIONS = (*ONE, "pair", "echo")
Step = tuple[str, int, int]
ALIAS = [("linear", 0, 0), ("linear", 0, 0), ("add", 1, 1), ("identity", 0, 0), ("identity", 0, 0), ("relu_", 0, 0)]


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Pair(nn.Module):
    """Two tensors of its own, or one of its own and what it was given."""

    def __init__(self, echo: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Identity() if echo else nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


class Wired(nn.Module):
    """A program over values that are there so far: (operation, which value, which other value or module)."""

    def __init__(self, steps: Sequence[Step], depth: int = 0) -> None:
        super().__init__()
        self.steps = steps
        makers = {"linear": lambda: nn.Linear(WIDTH, WIDTH), "identity": Identity}
        makers |= {"pair": lambda: Pair(echo=False), "echo": lambda: Pair(echo=True)}
        made = {str(k): makers[what]() for k, (what, _, _) in enumerate(steps) if what in makers}
        if depth == 0:
            blocks = [k for k, (what, _, _) in enumerate(steps) if what == "block"]
            made |= {str(k): Wired(steps[:k][-4:], 1) for k in blocks}
        self.made = nn.ModuleDict(made)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for k, (what, i, j) in enumerate(self.steps):
            one, other = values[-1 - i % len(values)], values[-1 - j % len(values)]
            made = self._step(k, what, one, other, j)
            values += [made] if isinstance(made, Tensor) else made
        return self.head(values[-1])

    def _step(self, k: int, what: str, x: Tensor, y: Tensor, j: int) -> Tensor | tuple[Tensor, Tensor]:
        if str(k) in self.made:
            return self.made[str(k)](x)
        if what == "again":
            linear = [module for module in self.made.values() if isinstance(module, nn.Linear)]
            return linear[j % len(linear)](x) if linear else x
        if what == "add_" and x is not y:
            return x.add_(y.clone())
        simple = {"add": lambda: x + y, "relu_": x.relu_, "tanh": x.tanh, "view": lambda: x.view(len(x), 2, -1)[:, 0]}
        if what == "view":
            return torch.cat([x.view(len(x), 2, -1)[:, 1], x[:, :2]], 1)
        return simple.get(what, lambda: x)()


def every_cut(model: nn.Module, x: Tensor) -> list[Cut]:
    """Take the pass up at every cut with all inputs lost, as the model is and with a parameter shaken: bit for bit."""
    anatomy = examine(model, x[:2].clone())
    replay, start, crossing = Replay(model, anatomy), None, ()
    lost = torch.full_like(x, torch.nan) if x.is_floating_point() else x
    names = [name for name, _ in model.named_parameters()]
    for k, stop in enumerate(anatomy.cuts):
        with replay.remembering(start, stop), replay.taken_up(start):
            inputs = x if start is None else lost
            crossing = tuple(tensor.clone() for tensor in replay.to_cut(stop, inputs.clone(), crossing))
        start = stop
        above = [name for name in names if anatomy.cut_below([name]) >= k]
        for name in [None, *above[:1], *above[-1:]]:
            with replay.taken_up(stop), shaken(model, name) if name else torch.no_grad():
                again = replay.logits(lost.clone(), crossing)
            with torch.no_grad(), shaken(model, name) if name else torch.no_grad():
                assert torch.equal(again, logits_of(model(x.clone()))), (stop, name)
    return list(anatomy.cuts)


steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


@given(steps)
@example([("linear", 0, 0), ("linear", 0, 0), ("add_", 1, 0), ("linear", 0, 0)])
@example([("linear", 0, 0), ("identity", 0, 0), ("relu_", 1, 0), ("add", 0, 1), ("linear", 0, 0)])
@example([("linear", 0, 0), ("block", 0, 0), ("again", 0, 0), ("block", 0, 0), ("add", 0, 2), ("linear", 0, 0)])
@example([("linear", 0, 0), ("identity", 0, 0), ("linear", 0, 0), ("add_", 2, 0), ("add", 0, 2), ("linear", 0, 0)])
@example([("pair", 0, 0), ("linear", 1, 0), ("add", 0, 1), ("echo", 0, 0), ("linear", 1, 0), ("add", 0, 2)])
@example([*ALIAS, ("linear", 3, 0)])  # of what was computed outside a module one module gives back an alias
def test_a_pass_can_be_taken_up_at_every_cut_of_a_model_that_is_wired_at_random(program):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = visible(Wired(program))
    every_cut(model, X)


def test_a_chain_that_is_wired_so_has_a_cut_at_every_layer():
    model = visible(Wired([("linear", 0, 0), ("tanh", 0, 0), ("linear", 0, 0), ("relu_", 0, 0), ("linear", 0, 0)]))
    assert [cut.module for cut in every_cut(model, X)] == ["made.0", "made.2", "made.4", "head"]


def test_logits_are_found_in_what_libraries_give():
    from transformers.modeling_outputs import CausalLMOutput

    assert logits_of(CausalLMOutput(logits=X)) is X
    assert logits_of({"loss": None, "logits": X}) is X
    assert logits_of((X, None)) is X
    for odd in (None, (), [None], 3.0, {"last_hidden_state": X}):
        with pytest.raises(ValueError, match="no logits are to be found"):
            logits_of(odd)


def test_a_module_does_what_stands_for_it_for_a_while_also_where_it_has_a_forward_of_its_own():
    module = nn.Linear(2, 2)
    x = torch.ones(1, 2)
    with replaced_forward(module, lambda x: x + 1):
        with replaced_forward(module, lambda x: x + 2):
            assert torch.equal(module(x), x + 2)
        assert torch.equal(module(x), x + 1)
    assert "forward" not in module.__dict__ and not torch.equal(module(x), x + 1)
