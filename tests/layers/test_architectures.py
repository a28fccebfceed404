"""Every tensor of two or more dimensions of real architectures, with random weights."""

from collections import defaultdict
from math import prod

import pytest
import torch
from torch import nn

import raylab
from raylab.layers import find_layers, has_matrices, matrices_shape, weights
from raylab.types import SpectralOptions

TINY = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 50}
PADS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def torchvision(name):
    return getattr(pytest.importorskip("torchvision").models, name)()


def timm(name, **options):
    return pytest.importorskip("timm").create_model(name, **options)


def transformers(config, **options):
    module = pytest.importorskip("transformers")
    return module.AutoModel.from_config(getattr(module, config)(**PADS, **options))


MODELS = {
    "resnet18": lambda: torchvision("resnet18"),
    "mobilenet_v3_small": lambda: torchvision("mobilenet_v3_small"),
    "convnext_tiny": lambda: torchvision("convnext_tiny"),
    "vit_tiny": lambda: timm("vit_tiny_patch16_224", depth=1),
    "mixer": lambda: timm("mixer_s32_224"),
    "gpt2": lambda: transformers("GPT2Config", n_layer=1, n_embd=32, n_head=4, vocab_size=50, n_positions=16),
    "llama": lambda: transformers("LlamaConfig", **TINY),
    "bert": lambda: transformers("BertConfig", **TINY),
    "gpt_neox": lambda: transformers("GPTNeoXConfig", **TINY),
    "mixtral": lambda: transformers("MixtralConfig", **TINY, num_key_value_heads=2, num_local_experts=3),
    "wav2vec2": lambda: transformers("Wav2Vec2Config", **TINY, conv_dim=(16,), conv_stride=(5,), conv_kernel=(10,)),
    "mamba": lambda: transformers("MambaConfig", num_hidden_layers=1, hidden_size=32, vocab_size=50),
    "transformer": lambda: nn.Transformer(32, 4, 1, 1, 48, batch_first=True),
    "lstm": lambda: nn.LSTM(16, 24, 2, bidirectional=True, proj_size=8),
    "gru": lambda: nn.GRU(16, 24, 2),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.mark.parametrize("split", [False, True])
def test_every_tensor_is_there_exactly_once(model, split):
    options = SpectralOptions(split=split)
    found, skipped = find_layers(model, options)
    everything = [*found, *(item.layer for item in skipped)]
    sizes = defaultdict(int)
    for layer in everything:
        sizes[layer.parameter] += prod(layer.shape)
    stored = {n: p.numel() for n, p in model.named_parameters(remove_duplicate=False) if p.ndim >= 2}
    computed = {
        f"{path}.{name}": getattr(module, name).numel()
        for path, module in model.named_modules()
        for name in getattr(module, "parametrizations", ())
    }
    assert sizes == {**stored, **computed}
    assert len({layer.name for layer in everything}) == len(everything)
    assert [layer.index for layer in sorted(everything, key=lambda layer: layer.index)] == list(range(len(everything)))
    assert weights(model, options).keys() == {layer.name for layer in everything}
    assert all(item.reason.startswith(("a vector", "part of a parametrization")) for item in skipped)
    assert all(has_matrices(layer) and prod(matrices_shape(layer)) == prod(layer.shape) for layer in found)


def test_a_state_dict_gives_the_same_layers(model):
    found, _ = find_layers(model)
    again, _ = find_layers(model.state_dict())
    assert [(layer.name, matrices_shape(layer)) for layer in found] == [
        (layer.name, matrices_shape(layer)) for layer in again
    ]


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "transformer", "lstm"])
def test_a_state_dict_gives_the_same_numbers(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    options = SpectralOptions(device="cpu")
    ours, theirs = (raylab.analyze(one, ("standard",), options) for one in (model, model.state_dict()))
    assert ours.drop_columns("kind").equals(theirs.drop_columns("kind"))
    assert set(ours["status"].to_pylist()) <= {"ok", "skipped"}
