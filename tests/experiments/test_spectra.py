"""experiment=spectra: the layers of any model as trials."""

import math
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

import raylab
import raylab.models.sources
from raylab import config, experiments
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.types import SpectralOptions


@pytest.fixture
def two_files(tmp_path):
    """Two models of the same layers, one of them with a layer that is too small and one that is no weight."""
    paths = []
    for name in ("first", "second"):
        rng = np.random.default_rng(len(name))
        state = {f"h.{i}.weight": rng.standard_t(3, size=(60 + 10 * (i % 2), 40)).astype(np.float32) for i in range(4)}
        state |= {"conv.weight": rng.normal(size=(12, 8, 3, 3)).astype(np.float32)}
        state |= {"tiny.weight": rng.normal(size=(30, 3)).astype(np.float32), "index": np.ones((9, 9), np.int64)}
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(state, paths[-1])
    return paths


def built(*overrides):
    return experiments.build(config.compose(["experiment=spectra", "spectral.device=cpu", *overrides])[0])


def results(experiment, stream=inline.stream):
    return {(r.trial.model, r.trial.layer): r for batch in stream(experiment, experiment.trials()) for r in batch}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].status == b[key].status
        for column in a[key].values:
            np.testing.assert_array_equal(a[key].values[column], b[key].values[column])


def test_rows_are_those_of_analyze(two_files):
    found = results(built(f"model={two_files[0]}", "metrics=[standard,marchenko_pastur,esd]"))
    options = SpectralOptions(device="cpu")
    table = raylab.analyze(two_files[0], ("standard", "marchenko_pastur", "esd"), options).to_pylist()
    assert [layer for _, layer in found] and {layer for _, layer in found} == {row["layer"] for row in table}
    for row in table:
        result = found["first", row["layer"]]
        assert result.status == row["status"]
        if row["status"] == "skipped":
            assert result.error == row["reason"]
            continue
        for column in ("N", "M", "matrices", "kind", "alpha", "D", "mp_softrank", "num_evals", "evals"):
            np.testing.assert_array_equal(result.values[column], row[column], column)


def test_every_result_carries_what_is_declared_and_says_where_it_came_from(two_files):
    experiment = built(f"model={two_files[0]}")
    for result in results(experiment).values():
        assert set(result.values) <= set(experiment.columns)
        assert str(two_files[0]) in result.values["origin"]
        if result.status == "ok":
            assert set(result.values) == set(experiment.columns)
            assert math.isfinite(result.values["rand_lambda_max"])


def test_threads_and_other_groups_change_no_bit(two_files):
    experiment = built(f"model={two_files[0]}")
    expected = results(experiment)
    same(expected, results(experiment, lambda e, t: inline.stream_in_threads(e, t, 3)))
    one_by_one = {}
    for trial in experiment.trials():
        [outcome] = experiment.run((trial,))
        one_by_one[trial.model, trial.layer] = outcome.result
    same(expected, one_by_one)


def test_threads_open_a_model_once_and_measure_the_weights_of_its_digest(monkeypatch):
    """Random weights, from torch's generator, which is one for all threads."""
    from raylab.models.sources import libraries

    opened = []
    real = libraries.open_timm
    monkeypatch.setattr(libraries, "open_timm", lambda *given: opened.append(given) or real(*given))
    experiment = built("model=timm/test_vit", "model.pretrained=false", "metrics=[norms]")
    assert len(experiment.groups(experiment.trials())) > 3
    found = results(experiment, lambda e, t: inline.stream_in_threads(e, t, 4))
    assert len(opened) == 2  # for the digest, and to be measured
    same(found, results(experiment))
    made = raylab.models.sources.open_model("timm/test_vit", pretrained=False).model
    weights = {name.removesuffix(".weight"): tensor for name, tensor in made.named_parameters()}
    for (_, layer), result in found.items():
        if result.status == "ok":
            expected = float(weights[layer].detach().double().norm())
            factor = math.sqrt(0.5) if result.values["kind"] == "conv2d" else 1.0
            assert result.values["frobenius_norm"] == pytest.approx(factor * expected)


def test_layers_of_one_short_side_go_together_the_most_expensive_first(two_files):
    experiment = built(f"model={two_files[0]}")
    groups = [[trial.layer for trial in group] for group in experiment.groups(experiment.trials())]
    assert groups == [["h.0", "h.1", "h.2", "h.3"], ["conv"], ["index", "tiny"]]
    pending = [trial for trial in experiment.trials() if trial.layer in ("h.3", "tiny")]
    assert [[trial.layer for trial in group] for group in experiment.groups(pending)] == [["h.3"], ["tiny"]]


