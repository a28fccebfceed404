"""Regions of a storage against sets of positions, and histories against arrays that are really written."""

import itertools

import numpy as np
import pytest

from raylab.models.recording.entry_laws import Constant, Normal, Uninitialised, affine
from raylab.models.recording.memory import MOST_PATCHES, Region, filled, law_at, law_of, mapped, whole

REGIONS = [
    whole(24),
    Region(0, (4, 6), (6, 1)),
    Region(0, (6, 4), (1, 6)),
    Region(6, (6,), (1,)),
    Region(3, (4,), (6,)),
    Region(12, (2, 6), (6, 1)),
    Region(2, (5,), (0,)),
    Region(0, (3, 3), (1, 1)),
    Region(7, (), ()),
]


def positions(region):
    return region.of(np.arange(24)).ravel()


@pytest.mark.parametrize("region", REGIONS)
def test_regions(region):
    at = positions(region)
    assert (region.numel, region.offset, region.last) == (at.size, at.min(), at.max())
    assert region.injective <= (len(set(at)) == at.size)
    assert region.dense <= (sorted(at) == list(range(at.min(), at.max() + 1)))


@pytest.mark.parametrize(("one", "other"), list(itertools.product(REGIONS, REGIONS)))
def test_what_is_said_of_two_regions_is_sure(one, other):
    if one.holds(other):
        assert set(positions(other)) <= set(positions(one))
    if one.apart(other):
        assert not set(positions(other)) & set(positions(one))


def test_histories_of_fills_and_scalings_against_an_array():
    rng = np.random.default_rng(0)
    for _ in range(300):
        patches, array = filled((), whole(24), Constant(1.0)), np.ones(24, np.float32)
        for step in range(5):
            region = REGIONS[rng.integers(6)]  # those without overlap of their own
            if rng.random() < 0.5:
                patches = filled(patches, region, Constant(float(step)))
                region.of(array)[...] = step
            elif (new := mapped(patches, region, lambda law: affine(law, 2.0, 1.0))) is not None:
                patches = new
                region.of(array)[...] = region.of(array) * 2 + 1
        for region in REGIONS:
            assert np.array_equal(law_of(patches, region).draw(rng, region.size), region.of(array))


def test_a_part_drawn_from_one_law_has_that_law_and_a_mixture_has_none():
    patches = filled(filled((), whole(24), Normal(0.0, 1.0)), REGIONS[3], Constant(0.0))
    assert law_at(patches, REGIONS[5]) == Normal(0.0, 1.0)
    assert law_at(patches, REGIONS[3]) == Constant(0.0)
    assert law_at(patches, REGIONS[1]) is None


def test_a_tensor_that_is_not_written_everywhere_has_no_law():
    assert law_of(filled((), REGIONS[3], Constant(0.0)), whole(24)) == Uninitialised()


def test_too_many_pieces_are_no_simple_program():
    patches = ()
    for k in range(MOST_PATCHES):
        patches = filled(patches, Region(k, (1,), (1,)), Constant(0.0))
    assert filled(patches, Region(100, (1,), (1,)), Constant(0.0)) is None
