"""Given models without a cluster: the rows, against models that are patched by hand and evaluated whole."""

import gc
import itertools
import math
import sys
import weakref

import numpy as np
import pytest
import torch

from raylab import config, experiments
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.experiments import perturb_pretrained, pretrained
from tests import tiny_pretrained
from tests.tiny_pretrained import language_model

FAST = ["cluster=inline", "draws=2", "metrics=[norms]", "spectral.min_evals=1"]
CONTEXT = 12


def results(experiment, trials=None):
    return [r for batch in inline.stream(experiment, trials or experiment.trials()) for r in batch]


def same(one, other) -> bool:
    """All values equal, NaN to NaN."""
    return {r.trial.id: repr(r.values) for r in one} == {r.trial.id: repr(r.values) for r in other}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained GPT-2 and its theta_0, a mixture of experts, a text, and a module of one's own."""
    folder = tmp_path_factory.mktemp("place")
    language_model(folder / "gpt2")
    language_model(folder / "theta_0", seed=1)
    language_model(folder / "mixtral", "mixtral")
    tiny_pretrained.text(folder / "text.txt")
    (folder / "pretrained_lab.py").write_text(tiny_pretrained.LAB)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def gpt2(place, *overrides, model="gpt2"):
    source = [f"model.source={place / model}", f"data.root={place / 'text.txt'}", f"data.context={CONTEXT}"]
    return built("experiment=gpt2", *source, "model.architecture=null", f"+data.cache={place / 'cache'}", *overrides)


def images(*overrides, make="make"):
    target = [f"model._target_=pretrained_lab.{make}", "data._target_=pretrained_lab.images"]
    return built("--own", *target, *overrides)


def built(*overrides):
    if overrides[0] == "--own":
        from raylab.config import Config

        settings = dict(item.split("=", 1) for item in overrides[1:])
        made = Config(
            name="own",
            kind="perturb_pretrained",
            model={"_target_": settings.pop("model._target_")},
            data={"_target_": settings.pop("data._target_")},
            perturbations=settings.pop("perturbations", "original,rerandomize").split(","),
            metrics=["norms"],
            draws=2,
            batch_size=16,
            biases=settings.pop("biases", "replaced"),
            similarity=False,
        )
        made.spectral.min_evals = 1
        assert not settings
        return experiments.build(made)
    return experiments.build(config.compose([*overrides[:1], *FAST, *overrides[1:]])[0])


@pytest.fixture(scope="module")
def language(place):
    experiment = gpt2(place)
    return experiment, results(experiment)


def windows(experiment):
    return torch.from_numpy(experiment.data.x.astype(np.int64)), torch.from_numpy(experiment.data.y)


def whole_loss(module, experiment) -> float:
    """transformers' own loss, a window at a time, weighted by its tokens."""
    x, y = windows(experiment)
    total = 0.0
    with torch.no_grad():
        for ids, labels in zip(x, y, strict=True):
            scored = int((labels != -100).sum())
            own = torch.cat([torch.tensor([-100]), labels[:-1]])  # it shifts them itself
            total += float(module(input_ids=ids[None], labels=own[None]).loss) * scored
    return total / int((y != -100).sum())


def test_the_baseline_is_transformers_own_loss(place, language):
    from transformers import GPT2LMHeadModel

    experiment, found = language
    baseline = found[0]
    own = GPT2LMHeadModel.from_pretrained(place / "gpt2").eval()
    assert baseline.trial.layer is None and baseline.status == "ok"
    assert baseline.values["loss"] == pytest.approx(whole_loss(own, experiment), rel=1e-6)
    assert baseline.values["perplexity"] == pytest.approx(math.exp(baseline.values["loss"]))
    assert baseline.values["num_samples"] == int((experiment.data.y >= 0).sum())


def test_every_row_says_what_was_done(language):
    experiment, found = language
    assert {result.status for result in found} == {"ok"}
    layers = [p.layer.name for p in experiment.layers]
    assert len(layers) == 2 + 2 * 4 and len(found) == 1 + len(layers) * (1 + 2)
    assert len({result.trial.id for result in found}) == len(found)
    for result in found:
        assert set(result.values) <= set(experiment.columns)
        assert (result.values["context"], result.values["stride"], result.values["device"]) == (CONTEXT, CONTEXT, "cpu")
        assert result.values["precision"] == "float32" and "gpt2" in result.values["origin"]
    rows = {(r.trial.layer, r.trial.perturbation, r.trial.draw): r.values for r in found}
    embedding, fused = rows["transformer.wte", "rerandomize", 0], rows["transformer.h.1.attn.c_proj", "rerandomize", 1]
    assert (embedding["tied"], embedding["bias"], embedding["buffers"]) == ("lm_head.weight", "none", "none")
    assert (fused["tied"], fused["bias"]) == (None, "replaced")
    assert "0.01" in fused["law"] and "0.02" in embedding["law"]  # 0.02 / sqrt(2 layers of 2)
    losses = [values["loss"] for (layer, how, _), values in rows.items() if how == "rerandomize"]
    assert len(set(losses)) == len(losses)


