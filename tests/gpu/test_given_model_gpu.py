"""A language model with one layer changed, on a GPU: wherever its activations lie, the numbers of whole passes."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from raylab.evaluate import PrefixWalk  # noqa: E402
from raylab.types import Budget  # noqa: E402
from tests.evaluate.whole_passes import crossing, shaken, visible, whole  # noqa: E402

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SMALL = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 500, "n_positions": 32, "use_cache": False}
IDS = torch.randint(0, 500, (10, 33), generator=torch.Generator().manual_seed(0))
LAYERS = [f"transformer.h.{k}.{name}.weight" for k in (0, 2) for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]

PLACES = {"gpu": Budget(), "host": Budget(gpu_gb=0), "disk": Budget(gpu_gb=0, host_gb=0)}


def language_model(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model("gpt2", **SMALL)
        return visible(transformers.AutoModelForCausalLM.from_config(config)).to(DEVICE, dtype)


def data():
    ids = IDS.to(DEVICE)
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "budget", [Budget(), Budget(gpu_gb=0), Budget(gpu_gb=0, host_gb=0)], ids=["gpu", "host", "disk"]
)
def test_from_every_cut_the_numbers_of_whole_passes(dtype, budget):
    model, (x, y) = language_model(dtype), data()
    walk = PrefixWalk(model, x, y, 4, budget=budget)
    for name in LAYERS:
        walk.advance_to([name])
        with shaken(model, name):
            assert walk.evaluate() == whole(model, x, y, 4)
    tensors = 1 if budget == PLACES["disk"] else 3
    assert len(crossing(walk, LAYERS[-1])) == tensors  # several only where there is memory for them


def test_what_leaves_the_gpu_is_the_same():
    model, (x, y) = language_model(), data()
    walk = PrefixWalk(model, x, y, 4)
    walk.advance_to([LAYERS[-1]])
    before = walk.evaluate()
    held = walk._boundary.bytes_held("gpu")
    assert held and not walk._boundary.bytes_held("host")
    assert walk._boundary.leave_gpu() and not walk._boundary.leave_gpu()
    assert walk._boundary.bytes_held("host") == held and not walk._boundary.bytes_held("gpu")
    assert walk.evaluate() == before


def test_memory_that_runs_out_halves_the_batch_and_at_last_takes_the_activations_off_the_gpu():
    model, (x, y) = language_model(), data()
    walk = PrefixWalk(model, x, y, 4)
    walk.advance_to([LAYERS[0]])
    expected = walk.evaluate()
    memory = Full(model.transformer.ln_f, lambda: walk._boundary.bytes_held("gpu") > 0)
    result = walk.evaluate()
    assert memory.refused == 3 and walk.batch_size == 1 and not walk._boundary.bytes_held("gpu")
    assert result.num_samples == expected.num_samples
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)


class Full:
    """Memory that is full as long as something lies in it."""

    def __init__(self, module: torch.nn.Module, is_full) -> None:
        self.refused = 0
        self.is_full = is_full
        module.register_forward_pre_hook(self.check)

    def check(self, module, inputs) -> None:
        if self.is_full():
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
