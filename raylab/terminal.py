"""`raylab analyze MODEL`: the spectral metrics of a model on the terminal, or in a file, in the time it takes to solve.

Neither Hydra nor Ray nor a results folder: for those, and for a report, `python -m raylab.run model=MODEL`. Of a
safetensors file nothing that imports torch is needed.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raylab.analyzer import LEADING, rows_of
from raylab.arguments import Parser
from raylab.errors import UserError
from raylab.layers import matrices_shape, measurable
from raylab.models.sources import open_model
from raylab.spectral import METRICS, columns, resolve
from raylab.types import SpectralOptions, Value

FORMATS = ("table", "csv", "json", "parquet")
NO_LIMIT = ("min_evals", "max_evals", "max_N")  # options that may be none
LITTLE_WORK = 3e10  # multiplications in all: below, numba and scipy take longer to import than they save
# Column -> its heading and how its values are written; of those that the metrics give, in this order.
SHOWN = {
    "layer": ("layer", "s"),
    "slice": ("slice", "d"),
    "kind": ("kind", "s"),
    "N": ("N", "d"),
    "M": ("M", "d"),
    "alpha": ("alpha", ".3f"),
    "sigma": ("+-", ".3f"),
    "alpha_lo": ("alpha_lo", ".2f"),
    "alpha_hi": ("alpha_hi", ".2f"),
    "D": ("D", ".3f"),
    "gof_p": ("gof_p", ".3f"),
    "best_law": ("best_law", "s"),
    "num_tail": ("tail", "d"),
    "log_norm": ("log_norm", ".3f"),
    "log_spectral_norm": ("log_lmax", ".3f"),
    "stable_rank": ("stable_rank", ".2f"),
    "mp_softrank": ("mp_softrank", ".3f"),
    "num_spikes": ("spikes", "d"),
    "num_traps": ("traps", "d"),
}
METRICS_HELP = f"with commas: {', '.join(METRICS)}, or module:function of your own"
LEGEND = (
    "+-: sigma, the standard error of alpha. tail: num_tail, eigenvalues >= xmin. log_lmax: log_spectral_norm.\n"
    "All columns, with their names in full: --output FILE.csv."
)
GAP = 2  # spaces between columns
AVERAGED = ("alpha", "alpha_hat", "log_alpha_norm", "log_norm", "log_spectral_norm", "stable_rank")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, 1 if a layer could not be fitted, 2 for bad input."""
    arguments = _parser().parse_args(argv)
    # A console script does not put the working directory on the path: my_lab.py is found there.
    sys.path[:] = dict.fromkeys([str(Path.cwd()), *sys.path])
    try:
        return _run(arguments)
    except UserError as error:
        print(f"raylab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `raylab analyze ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> Parser:
    parser = Parser("raylab analyze", __doc__)
    parser.add_argument("model", help="a file, a folder, timm/NAME, torchvision/NAME, a Hugging Face hub id")
    parser.add_argument("--adapter", help="a LoRA adapter to merge into it")
    parser.add_argument("--random", action="store_true", help="random weights of that architecture")
    parser.add_argument("--download", action="store_true", help="fetch what is not in the local cache")
    parser.add_argument("--metrics", default="standard,marchenko_pastur", help=METRICS_HELP)
    parser.add_argument("--layers", default="*", help="shell-style patterns of layer names, with commas")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of raylab.types.SpectralOptions"
    )
    parser.add_argument("--threads", type=int, help="default: one a core")
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of --output, else a table")
    parser.add_argument("--output", type=Path, help="a file, instead of the terminal")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments.option)
    metrics = arguments.metrics.split(",")
    arguments.format = arguments.format or _format_of(arguments.output)
    _check_output(arguments.output, arguments.format, metrics)
    source = open_model(
        arguments.model, adapter=arguments.adapter, pretrained=not arguments.random, download=arguments.download
    )
    patterns = arguments.layers.split(",")
    layers, _ = measurable(source.model, options, patterns)
    sizes = [matrices_shape(layer, options.conv, options.groups) for layer in layers]
    threads = arguments.threads
    if options.device == "auto" and sum(count * N * M**2 for count, N, M in sizes) < LITTLE_WORK:
        options.device, threads = "numpy", threads or 1
    rows, types = rows_of(source.model, metrics, options, patterns, threads)
    _write(rows, types, arguments, source.origin)
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _format_of(output: Path | None) -> str:
    """By the ending of the file's name."""
    if output is None or output.suffix in ("", ".txt"):
        return "table"
    if output.suffix[1:] not in FORMATS:
        raise UserError(f"--output {output}: the ending must be .txt, .csv, .json or .parquet; or give --format.")
    return output.suffix[1:]


def _check_output(output: Path | None, form: str, metrics: Sequence[str]) -> None:
    """Before anything is measured."""
    if form == "parquet" and output is None:
        raise UserError("--format parquet needs --output FILE.")
    if form in ("csv", "table") and "esd" in metrics:
        raise UserError("The eigenvalues (metric esd) are lists: use --format json, or --output FILE.parquet.")
    if output is not None and not (output.parent.is_dir() and os.access(output.parent, os.W_OK)):
        raise UserError(f"Cannot write {output}: {output.parent} is no folder to write to. Choose another --output.")


