"""Activations wherever there is room for them: what is read is what was written."""

from pathlib import Path

import pytest
import torch
from torch import nn

from raylab.evaluate import PrefixWalk
from raylab.evaluate.boundary import GB, Boundary
from raylab.types import Budget
from tests.evaluate.whole_passes import visible, walked

CPU = torch.device("cpu")
X = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(50) % 16


def held(tensors, budget: Budget) -> Boundary:
    boundary = Boundary(len(tensors), CPU, budget)
    for k, tensor in enumerate(tensors):
        boundary[k] = tensor
    return boundary


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_does_not_fit_in_memory_goes_to_disk_and_comes_back_bit_for_bit(tmp_path, dtype):
    tensors = [torch.randn(8, 32, generator=torch.Generator().manual_seed(k)).mul(100).to(dtype) for k in range(4)]
    room = 2 * tensors[0].nbytes / GB
    boundary = held(tensors, Budget(host_gb=room, folder=str(tmp_path)))
    assert boundary.bytes_held("host") == 2 * tensors[0].nbytes and boundary.bytes_held("gpu") == 0
    assert boundary.bytes_held("disk") >= 2 * tensors[0].nbytes
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    assert all(torch.equal(boundary[k], tensor) for k, tensor in enumerate(tensors))


def test_a_new_tensor_takes_the_place_of_the_old_one_on_disk_too(tmp_path):
    boundary = held([X, X], Budget(host_gb=0, folder=str(tmp_path)))
    boundary[1] = X[:3] + 1
    assert torch.equal(boundary[0], X) and torch.equal(boundary[1], X[:3] + 1)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_files_are_gone_with_the_boundary(tmp_path):
    boundary = held([X], Budget(host_gb=0, folder=str(tmp_path)))
    assert list(tmp_path.iterdir())
    del boundary
    assert not list(tmp_path.iterdir())


def test_a_view_does_not_keep_all_that_it_is_a_view_of():
    large = torch.randn(1000, 64)
    boundary = held([large[:2], large.expand(2, 1000, 64)[0, :1]], Budget())
    assert [boundary[k].untyped_storage().nbytes() for k in (0, 1)] == [2 * 64 * 4, 64 * 4]


def test_reading_what_is_not_there_is_an_error():
    with pytest.raises(IndexError, match="no activations of batch 1"):
        Boundary(2, CPU, Budget())[1]


def model() -> nn.Module:
    torch.manual_seed(0)
    inside = [nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True)) for _ in range(4)]
    return visible(nn.Sequential(*inside, nn.Linear(16, 16)))


@pytest.mark.parametrize("rows_in_memory", [0, 25, 50])
def test_a_walk_is_the_same_wherever_its_activations_lie(tmp_path, rows_in_memory):
    budget = Budget(host_gb=rows_in_memory * 16 * 4 / GB, folder=str(tmp_path))
    walk = PrefixWalk(model(), X, Y, 10, budget=budget)
    plain = PrefixWalk(model(), X, Y, 10)
    for name in ("1.0.weight", "3.0.weight", "4.weight"):
        walk.advance_to([name])
        plain.advance_to([name])
        assert walk.evaluate() == walk.evaluate() == plain.evaluate()
        on_disk = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
        assert len(on_disk) == (50 - rows_in_memory + 9) // 10
    walk.rewind()
    assert not list(tmp_path.iterdir())
    assert walk.evaluate() == plain.evaluate()


def test_modules_that_work_in_place_do_not_spoil_what_is_held():
    walked(model(), X[:6], Y[:6])
