"""`python -m raylab.train_language OUT --text FILE --tokenizer FOLDER`: a small GPT-2 from scratch, with its theta_0.

OUT becomes a folder of transformers: the weights of the epoch that predicts the held-out text best (without one: of
the last), with the tokenizer. OUT/initial holds the weights before the first step, OUT/training.json recipe and losses.
After an interruption the same command goes on behind the last whole epoch, and ends with the same weights.

On a core most of the time goes into the logits of 50,257 tokens. glibc gives such large buffers back to the system and
fetches them anew at every step; told to keep them, with MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 before
the command, it was 1.8 times as fast.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raylab.arguments import Parser
from raylab.errors import UserError, first_line
from raylab.models.gpt2 import PRECISIONS, adamw, backward, loss_of, new_gpt2
from raylab.types import generator

BETAS, CLIP = (0.9, 0.95), 1.0  # of AdamW; of the norm of the gradient


def _knob(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": f"{meaning}; default: {default}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRecipe:
    """What, with the texts and the tokenizer, determines the weights (on one kind of machine, to the last bit)."""

    layers: int = _knob(6, "blocks")
    width: int = _knob(256, "of the residual stream")
    heads: int = _knob(4, "of attention")
    context: int = _knob(256, "tokens a window")
    batch: int = _knob(4, "windows a step")
    epochs: int = _knob(20, "at most")
    patience: int = _knob(3, "epochs without a lower held-out loss after which it stops")
    rate: float = _knob(1e-3, "the highest learning rate; a cosine to zero follows")
    warmup: float = _knob(0.5, "epochs of a rising learning rate")
    decay: float = _knob(0.1, "weight decay of matrices")
    dropout: float = _knob(0.1, "a probability")
    seed: int = _knob(0, "of initial weights, windows and dropout")
    held_out_tokens: int = _knob(32768, "of the held-out text, from its start, that are predicted every epoch")
    precision: str = _knob("bfloat16", "of the products of a training step: bfloat16 or float32")

    def check(self) -> None:
        """Raises UserError for what cannot be trained."""
        at_least = {"layers": 1, "heads": 1, "context": 2, "batch": 1, "epochs": 1, "patience": 1, "held_out_tokens": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{_flag(name)} {getattr(self, name)}: at least {least} is needed.")
        if self.width < self.heads or self.width % self.heads:
            raise UserError(f"--width {self.width} is no multiple of --heads {self.heads}: change one of them.")
        if not (0 <= self.dropout < 1 and self.rate > 0 and self.decay >= 0 and self.warmup >= 0 and self.seed >= 0):
            raise UserError("--dropout is below 1, --rate above 0, and no number is negative: change what is not.")
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision {self.precision}: choose one of {', '.join(PRECISIONS)}.")

    def rate_at(self, epochs: float) -> float:
        """Learning rate after so many epochs: the lower of a line up from zero and a cosine down to zero."""
        line = epochs / self.warmup if self.warmup else 1.0
        cosine = (1 + math.cos(math.pi * min(1.0, epochs / self.epochs))) / 2
        return self.rate * min(line, cosine)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0; 2 for bad input; 130 if interrupted."""
    arguments = vars(_parser().parse_args(argv))
    recipe = LanguageRecipe(**{knob.name: arguments.pop(knob.name) for knob in fields(LanguageRecipe)})
    try:
        train_language(recipe=recipe, **arguments)
    except UserError as error:
        print(f"raylab.train_language: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on behind the last whole epoch.", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    parser = Parser("python -m raylab.train_language", __doc__)
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--text", type=Path, required=True, help="a .parquet file with a column text, or a text file")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder that AutoTokenizer loads")
    parser.add_argument("--held-out", type=Path, help="a text like --text, whose perplexity chooses the epoch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    for knob in fields(LanguageRecipe):
        parser.add_argument(_flag(knob.name), type=type(knob.default), default=knob.default, **knob.metadata)
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def train_language(
    out: Path, text: Path, tokenizer: Path, recipe: LanguageRecipe, held_out: Path | None = None, device: str = "cpu"
) -> None:
    """Train, print a line an epoch, write the folder `out`. Raises UserError for input that cannot be used."""
    recipe.check()
    loaded = _load_tokenizer(tokenizer)
    tokens = _tokens(text, loaded, 2 * recipe.context)
    held = None if held_out is None else _tokens(held_out, loaded, 1)[: recipe.held_out_tokens + 1]
    with torch.random.fork_rng():
        run = _Run(out, recipe, loaded, device, _digests(tokens, held))
        while not run.done:
            run.epoch(tokens, held)
    run.finish()


class _Run:
    """A model on its way, and what is on disk of it."""

    def __init__(self, out: Path, recipe: LanguageRecipe, tokenizer: Any, device: str, texts: list[str]) -> None:
        """A new run, or the one that `out` holds a checkpoint of."""
        self.out, self.recipe, self.tokenizer, self.device = out, recipe, tokenizer, device
        self.checkpoint = out / "checkpoint.pt"
        self.identity = {"recipe": asdict(recipe), "texts": texts}
        self.history: list[dict[str, float]] = []  # an entry an epoch
        self._make_folder()
        torch.manual_seed(int(generator(recipe.seed, "initial").integers(2**63)))
        sizes = {name: getattr(recipe, name) for name in ("layers", "width", "heads", "context", "dropout")}
        self.model = new_gpt2(tokenizer, **sizes)
        torch.nn.Module.to(self.model, _device(device))
        self.optimizer = adamw(self.model, recipe.decay, BETAS)
        if self.checkpoint.exists():
            self._resume()
        else:
            self._save(out / "initial")

    @property
    def best(self) -> int:
        """The epoch, from 0, with the lowest held-out loss; the last one where nothing is held out."""
        losses = [epoch.get("held_out_loss", -index) for index, epoch in enumerate(self.history)]
        return losses.index(min(losses))

    @property
    def done(self) -> bool:
        """All epochs trained, or enough of them without a better one."""
        trained = len(self.history)
        return bool(trained) and (trained == self.recipe.epochs or trained - 1 - self.best >= self.recipe.patience)

    def epoch(self, tokens: NDArray[np.int64], held: NDArray[np.int64] | None) -> None:
        """One pass over the text, its line, its checkpoint. Raises UserError where the loss is no number any more."""
        started, index = time.perf_counter(), len(self.history)
        rng = generator(self.recipe.seed, "epoch", index)
        torch.manual_seed(int(rng.integers(2**63)))  # dropout
        windows = _windows(tokens, self.recipe.context, int(rng.integers(self.recipe.context)))
        losses = self._train(windows[rng.permutation(len(windows))], index)
        entry = {"loss": float(np.mean(losses)), "tokens_a_second": windows.size / (time.perf_counter() - started)}
        if held is not None:
            entry["held_out_loss"] = loss_of(self.model, held, self.recipe.context)
            entry["held_out_perplexity"] = float(np.exp(entry["held_out_loss"]))
        if not np.isfinite(list(entry.values())).all():
            raise UserError(f"The loss of epoch {index + 1} is {entry['loss']}: choose a lower --rate, another folder.")
        self.history.append(entry | {"seconds": time.perf_counter() - started})
        print(self._line(), flush=True)
        if self.best == index:
            self._save(self.out)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "history": self.history}
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(self.identity | state, partial)
        partial.replace(self.checkpoint)

    def finish(self) -> None:
        """The record in place of the checkpoint."""
        packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
        record = self.identity | {"betas": BETAS, "clip": CLIP, "device": self.device, "versions": packages}
        record |= {"epochs": self.history, "saved_epoch": self.best + 1}
        (self.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self.checkpoint.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        if (self.out / "model.safetensors").exists() and not self.checkpoint.exists():
            raise UserError(f"{self.out} holds a model that is finished: choose another folder.")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot make {self.out}: {error.strerror}. Choose another folder.") from error

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if {key: state[key] for key in self.identity} != self.identity:
            raise UserError(f"{self.out} holds a run of other settings or texts: choose another folder, or delete it.")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]

    def _save(self, folder: Path) -> None:
        """In transformers' layout; file by file, each of them whole at any time."""
        partial = folder / ".partial"
        self.model.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        for file in partial.iterdir():
            file.replace(folder / file.name)
        partial.rmdir()

    def _train(self, windows: NDArray[np.int64], index: int) -> list[float]:
        """A step a batch of windows (count, context + 1). Returns their losses in nats a token."""
        self.model.train()
        losses = []
        for start in range(0, len(windows), self.recipe.batch):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate_at(index + start / len(windows))
            batch = torch.from_numpy(windows[start : start + self.recipe.batch]).to(self.model.device)
            losses.append(backward(self.model, batch, self.recipe.precision))
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return losses

    def _line(self) -> str:
        last, trained = self.history[-1], len(self.history)
        left = sum(epoch["seconds"] for epoch in self.history) / trained * (self.recipe.epochs - trained) / 60
        held = f", held-out perplexity {last['held_out_perplexity']:.1f}" if "held_out_perplexity" in last else ""
        said = f"epoch {trained}/{self.recipe.epochs}: loss {last['loss']:.3f}{held}"
        return f"{said}, {last['tokens_a_second']:.0f} tokens/s, {left:.0f} min left at most"


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        raise UserError(f"--device {name} cannot be used ({first_line(error)}): choose cpu or cuda.") from error