def test_a_rerandomised_layer_is_as_in_a_model_that_is_patched_by_hand(place, language):
    from transformers import GPT2LMHeadModel

    experiment, found = language
    laws = experiment.laws
    for result in found:
        trial = result.trial
        if trial.perturbation != "rerandomize" or trial.draw:
            continue
        parameters = next(p for p in experiment.layers if p.layer.name == trial.layer)
        own, rng = GPT2LMHeadModel.from_pretrained(place / "gpt2").eval(), trial.rng()
        for name in parameters.names:
            parameter = own.get_parameter(name)
            parameter.data = torch.from_numpy(laws[name].draw(rng, tuple(parameter.shape)))
        assert result.values["loss"] == pytest.approx(whole_loss(own, experiment), rel=1e-5), trial.layer


def test_any_order_of_groups_on_one_or_two_workers_gives_the_same_rows(language, monkeypatch):
    monkeypatch.setattr(perturb_pretrained, "TRIALS_A_RANGE", 4)
    experiment, found = language
    groups = experiment.groups(experiment.trials())
    assert len(groups) > 2
    backwards = [trial for group in reversed(groups) for trial in group]
    one_by_one = [r for trial in backwards[::5] for r in results(experiment, [trial])]
    kept = [r for r in found if r.trial.id in {trial.id for trial in backwards[::5]}]
    assert same(one_by_one, kept)
    threads = inline.stream_in_threads(experiment, experiment.trials(), 2)
    assert same(itertools.chain.from_iterable(threads), found)


def test_more_draws_are_more_trials_and_the_first_stay(place, language):
    experiment, _ = language
    more = {trial.id for trial in gpt2(place, "draws=3").trials()}
    before = {trial.id for trial in experiment.trials()}
    assert before < more and len(more - before) == len(experiment.layers)


def test_theta_0_is_needed_for_reinit_and_used(place):
    overrides = ["perturbations=[original,reinit,reinit_signs]", "layers=[transformer.h.0.mlp.*]"]
    with pytest.raises(UserError, match=r"theta_0 was never published.*model\.initial=PLACE"):
        gpt2(place, *overrides)
    experiment = gpt2(place, *overrides, f"model.initial={place / 'theta_0'}")
    from transformers import GPT2LMHeadModel

    own, initial = (GPT2LMHeadModel.from_pretrained(place / name).eval() for name in ("gpt2", "theta_0"))
    for name in ("weight", "bias"):
        setattr(own.transformer.h[0].mlp.c_fc, name, getattr(initial.transformer.h[0].mlp.c_fc, name))
    found = {(r.trial.layer, r.trial.perturbation): r.values["loss"] for r in results(experiment)}
    assert found["transformer.h.0.mlp.c_fc", "reinit"] == pytest.approx(whole_loss(own, experiment), rel=1e-6)
    other = gpt2(place, *overrides, f"model.initial={place / 'gpt2'}")
    assert other.identity["model"] != experiment.identity["model"]


def test_a_worker_that_goes_on_with_another_experiment_begins_anew(place):
    """Equal in number, layers of the same model: nothing of the first may be left."""
    for layer in ("transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"):
        found = results(gpt2(place, f"layers=[{layer}]"))
        assert {r.status for r in found} == {"ok"} and {r.trial.layer for r in found} == {None, layer}


def test_a_worker_goes_on_after_an_experiment_that_could_not_begin(place, language, monkeypatch):
    experiment, other = language[0], gpt2(place, "batch_size=1", "layers=[*h.0.mlp.c_fc]")
    before = results(experiment, experiment.trials()[:2])
    with monkeypatch.context() as broken:
        broken.setattr(pretrained, "_prefix_walk", lambda *_: 1 / 0)
        failed = results(other)
        assert all(r.status == "failed" and "ZeroDivisionError" in r.error for r in failed) and failed
    assert same(results(experiment, experiment.trials()[:2]), before)


def test_a_model_is_held_from_group_to_group_and_not_after_the_last(language, monkeypatch):
    monkeypatch.setattr(perturb_pretrained, "TRIALS_A_RANGE", 4)
    begun: list[weakref.ref] = []
    begin = pretrained._begin
    monkeypatch.setattr(pretrained, "_begin", lambda e: begun.append(weakref.ref(walk := begin(e))) or walk)
    experiment = language[0]
    stream = inline.stream(experiment, experiment.trials())
    next(stream)
    assert len(begun) == 1 and begun[0]() is not None
    list(stream)
    gc.collect()
    assert len(begun) == 1 and begun[0]() is None
    next(broken_off := inline.stream(experiment, experiment.trials()))
    broken_off.close()
    gc.collect()
    assert len(begun) == 2 and begun[1]() is None


