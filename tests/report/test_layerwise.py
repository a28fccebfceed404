import made_up_spectra
import numpy as np
import pyarrow as pa
import pytest

from raylab.report import layerwise
from raylab.report.layerwise import models
from raylab.results import load


@pytest.fixture(scope="module")
def table():
    return made_up_spectra.analyzed(made_up_spectra.gpt(2))


def test_layers_say_what_became_of_them(table):
    (found,) = models(table)
    by_name = dict(zip(found.names, zip(found.states, map(found.reason, range(12)), strict=True), strict=True))
    assert by_name["transformer.h.0.mlp.c_fc"] == ("failed", "no power law: all eigenvalues are equal")
    assert by_name["tiny"][0] == "skipped" and "min_evals" in by_name["tiny"][1]
    assert by_name["lm_head"] == ("ok", "")
    assert [found.count(state) for state in ("ok", "failed", "skipped")] == [10, 1, 1]


def test_a_mean_is_over_the_layers_that_have_a_fit(table):
    (found,) = models(table)
    frame = table.to_pandas().query("status == 'ok'")
    assert found.mean("alpha") == pytest.approx(frame.alpha.mean())
    assert found.mean("log_norm") == pytest.approx(frame.log_norm.mean())
    assert np.isnan(found.mean("no such column"))


def test_a_folder_gives_the_same_layers_as_the_tables_in_it(table, tmp_path):
    other = made_up_spectra.analyzed(made_up_spectra.gpt(3, seed=1))
    found = models(load(made_up_spectra.folder(tmp_path, {"b": table, "a": other})))
    assert [each.model for each in found] == ["b", "a"]
    for each, given in zip(found, (table, other), strict=True):
        (alone,) = models(given)
        assert each.names == alone.names and list(each.states) == list(alone.states)
        assert each.floats("alpha") == pytest.approx(alone.floats("alpha"), nan_ok=True)
        assert each.evals(3) == pytest.approx(alone.evals(3))
        assert [each.reason(at) for at in range(12)] == [alone.reason(at) for at in range(12)]


def test_perturbed_rows_and_baselines_are_no_layers_and_replicates_are_models():
    rows = [
        {"model": "m", "replicate": model, "layer": layer, "perturbation": how, "status": "ok", "alpha": 3.0}
        for model in (0, 1)
        for layer, how in ((None, "original"), ("a", "original"), ("a", "reinit"))
    ]
    found = models(pa.Table.from_pylist(rows))
    assert [(each.model, each.names) for each in found] == [("m", ["a"]), ("m #2", ["a"])]


def test_slices_of_a_convolution_are_told_apart():
    rows = [{"layer": "c", "status": "ok", "alpha": 2.0 + at, "slice": at, "layer_index": 0} for at in (2, 0, 1)]
    (found,) = models(pa.Table.from_pylist(rows))
    assert found.names == ["c[0]", "c[1]", "c[2]"]
    assert list(found.floats("alpha")) == [2, 3, 4]


@pytest.mark.parametrize(
    ("layers", "roles"),
    [
        (
            {"transformer.wte": "linear", "h.0.attn.c_proj": "hf_conv1d", "h.0.mlp.c_proj": "x"},
            ["embedding", "attention", "MLP"],
        ),
        (
            {"layers.0.self_attn.q_proj": "linear", "layers.0.mlp.down_proj": "linear", "lm_head": "linear"},
            ["attention", "MLP", "head"],
        ),
        (
            {"patch_embed.proj": "conv2d", "blocks.0.attn.qkv": "linear", "blocks.0.mlp.fc1": "linear"},
            ["embedding", "attention", "MLP"],
        ),
        (
            {"fc1": "linear", "conv": "conv2d", "emb": "embedding", "rnn": "lstm"},
            ["linear", "convolution", "embedding", "other"],
        ),
    ],
)  # fmt: skip
def test_roles_come_from_names_where_there_is_attention_else_from_kinds(layers, roles):
    rows = [{"layer": name, "kind": kind, "status": "ok", "alpha": 3.0} for name, kind in layers.items()]
    (found,) = models(pa.Table.from_pylist(rows))
    assert list(found.roles) == roles


def test_rare_roles_are_other_where_there_are_too_many():
    roles = (
        ["attention"] * 9 + ["MLP"] * 8 + ["linear"] * 7 + ["head"] * 6 + ["embedding"] * 5 + ["convolution", "other"]
    )
    found = layerwise.few(roles)
    assert len(set(found)) == layerwise.MOST_ROLES and found[-2:] == ["other", "other"]
    assert layerwise.few(roles[:-1]) == roles[:-1]


def test_words():
    assert layerwise.elided("model.layers.11.self_attn.o_proj", 20) == "…11.self_attn.o_proj"
    assert layerwise.elided("transformer.h.0.mlp.c_proj", 24) == "…h.0.mlp.c_proj"
    assert layerwise.elided("blocks.0.fc", 5) == "…0.fc" and layerwise.elided("a.b_c_d_e", 5) == "…_d_e"
    assert layerwise.elided("fc1", 20) == "fc1"
    assert layerwise.listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert layerwise.plural(1, "layer") == "1 layer" and layerwise.plural(1200, "layer") == "1,200 layers"
