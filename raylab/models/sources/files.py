"""Which files make up a model: a single file, or a folder as Hugging Face, diffusers and PyTorch users keep them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raylab.errors import UserError
from raylab.models.sources import digests, safetensors_file, torch_file

SAFETENSORS = ".safetensors"
TORCH = (".pt", ".pth", ".bin", ".th", ".ckpt")
INDEX = ".index.json"
ADAPTER_CONFIG = "adapter_config.json"
# The weights of a folder by the names that libraries give them, first come, first taken: transformers and diffusers
# prefer safetensors where a folder holds both, and so do we.
KNOWN = (
    "model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
# What else people have, and the way from there.
FOREIGN = {
    ".gguf": "GGUF (quantised for llama.cpp): give the original safetensors that it was converted from",
    ".onnx": "ONNX: export the weights with onnx.numpy_helper.to_array and safetensors.numpy.save_file",
    ".h5": "TensorFlow/Keras HDF5: load it in transformers with from_tf=True (version 4) and save_pretrained",
    ".keras": "Keras: save model.get_weights() with safetensors.numpy.save_file",
    ".pb": "TensorFlow: read its variables there and save them with safetensors.numpy.save_file",
    ".tflite": "TensorFlow Lite: give the original that it was converted from",
    ".msgpack": "Flax: flatten its parameters and save them with safetensors.flax.save_file",
    ".npz": "NumPy: pass dict(numpy.load(FILE)) to raylab, or save it with safetensors.numpy.save_file",
    ".npy": "NumPy: pass {'name': numpy.load(FILE)} to raylab, or save it with safetensors.numpy.save_file",
    ".pkl": "a pickle, which could run any code: save model.state_dict() with torch.save",
}
ACCEPTED = (
    "a .safetensors file, a PyTorch file (.pt, .pth, .bin, .th, .ckpt), a folder with such weights or a LoRA adapter, "
    "timm/NAME, torchvision/NAME, transformers/MODEL_TYPE, a Hugging Face hub id, a torch module or a mapping"
)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one model, all of one kind."""

    kind: Literal["safetensors", "torch"]
    paths: tuple[Path, ...]

    def open(self) -> tuple[dict[str, Any], str]:
        """Name -> tensor, and the place inside a PyTorch file that they are from."""
        if self.kind == "torch":
            return torch_file.open_files(self.paths)
        return safetensors_file.open_files(self.paths), ""

    def digest(self) -> str:
        """Digest of the content of the files."""
        return digests.of_files(self.paths)


def label(path: Path) -> str:
    """What to call the model at a path: the name of a folder, or of a file less its ending.

    A file that is called what libraries call every model's goes by its folder, so that two of them are told apart.
    """
    if path.name in (*KNOWN, "adapter_model.safetensors", "adapter_model.bin"):
        path = path.parent
    name = path.name if path.name.strip(".") else path.resolve().name
    name = name.removesuffix(INDEX)
    return name.removesuffix(Path(name).suffix) if _kind(Path(name)) else name


def files_of(path: Path) -> Files:
    """The files of a path that exists. Raises UserError where it is no model, or several."""
    try:
        return _files_of_folder(path) if path.is_dir() else _files_of_file(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: download or copy it again.")
    return content


def _files_of_file(path: Path) -> Files:
    if path.name.endswith(INDEX):
        return _indexed(path)
    kind = _kind(path)
    if kind is None:
        known = FOREIGN.get(path.suffix.lower())
        raise UserError(f"{path} is {known}." if known else f"raylab does not read {path}; it takes {ACCEPTED}.")
    return Files(kind, (path,))


def _kind(path: Path) -> Literal["safetensors", "torch"] | None:
    suffix = path.suffix.lower()
    return "safetensors" if suffix == SAFETENSORS else "torch" if suffix in TORCH else None


def _files_of_folder(folder: Path) -> Files:
    entries = {entry.name: entry for entry in sorted(folder.iterdir())}
    for name in KNOWN:
        if name in entries:
            return _files_of_file(entries[name])
    indices = [entry for name, entry in entries.items() if name.endswith((SAFETENSORS + INDEX, ".bin" + INDEX))]
    if len(indices) == 1:
        return _indexed(indices[0])
    weights = [entry for entry in entries.values() if entry.is_file() and _kind(entry)]
    kinds = {_kind(entry) for entry in weights}
    if not weights or indices or len(kinds) > 1 or (kinds == {"torch"} and not _all_shards(weights)):
        raise UserError(_complaint(folder, list(entries.values()), [*indices, *weights]))
    return Files("safetensors" if kinds == {"safetensors"} else "torch", tuple(weights))


def _all_shards(paths: list[Path]) -> bool:
    """PyTorch files of one folder are often several models; they are one where they are numbered shards of it."""
    return len(paths) == 1 or all("-of-" in path.name for path in paths)


def _indexed(index: Path) -> Files:
    """The shards that an index names. Raises UserError for one that is missing or lies outside of the folder."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index} has no weight_map: download or copy it again.")
    paths = []
    for name in sorted(set(shards.values())):
        path = index.parent / name
        if Path(name).name != name or _kind(path) is None:
            raise UserError(f"{index} names '{name}', which is no file of weights beside it: download it again.")
        if not path.is_file():
            raise UserError(f"{index} names {name}, which is not there: download or copy the missing shard.")
        paths.append(path)
    return Files("safetensors" if _kind(paths[0]) == "safetensors" else "torch", tuple(paths))


def _complaint(folder: Path, entries: list[Path], candidates: list[Path]) -> str:
    """Why a folder is not one model, and what to give instead."""
    if candidates:
        return f"{folder} holds more than one model ({_some(candidates)}): give the one file that is meant."
    below = [entry for entry in entries if entry.is_dir() and _holds_weights(entry)]
    if below:
        return f"{folder} holds no weights itself, but its folders do: give one of {_some(below)}."
    foreign = next((entry for entry in entries if entry.suffix.lower() in FOREIGN), None)
    if foreign is not None:
        return f"{foreign} is {FOREIGN[foreign.suffix.lower()]}."
    content = f"holds no weights ({_some(entries)})" if entries else "is empty"
    return f"The folder {folder} {content}; raylab takes {ACCEPTED}."


def _holds_weights(folder: Path) -> bool:
    try:
        return any(_kind(entry) for entry in folder.iterdir())
    except OSError:
        return False


def _some(paths: list[Path], most: int = 6) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