def test_of_a_fused_projection_the_queries_alone(place):
    experiment = gpt2(place, "spectral.split=true", "layers=[transformer.h.0.attn.c_attn*]", "draws=1")
    assert len(experiment.layers) == 3
    query = next(p for p in experiment.layers if p.layer.name.endswith("[q]"))
    walk = pretrained._walk(experiment)
    trial = next(t for t in experiment.trials() if t.layer == query.layer.name and t.perturbation == "rerandomize")
    arrays = walk._replaced(query, walk._drawn(trial, walk._weights(query)))
    name = "transformer.h.0.attn.c_attn.weight"
    changed = arrays[name] != experiment.network.tensors[name]
    assert list(arrays) == [name] and changed[:, :16].all() and not changed[:, 16:].any()
    row = next(r for r in results(experiment) if r.trial.id == trial.id)
    assert row.status == "ok" and row.values["bias"] == "kept"


def test_one_expert_is_perturbed_and_nothing_else(place):
    experiment = gpt2(place, "draws=1", "layers=[*experts*]", model="mixtral")
    assert len(experiment.layers) >= 8
    walk = pretrained._walk(experiment)
    for parameters in experiment.layers[:3]:
        trial = next(
            t for t in experiment.trials() if t.layer == parameters.layer.name and t.perturbation == "rerandomize"
        )
        ((name, new),) = walk._replaced(parameters, walk._drawn(trial, walk._weights(parameters))).items()
        changed = (new != experiment.network.tensors[name]).any(axis=tuple(range(1, new.ndim)))
        assert changed.sum() == 1, "experts are stacked along the first dimension"
    found = results(experiment)
    assert {r.status for r in found} == {"ok"}
    assert len({r.values["loss"] for r in found}) > len(experiment.layers)


def test_workers_that_share_a_gpu_share_what_may_lie_there(place):
    overrides = ["layers=[transformer.wpe]", "activations.gpu_gb=10"]
    for gpus, gb in ((0, 10), (0.25, 2.5), (1, 10), (2, 10)):
        experiment = gpt2(place, *overrides, "cluster=local", f"cluster.gpus_per_worker={gpus}")
        assert (experiment.activations.gpu_gb, experiment.activations.host_gb) == (gb, 8)


def test_biases_may_be_kept(place):
    experiment = gpt2(place, "biases=kept", "layers=[transformer.h.0.mlp.c_fc]")
    assert {r.values["bias"] for r in results(experiment) if r.trial.layer} == {"kept"}
    assert [p.names for p in experiment.layers] == [("transformer.h.0.mlp.c_fc.weight",)]


def test_a_lower_precision_says_what_it_costs(place, language):
    found = results(gpt2(place, "precision=bfloat16", "layers=[transformer.h.1.mlp.c_fc]", "draws=1"))
    exact = language[1][0].values["loss"]
    baseline = next(r for r in found if r.trial.layer is None)
    assert baseline.values["loss_error"] == pytest.approx(baseline.values["loss"] - exact, abs=1e-9)
    assert 0 < abs(baseline.values["loss_error"]) < 0.05
    assert {r.values["precision"] for r in found} == {"bfloat16"}


def test_perplexity_may_be_a_word(place):
    baseline = results(gpt2(place, "data.normaliser=word", "layers=[transformer.wpe]", "draws=1"))[0].values
    assert baseline["perplexity"] == pytest.approx(
        math.exp(baseline["loss"] * baseline["num_samples"] / baseline["words"])
    )


def test_a_module_of_ones_own(place):
    experiment = images()
    found = results(experiment)
    assert [p.layer.name for p in experiment.layers] == ["stem", "body", "head"]
    assert {r.status for r in found} == {"ok"} and len(found) == 1 + 3 * 3
    assert "pretrained_lab" in experiment.own_code
    import pretrained_lab

    x = (torch.from_numpy(experiment.data.x).float() / 255 - 0.5) / 0.2
    for result in found:
        own, trial = pretrained_lab.make(), result.trial
        if trial.perturbation == "rerandomize":
            rng = trial.rng()
            for name in ("weight", "bias"):
                parameter = own.get_parameter(f"{trial.layer}.{name}")
                law = experiment.laws[f"{trial.layer}.{name}"]
                parameter.data = torch.from_numpy(law.draw(rng, tuple(parameter.shape)))
        with torch.no_grad():
            guess = own(x).argmax(1).numpy()
        assert result.values["accuracy"] == (guess == experiment.data.y).mean(), trial
        assert result.values.get("buffers") == (None if trial.layer is None else "kept")


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # the lab's own
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_weights_that_are_no_numbers_are_a_failed_row_that_says_so(place):
    found = results(images("perturbations=pretrained_lab:breaks"))
    failed = [r for r in found if r.status == "failed"]
    assert {r.trial.layer for r in failed} == {"body"} and len(found) == 1 + 3 * 2
    for result in failed:
        assert "accuracy" not in result.values and len(result.error.splitlines()) == 1
        assert "breaks made NaN or infinite numbers (float32) of body.weight" in result.error


def test_a_function_that_only_loads_shows_no_laws(place):
    with pytest.raises(UserError, match="how it was initialised is not known"):
        images(make="loaded")


def test_what_is_no_evaluation_data_is_refused(place):
    with pytest.raises(UserError, match="gives a dict, which a given model is not evaluated on"):
        built("--own", "model._target_=pretrained_lab.make", "data._target_=pretrained_lab.sentences")
