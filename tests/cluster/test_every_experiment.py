"""Every kind of experiment on Ray gives the rows of one process: its trials, weights and own state travel."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from raylab import config, experiments
from raylab.cluster import inline
from raylab.cluster.preflight import ray_session
from raylab.run import main
from raylab.types import TrialResult
from tests import tiny_pretrained

pytestmark = pytest.mark.cluster
SMALL = ["model.width=16", "model.depth=2"]
TIMES = {"train_seconds"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A model, a language model and its text, and a pool of draws, in a folder."""
    folder = tmp_path_factory.mktemp("lab")
    rng = np.random.default_rng(0)
    save_file({f"h.{i}.fc.weight": rng.standard_t(3, (80, 60)) for i in range(5)}, folder / "first.safetensors")
    tiny_pretrained.language_model(folder / "gpt2")
    tiny_pretrained.text(folder / "text.txt")
    words = ["model.inputs=64", "draws=60", "cluster=inline", "progress=none", "report=false"]
    assert main(["experiment=alpha_at_init", *SMALL, *words, f"results={folder / 'pool'}"]) == 0
    return folder


@pytest.fixture(scope="module")
def ray_here():
    with ray_session("local", workers=2, object_store_gb=0.2):
        yield


def values(results: list[TrialResult]) -> dict[str, tuple]:
    found = {r.trial.id: (r.status, {k: repr(v) for k, v in r.values.items() if k not in TIMES}) for r in results}
    assert len(found) == len(results), "a trial came back twice"
    return found


POOLED = ["data=digits", *SMALL, "models=2", "ranges=[[2,4],[4,8]]", "pool=pool"]
TEXT = ["model.source=gpt2", "data.root=text.txt", "data.context=12", "+data.cache=cache"]
WORDS = {
    "perturb_layers": ["experiment=digits", "debug=tiny"],
    "perturb_pretrained": ["experiment=gpt2", *TEXT, "draws=2", "metrics=[norms]", "spectral.min_evals=1"],
    "spectra": ["model=first.safetensors"],
    "initial_layers": ["experiment=alpha_at_init", *SMALL, "model.inputs=64", "draws=40"],
    "initial_models": ["experiment=models_by_alpha", *POOLED],
    "alpha_fixed": ["experiment=alpha_fixed", *POOLED, "train.epochs=2", "retractions=[newton_schulz,free]"],
}


def test_every_kind_is_tried():
    assert WORDS.keys() == set(experiments.KINDS)


@pytest.mark.parametrize("kind", WORDS)
def test_two_workers_give_the_rows_of_one_process(ray_here, lab, tmp_path, monkeypatch, kind):
    from raylab.cluster.scheduler import Scheduler

    monkeypatch.chdir(lab)
    found = []
    for where in ("here", "there"):  # each trains models of its own
        settings, _ = config.compose([*WORDS[kind], f"results={tmp_path / where}"])
        experiment = experiments.build(settings)
        assert settings.kind == kind
        pending = experiment.trials()
        batches = inline.stream(experiment, pending) if where == "here" else Scheduler(experiment).stream(pending)
        found.append(values([result for batch in batches for result in batch]))
    assert found[0] == found[1] and len(found[0]) > 4
    assert {status for status, _ in found[0].values()} == {"ok"}
