"""A small GPT-2 from scratch: that it learns, that a seed is a seed, and that transformers reads what is written."""

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

from raylab import train_language
from raylab.train_language import LanguageRecipe, main

LETTERS = "abcdefghijklmnopqrstuvwxyzĠĊ"  # Ġ and Ċ: how GPT-2 writes a blank and the end of a line
TINY = ["--layers=2", "--width=16", "--heads=2", "--context=16", "--batch=2", "--epochs=3", "--rate=0.01"]
FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of single letters, and two texts."""
    folder = tmp_path_factory.mktemp("texts")
    letters = {letter: index for index, letter in enumerate(LETTERS)} | {"<|endoftext|>": len(LETTERS)}
    GPT2Tokenizer(vocab=letters, merges=[]).save_pretrained(folder / "tokenizer")
    (folder / "text.txt").write_text("the cat sat on the mat\n" * 30)
    pq.write_table(pa.table({"text": ["the mat sat", "on the cat"] * 5}), folder / "held.parquet")
    return folder


def run(folder, out, *more) -> int:
    texts = [f"--text={folder}/text.txt", f"--held-out={folder}/held.parquet", f"--tokenizer={folder}/tokenizer"]
    return main([str(out), *texts, *TINY, "--device=cpu", *more])


@pytest.fixture(scope="module")
def trained(folder):
    assert run(folder, folder / "trained") == 0
    return folder / "trained"


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_falls_far_below_chance(trained):
    epochs = json.loads((trained / "training.json").read_text())["epochs"]
    assert epochs[0]["loss"] > epochs[1]["loss"] > epochs[2]["loss"]
    assert epochs[2]["held_out_loss"] < 0.75 * math.log(len(LETTERS) + 1)
    assert epochs[2]["held_out_perplexity"] == pytest.approx(math.exp(epochs[2]["held_out_loss"]))


def test_transformers_loads_the_folder_and_finds_the_recorded_loss(folder, trained):
    """The whole road once more, with nothing of ours: text -> tokens -> logits -> loss."""
    model = AutoModelForCausalLM.from_pretrained(trained, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained, local_files_only=True)
    text = "\n\n".join(["the mat sat", "on the cat"] * 5)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    assert len(ids) == len(text)
    total = 0.0
    for start in range(0, len(ids) - 1, 16):
        window = ids[start : start + 17]
        with torch.no_grad():
            logits = model(window[None, :-1]).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    record = json.loads((trained / "training.json").read_text())
    saved = record["epochs"][record["saved_epoch"] - 1]
    assert total / (len(ids) - 1) == pytest.approx(saved["held_out_loss"], rel=1e-5)


def test_theta_0_is_kept_and_follows_gpt2s_law(trained):
    assert {path.name for path in trained.iterdir()} == FILES | {"initial", "training.json"}
    assert {path.name for path in (trained / "initial").iterdir()} == FILES
    start, end = weights(trained / "initial"), weights(trained)
    assert not any(torch.equal(start[name], end[name]) for name in start)
    loaded = AutoModelForCausalLM.from_pretrained(trained / "initial", local_files_only=True)
    assert torch.equal(loaded.transformer.h[0].attn.c_attn.weight, start["transformer.h.0.attn.c_attn.weight"])
    for name, spread in (("mlp.c_fc", 0.02), ("mlp.c_proj", 0.02 / 2)):  # on the residual stream: / sqrt(2 layers)
        matrix = start[f"transformer.h.1.{name}.weight"]
        assert float(matrix.std()) == pytest.approx(spread, rel=0.15)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, trained, tmp_path):
    before = torch.get_rng_state()
    assert run(folder, tmp_path / "same") == run(folder, tmp_path / "other", "--seed=1") == 0
    assert torch.equal(before, torch.get_rng_state())
    assert same(weights(trained), weights(tmp_path / "same"))
    assert same(weights(trained / "initial"), weights(tmp_path / "same" / "initial"))
    assert not same(weights(trained / "initial"), weights(tmp_path / "other" / "initial"))


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(folder, trained, tmp_path, monkeypatch, capsys):
    whole = train_language._Run.epoch

    def interrupted(run, *args):
        if run.history:
            raise KeyboardInterrupt
        whole(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train_language._Run, "epoch", interrupted)
        assert run(folder, tmp_path) == 130
    assert "epoch 1/3" in capsys.readouterr().out
    assert run(folder, tmp_path, "--epochs=4") == 2
    assert "a run of other settings" in capsys.readouterr().err
    assert run(folder, tmp_path) == 0
    said = capsys.readouterr().out
    assert "epoch 1/3" not in said and "epoch 3/3" in said
    assert same(weights(trained), weights(tmp_path)) and same(
        weights(trained / "initial"), weights(tmp_path / "initial")
    )
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_best_epoch_is_kept_and_training_stops_when_it_gets_no_better(folder, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    kept = []

    def loss_of(model, tokens, context):
        kept.append(model.lm_head.weight.detach().clone())
        return next(losses)

    monkeypatch.setattr(train_language, "loss_of", loss_of)
    assert run(folder, tmp_path, "--epochs=9", "--patience=2") == 0
    record = json.loads((tmp_path / "training.json").read_text())
    assert len(record["epochs"]) == 4 and record["saved_epoch"] == 2
    assert torch.equal(weights(tmp_path)["transformer.wte.weight"], kept[1])


def test_windows_cover_the_text_from_the_offset_on():
    tokens = np.arange(30)
    for offset in range(8):
        windows = train_language._windows(tokens, 8, offset)
        assert len(windows) == (29 - offset) // 8
        np.testing.assert_array_equal(windows[:, 0], offset + 8 * np.arange(len(windows)))
        np.testing.assert_array_equal(windows - windows[:, :1], np.tile(np.arange(9), (len(windows), 1)))


def test_the_learning_rate_rises_on_a_line_and_falls_to_zero():
    recipe = LanguageRecipe(rate=2.0, warmup=1.0, epochs=9)
    assert [recipe.rate_at(at) for at in (0.0, 0.5, 4.5, 9.0)] == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-12)
    assert max(recipe.rate_at(at) for at in np.linspace(0, 9, 1000)) == pytest.approx(2.0, rel=0.04)
    assert LanguageRecipe(rate=2.0, warmup=0.0).rate_at(0.0) == 2.0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--text=none.txt"], "none.txt cannot be read: give a .parquet file with a column text"),
        (["--text={folder}/numbers.parquet"], "numbers.parquet cannot be read"),
        (["--text={folder}/text.parquet"], "text.parquet cannot be read"),
        (["--text={folder}/short.txt"], "short.txt holds 5 tokens, 33 are needed"),
        (["--text={folder}/latin.txt"], "latin.txt cannot be read"),
        (["--tokenizer=nowhere"], "There is no folder nowhere: give --tokenizer"),
        (["--tokenizer={folder}"], "holds no tokenizer that transformers can load"),
        (["--heads=3"], "--width 16 is no multiple of --heads 3"),
        (["--layers=0"], "--layers 0: at least 1 is needed"),
        (["--held-out-tokens=0"], "--held-out-tokens 0: at least 1"),
        (["--dropout=1"], "--dropout is below 1"),
        (["--rate=nan"], "--rate above 0"),
        (["--precision=float8"], "--precision float8: choose one of bfloat16, float32"),
        (["--device=abacus"], "--device abacus cannot be used"),
        (["--device=cuda:99"], "--device cuda:99 cannot be used"),
        (["--rate=1e30", "--warmup=0"], "The loss of epoch 1 is nan: choose a lower --rate"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, capsys, more, says):
    (folder / "short.txt").write_text("short")
    (folder / "latin.txt").write_bytes("Übung".encode("latin-1") * 99)
    shutil.copy(folder / "text.txt", folder / "text.parquet")
    pq.write_table(pa.table({"number": [1, 2]}), folder / "numbers.parquet")
    assert run(folder, tmp_path / "out", *(one.format(folder=folder) for one in more)) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("raylab.train_language: ") and said.count("\n") == 1


def test_a_finished_folder_is_not_written_again(folder, trained, capsys):
    before = weights(trained)
    assert run(folder, trained) == 2
    assert "finished: choose another folder" in capsys.readouterr().err
    assert same(before, weights(trained))


def test_a_file_in_place_of_the_folder_is_refused(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(folder, tmp_path / "file") == 2
    assert "Cannot make" in capsys.readouterr().err
