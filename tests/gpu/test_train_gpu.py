"""On a CUDA GPU: needs torch, numpy, pytest and pytest-xdist only. pytest -m gpu tests/gpu"""

import numpy as np
import pytest
import torch

from raylab.data import ClassificationData
from raylab.evaluate import PrefixWalk
from raylab.models.fcn import FCN
from raylab.perturb import perturbed
from raylab.train import DivergedError, train, train_stacked
from raylab.types import Recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")]
MODEL = FCN(64, 10, depth=3, width=40)


def data() -> ClassificationData:
    rng = np.random.default_rng(0)
    prototypes = rng.standard_normal((10, 64), dtype=np.float32)
    y = rng.integers(0, 10, 1500)
    x = 0.5 * prototypes[y] + rng.standard_normal((1500, 64), dtype=np.float32)
    return ClassificationData("made-up", x[:1000], y[:1000], x[1000:], y[1000:], 10, (8, 8), "0")


def initial(k: int):
    return MODEL.initial_state(np.random.default_rng([1, k]))


def shuffle(k: int):
    return np.random.default_rng([2, k])


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "weight_decay": 0.01}])
def test_a_stack_on_the_gpu_is_each_of_its_models_on_a_core(options):
    recipe = Recipe(batch_size=128, epochs=4, **options)
    stacked = train_stacked([initial(k) for k in range(5)], data(), recipe, [shuffle(k) for k in range(5)])
    for k, state in enumerate(stacked):
        assert not isinstance(state, Exception)
        for name, array in train(initial(k), data(), recipe, shuffle(k)).items():
            np.testing.assert_allclose(state[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_the_same_generators_give_the_same_weights_bit_for_bit():
    runs = [train_stacked([initial(0), initial(1)], data(), Recipe(), [shuffle(0), shuffle(1)]) for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        assert not isinstance(a, Exception) and not isinstance(b, Exception)
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_one_divergence_does_not_take_the_stack_along():
    bad = initial(1)
    bad["fc1.bias"][0] = np.nan
    good, failed = train_stacked([initial(0), bad], data(), Recipe(epochs=2), [shuffle(0), shuffle(1)])
    assert isinstance(failed, DivergedError) and "epoch 1 of 2" in str(failed)
    assert not isinstance(good, Exception) and all(np.isfinite(a).all() for a in good.values())


def test_a_walk_on_the_gpu_agrees_with_one_on_the_cpu():
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    x, y = torch.from_numpy(data().test_x), torch.from_numpy(data().test_y)
    new = {name: initial(9)[name] for name in ("fc2.weight", "fc2.bias")}
    results = []
    for device in ("cpu", "cuda"):
        model = FCN(64, 10, depth=3, width=40).load(initial(0)).to(device)
        walk = PrefixWalk(model, x, y, 100)
        walk.advance_to(["fc2.weight", "fc2.bias"])
        with perturbed(model, new):
            results.append(walk.evaluate())
    assert abs(results[0].correct - results[1].correct) <= 1
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)


def test_a_batch_too_large_for_the_gpu_is_halved():
    model = FCN(64, 10, depth=1, width=4096)
    model.load(model.initial_state(np.random.default_rng(0))).cuda()
    _, total = torch.cuda.mem_get_info()
    samples = 200_000
    x = torch.randn(samples, 64, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(samples, dtype=torch.int64)
    expected = PrefixWalk(model, x, y, 1000).evaluate()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2 * 2**30 / total))  # 2 GiB: the hidden layer alone is 3
    try:
        walk = PrefixWalk(model, x, y, samples)
        result = walk.evaluate()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert walk.batch_size < samples
    assert result.num_samples == samples and result.loss == pytest.approx(expected.loss, rel=1e-5)
