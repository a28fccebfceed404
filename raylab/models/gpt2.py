"""A GPT-2 to be trained from scratch: its weights, its optimiser, its loss in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

PART = 512  # positions whose logits are held at once
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def new_gpt2(tokenizer: Any, *, layers: int, width: int, heads: int, context: int, dropout: float) -> GPT2LMHeadModel:
    """Initial weights from torch's global generator, which the caller seeds; the head is tied to the embedding."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def adamw(model: torch.nn.Module, decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW that lets matrices decay, and neither biases nor the gains of norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def backward(model: GPT2LMHeadModel, windows: Tensor, precision: str = "float32") -> float:
    """Mean cross-entropy (nats a token) of windows (count, context + 1) of tokens; its gradient is added to .grad.

    The head is gone through in parts, each with its own backward pass: all logits at once would take a gigabyte or
    more, and on a core more time.
    """
    targets = windows[:, 1:].flatten()
    with torch.autocast(windows.device.type, PRECISIONS[precision], enabled=precision != "float32"):
        hidden = model.transformer(windows[:, :-1]).last_hidden_state.flatten(0, 1)
    cut = hidden.detach().requires_grad_()
    total = torch.zeros((), device=windows.device)
    for loss in _head_losses(model, cut, targets, precision):
        (loss / len(targets)).backward()
        total += loss.detach()
    hidden.backward(cut.grad)
    return float(total) / len(targets)


@torch.no_grad()
def loss_of(model: GPT2LMHeadModel, tokens: NDArray[np.int64], context: int) -> float:
    """Mean cross-entropy (nats) of each token of a text but the first, in windows of `context` side by side."""
    model.eval()
    total = 0.0
    for start in range(0, len(tokens) - 1, context):
        window = torch.from_numpy(tokens[start : start + context + 1]).to(model.device)
        hidden = model.transformer(window[None, :-1]).last_hidden_state[0]
        total += sum(float(loss) for loss in _head_losses(model, hidden, window[1:], "float32"))
    return total / (len(tokens) - 1)


def _head_losses(model: GPT2LMHeadModel, hidden: Tensor, targets: Tensor, precision: str) -> Iterator[Tensor]:
    """Summed cross-entropy, part by part, of hidden states (positions, width)."""
    for part, target in zip(hidden.split(PART), targets.split(PART), strict=True):
        with torch.autocast(hidden.device.type, PRECISIONS[precision], enabled=precision != "float32"):
            logits = model.lm_head(part)
        yield functional.cross_entropy(logits.float(), target, reduction="sum")
