"""Order and likeness of names, and the words of others in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

DIGITS = re.compile(r"(\d+)")
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key by which "h.2" comes before "h.10"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in DIGITS.split(name)]


# Parts of names in the order in which data flow through a model; what is in none of them is at DEFAULT.
DEFAULT = 50
FLOW = {
    0: "wte|wpe|embed|embeddings?|embed_tokens|embed_positions|word_embeddings|position_embeddings|patch_embed.*|shared"
    "|token_type_embeddings|stem|conv_stem|features?|conv1",
    20: "encoder",
    40: "attn|attention|self_attn|self_attention|self_attn_layer|q|q_proj|query|c_attn|qkv.*|query_key_value|in_proj.*",
    41: "k|k_proj|key",
    42: "v|v_proj|value",
    60: "mlp|ffn|feed_forward|block_sparse_moe|moe|experts?|intermediate|gate|gate_proj|up_proj|c_fc|fc\\d+|w\\d+",
    70: "proj|c_proj|o_proj|out_proj|dense|out|output|down_proj",
    80: "decoder",
    90: "pooler|head|heads|lm_head|embed_out|classifier|fc|linear|score|qa_outputs",
}
_RANKS = [(rank, re.compile(names)) for rank, names in FLOW.items()]


def flow_order(name: str) -> list[tuple[int, list[tuple[int, str]]]]:
    """Sort key for tensors whose order was not kept: as data flow, so far as names tell; "h.2" before "h.10"."""
    return [
        (next((rank for rank, names in _RANKS if names.fullmatch(part)), DEFAULT), natural_order(part))
        for part in name.split(".")
    ]


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Old name -> new name, without the prefixes of wrappers that all of them share."""
    new = {name: name for name in names}
    while prefix := next((w for w in WRAPPERS if new and all(name.startswith(w) for name in new.values())), ""):
        new = {old: name.removeprefix(prefix) for old, name in new.items()}
    return new


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint " Did you mean 'x' or 'y'?", or nothing. For lists too long to be printed; else see registry.suggest."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


def nearby(path: Path) -> str:
    """`did_you_mean` of what lies where a path that does not exist points to."""
    folder = path.parent
    try:
        there = [entry.name for entry in folder.iterdir()]
    except OSError:
        return f" There is no folder {folder} either."
    known = {name: str(folder / name) for name in there}
    close = difflib.get_close_matches(path.name, list(known), n=3)
    return f" Did you mean {' or '.join(repr(known[name]) for name in close)}?" if close else ""
