"""The experiment without a cluster: which trials there are, and what one computes."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from raylab import config, experiments
from raylab.cluster import inline
from raylab.types import ORIGINAL

TINY = ["debug=tiny", "cluster=inline"]


def built(tmp_path, *overrides):
    return experiments.build(config.compose([*TINY, f"results={tmp_path}", *overrides])[0])


def results(experiment):
    return [r for batch in inline.stream(experiment, experiment.trials()) for r in batch]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    experiment = built(tmp_path_factory.mktemp("tiny"))
    return experiment, results(experiment)


def test_the_trials_of_a_model_are_its_baseline_and_each_layer_with_each_perturbation(tiny):
    experiment, _ = tiny
    trials = [trial for trial in experiment.trials() if trial.replicate == 0]
    assert trials[0].layer is None and trials[0].perturbation == ORIGINAL
    pairs = [(trial.layer, trial.perturbation) for trial in trials[1:]]
    assert pairs == [(f"fc{k}", p) for k in (1, 2, 3) for p in ("original", "reinit", "rerandomize", "reinit_signs")]
    assert len({trial.id for trial in experiment.trials()}) == len(experiment.trials())


def test_only_random_perturbations_are_repeated(tmp_path):
    trials = built(tmp_path, "draws=3", "models=1").trials()
    draws = {
        name: sum(t.perturbation == name and t.layer == "fc1" for t in trials) for name in ("reinit", "rerandomize")
    }
    assert draws == {"reinit": 1, "rerandomize": 3}


def test_every_result_carries_what_the_experiment_declares(tiny):
    experiment, found = tiny
    assert {result.status for result in found} == {"ok"}
    for result in found:
        assert set(result.values) <= set(experiment.columns)
        if result.trial.layer is not None:
            missing = set(experiment.columns) - set(result.values) - {"train_seconds"}
            assert missing <= {"activation_disagreement", "js_divergence", "linear_cka"}
            assert bool(missing) == (result.trial.perturbation == ORIGINAL)


def test_an_eigensolver_measures_with_neither_data_nor_torch(tmp_path):
    """Unpickled from its experiment, it took torch's import and the memory of both in a process of its own."""
    experiment = built(tmp_path, "spectral.device=cpu")
    outcome = next(outcome for outcome in experiment.run(experiment.groups(experiment.trials())[0]) if outcome.layer)
    given = pickle.dumps((experiment.measure, outcome))
    assert len(given) < outcome.weights.nbytes + 8192
    alone = (
        "import pickle, sys; measure, outcome = pickle.load(sys.stdin.buffer); found = measure([outcome]); "
        "assert 'torch' not in sys.modules; sys.stdout.buffer.write(pickle.dumps(found[0].values))"
    )
    done = subprocess.run([sys.executable, "-c", alone], input=given, capture_output=True, timeout=120)
    assert not done.returncode, done.stderr.decode()
    assert pickle.loads(done.stdout) == experiment.measure([outcome])[0].values


def test_the_accuracy_of_a_perturbed_model_is_that_of_a_full_forward_pass(tiny):
    experiment, found = tiny
    for result in found:
        trial = result.trial
        if trial.replicate or trial.perturbation != "reinit":
            continue
        state = experiment.checkpoints.load(trial.checkpoint)
        from raylab.experiments.trained import _initial

        initial = _initial(experiment, trial.checkpoint)
        for name in (f"{trial.layer}.weight", f"{trial.layer}.bias"):
            state[name] = initial[name]
        model = experiment.trainee.make().load(state)
        with torch.no_grad():
            guess = model(torch.from_numpy(experiment.data.test_x)).argmax(1).numpy()
        assert result.values["accuracy"] == np.mean(guess == experiment.data.test_y)


def test_a_trial_gives_the_same_alone_as_among_all_others(tiny):
    experiment, found = tiny
    chosen = found[7]
    again = [r for batch in inline.stream(experiment, [chosen.trial]) for r in batch]
    assert len(again) == 1 and repr(again[0].values) == repr(chosen.values)


def test_a_stack_of_models_is_a_group(tmp_path):
    experiment = built(tmp_path, "models=5", "stack=2")
    assert [len({trial.replicate for trial in group}) for group in experiment.groups(experiment.trials())] == [2, 2, 1]


def test_a_model_to_train_costs_far_more_than_one_that_has_a_checkpoint(tmp_path):
    """So that what the latter take does not set a deadline for a training."""
    experiment = built(tmp_path, "models=2")
    to_do = experiment.groups(experiment.trials())
    list(experiment.run(to_do[0][:1]))
    kept, trained = experiment.costs(to_do)
    assert trained > 1e6 * kept > 0


def test_a_checkpoint_is_used_again_and_a_damaged_one_is_trained_anew(tmp_path):
    experiment = built(tmp_path, "models=1")
    first = results(experiment)
    kept = next((tmp_path / "checkpoints").glob("*.safetensors"))
    assert results(experiment)[0].values["train_seconds"] == 0
    kept.write_bytes(kept.read_bytes()[:100])
    again = results(experiment)
    assert again[0].values["train_seconds"] > 0
    assert [r.values.get("alpha") for r in again[1:]] == [r.values.get("alpha") for r in first[1:]]


def test_models_differ_and_a_seed_changes_them_all(tmp_path):
    a, b = built(tmp_path), built(tmp_path, "seed=1")
    checkpoints = [trial.checkpoint for e in (a, b) for trial in e.trials() if trial.layer is None]
    assert len(set(checkpoints)) == 4
