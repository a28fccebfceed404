"""Files of the cache: whole, damaged, foreign, and written by two at once."""

import multiprocessing

import numpy as np
import pytest

from raylab.data import cache
from raylab.errors import UserError

KEY = "0123456789abcdef01234567"


class Maker:
    """Makes an array and counts how often."""

    def __init__(self, array):
        self.array, self.calls = np.asarray(array), 0

    def __call__(self, allocate):
        self.calls += 1
        made = allocate(self.array.shape, self.array.dtype)
        made[...] = self.array
        return made


@pytest.fixture
def maker():
    return Maker(np.arange(24, dtype=np.int32).reshape(2, 3, 4))


def test_an_array_is_made_once(tmp_path, maker):
    first = cache.cached(tmp_path / "new", KEY, maker)
    again = cache.cached(str(tmp_path / "new"), KEY, maker)
    assert maker.calls == 1 and first.digest == again.digest and len(first.digest) == 24
    for stored in (first, again):
        np.testing.assert_array_equal(stored.array, maker.array)
        assert stored.array.dtype == np.int32 and not stored.array.flags.writeable
    np.testing.assert_array_equal(np.load(tmp_path / "new" / f"{KEY}.npy"), maker.array)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{KEY}.npy"]


def test_the_digest_is_of_type_shape_and_content(tmp_path):
    arrays = (np.arange(4), np.arange(4).reshape(2, 2), np.arange(4, dtype=np.uint8), np.array([0, 1, 2, 4]))
    found = {cache.cached(tmp_path, f"{place:024}", Maker(array)).digest for place, array in enumerate(arrays)}
    assert len(found) == len(arrays)
    assert cache.cached(tmp_path, KEY, Maker(np.arange(4))).digest in found


def test_a_large_array_is_digested_in_pieces(tmp_path, maker, monkeypatch):
    whole = cache.cached(tmp_path, KEY, maker).digest
    monkeypatch.setattr(cache, "PIECE", 7)
    assert cache.cached(tmp_path / "again", KEY, maker).digest == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, other: content[:-1],
        lambda content, other: content[: len(content) // 2],
        lambda content, other: content[:40],
        lambda content, other: b"",
        lambda content, other: content + b"x",
        lambda content, other: other,  # of another key, whole in itself
        lambda content, other: content[:-70] + bytes(70),  # a crash before the end was on the disk
        lambda content, other: b"\x80\x04N.",  # a pickle
        lambda content, other: b"PK\x03\x04",  # an archive
    ],
)
def test_a_damaged_or_foreign_file_is_made_anew(tmp_path, maker, damage):
    path, other = tmp_path / f"{KEY}.npy", tmp_path / f"{KEY[::-1]}.npy"
    cache.cached(tmp_path, KEY, maker)
    cache.cached(tmp_path, KEY[::-1], Maker(maker.array + 1))
    whole = path.read_bytes()
    path.write_bytes(damage(whole, other.read_bytes()))
    np.testing.assert_array_equal(cache.cached(tmp_path, KEY, maker).array, maker.array)
    assert maker.calls == 2 and path.read_bytes() == whole


def test_what_fails_leaves_nothing(tmp_path, maker):
    def failing(allocate):
        maker(allocate)
        raise UserError("no such image")

    with pytest.raises(UserError, match="no such image"):
        cache.cached(tmp_path, KEY, failing)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, maker, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^The cache folder .*/file/sub cannot be used .*data\.cache=FOLDER\.$"):
        cache.cached(tmp_path / "file" / "sub", KEY, maker)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left on device"):
        cache.cached(tmp_path, KEY, maker)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _load(folder, start, answers):
    rng = np.random.default_rng(1)
    start.wait()
    stored = cache.cached(folder, KEY, Maker(rng.integers(0, 256, (300, 3, 64, 64), dtype=np.uint8)))
    answers.put((stored.digest, int(stored.array.sum(dtype=int))))


def test_processes_at_once_do_not_clash(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_load, args=(tmp_path, start, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1 and [path.name for path in tmp_path.iterdir()] == [f"{KEY}.npy"]
