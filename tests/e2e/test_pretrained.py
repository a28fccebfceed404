"""`python -m raylab.run experiment=...` on a given model, as a person types it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raylab.results import load
from raylab.run import main
from tests import tiny_pretrained
from tests.cluster import clusters
from tests.e2e import commands

TINY = ["cluster=inline", "progress=plain", "metrics=[norms]", "spectral.min_evals=1", "draws=2"]
GPT2 = ["experiment=gpt2", "model.source=gpt2", "data.root=text.txt", "data.context=12", "+data.cache=cache", *TINY]
OWN = ["experiment=mine", "--config-dir", "conf", *TINY]
ROWS = 1 + 10 * (1 + 2)  # the baseline, ten layers as they are and with two draws


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A folder with a model, a text, and an experiment of one's own."""
    folder = tmp_path_factory.mktemp("lab")
    tiny_pretrained.language_model(folder / "gpt2")
    tiny_pretrained.text(folder / "text.txt")
    (folder / "my_pretrained_lab.py").write_text(tiny_pretrained.LAB)
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "model").mkdir()
    (folder / "conf" / "data").mkdir()
    (folder / "conf" / "model" / "lab.yaml").write_text("_target_: my_pretrained_lab.make\nseed: 1\n")
    (folder / "conf" / "data" / "noise.yaml").write_text("_target_: my_pretrained_lab.images\n")
    lines = ["# @package _global_", "defaults:", "  - override /model: lab", "  - override /data: noise"]
    lines += [
        "  - override /perturbation: rerandomize",
        "name: mine",
        "kind: perturb_pretrained",
        "similarity: false",
        "",
    ]
    (folder / "conf" / "experiment" / "mine.yaml").write_text("\n".join(lines))
    save_file({"fc.weight": torch.zeros(3, 3)}, folder / "other.safetensors")
    return folder


@pytest.fixture(scope="module")
def measured(lab) -> str:
    code, out, err = commands.run(lab, "raylab.run", *GPT2, "results=out")
    assert code == 0, err
    assert "Traceback" not in err
    return out


def test_what_a_lower_precision_costs_is_on_the_baselines_row_and_in_the_report(lab, here):
    code, _, err = here(lab, *GPT2, "results=bf16", "precision=bfloat16", "layers=[*.c_fc]")
    assert code == 0, err
    table = load(lab / "bf16").to_pylist()
    assert [row["loss_error"] for row in table if row["layer"] is None] != [None]
    assert "in float32, where it computed in less" in (lab / "bf16" / "report.html").read_text()


def test_a_language_model_ends_in_rows_and_a_report(lab, measured):
    found = clusters.rows(lab / "out")
    assert len(found) == ROWS and {row["status"] for row in found.values()} == {"'ok'"}
    assert "out/report.html" in measured and (lab / "out" / "report.html").stat().st_size > 10_000


def test_more_draws_add_rows_to_those_that_are_there(lab, measured, monkeypatch, capsys):
    monkeypatch.chdir(lab)
    before = clusters.rows(lab / "out")
    assert main([*GPT2, "results=out", "draws=3", "report=false"]) == 0
    after = clusters.rows(lab / "out")
    assert len(after) == ROWS + 10 and before.items() <= after.items()
    assert main([*GPT2, "results=out", "draws=3", "data.context=10"]) == 2
    assert "out holds another study (another version of data)" in capsys.readouterr().err


def test_an_experiment_of_ones_own_on_a_module_of_ones_own(lab, monkeypatch, capsys):
    monkeypatch.chdir(lab)
    monkeypatch.syspath_prepend(str(lab))
    assert main([*OWN, "results=mine", "plan=true"]) == 0
    assert "10 trials" in capsys.readouterr().out and not (lab / "mine").exists()
    assert main([*OWN, "results=mine", "report=false"]) == 0
    assert {row["layer"] for row in clusters.rows(lab / "mine").values()} == {"None", "'stem'", "'body'", "'head'"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.source=gpt3"], "There is no path 'gpt3'"),
        (["model.source=other.safetensors"], "does not fit transformers/gpt2"),
        (["model.source=openai-community/gpt2"], "not in the local cache: give model.download=true"),
        (["data.root=nowhere"], "There is no folder or file of text nowhere"),
        (["data.context=64"], "longer than the 32 that gpt2 has positions for"),
        (["data.context=5000"], "longer than the 32 that gpt2"),
        (["data.context=30", "data.tokens=20"], "give a smaller one"),
        (["layers=[transformer.h.7.*]"], "matches no layer"),
        (["perturbations=[reinit]"], "its theta_0 was never published"),
        (["precision=float8"], "precision=float8 is not known"),
        (["biases=none"], "biases=none is not known"),
        (["activations.host_gb=-1"], "activations.host_gb=-1 must be at least 0"),
        (["activations.folder=nowhere"], "activations.folder=nowhere is no folder"),
        (["cluster=threads", "precision=tf32"], "precision=tf32 is for a whole process"),
        (["data=digits"], "which a given model is not evaluated on"),
        (["model.initial=other.safetensors"], "it is another model's"),
        (["model.initial=nowhere/x"], "model.initial=nowhere/x cannot be opened"),
        (["models=2"], "models=2 is for kind=perturb_layers (how many models are trained alike)"),
        (["similarity=true"], "similarity=true is for kind=perturb_layers"),
        (["train.epochs=3"], "train.epochs=3 is for kind=perturb_layers (how models are trained)"),
        (["model.settings={n_lyer: 3}", "model.source=null", "model.pretrained=false"], "Did you mean 'n_layer'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(lab, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(lab)
    given = [word for word in GPT2 if not word.startswith(("data.", "+data.")) or "data=digits" not in arguments]
    assert main([*given, "results=bad", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("raylab: ") and says in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (lab / "bad").exists()
