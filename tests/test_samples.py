"""What `python -m raylab.tune` makes of a command, before anything is worked."""

from types import SimpleNamespace

import pytest

from raylab import samples, tune
from raylab.errors import UserError
from raylab.samples import Groups, Samples

SLOPES = """# @package _global_
name: slopes
kind: tests.cluster.slopes:build
models: 1
model: {_target_: none, name: softmax, pause: 0.0, breaks: 1.0e+9}
train: {epochs: 4, learning_rate: 0.1, batch_size: 64}
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "slopes.yaml").write_text(SLOPES)
    searched = f"{SLOPES}tune: {{space: {{train.batch_size: 'choice(16,64)'}}}}\n".replace("name: slopes", "name: both")
    (tmp_path / "experiment" / "both.yaml").write_text(searched)

    def plan(*words, experiment="slopes"):
        return samples.plan([f"experiment={experiment}", f"results={tmp_path}/out", *words], str(tmp_path))

    return plan


def test_a_group_whose_worker_died_before_it_said_a_word_is_failed_rows(plan):
    """Its trials were dropped from the count, and the run was at 100 %."""
    found, taken, errors = plan("models=3"), [], []
    first, second, _ = found.open.groups
    there = SimpleNamespace(status={first[0].id: "ok"}, flush=lambda: None)
    recorder = SimpleNamespace(rows=there, display=None, take=taken.extend, fail=errors.append)
    driver = tune._Driver(found, recorder)
    driver.ended({"job": 0}, {}, "its worker died")
    assert [result.trial for result in taken] == list(first[1:]) and errors == ["its worker died"]
    assert {(result.status, result.error) for result in taken} == {("failed", "its worker died")}
    driver.ended({"job": 1}, {}, "its worker died")
    assert [result.trial for result in taken] == [*first[1:], *second]


def test_without_a_search_each_group_is_worked_as_raylab_run_would(plan):
    found = plan("models=3")
    assert isinstance(found.open, Groups) and found.jobs == 3 and "tune" not in found.settings
    experiment, group, columns = found.open({"job": 1})
    assert group == experiment.groups(experiment.trials())[1] and columns == {}


def test_a_sample_is_the_experiment_of_its_values(plan):
    found = plan("train.learning_rate=tag(log,interval(1e-3,1))", "train.batch_size=16,64", "tune.samples=5")
    assert isinstance(found.open, Samples) and found.config.tune.search == "random" and found.jobs == 5
    experiment, group, columns = found.open({"job": 2})
    listed = found.open.listed[2]
    assert experiment.recipe.learning_rate == columns["learning_rate"] == float(listed["train.learning_rate"])
    assert experiment.recipe.batch_size == columns["batch_size"] == float(listed["train.batch_size"])
    assert len(group) == 8
    alone = plan(*(f"{key}={text}" for key, text in listed.items()))
    assert [trial.id for trial in alone.experiment.trials()] == [trial.id for trial in group]


def test_a_sample_that_was_begun_by_a_command_for_more_of_them_has_its_values(plan):
    fewer, more = (plan("train.learning_rate=interval(0.1,1)", f"tune.samples={samples}").open for samples in (2, 5))
    assert len(fewer.listed) == 2
    assert fewer.sample({"job": 4}) == more.listed[4]


def test_columns_of_searched_keys_say_what_they_are(plan):
    found = plan("train.learning_rate=0.1,0.2", "seed=range(0,2)", "model=choice({name:a},{name:b})")
    assert isinstance(found.open, Samples)
    assert found.open.columns == {"train.learning_rate": "learning_rate", "model": "tune_model"}
    field = found.schema().field("learning_rate")
    assert field.type == "double" and field.metadata[b"group"] == b"searched"
    assert field.metadata[b"description"] == b"train.learning_rate of the config, searched over choice(0.1,0.2)"


def test_a_file_may_say_what_is_searched_and_the_command_wins(plan):
    assert plan(experiment="both").jobs == 2
    assert plan("train.batch_size=range(1,4)", experiment="both").jobs == 3
    assert plan("train.batch_size=16", experiment="both").is_search is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune.samples=3"], "nothing is searched"),
        (["tune.search=optuna"], "nothing is searched"),
        (["seed=0,1", "tune.samples=3"], "a grid takes every value"),
        (["seed=0,1", "tune.grace=2"], "is for tune.scheduler=asha"),
        (["seed=0,1", "models=2"], "each sample would train 2 models, which cannot be ranked: give one of each"),
        (["seed=0,1", "tune.metric=acuracy"], "Did you mean 'accuracy'"),
        (["seed=0,1", "cluster=inline"], "leave out cluster=inline"),
        (["model.name=choice(softmax,nobody)"], "No model 'nobody'"),
        (["train.lr=0.1,0.2"], "Unknown key 'train.lr'"),
        (["train.epochs=choice(1,x)"], "train.epochs=x must be a whole number"),
        (["tune.search=anneal", "seed=0,1"], "Available: grid, optuna, random"),
        (["tune.reduction=1"], "must be at least 2"),
    ],
)
def test_what_cannot_be_done_is_one_line(plan, words, says):
    with pytest.raises(UserError) as error:
        plan(*words)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_halving_needs_epochs():
    with pytest.raises(UserError, match="kind=perturb_layers evaluates its models once"):
        samples.plan(["experiment=digits", "models=1", "seed=0,1", "tune.scheduler=asha"], None)
