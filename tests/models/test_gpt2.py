"""The loss in parts against transformers' own, and its gradient."""

import numpy as np
import pytest
import torch
from transformers import GPT2Tokenizer

from raylab.models import gpt2
from raylab.models.gpt2 import adamw, backward, loss_of, new_gpt2


@pytest.fixture
def model():
    tokenizer = GPT2Tokenizer(vocab={"<|endoftext|>": 0} | {f"t{k}": k for k in range(1, 50)}, merges=[])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return new_gpt2(tokenizer, layers=2, width=16, heads=2, context=12, dropout=0.0)


def windows(count, length):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 50, (count, length)))


@pytest.mark.parametrize("part", [1, 5, 24, 512])
def test_loss_and_gradient_are_those_of_transformers(model, monkeypatch, part):
    monkeypatch.setattr(gpt2, "PART", part)
    tokens = windows(2, 13)
    logits = model(tokens[:, :12]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    assert backward(model, tokens) == pytest.approx(float(expected.detach()), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_bfloat16_is_close_to_float32_and_leaves_weights_and_gradients_in_float32(model):
    tokens = windows(2, 13)
    assert backward(model, tokens, "bfloat16") == pytest.approx(backward(model, tokens), rel=1e-2)
    assert {p.dtype for p in model.parameters()} | {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_held_out_loss_counts_every_token_but_the_first_once(model):
    tokens = windows(1, 31)[0]  # 12 + 12 + 6 predicted tokens
    losses = []
    for start in (0, 12, 24):
        window = tokens[start : start + 13]
        with torch.no_grad():
            scores = torch.log_softmax(model.eval()(window[None, :-1]).logits[0], -1)
        losses += [-float(row[target]) for row, target in zip(scores, window[1:], strict=True)]
    assert len(losses) == 30
    assert loss_of(model, tokens.numpy(), 12) == pytest.approx(np.mean(losses), rel=1e-5)


def test_only_matrices_decay(model):
    matrices, others = adamw(model, 0.1, (0.9, 0.95)).param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in matrices["params"]} == {2} and {p.ndim for p in others["params"]} == {1}
    assert len(matrices["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_the_head_is_tied_to_the_embedding(model):
    assert model.lm_head.weight is model.transformer.wte.weight
