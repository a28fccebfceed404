"""Every shipped experiment composes; every mistake in a command is one line that says what to do."""

import pytest

from raylab import config, samples
from raylab.errors import UserError
from raylab.types import PLAIN_SGD
from tests import composing

EXPERIMENTS = config.groups()["experiment"]


@pytest.fixture(autouse=True)
def remembered(monkeypatch):
    composing.remember(monkeypatch)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_experiment_composes(name):
    composed, settings = config.compose([f"experiment={name}"])
    of_model = f"results/{settings['model'].get('name')}"  # an experiment that is run on one model after another
    assert composed.name == name and (composed.results.startswith(f"results/{name}") or composed.results == of_model)
    assert settings["name"] == name and isinstance(settings["train"], dict)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_file_opens_with_its_command(name):
    lines = (config.conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[1].startswith("# python -m raylab.run")
    assert config.about("experiment", name)


@pytest.mark.parametrize("group", sorted(config.groups().keys() - {"experiment"}))  # those compose above
def test_every_choice_of_every_group_composes(group):
    for name in config.groups()[group]:
        config.compose([f"{group}={name}"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experiment=digit", "Unknown experiment 'digit'. Did you mean 'digits'?"),
        ("modles=3", "Unknown key 'modles'. Did you mean 'models'?"),
        ("+modles=3", "Unknown key 'modles'. Did you mean 'models'?"),
        ("train.epoch=3", "Unknown key 'train.epoch'. Did you mean 'train.epochs'?"),
        ("+cluster.worker=3", "Unknown key 'cluster.worker'. Did you mean 'cluster.workers'?"),
        ("models=many", "models=many must be a whole number"),
        ("models=0", "models=0 must be at least 1."),
        ("seed=-1", "seed=-1 must not be negative."),
        ("train.learning_rate=-1", "train.learning_rate=-1 must be more than 0"),
        ("train.momentum=1", "train.momentum=1 must be at least 0 and below 1"),
        ("cluster=slurm", "Unknown cluster 'slurm'. Available: gpu, inline, local, ray, threads."),
        ("cluster.backend=inlin", "Did you mean 'inline'?"),
        ("data.rot=x", "the chosen data has no 'rot'. It has no keys; choose another, data=NAME: cifar10, "),
        ("model.source=/nope", "has no 'source'. A given model is named by model=PATH_OR_NAME. Available: depth, name"),
        ("models", "Write key=value"),
        ("seed=[1", "Write key=value"),
    ],
)
def test_a_mistake_is_one_line_that_helps(override, says):
    refused(says, override)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["experiment=vit", "data.sample=3"], "has no 'sample'. Did you mean 'samples'? Available: classes, download"),
        (
            ["data=mnist", "data.verify=false"],
            "the file of the chosen data does not list it; add it with +data.",
        ),
        (["data=mnist", "data.rot=x", "models=0"], "the chosen data has no 'rot'. Did you mean 'root'?"),
    ],
)
def test_an_unknown_key_of_a_model_or_of_data_is_met_with_those_that_there_are(words, says):
    refused(says, *words)


def refused(says, *words):
    with pytest.raises(UserError) as error:
        config.compose(words)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", ["models=1", "similarity=false", "train.epochs=12", "train=sgd", "debug=tiny"])
def test_what_changes_nothing_is_not_refused(word):
    composed, _ = config.compose(["experiment=gpt2", word])
    assert composed.kind == "perturb_pretrained"


def test_a_file_of_ones_own_may_say_what_is_not_read(tmp_path):
    (tmp_path / "experiment").mkdir()
    lines = "# @package _global_\nname: mine\nkind: perturb_pretrained\nmodels: 7\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(lines)
    assert config.compose(["experiment=mine"], extra_dir=str(tmp_path))[0].models == 7
    for word in ("models=3", "stack=2", "train.momentum=0.5"):
        with pytest.raises(UserError, match=f"{word} is for kind=perturb_layers") as error:
            config.compose(["experiment=mine", word], extra_dir=str(tmp_path))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("experiment", ["digits", "fcn_mnist", "spectra", "alpha_at_init", "models_by_alpha"])
