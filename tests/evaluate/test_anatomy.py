"""Where models can be cut: against whole passes of models that are known to be awkward, and of made-up ones."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raylab.evaluate import PrefixWalk
from raylab.evaluate.anatomy import examine
from raylab.evaluate.boundary import GB
from raylab.evaluate.modules import module_by_module
from raylab.types import Budget
from tests.evaluate.whole_passes import crossing, depths, shaken, visible, walked, whole

WIDTH, CLASSES = 6, 4
X = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(0, 11, (5, 7), generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 3, 1, 2, 2])
NEXT = torch.randint(0, 11, (5, 7), generator=torch.Generator().manual_seed(3))


def built(make, *arguments) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return visible(make(*arguments))


def weights_of(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.ndim > 1]


class UNet(nn.Module):
    """Two levels; the skips are read on the way up. One pooling and one upsampling module serve both levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up2, self.up1 = nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.last, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x).relu()
        two = self.down2(self.pool(one)).relu()
        y = self.middle(self.pool(two)).relu()
        y = self.up2(torch.cat([self.grow(y), two], 1)).relu()
        y = self.up1(torch.cat([self.grow(y), one], 1)).relu()
        return self.head(self.last(y).mean((2, 3)))


def test_the_skips_of_a_unet_cross_its_cuts():
    model = built(UNet)
    walk = walked(model, IMAGES, Y)
    found = {name: [place for place, _ in crossing(walk, name)] for name in weights_of(model)}
    assert found == {
        "down1.weight": [],
        "down2.weight": ["down1"],
        "middle.weight": ["down1", "down2"],
        "up2.weight": ["down1", "down2", "middle"],
        "up1.weight": ["down1", "up2"],
        "last.weight": ["up1"],
        "head.weight": ["last"],
    }


def test_what_does_not_fit_into_memory_beside_the_skips_starts_where_nothing_else_crosses():
    model = built(UNet)
    row = 4 * 16 * 16 * 4
    walk = walked(model, IMAGES, Y, budget=Budget(host_gb=len(Y) * 1.5 * row / GB))  # all three are more
    assert depths(walk, weights_of(model)) == [None, "down1", "down2", "down2", "up2", "up1", "last"]


class Chain(nn.Module):
    """a, b, c, d in a row; `forward` is what differs between the models below."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcd":
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)


class Twice(Chain):
    """b runs twice: what is between must be run again."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.d(self.b(self.c(self.b(self.a(x).tanh()).tanh()).tanh()).tanh()).tanh())


class Branches(Chain):
    """Which way it goes depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        x = self.b(x) if x.sum() > 0 else self.c(x)
        return self.head(self.d(x.tanh()).tanh())


class BranchesOnInput(Chain):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).tanh()
        y = self.b(y) if x[0, 0] > 0 else self.c(y)
        return self.head(self.d(y.tanh()).tanh())


class RareSkip(Chain):
    """A skip that the samples which are watched, the first, do not take."""

    first: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x).tanh()
        y = self.c(self.b(early).tanh()).tanh()
        if self.first is None:
            self.first = float(y[0, 0])
        if y[0, 0] != self.first:
            y = y + early
        return self.head(self.d(y).tanh())


class EarlyExit(Chain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        for block in (self.b, self.c, self.d):
            x = block(x).tanh()
            if x.mean() > 0:
                break
        return self.head(x)


class ReadsInput(Chain):
    """The input is read again at the end."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.d(self.c(self.b(self.a(x).tanh()).tanh()) + x).tanh())


