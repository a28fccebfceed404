"""Windows against transformers' own loss on the same tokens."""

import itertools

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from raylab.data import text
from raylab.data.tokens import Tokens
from raylab.errors import UserError


@pytest.fixture(scope="module")
def model():
    """A small GPT-2 with random weights. Its loss is of logits in single precision, whatever its own."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_positions=32, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0, embd_pdrop=0)
    return GPT2LMHeadModel(config).double().eval()


def stream(*lengths, seed=0):
    ids = np.random.default_rng(seed).integers(1, 97, sum(lengths)).astype(np.int32)
    return Tokens(ids, lengths, words=sum(lengths), digest="")


def our_loss(model, x, y):
    """Sum of cross-entropies over what is scored, and how many tokens that are."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(x).long()).logits
    targets = torch.from_numpy(y)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return float(loss), int((targets != -100).sum())


def their_loss(model, ids, max_length, stride):
    """The loop of the Hugging Face guide ("Perplexity of fixed-length models"), each window's mean loss weighted by the
    number of labels that transformers scores in it, after its own shift."""
    input_ids, total, count, prev_end_loc = torch.from_numpy(ids).long()[None], 0.0, 0, 0
    seq_len = input_ids.size(1)
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + max_length, seq_len)
        trg_len = end_loc - prev_end_loc
        window = input_ids[:, begin_loc:end_loc]
        target_ids = window.clone()
        target_ids[:, :-trg_len] = -100
        scored = int((target_ids[:, 1:] != -100).sum())
        if scored:
            with torch.no_grad():
                total += float(model(window, labels=target_ids).loss) * scored
            count += scored
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return total, count


@pytest.mark.parametrize("stride", [32, 31, 16, 5, 1])
@pytest.mark.parametrize("length", [32, 33, 64, 65, 100, 2])
def test_the_loss_is_that_of_transformers_on_the_same_windows(model, length, stride):
    tokens = stream(length)
    x, y = text.windows(tokens, 32, stride)
    ours, theirs = our_loss(model, x, y), their_loss(model, tokens.ids, 32, stride)
    assert ours[1] == theirs[1] and ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert x.dtype == np.int32 and y.dtype == np.int64 and x.shape == y.shape and x.shape[1] == 32


def test_non_overlapping_windows_by_themselves(model):
    """model(input_ids=window, labels=window).loss, nothing else."""
    tokens = stream(96)
    x, y = text.windows(tokens, 32, 32)
    with torch.no_grad():
        theirs = [float(model(input_ids=w[None], labels=w[None]).loss) for w in torch.from_numpy(x).long()]
    ours, count = our_loss(model, x, y)
    assert count == 93 and ours / count == pytest.approx(np.mean(theirs), rel=1e-6)


def test_texts_by_themselves(model):
    lengths = (40, 1, 7, 32, 65)
    tokens = stream(*lengths)
    starts = np.cumsum([0, *lengths])
    for stride in (32, 8):
        theirs = [their_loss(model, tokens.ids[a:b], 32, stride) for a, b in itertools.pairwise(starts)]
        ours = our_loss(model, *text.windows(tokens, 32, stride))
        assert ours[1] == sum(count for _, count in theirs)
        assert ours[0] == pytest.approx(sum(loss for loss, _ in theirs), rel=1e-6)


def test_every_token_but_the_first_is_scored_once_where_windows_overlap():
    tokens = Tokens(np.arange(1, 101, dtype=np.int32), (100,), words=100, digest="")
    x, y = text.windows(tokens, 32, 20)
    assert sorted(y[y != -100]) == list(range(2, 101))
    followed = y != -100
    assert (y[followed] == x[followed] + 1).all()
    x, y = text.windows(tokens, 32, 32)
    assert sorted(set(range(1, 101)) - set(y[y != -100].tolist())) == [1, 33, 65, 97]
    assert x[-1].tolist() == [97, 98, 99, 100] + [0] * 28 and (y[-1, 3:] == -100).all()


def test_a_text_of_single_tokens_is_refused():
    with pytest.raises(UserError, match="no token that follows another"):
        text.windows(stream(1, 1), 32, 32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context": 1}, "data.context=1 must be at least 2"),
        ({"context": 8, "stride": 9}, "data.stride=9 must be between 1 and data.context=8"),
        ({"context": 8, "stride": 0}, "data.stride=0 must be between 1"),
        ({"normaliser": "byte"}, "data.normaliser=byte is not known. Available: token, word"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(options, says):
    with pytest.raises(UserError, match=says) as error:
        text.evaluation(["a"], name="", tokenizer="nowhere", joining="raw", **options)
    assert "\n" not in str(error.value)
