"""Counts and sums against torch's own losses, numpy and scikit-learn."""

import importlib
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from raylab.evaluate import Evaluation, score

module = importlib.import_module("raylab.evaluate.score")  # the function of that name hides it


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_accuracy_top_five_and_loss_of_images():
    logits, labels = random_logits(200, 12), torch.arange(200) % 12
    result = score(logits, labels)
    log_p = logits.double().numpy() - np.log(np.exp(logits.double().numpy()).sum(1, keepdims=True))
    assert result.num_samples == 200
    assert result.accuracy == (logits.argmax(1) == labels).double().mean()
    assert result.top5 == pytest.approx(top_k_accuracy_score(labels, logits.numpy(), k=5), abs=1e-12)
    assert result.loss == pytest.approx(-log_p[np.arange(200), labels].mean(), rel=1e-6)


def test_texts_are_scored_a_token_at_a_time_without_the_padding():
    logits = random_logits(3, 5, 7)
    labels = torch.tensor([[1, 2, 3, -100, -100], [0, 0, 0, 0, 0], [6, 5, 4, 3, -100]])
    result = score(logits, labels)
    kept = labels != -100
    assert result.num_samples == 12
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(logits[kept], labels[kept])), rel=1e-6)
    assert result.correct == int((logits.argmax(-1) == labels)[kept].sum())
    assert result.perplexity() == pytest.approx(math.exp(result.loss))
    assert result.perplexity(per=3) == pytest.approx(math.exp(result.total_loss / 3))


def test_a_sample_whose_logits_are_nan_is_wrong():
    logits = torch.tensor([[np.nan, np.nan], [2.0, 1.0], [np.inf, 0.0], [0.0, np.nan]])
    result = score(logits, torch.tensor([0, 0, 0, 0]))
    assert (result.correct, result.among_five, result.num_samples) == (2, 2, 4)
    assert np.isnan(result.loss)


def test_equal_logits_are_in_the_order_of_their_classes():
    result = score(torch.zeros(4, 10), torch.tensor([0, 1, 4, 9]))
    assert result.correct == 1


def test_a_loss_is_that_of_float32_logits_whatever_the_model_computes_in():
    logits, labels = random_logits(50, 30).bfloat16(), torch.arange(50) % 30
    exact = nn.functional.cross_entropy(logits.double(), labels)
    assert score(logits, labels).loss == pytest.approx(float(exact), rel=1e-6)


def test_a_vocabulary_is_gone_through_in_blocks(monkeypatch):
    logits, labels = random_logits(4, 9, 11), torch.arange(36).view(4, 9) % 11
    whole = score(logits, labels)
    monkeypatch.setattr(module, "BLOCK", 50)
    blocks = score(logits, labels)
    assert (blocks.correct, blocks.among_five, blocks.num_samples) == (whole.correct, whole.among_five, 36)
    assert blocks.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_perplexity_beyond_floating_point_is_infinite():
    assert Evaluation(0, 1e6, 1).perplexity() == math.inf


def test_evaluations_of_parts_add_up():
    logits, labels = random_logits(30, 7), torch.arange(30) % 7
    parts, whole = score(logits[:11], labels[:11]) + score(logits[11:], labels[11:]), score(logits, labels)
    assert (parts.correct, parts.among_five, parts.num_samples) == (whole.correct, whole.among_five, 30)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
