from dataclasses import replace

import numpy as np
import pytest

from raylab.types import Trial, digest, generator

TRIAL = Trial("e", "m", 0, "c", "d", "fc1", "reinit", 0, 0, "v")


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1}) != digest({"a": 1, "b": [3, 2]})


def test_every_field_of_a_trial_is_part_of_its_identity():
    changed = [
        replace(TRIAL, **{name: "x" if isinstance(getattr(TRIAL, name), str) else 7})
        for name, field in Trial.__dataclass_fields__.items()
        if field.compare
    ]
    assert len({trial.id for trial in (TRIAL, *changed)}) == len(changed) + 1


def test_a_trial_has_its_own_numbers_in_every_process():
    first = TRIAL.rng().random(4)
    assert np.array_equal(first, TRIAL.rng().random(4))
    others = [TRIAL.rng("spectrum"), replace(TRIAL, draw=1).rng(), replace(TRIAL, seed=1).rng(), generator(0, "x")]
    assert all(not np.array_equal(first, other.random(4)) for other in others)
    # What any later version must give as well: published results depend on it.
    assert TRIAL.id == "27fa2556617470808747142b"
    assert first[0] == pytest.approx(0.523577673298, abs=1e-12)


def test_what_is_measured_does_not_change_what_is_drawn():
    assert np.array_equal(TRIAL.rng().random(4), replace(TRIAL, metrics="w", own_code="x").rng().random(4))
