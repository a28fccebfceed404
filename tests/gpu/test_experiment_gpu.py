"""The whole experiment on a GPU: models trained in a stack, evaluated and measured there, against one CPU core."""

import numpy as np
import pytest

from raylab import experiments
from raylab.cluster import inline
from raylab.config import Config
from raylab.types import Recipe, SpectralOptions

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu


def results(tmp_path, stack: int) -> dict:
    config = Config(
        name="digits",
        results=str(tmp_path / str(stack)),
        models=4,
        stack=stack,
        model={"_target_": "raylab.models.fcn.FCN", "depth": 3, "width": 64},
        data={"_target_": "raylab.data.digits.load"},
        train=Recipe(epochs=10, batch_size=32),
        perturbations=["original", "reinit", "rerandomize", "reinit_signs"],
        spectral=SpectralOptions(small_sample="standard"),
    )
    experiment = experiments.build(config)
    return {
        result.trial.id: (result, [result.status, result.values["device"]])
        for batch in inline.stream(experiment, experiment.trials())
        for result in batch
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_stack_on_the_gpu_gives_the_rows_of_one_core(tmp_path, monkeypatch):
    on_gpu = results(tmp_path, stack=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = results(tmp_path, stack=1)
    assert on_gpu.keys() == on_cpu.keys()
    for key, (gpu, kind) in on_gpu.items():
        cpu, _ = on_cpu[key]
        assert kind == ["ok", "cuda"]
        # Trained in float32 on another device: a test sample or two may fall on the other side.
        assert abs(gpu.values["accuracy"] - cpu.values["accuracy"]) <= 3 / 497
        if gpu.trial.perturbation in ("reinit", "rerandomize"):  # the same draw, whatever was trained
            assert np.isclose(gpu.values["alpha"], cpu.values["alpha"], rtol=1e-9)
