import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raylab.data import digits
from raylab.evaluate import Evaluation, PrefixWalk, score
from raylab.models.fcn import FCN
from raylab.perturb import perturbed

DATA = digits.load()
X, Y = torch.from_numpy(DATA.test_x), torch.from_numpy(DATA.test_y)


def network() -> FCN:
    model = FCN(64, 10, depth=4, width=33)
    return model.load(model.initial_state(np.random.default_rng(1)))


def new_weights(model: nn.Module, layer: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    named = model.get_submodule(layer).named_parameters()
    return {name: rng.standard_normal(p.shape).astype(np.float32) * 0.2 for name, p in named}


class Calls:
    """Counts how often modules run."""

    def __init__(self, model: nn.Module) -> None:
        self.names: list[str] = []
        for name, module in model.named_children():
            module.register_forward_hook(lambda *_, name=name: self.names.append(name))


class TinyResNet(nn.Module):
    """A skip connection, two layers in one stage, batch norm, dropout: what a prefix must respect."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 1)})
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 10)

    def _residual(self, x: Tensor) -> Tensor:
        return x + self.block["b"](self.block["a"](x).relu())

    def _classify(self, x: Tensor) -> Tensor:
        return self.head(self.drop(x.mean((2, 3))))

    @property
    def stages(self):
        return [lambda x: self.norm(self.stem(x)), self._residual, self._classify]

    def stage_of(self, layer: str) -> int:
        return {"stem": 0, "block.a": 1, "block.b": 1, "head": 2}[layer]

    def forward(self, x: Tensor) -> Tensor:
        return self._classify(self._residual(self.norm(self.stem(x))))


def models():
    torch.manual_seed(0)
    return [(network(), X), (TinyResNet().train(), X.view(-1, 1, 8, 8))]


@pytest.mark.parametrize("batch_size", [1, 100, 497, 1000])
@pytest.mark.parametrize("which", [0, 1], ids=["fcn", "resnet"])
def test_every_layer_of_a_walk_gives_what_whole_forward_passes_give_bit_for_bit(which, batch_size):
    model, x = models()[which]
    walk = PrefixWalk(model, x, Y, batch_size)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        walk.advance_to(model.stage_of(layer))
        for arrays in (None, new_weights(model, layer)):
            with perturbed(model, layer, arrays or {}), torch.no_grad():
                logits = torch.cat([model(batch) for batch in x.split(batch_size)])
                whole = Evaluation(0, 0.0, 0)
                for part, labels in zip(logits.split(batch_size), Y.split(batch_size), strict=True):
                    whole += score(part, labels)
                assert walk.evaluate() == whole


def test_accuracy_and_loss_against_numpy():
    model = network()
    with torch.no_grad():
        logits = model(X).double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    result = PrefixWalk(model, X, Y, 50).evaluate()
    assert result.num_samples == 497
    assert result.accuracy == (logits.argmax(1) == DATA.test_y).mean()
    assert result.loss == pytest.approx(-log_p[np.arange(497), DATA.test_y].mean(), rel=1e-6)


def test_stages_below_the_boundary_do_not_run_again():
    model = network()
    walk, calls = PrefixWalk(model, X, Y, 1000), Calls(model)
    walk.advance_to(model.stage_of("fc3"))
    assert calls.names == ["fc1", "fc2"]
    walk.evaluate()
    assert calls.names[2:] == ["fc3", "fc4", "fc5"]
    walk.advance_to(model.stage_of("fc3"))
    list(walk.outputs(model.get_submodule("fc3")))
    assert calls.names[5:] == ["fc3"]


def test_a_walk_goes_one_way():
    walk = PrefixWalk(network(), X, Y)
    walk.advance_to(4)
    for stage in (3, 9, -1):
        with pytest.raises(ValueError, match="cannot walk from stage 4"):
            walk.advance_to(stage)


def test_watching_gives_the_layers_own_output_also_inside_a_stage():
    model, x = models()[1]
    walk = PrefixWalk(model, x, Y, 100)
    walk.advance_to(1)
    inner = model.block["b"]
    seen: dict[int, Tensor] = {}
    plain = walk.evaluate()
    assert walk.evaluate((inner, seen.__setitem__)) == plain
    with torch.no_grad():
        stem = [model.norm(model.stem(batch)) for batch in x.split(100)]
        expected = [inner(model.block["a"](batch).relu()) for batch in stem]
    assert list(seen) == list(range(5))
    for k, output in enumerate(walk.outputs(inner)):
        assert torch.equal(output, expected[k]) and torch.equal(seen[k], expected[k])
    assert not inner._forward_hooks


def test_the_walk_puts_the_model_into_evaluation_mode_and_needs_no_gradients():
    model, x = models()[1]
    walk = PrefixWalk(model, x, Y)
    assert not model.training
    assert walk.evaluate() == walk.evaluate()  # dropout would differ
    assert not any(output.requires_grad for output in walk.outputs(model.stem))


def test_when_memory_runs_out_the_batch_is_halved_and_the_result_stays():
    model, x = models()[1]
    expected = PrefixWalk(model, x, Y, 8).evaluate()
    sizes: list[int] = []

    def small_memory(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.head.register_forward_pre_hook(small_memory)
    walk = PrefixWalk(model, x, Y, 400)
    seen: list[Tensor] = []
    result = walk.evaluate((model.stem, lambda k, output: seen.append(output)))
    assert (result.correct, result.num_samples) == (expected.correct, 497)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert walk.batch_size == 50 and sizes[:4] == [400, 200, 100, 50]
    assert [len(output) for output in seen] == [400, 97]  # whole batches, each once, whatever the halving


def test_a_single_sample_that_does_not_fit_is_an_error():
    model = network()

    def no_memory(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.get_submodule("fc5").register_forward_pre_hook(no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        PrefixWalk(model, X, Y, 4).evaluate()


def test_texts_are_scored_a_token_at_a_time_without_the_padding():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, -100, -100], [0, 0, 0, 0, 0], [6, 5, 4, 3, -100]])
    result = score(logits, labels)
    kept = labels != -100
    assert result.num_samples == 12
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(logits[kept], labels[kept])), rel=1e-6)
    assert result.correct == int((logits.argmax(-1) == labels)[kept].sum())


def test_a_sample_whose_logits_are_nan_is_wrong():
    logits = torch.tensor([[np.nan, np.nan], [2.0, 1.0], [np.inf, 0.0]])
    result = score(logits, torch.tensor([0, 0, 0]))
    assert result.correct == 2 and np.isnan(result.loss)


def test_evaluations_of_parts_add_up():
    model = network()
    parts = [PrefixWalk(model, X[rows], Y[rows]).evaluate() for rows in (slice(0, 200), slice(200, None))]
    whole = PrefixWalk(model, X, Y).evaluate()
    total = parts[0] + parts[1]
    assert (total.correct, total.num_samples) == (whole.correct, whole.num_samples)
    assert total.loss == pytest.approx(whole.loss, rel=1e-6)


def test_what_cannot_be_walked_is_refused():
    with pytest.raises(ValueError, match="Linear has no stages"):
        PrefixWalk(nn.Linear(64, 10), X, Y)
    with pytest.raises(ValueError, match="497 samples and 3 labels"):
        PrefixWalk(network(), X, Y[:3])
    with pytest.raises(ValueError, match="0 samples"):
        PrefixWalk(network(), X[:0], Y[:0])