def test_two_models_are_told_apart(two_files):
    experiment = built(f"model=[{two_files[0]},{two_files[1]}]")
    assert {trial.model for trial in experiment.trials()} == {"first", "second"}
    assert len({trial.checkpoint for trial in experiment.trials()}) == 2
    found = results(experiment)
    assert found["first", "h.0"].values["alpha"] != found["second", "h.0"].values["alpha"]
    assert len(experiment.skipped) == 4 and "first: tiny" in experiment.skipped


def test_an_experiment_travels_to_a_worker_without_the_weights(two_files):
    experiment = built(f"model={two_files[0]}")
    packed = pickle.dumps(experiment)
    assert len(packed) < 20_000
    same(results(experiment), results(pickle.loads(packed)))


def test_the_checkpoint_is_a_digest_of_the_content(two_files, tmp_path):
    before = built(f"model={two_files[0]}").trials()[0]
    moved = tmp_path / "elsewhere" / "first.safetensors"
    moved.parent.mkdir()
    moved.write_bytes(two_files[0].read_bytes())
    assert built(f"model={moved}").trials()[0].id == before.id
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(bytes(changed))
    assert built(f"model={moved}").trials()[0].id != before.id


def test_a_layer_that_fails_fails_alone(two_files, monkeypatch):
    from raylab import spectral

    real = spectral.measure_many

    def measure_many(items, *rest):
        assert not any(layer.name == "h.2" for _, layer in items), "the matrix of h.2 is cursed"
        return real(items, *rest)

    def measure(weights, layer, *rest):
        return measure_many([(weights, layer)], *[r if i < 2 else [r] for i, r in enumerate(rest)])[0]

    experiment = built(f"model={two_files[0]}")
    expected = results(experiment)
    monkeypatch.setattr(spectral, "measure_many", measure_many)
    monkeypatch.setattr(spectral, "measure", measure)
    found = results(experiment)
    failed = found.pop(("first", "h.2"))
    assert failed.status == "failed" and "cursed" in failed.error
    expected.pop(("first", "h.2"))
    same(expected, found)


def lab_model(width):
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(width, 20), torch.nn.Linear(20, 20))


def test_a_model_of_ones_own(tmp_path):
    experiment = built("model=own", f"model._target_={__name__}.lab_model", "+model.width=30", "model.name=mine")
    found = results(pickle.loads(pickle.dumps(experiment)))
    assert list(found) == [("mine", "0"), ("mine", "1")]
    assert found["mine", "0"].values["N"] == 30


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "needs a model: give model=PATH_OR_NAME"),
        (["model=[{0},{0}]"], "have the same weights"),
        (["model={0}", "layers=[nothing]"], "'nothing' matches no layer"),
        (["model={0}", "layers=[tiny]"], "No layer of first can be measured: tiny, 3 eigenvalues are fewer"),
        (["model={0}", "metrics=[standrad]"], "Did you mean 'standard'"),
        (["model={0}", "spectral.conv=slices"], "several rows a layer"),
        (["model={0}.gone/x.safetensors"], "There is no file or folder"),
    ],
)
def test_bad_input_is_one_clear_line(two_files, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        built(*(text.format(*two_files) for text in overrides))
    assert "\n" not in str(caught.value)


def test_files_of_one_name_keep_their_names_whatever_they_are_measured_with(two_files, tmp_path):
    """Else the same command with one model more would measure what is there already, under another name."""
    paths = []
    for folder, file in zip("ab", two_files, strict=True):
        paths.append(tmp_path / folder / "model.safetensors")
        paths[-1].parent.mkdir()
        paths[-1].write_bytes(file.read_bytes())
    alone = {trial.id for trial in built(f"model={paths[1]}").trials()}
    trials = built(f"model=[{paths[0]},{paths[1]}]").trials()
    assert {trial.model for trial in trials} == {"a", "b"} and alone < {trial.id for trial in trials}
    assert config.compose([f"model={paths[1]}"])[0].results == "results/spectra/b"


def test_places_on_the_command_line(two_files, tmp_path, monkeypatch):
    """A folder that is named by dots or in brackets is the folder, and the results are not those of another."""
    odd = tmp_path / "run[1]"
    odd.mkdir()
    (odd / "model.safetensors").write_bytes(two_files[0].read_bytes())
    monkeypatch.chdir(odd)
    for place in (".", "./", "../run[1]", str(odd)):
        made, _ = config.compose([f"model={place}"])
        assert made.model["source"] == place
        assert made.results == "results/spectra/run[1]"
    made, _ = config.compose(["model=timm/resnet34.tv_in1k"])
    assert made.results == "results/spectra/resnet34.tv_in1k"
    made, _ = config.compose([f"model=[{odd},{two_files[0]}]"])
    assert made.model["source"] == [str(odd), str(two_files[0])] and made.results == "results/spectra/run[1]+first"