def options_of(pairs: Iterable[str]) -> SpectralOptions:
    """Options from "key=value". Raises UserError for a key that does not exist or a value of another type."""
    from raylab.registry import suggest

    options = SpectralOptions()
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key in vars(options)):
            raise UserError(f"Unknown option '{pair}': write KEY=VALUE.{suggest(key, vars(options))}")
        try:
            setattr(options, key, _value(text, key))
        except ValueError:
            raise UserError(f"{key}={text}: {_needed(key)} is needed.") from None
    return options


def _value(text: str, key: str) -> Any:
    kind = _kind(key)
    if key in NO_LIMIT and text.lower() in ("none", "null"):
        return None
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return kind(text)


def _kind(key: str) -> type:
    return int if key in NO_LIMIT else type(getattr(SpectralOptions(), key))


def _needed(key: str) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words[_kind(key)] + (" or none" if key in NO_LIMIT else "")


def _write(rows: list[dict[str, Value]], types: dict[str, type], arguments: argparse.Namespace, origin: str) -> None:
    if arguments.format == "parquet":
        _write_parquet(rows, types, arguments)
        return
    if arguments.format == "table":
        wide = None if arguments.output or not sys.stdout.isatty() else shutil.get_terminal_size().columns
        own = columns(resolve([name for name in arguments.metrics.split(",") if name not in METRICS]))
        text = table_text(rows, origin, own, wide)
    else:
        text = _json(rows) if arguments.format == "json" else _csv(rows, types)
    if not arguments.output:
        print(text)
        return
    try:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {arguments.output}: {error.strerror}. Choose another --output.") from error


def _write_parquet(rows: list[dict[str, Value]], types: dict[str, type], arguments: argparse.Namespace) -> None:
    import pyarrow.parquet as pq

    from raylab.analyzer import table_of

    try:
        pq.write_table(table_of(rows, types), arguments.output)
    except OSError as error:
        raise UserError(f"Cannot write {arguments.output}: {error}. Choose another --output.") from error


def table_text(rows: Sequence[dict[str, Value]], origin: str, own: Mapping[str, type], width: int | None = None) -> str:
    """A row a layer in columns, and the means over the layers with a fit.

    own: columns of a user's metrics, and their types; ours are SHOWN. Where the table is wider than `width` characters,
    the columns go into blocks that repeat the first one.
    """
    headed = SHOWN | {key: (key, ".4g" if kind is float else "") for key, kind in own.items()}
    shown = [(key, *form) for key, form in headed.items() if any(row.get(key) is not None for row in rows)]
    padded = []
    for key, heading, form in shown:
        cells = [heading, *(_cell(row.get(key), form) for row in rows)]
        size = max(map(len, cells))
        padded.append([cell.ljust(size) if form == "s" else cell.rjust(size) for cell in cells])
    tables = ["\n".join(_lines(block)) for block in _blocks(padded, width)]
    reasons = "\n".join(f"{row['layer']}: {row['status']}, {row['reason']}" for row in rows if row.get("reason"))
    return "\n\n".join(filter(None, [origin, *tables, reasons, "\n".join(_means(rows)), LEGEND]))


def _blocks(padded: Sequence[list[str]], width: int | None) -> Iterator[list[list[str]]]:
    """Columns of cells in blocks that fit, each with the first column."""
    block = [padded[0]]
    for column in padded[1:]:
        if width is not None and len(block) > 1 and sum(len(each[0]) + GAP for each in [*block, column]) > width + GAP:
            yield block
            block = [padded[0]]
        block.append(column)
    yield block


def _lines(block: Sequence[Sequence[str]]) -> list[str]:
    lines = [(" " * GAP).join(cells).rstrip() for cells in zip(*block, strict=True)]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _means(rows: Sequence[dict[str, Value]]) -> list[str]:
    fitted = [row for row in rows if row["status"] == "ok"]
    counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", "failed", "skipped")}
    said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    columns = [key for key in AVERAGED if fitted and all(isinstance(row.get(key), float) for row in fitted)]
    means = [f"{key} {math.fsum(float(row[key]) for row in fitted) / len(fitted):.3f}" for key in columns]  # type: ignore[arg-type]
    first = f"{len(rows)} layer{'' if len(rows) == 1 else 's'}: {said}"
    return [first, f"mean of the ok: {', '.join(means)}"] if means else [first]


def _cell(value: Value, form: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return format(value, form)


def _csv(rows: Sequence[dict[str, Value]], types: dict[str, type]) -> str:
    file = io.StringIO()
    names = [
        *(name for name in LEADING if name not in types),
        "reason",
        "dtype",
        *(n for n in types if types[n] is not list),
    ]
    writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().rstrip("\n")


def _json(rows: Sequence[dict[str, Value]]) -> str:
    import json

    def plain(value: Value) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return value if value is None or isinstance(value, (int, str)) else value.tolist()

    return json.dumps([{key: plain(value) for key, value in row.items()} for row in rows], indent=1)


if __name__ == "__main__":
    raise SystemExit(main())