@pytest.mark.parametrize("word", ["precision=bfloat16", "biases=kept", "activations.host_gb=1"])
def test_knobs_of_given_models_are_refused_elsewhere(experiment, word):
    with pytest.raises(UserError, match="is for kind=perturb_pretrained"):
        config.compose([f"experiment={experiment}", word])


def test_a_later_override_wins_over_the_experiment():
    assert config.compose(["experiment=fcn_mnist", "models=3", "model.depth=2"])[0].models == 3


@pytest.mark.parametrize(("cluster", "backend"), [("local", "ray"), ("ray", "ray"), ("inline", "inline")])
def test_a_debug_preset_leaves_the_cluster_to_the_command(cluster, backend):
    assert config.compose(["debug=tiny", f"cluster={cluster}"])[0].cluster.backend == backend


def test_an_own_experiment_from_an_own_folder(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\nmodels: 7\n")
    composed, _ = config.compose(["experiment=mine"], extra_dir=str(tmp_path))
    assert (composed.name, composed.models) == ("mine", 7)
    with pytest.raises(UserError, match="is no folder"):
        config.compose([], extra_dir=str(tmp_path / "nowhere"))


def test_only_what_changes_an_answer_changes_its_digest():
    def digest(*overrides: str) -> str:
        return config.answer_digest(config.compose(overrides)[1], {"data": "d1"})

    assert digest() == digest("results=elsewhere", "cluster.workers=4", "progress=none", "stack=3", "+data.root=x")
    assert digest() == digest("spectral.device=cpu") != config.answer_digest(config.compose([])[1], {"data": "d2"})
    assert len({digest(), digest("seed=1"), digest("train.epochs=2"), digest("spectral=oracle")}) == 4


def test_a_folder_takes_more_of_the_same_study_but_no_other():
    base = config.compose([])[1]
    assert config.differences(base, config.compose(["models=40", "cluster.workers=1"])[1]) == []
    assert config.differences(base, config.compose(["train.epochs=2"])[1]) == ["train.epochs: 30 -> 2"]
    assert "model.name: " in config.differences(base, config.compose(["model.name=renamed"])[1])[0]
    older = {**base, "train": {key: base["train"][key] for key in PLAIN_SGD}}  # before recipes said more
    assert config.differences(older, base) == []
    assert config.differences(older, config.compose(["train.warmup=2"])[1]) == ["train.warmup: 0.0 -> 2.0"]
    oldest = {key: value for key, value in base.items() if key not in ("tune", "retraction", "retractions", "ranges")}
    assert config.differences(oldest, base) == config.differences(base, oldest) == []


def test_a_sweep_and_raylab_run_share_a_folder_but_a_search_has_its_own():
    words = ["experiment=fcn_mnist", "data=digits", "models=2"]
    by_run, sweep = config.compose(words)[1], samples.plan(words, None).settings
    assert config.differences(by_run, sweep) == config.differences(sweep, by_run) == []
    search = samples.plan([*words[:2], "models=1", "train.learning_rate=choice(0.05,0.1)"], None).settings
    assert any(each.startswith("tune.space") for each in config.differences(by_run, search))


def test_a_folder_of_spectra_takes_more_models():
    base = config.compose(["model=a/one.safetensors"])[1]
    assert config.differences(base, config.compose(["model=[a/one.safetensors,b/two.pt]"])[1]) == []
    assert config.differences(base, config.compose(["model=a/one.safetensors", "spectral.split=true"])[1])


def test_an_older_run_has_no_word_of_keys_that_came_later():
    old, new = (config.compose(["experiment=digits"])[1] for _ in range(2))
    for key in ("ranges", "retraction", "tune"):
        del old[key]
    assert config.differences(old, new) == []
    del old["similarity"]
    assert config.differences(old, new | {"similarity": False}) == ["similarity: True -> False"]


def test_where_a_pool_lies_is_no_part_of_a_study():
    words = ["experiment=models_by_alpha", "data=digits"]
    one, other = (config.compose([*words, f"pool={place}"])[1] for place in ("here", "there"))
    assert config.differences(one, other) == [] and config.answer_digest(one, {}) == config.answer_digest(other, {})
