"""Pieces of a search that need no cluster."""

from types import SimpleNamespace

import pytest

from raylab.types import Trial

reporting = pytest.importorskip("raylab.cluster.reporting")


def trial(draw, layer):
    return Trial("e", "m", 0, "c", "d", layer, "original", draw, 0, "m")


@pytest.mark.parametrize("layers", [(None, "fc1", "fc2"), ("fc1", "fc2", None), (None,)])
def test_an_epoch_is_a_whole_model_and_its_layers(layers):
    group = tuple(trial(draw, layer) for draw in range(3) for layer in layers)
    assert [len(chunk) for chunk in reporting.epochs(group)] == [len(layers)] * 3
    assert all(len({each.draw for each in chunk}) == 1 for chunk in reporting.epochs(group))


def test_halving_remembers_what_an_earlier_process_has_seen(tmp_path):
    """A late sample is compared with those of before the restart, which Tune's own state has forgotten."""
    from raylab.cluster.halving import Halving

    def scheduler():
        options = {"time_attr": "epoch", "max_t": 1000, "grace_period": 1, "reduction_factor": 2}
        made = Halving(str(tmp_path / "rungs.jsonl"), **options)
        made.set_search_properties("accuracy", "max")
        return made

    def decision(of, name, accuracy):
        sample = SimpleNamespace(trial_id=name)
        of.on_trial_add(None, sample)
        return of.on_trial_result(None, sample, {"epoch": 1, "accuracy": accuracy})

    first = scheduler()
    assert [decision(first, name, value) for name, value in (("a", 0.8), ("b", 0.9))] == ["CONTINUE", "CONTINUE"]
    again = scheduler()
    assert decision(again, "c", 0.1) == "STOP" and decision(again, "d", 0.99) == "CONTINUE"


def test_a_search_that_goes_on_gives_as_many_samples_as_are_asked_for_now(tmp_path, monkeypatch):
    from raylab.cluster import tuning

    def search(samples):
        monkeypatch.setattr(tuning, "_now", [SimpleNamespace(samples=samples)])
        return tuning._asked(SimpleNamespace(listed=True, max_concurrent=None))

    def given(by):
        numbers = []
        while not by.is_finished():
            trial = by.create_trial_if_possible({"config": {}, "run": "none"})
            numbers.append(trial.config["job"])
        return numbers

    monkeypatch.setattr(
        "ray.tune.search.search_generator._create_trial_from_spec", lambda spec, *_, **__: SimpleNamespace(**spec)
    )
    first = search(3)
    first._total_samples = 3
    assert given(first) == [0, 1, 2]
    first.save_to_dir(str(tmp_path), "session")
    for samples, more in ((3, []), (5, [3, 4]), (2, [])):
        again = search(samples)
        again.restore_from_dir(str(tmp_path))
        assert given(again) == more
