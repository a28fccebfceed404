"""Small models, a text and images for the experiments on given models."""

import string
from pathlib import Path

import numpy as np
import torch

CHARACTERS = ["<|endoftext|>", "Ġ", "Ċ", "=", ",", ".", *string.ascii_letters, *string.digits]
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(CHARACTERS), "n_positions": 32}
MIXTRAL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "vocab_size": len(CHARACTERS),
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LAB = """
import numpy as np, torch
from torch import nn
from raylab.data import EvaluationData

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.body = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.body(self.norm(self.stem(x)).relu()).relu().mean((2, 3)))

def make(pretrained=True, seed=1):
    with torch.random.fork_rng():
        if pretrained:
            torch.manual_seed(seed)
        model = Net()
        if pretrained:
            model.norm.running_mean += torch.randn(8)
            for p in model.parameters():
                p.data *= 3
    return model.eval()

def loaded():
    model, rng = make(), np.random.default_rng(0)
    arrays = {name: rng.standard_normal(p.shape, dtype=np.float32) for name, p in model.named_parameters()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    return model

def images():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
    return EvaluationData(name="noise", task="image", x=x, y=rng.integers(0, 5, 40), mean=(0.5,) * 3, std=(0.2,) * 3,
                          revision="r1", protocol={"crop": "none", "subset": None})

def labelled(most):
    import dataclasses
    data = images()
    return dataclasses.replace(data, y=np.where(np.arange(40) == 7, most, data.y))

def too_many():
    return labelled(999)

def negative():
    return labelled(-1)

class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        return {"hidden": self.body(x)}

def headless():
    return Headless()

def breaks(weights, rng):
    return weights.trained / 0 if weights.layer.name == "body" else weights.trained * 2

def sentences():
    return {"not": "data"}
"""


def language_model(folder: Path, kind: str = "gpt2", seed: int = 0) -> torch.nn.Module:
    """A small model in a folder, with its tokenizer of single characters."""
    import transformers

    config = transformers.AutoConfig.for_model(kind, **(GPT2 if kind == "gpt2" else MIXTRAL))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():  # far from how it began, so that layers matter
            parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    vocabulary = {character: k for k, character in enumerate(CHARACTERS)}
    transformers.GPT2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return model


def text(path: Path) -> str:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(60)]
    path.write_text(" ".join(words) + "\n")
    return path.read_text()