class InPlace(Chain):
    """What a module gave is changed by what follows, also through a view."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, 0].add_(1)
        y = self.b(y.relu_())
        torch.tanh_(y)
        return self.head(self.d(self.c(y).tanh_()).relu_())


class InPlaceSkip(Chain):
    """The skip is an alias of what is changed."""

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        y = self.b(skip.relu_()).tanh()
        skip += 1
        return self.head(self.d(self.c(y) + skip).tanh())


class WritesToInput(Chain):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return self.head(self.d(self.c(self.b(self.a(x).tanh()).tanh()).tanh()).tanh())


class Doubling(nn.Module):
    """Changes what it is given, and gives it back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class WritingModules(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.doubled, self.again = Doubling(), Doubling()

    def forward(self, x: Tensor) -> Tensor:
        y = self.doubled(self.a(x))
        y = self.c(self.b(y).tanh())
        return self.head(self.d(self.again(y)).tanh())


class WritesWithoutGiving(nn.Module):
    def forward(self, x: Tensor) -> None:
        x.tanh_()


class SideEffect(Chain):
    """A module without an output works on what another gave."""

    def __init__(self) -> None:
        super().__init__()
        self.squash = WritesWithoutGiving()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.squash(y)
        y = self.b(y)
        self.squash(y)
        return self.head(self.d(self.c(y).tanh()).tanh())


class Passing(Chain):
    """Modules that give back their input, or a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.drop, self.flat = nn.Identity(), nn.Dropout(0.5), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x)
        y = self.same(early).tanh()
        y = self.b(self.drop(y)) + early  # read past the Identity
        y = self.flat(self.c(y).tanh().view(-1, 2, 3))
        return self.head(self.drop(self.d(y)))


class Pair(nn.Module):
    """Several outputs, in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
        return self.one(pair[0]).tanh(), {"two": self.two(pair[0] + pair[1]).tanh()}, 3


class Tuples(Chain):
    """Two tensors cross in the first half, one of two in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Pair(), Pair()

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        one, rest, count = self.first((self.a(x), self.b(x)))
        _, rest, _ = self.second((one, rest["two"]))
        y = self.d(self.c(rest["two"]).tanh()).tanh() * count
        return self.head(y), count


class Uncut(nn.Module):
    """Every module gives something that the end reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Parameter(torch.randn(CLASSES, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(sum(seen)).tanh())
        return functional.linear(torch.stack(seen).prod(0), self.head)


class Functional(Chain):
    """A layer's weight is read outside it, before it runs."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(self.a(x).tanh(), self.c.weight)
        return self.head(self.d(self.c(self.b(x).tanh()).tanh()).tanh())


class Cached(Chain):
    """Something is left behind on a module, and read from there later."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.a(x).tanh()
        y = self.c(self.b(self.kept).tanh()).tanh()
        return self.head(self.d(y + self.kept).tanh())


class Scratch(Chain):
    """What a module gave is kept in a tensor that was there before."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.zeros(len(x), WIDTH)
        kept[:, 1:] = self.a(x)[:, 1:]
        y = self.c(self.b(kept).tanh()).tanh()
        return self.head(self.d(y + kept).tanh())


class Gated(nn.Module):
    """A block that makes its gate from another tensor, given by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        return self.fc(x).tanh() * (1 if context is None else self.gate(context).sigmoid())


class Keywords(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Gated() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        context = self.a(x)
        for block in self.blocks:
            x = block(x, context=context)
        return self.head(self.d(x))


class Resized(Chain):
    """One module gives two shapes, and the outer forward puts them together."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        long = self.pool(self.a(x))
        y = torch.cat([long, self.pool(long[:, :2]), long[:, :2]], 1)
        return self.head(self.d(self.c(self.b(y).tanh()).tanh()).tanh())


class Masked(nn.Module):
    """Hands on the mask that it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (self.fc(x) * mask).tanh(), mask


class PassesMask(Chain):
    """Integers, for which a stub's stand in is zero and no NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Masked(), Masked()

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(len(x), WIDTH, dtype=torch.int64)
        mask[:, 0] = 0
        y, mask = self.first(self.b(self.a(x)), mask)
        y, mask = self.second(y, mask)
        return self.head(self.d(y) * mask + self.c(y) * (1 - mask))


class WithTable(nn.Module):
    """Gives its table beside its output: as many rows as it has columns, whatever the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x).tanh(), self.table


class ReadsTable(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.with_table = WithTable()

    def forward(self, x: Tensor) -> Tensor:
        y, table = self.with_table(self.b(self.a(x)))
        return self.head(self.d(self.c(y) @ table).tanh())


class Numbers(Chain):
    """Which way it goes depends on numbers that Python gets without an operation."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x).tanh()
        y = self.c(self.b(early).tanh()).tanh()
        if y.tolist()[0][0] > 0:
            y = y + early
        return self.head(self.d(y).tanh())


class Numpy(Chain):
    def forward(self, x: Tensor) -> Tensor:
        early = torch.from_numpy(self.a(x).numpy() * 2)
        return self.head(self.d(self.c(self.b(x).tanh()) + early).tanh())


class AsksWeights(Chain):
    """A skip that is taken where weights are large, as drawn ones may be."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x).tanh()
        y = self.c(self.b(early).tanh()).tanh()
        if self.d.weight.abs().mean() > 0.25:
            y = y + early
        return self.head(self.d(y).tanh())


class Mean(nn.Module):
    """Gives a number of Python's beside a tensor, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.kept = nn.Linear(WIDTH, WIDTH), 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, float]:
        self.kept = float(x.mean())
        return self.fc(x).tanh(), self.kept


class GivesNumber(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.mean = Mean()

    def forward(self, x: Tensor) -> Tensor:
        y, mean = self.mean(self.b(self.a(x)))
        return self.head(self.d(self.c(y).tanh() * mean))


class KeepsNumber(GivesNumber):
    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.mean(self.b(self.a(x)))
        return self.head(self.d(self.c(y).tanh() * self.mean.kept))


class PastTheModule(Chain):
    """A module's forward is called without the module."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(self.b(self.a(x).tanh()).tanh()).tanh()
        return self.head(self.d(self.b.forward(y).tanh()))


class Hooked(Chain):
    """Hooks of its own change what a module is given and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.b.register_forward_hook(lambda module, given, out: out * 2)
        self.c.register_forward_pre_hook(lambda module, given: (given[0] * 2,))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.d(self.c(self.b(self.a(x).tanh()).tanh()).tanh()))


class Scripted(Chain):
    """A module that takes no hooks."""

    def __init__(self) -> None:
        super().__init__()
        example = torch.zeros(2, WIDTH)
        self.traced = torch.jit.trace(nn.Linear(WIDTH, WIDTH), example)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.d(self.c(self.traced(self.b(self.a(x).tanh())).tanh()).tanh()))


CUT_BELOW = {  # for a, b, c, d: the module whose output they are evaluated from
    Twice: [None, "a", "a", "c"],
    Branches: [None] * 4,
    BranchesOnInput: [None] * 4,
    RareSkip: [None] * 4,
    EarlyExit: [None] * 4,
    ReadsInput: [None] * 4,
    InPlace: [None, "a", "b", "c"],
    InPlaceSkip: [None, "a", "a", "a"],
    WritesToInput: [None, "a", "b", "c"],
    WritingModules: [None, "doubled", "b", "again"],
    SideEffect: [None, "a", "b", "c"],
    Passing: [None, "a", "b", "flat"],
    Tuples: [None, None, "second", "c"],
    Uncut: [None] * 4,
    Functional: [None, "a", "a", "c"],
    Cached: [None, "a", "b", "c"],
    Scratch: [None, "a", "b", "c"],
    Keywords: [None, None, None, "blocks.2"],
    Resized: [None, "a", "b", "c"],
    PassesMask: [None, "a", "first.fc", "first.fc"],
    ReadsTable: [None, "a", "with_table.fc", "with_table.fc"],
    Numbers: [None] * 4,
    Numpy: [None] * 4,
    AsksWeights: [None] * 4,
    GivesNumber: [None, "a", "b", "b"],
    KeepsNumber: [None, "a", "b", "b"],
    PastTheModule: [None, "a", "a", "a"],
    Hooked: [None, "a", "b", "c"],
}


@pytest.mark.parametrize("make", CUT_BELOW)
def test_an_awkward_model_is_cut_where_that_is_right_and_nowhere_else(make):
    model = built(make)
    walk = walked(model, X, Y, chosen=lambda name: not name.startswith("second.one"))  # which nobody reads
    layers = [f"layers.{k}.weight" for k in range(4)] if make is Uncut else [f"{name}.weight" for name in "abcd"]
    assert depths(walk, layers) == CUT_BELOW[make]


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_a_module_that_takes_no_hooks_is_run_again_with_its_parent():
    model = built(Scripted)
    assert depths(walked(model, X, Y), [f"{name}.weight" for name in "abcd"]) == [None, "a", "b", "c"]


class Sparse(Chain):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.sparse.mm(self.a(x).to_sparse(), self.b.weight)
        return self.head(self.d(self.c(y).tanh()).tanh())


class OneByOne(Chain):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return self.head(self.d(torch.vmap(self.c)(self.b(self.a(x).tanh()).tanh())).tanh())


@pytest.mark.parametrize("make", [Sparse, OneByOne])
def test_a_model_whose_tensors_have_no_storage_is_run_whole(make):
    model = built(make)
    walk = walked(model, X, Y)
    assert depths(walk, [f"{name}.weight" for name in "abcd"]) == [None] * 4 and walk.capacity(["a.weight"]) == 1


class Trimmed(nn.Module):
    """A text is as long as the longest in its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.trim, self.embed, self.fc, self.head = Trim(), nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        long = self.trim(ids).shape[1]
        return self.head(self.fc(self.embed(ids)[:, :long]).tanh().sum(1))


class Trim(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return ids[:, : int((ids > 0).sum(1).max())].clone()


def test_a_length_that_depends_on_the_samples_is_not_that_of_others():
    ids = torch.where(torch.arange(9) < torch.tensor([[2], [3], [5], [4], [8]]), torch.arange(1, 10), 0)
    walk = walked(built(Trimmed), ids, Y)
    assert depths(walk, ["embed.weight", "fc.weight", "head.weight"]) == [None, None, "fc"]


class Residual(nn.Module):
    """A block as transformers have it; `attend` stands for what is computed between modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.act, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.project(functional.scaled_dot_product_attention(q, k, v))
        return x + self.down(self.act(self.up(self.norm2(x))))


def test_within_a_block_a_pass_begins_at_its_last_product_with_what_the_skips_need():
    model = built(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Residual(), Residual(), nn.Linear(WIDTH, CLASSES)))
    walk = walked(model, X[:, None], Y)
    found = {
        name: [place for place, _ in crossing(walk, f"2.{name}.weight")] for name in ("qkv", "project", "up", "down")
    }
    assert found == {
        "qkv": ["1"],  # what a norm costs is not worth a second tensor
        "project": ["1", "2.qkv"],
        "up": ["1", "2.project"],
        "down": ["1", "2.project", "2.act"],
    }
    assert [place for place, _ in crossing(walk, "3.weight")] == ["2"]


class Encoder(nn.Module):
    """torch's own transformer, whose layers run as one operation where nothing is hooked to them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embed, self.layers, self.head = nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(ids)))


def test_torchs_transformer_layers_run_module_by_module():
    model = built(Encoder)
    walk = PrefixWalk(model, IDS, NEXT, 2)
    assert depths(walk, ["layers.layers.0.linear1.weight", "head.weight"]) == ["layers.layers.0.norm1", "layers"]
    for name in ("layers.layers.0.linear1.weight", "layers.layers.1.linear2.weight", "head.weight"):
        walk.advance_to([name])
        with shaken(model, name):
            assert torch.backends.mha.get_fastpath_enabled()
            with module_by_module():  # as one operation the last digits are others
                expected = whole(model, IDS, NEXT, 2)
            assert walk.evaluate() == expected


def test_a_parameter_that_the_pass_does_not_read_is_taken_to_be_the_first():
    model = built(Chain)
    model.forward = lambda x: model.head(model.d(model.a(x)))
    walk = PrefixWalk(model, X, Y, 2)
    assert depths(walk, ["a.weight", "b.weight", "d.weight", "head.weight"]) == [None, None, "a", "d"]


class Tied(nn.Module):
    """A small language model whose head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.fc(self.embed(ids)).tanh())


def test_tied_weights_come_into_play_with_the_first_of_them():
    anatomy = examine(built(Tied), IDS[:2])
    assert anatomy.cut_below(["head.weight"]) == anatomy.cut_below(["embed.weight"]) == -1
    assert [cut.module for cut in anatomy.cuts] == ["embed", "fc", "head"]
    assert anatomy.contained == {"embed.weight", "head.weight", "fc.weight", "fc.bias"}


class Windows(nn.Module):
    """Every sample is two windows for the layer; the gain is read by who does not own it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH // 2, WIDTH // 2)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(self.embed(x).view(-1, WIDTH // 2)).view(len(x), -1)
        return self.head(functional.layer_norm(y * self.gain, (WIDTH,), self.norm.weight))


def test_contained_are_parameters_read_at_home_with_a_row_for_each_sample():
    anatomy = examine(built(Windows), X[:2])
    assert anatomy.contained - {"norm.bias"} == {"embed.weight", "embed.bias", "head.weight", "head.bias"}


def test_watching_leaves_nothing_on_the_model():
    model = built(Chain)
    model.forward = lambda x: model.head(model.a(x))
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    hooks = {name: list(module._forward_hooks) for name, module in model.named_modules()}
    examine(model, X[:2])
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    assert {name: list(module._forward_hooks) for name, module in model.named_modules()} == hooks
