"""Planted secrets are nowhere: not in the results folder, not on the terminal. And no file runs code."""

import pickle
import re
from pathlib import Path

import pytest

from raylab.errors import UserError
from raylab.models.networks import open_network
from raylab.models.sources import open_model
from tests.e2e import commands

ROOT = Path(__file__).resolve().parents[2]
PLANTED = "xyzzy-plugh-7"
LEAKY = f"""
import os, sys, warnings
def leaky(spectrum):
    if len(spectrum.evals) != 40:  # such as the test spectrum on which a metric is tried before a run
        return 1.0
    secret = os.environ["OUR_HUB_TOKEN"]


    warnings.warn(f"warned of {{secret}}")
    raise RuntimeError(f"no answer with {{secret}} from https://me:{PLANTED}@host/x, api_key='{PLANTED}'")
def crash(weights, rng):
    raise RuntimeError(f"password={PLANTED}")
def data(token="", **options):
    from raylab.data.digits import load
    return load()
"""


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def holding(folder: Path) -> list[str]:
    """Files that hold the secret, Parquet's too (by its rows)."""
    import pyarrow.parquet as pq

    found = []
    for path in everything(folder):
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += repr(pq.ParquetFile(path).read().to_pylist()).encode()
        if PLANTED.encode() in text:
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize(
    ("module", "cluster"),
    [
        ("run", "inline"),
        pytest.param("run", "local", marks=pytest.mark.cluster),
        pytest.param("tune", "local", marks=pytest.mark.cluster),
    ],
)
def test_a_secret_in_the_environment_the_command_and_the_errors_is_written_nowhere(tmp_path, module, cluster):
    (tmp_path / "my_lab.py").write_text(LEAKY)
    words = [
        "debug=tiny",
        "models=1",
        "model.width=40",
        f"cluster={cluster}",
        "progress=plain",
        "metrics=[norms,my_lab:leaky]",
    ]
    words += ["perturbations=[original,my_lab:crash]", "data._target_=my_lab.data", f"+data.token={PLANTED}"]
    code, out, err = commands.run(tmp_path, f"raylab.{module}", "results=out", *words, OUR_HUB_TOKEN=PLANTED)
    assert code == 1 and "password=***" in out, err
    assert PLANTED not in out + err
    assert len(everything(tmp_path / "out")) > 5 and holding(tmp_path / "out") == []
    assert '"token": "***"' in (tmp_path / "out" / "run.json").read_text()


class Malicious:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def write(folder: Path, mark: Path) -> Path:
    import torch

    folder.mkdir()
    (folder / "raw.pkl").write_bytes(pickle.dumps(Malicious(mark)))
    (folder / "raw.pt").write_bytes(pickle.dumps(Malicious(mark)))
    torch.save({"weight": Malicious(mark)}, folder / "saved.pth")
    for kind, name, config in (
        ("timm", "pytorch_model.bin", '{"architecture": "resnet10t", "num_classes": 10}'),
        ("transformers", "pytorch_model.bin", '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'),
        ("lora", "adapter_model.bin", '{"peft_type": "LORA", "r": 1, "base_model_name_or_path": "x"}'),
    ):
        (folder / kind).mkdir()
        (folder / kind / ("adapter_config.json" if kind == "lora" else "config.json")).write_text(config)
        torch.save({"weight": Malicious(mark)}, folder / kind / name)
    return folder


def test_no_file_of_weights_runs_code(tmp_path):
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists(), "the pickle is harmless: the test shows nothing"
    mark.unlink()
    for path in sorted(write(tmp_path / "evil", mark).iterdir()):
        for opened in (
            lambda path=path: dict(open_model(path).model),
            lambda path=path: open_network(str(path)),
            lambda path=path: open_network(str(path), architecture="timm/resnet10t"),
            lambda path=path: open_network("timm/resnet10t", pretrained=False, initial=str(path)),
        ):
            with pytest.raises(UserError) as error:
                opened()
            assert "\n" not in str(error.value) and not mark.exists()


def test_code_beside_a_model_is_not_run_and_the_refusal_says_what_can_be_done(tmp_path):
    mark = tmp_path / "ran"
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("configuration_own.py", "modeling_own.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w')\n")
    auto = '{"AutoConfig": "configuration_own.C", "AutoModel": "modeling_own.M"}'
    (folder / "config.json").write_text(f'{{"model_type": "own", "architectures": ["M"], "auto_map": {auto}}}')
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"fc.weight": np.eye(8, dtype=np.float32)}, folder / "model.safetensors")
    assert list(open_model(folder).model) == ["fc.weight"]
    for opened in (lambda: open_network(str(folder)), lambda: open_model(folder, pretrained=False)):
        with pytest.raises(UserError, match=r"raylab never runs.*model\._target_=module:function"):
            opened()
    assert not mark.exists()


# A file of weights is read with weights_only, an array without pickles, a model without its code. Ray's own pickles,
# between processes of one run, are no files.
FORBIDDEN = re.compile(
    r"torch\.load\((?!.*weights_only=True)|pickle\.loads?\(|Unpickler\(|allow_pickle=True|joblib|dill"
    r"|trust_remote_code=(?!False)|trust_remote_code['\"]: (?!False)|weights_only=False|torch\.hub\.load|yaml\.load\("
    r"|[^.]eval\(|[^.\w]exec\("
)


def test_nothing_is_loaded_in_a_way_that_could_run_code():
    lines = [
        f"{path.relative_to(ROOT)}:{at}: {line.strip()}"
        for folder in ("raylab", "analysis", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for at, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert lines == []
