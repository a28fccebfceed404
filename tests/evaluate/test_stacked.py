"""Several changes of a layer in one pass against each by itself."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raylab.evaluate import PrefixWalk
from raylab.evaluate.stacked import stacked
from tests.evaluate.whole_passes import visible

DRAWS = 3
IDS = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(0))
NEXT = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 3, 1, 2])


class Language(nn.Module):
    """Embedding and head are one tensor; attention reads the weight of its out_proj itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.fc(x).tanh())


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.body, self.head = nn.Conv2d(4, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.norm(self.stem(x)).relu()).relu().mean((2, 3)))


def built(make) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return visible(make())


def variants(model: nn.Module, names: list[str]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in names}
    return [
        {name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(DRAWS)
    ]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Language, ["embed.weight"]),  # and the head with it
        (Language, ["attention.in_proj_weight", "attention.in_proj_bias"]),
        (Language, ["fc.weight", "fc.bias"]),
        (Images, ["stem.weight", "stem.bias"]),
        (Images, ["norm.weight", "norm.bias"]),
        (Images, ["body.weight"]),
        (Images, ["head.weight", "head.bias"]),
        (Images, ["stem.weight", "head.weight"]),
    ],
)
def test_several_at_once_are_each_by_itself(make, names):
    model = built(make)
    x, y = (IDS, NEXT) if make is Language else (IMAGES, Y)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    walk = PrefixWalk(model, x, y, batch_size=DRAWS * len(x))
    walk.advance_to(names)
    assert walk.capacity(names) == DRAWS
    some = variants(model, names)
    alone = [walk.evaluate_each([arrays])[0] for arrays in some]
    together = walk.evaluate_each(some)
    assert len({result.total_loss for result in alone}) == DRAWS
    for a, b in zip(alone, together, strict=True):
        assert (a.correct, a.among_five, a.num_samples) == (b.correct, b.among_five, b.num_samples)
        assert b.total_loss == pytest.approx(a.total_loss, rel=1e-5)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_what_is_read_outside_its_module_is_not_stacked():
    model = built(Language)
    walk = PrefixWalk(model, IDS, NEXT, batch_size=100)
    assert walk.capacity(["attention.out_proj.weight"]) == 1
    assert walk.capacity(["fc.weight", "attention.out_proj.weight"]) == 1
    assert walk.capacity(["fc.weight"]) == 25


def test_more_samples_than_a_batch_leave_no_room_for_several():
    model = built(Images)
    walk = PrefixWalk(model, IMAGES, Y, batch_size=3)
    assert walk.capacity(["head.weight"]) == 1
    some = variants(model, ["head.weight"])
    assert walk.evaluate_each(some) == [walk.evaluate_each([arrays])[0] for arrays in some]


def test_a_layer_gets_back_its_own_forward_after_an_error():
    model = built(Images)
    with pytest.raises(RuntimeError), stacked(model, variants(model, ["head.weight"]), 4):
        model(IMAGES[:, :1])
    assert not any("forward" in module.__dict__ for module in model.modules())


class Positions(nn.Module):
    """What the embedding of positions gives has no row for a sample: it is the same for all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions, self.head = nn.Embedding(11, 8), nn.Embedding(12, 8), nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.embed(ids) + self.positions(torch.arange(ids.shape[1]))).tanh())


@pytest.mark.parametrize("length", [7, DRAWS * len(IDS)])  # the latter as many as samples in a stack
def test_an_embedding_of_positions_is_not_stacked(length):
    ids = IDS.repeat(1, 2)[:, :length]
    walk = PrefixWalk(built(Positions), ids, ids.roll(-1, 1), batch_size=DRAWS * len(ids))
    assert walk.capacity(["positions.weight"]) == 1
    assert walk.capacity(["head.weight"]) == DRAWS


def test_a_model_whose_samples_have_a_say_in_one_another_is_not_stacked():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = built(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)))
    walk = PrefixWalk(model, IMAGES, Y, batch_size=DRAWS * len(IMAGES))
    assert {"0.weight", "0.bias"} <= walk.anatomy.contained and walk.capacity(["0.weight"]) == 1