def _load_tokenizer(folder: Path) -> Any:
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give --tokenizer a folder with the files of a tokenizer.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokenizer that transformers can load: give --tokenizer another.") from error


def _tokens(path: Path, tokenizer: Any, least: int) -> NDArray[np.int64]:
    """The text of a file as token ids. Raises UserError for a file without `least` tokens and one more."""
    ids = np.array(tokenizer(_text(path), add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
    if len(ids) <= least:
        raise UserError(f"{path} holds {len(ids)} tokens, {least + 1} are needed: give a longer text (or --context).")
    return ids


def _text(path: Path) -> str:
    """A text file as it is; the rows of a .parquet file's column text with blank lines between."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix != ".parquet":
            return path.read_text(encoding="utf-8")
        return "\n\n".join(pq.read_table(path, columns=["text"])["text"].to_pylist())
    except (OSError, UnicodeDecodeError, pa.ArrowException, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: give a .parquet file with a column text, or a UTF-8 text.") from error


def _windows(tokens: NDArray[np.int64], context: int, offset: int) -> NDArray[np.int64]:
    """(count, context + 1): windows side by side from `offset` on, each with the token that follows it."""
    return np.lib.stride_tricks.sliding_window_view(tokens[offset:], context + 1)[::context]


def _digests(*texts: NDArray[np.int64] | None) -> list[str]:
    return [hashlib.blake2b(text.tobytes(), digest_size=12).hexdigest() for text in texts if text is not None]


if __name__ == "__main__":
    raise SystemExit(main())
