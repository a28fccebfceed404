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
        boundary[k] = [tensor]
    return boundary


def whole(boundary: Boundary, k: int) -> torch.Tensor:
    (tensor,) = boundary.rows(k, 0, 1_000_000)
    return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_does_not_fit_in_memory_goes_to_disk_and_comes_back_bit_for_bit(tmp_path, dtype):
    tensors = [torch.randn(8, 32, generator=torch.Generator().manual_seed(k)).mul(100).to(dtype) for k in range(4)]
    room = 2 * tensors[0].nbytes / GB
    boundary = held(tensors, Budget(host_gb=room, folder=str(tmp_path)))
    assert boundary.bytes_held("host") == 2 * tensors[0].nbytes and boundary.bytes_held("gpu") == 0
    assert boundary.bytes_held("disk") == 2 * tensors[0].nbytes
    assert files_mapped_from(tmp_path) == 2
    assert all(torch.equal(whole(boundary, k), tensor) for k, tensor in enumerate(tensors))


def files_mapped_from(folder: Path) -> int:
    """How many files of a folder this process has mapped, whether they still have a name or not."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_new_tensor_takes_the_place_of_the_old_one_on_disk_too(tmp_path):
    boundary = held([X, X], Budget(host_gb=0, folder=str(tmp_path)))
    boundary[1] = [X[:3] + 1]
    assert torch.equal(whole(boundary, 0), X) and torch.equal(whole(boundary, 1), X[:3] + 1)
    assert files_mapped_from(tmp_path) == 2


def test_files_are_gone_with_the_boundary_and_with_a_process_that_is_killed(tmp_path):
    boundary = held([X], Budget(host_gb=0, folder=str(tmp_path)))
    assert files_mapped_from(tmp_path) == 1
    assert not list(tmp_path.iterdir()), "nobody would take away what a killed worker has left"
    del boundary
    assert not files_mapped_from(tmp_path)


@pytest.mark.parametrize("lay", [lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x.mT])
def test_on_disk_a_tensor_lies_as_in_memory(lay):
    tensor = lay(torch.randn(2, 3, 4, 5))
    back = whole(held([tensor], Budget(host_gb=0)), 0)
    assert torch.equal(back, tensor) and back.stride() == tensor.stride()


def test_an_expanded_tensor_fits_on_disk():
    assert torch.equal(whole(held([X[:, :1].expand(50, 3)], Budget(host_gb=0)), 0), X[:, :1].expand(50, 3))


def test_a_view_does_not_keep_all_that_it_is_a_view_of():
    large = torch.randn(1000, 64)
    boundary = held([large[:2], large.expand(2, 1000, 64)[0, :1]], Budget())
    assert [whole(boundary, k).untyped_storage().nbytes() for k in (0, 1)] == [2 * 64 * 4, 64 * 4]


def test_reading_what_is_not_there_is_an_error():
    with pytest.raises(IndexError, match="no activations of batch 1"):
        Boundary(2, CPU, Budget()).rows(1, 0, 1)


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
        assert files_mapped_from(tmp_path) == (50 - rows_in_memory + 9) // 10
    walk.rewind()
    assert not files_mapped_from(tmp_path)
    assert walk.evaluate() == plain.evaluate()


def test_modules_that_work_in_place_do_not_spoil_what_is_held():
    walked(model(), X[:6], Y[:6])
