"""Models trained with alpha fixed: rows of every epoch, the same in one go, resumed, extended, by one worker or two."""

import numpy as np
import pytest

from raylab import config, experiments, session
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.results import load
from raylab.run import main
from tests import composing, sparing

MODEL = ["model.width=16", "model.depth=2"]
TIMES = {"train_seconds"}


@pytest.fixture(scope="module", autouse=True)
def patch():
    """Nothing here is about reports."""
    with pytest.MonkeyPatch.context() as patch:
        composing.remember(patch)
        sparing.render_nothing(patch)
        yield


@pytest.fixture(scope="module")
def pool(patch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool") / "alpha_at_init"
    words = ["model.inputs=64", "draws=60", "cluster=inline", "progress=none", f"results={folder}"]
    assert main(["experiment=alpha_at_init", *MODEL, *words]) == 0
    return folder


def words(pool, folder, *overrides):
    small = [*MODEL, "models=2", "ranges=[[2,4],[4,8]]", "train.epochs=2", "train.batch_size=300"]
    both = "retractions=[newton_schulz,free]"
    return ["experiment=alpha_fixed", "data=digits", *small, both, f"pool={pool}", f"results={folder}", *overrides]


def built(pool, folder, *overrides):
    return experiments.build(config.compose(words(pool, folder, *overrides))[0])


def stream(experiment, pending=None):
    pending = experiment.trials() if pending is None else pending
    return [result for batch in inline.stream(experiment, pending) for result in batch]


def by_id(results):
    found = {r.trial.id: (r.status, {k: v for k, v in r.values.items() if k not in TIMES}) for r in results}
    assert len(found) == len(results)
    return found


@pytest.fixture(scope="module")
def made(pool, tmp_path_factory):
    experiment = built(pool, tmp_path_factory.mktemp("made"))
    return experiment, stream(experiment)


def test_every_epoch_has_its_rows_and_alpha_stays_where_it_was_drawn(made):
    _, found = made
    assert len(found) == 2 * 2 * 2 * 3 * (1 + 3) and {result.status for result in found} == {"ok"}
    bounds, first = {"[2, 4]": (2, 4), "[4, 8]": (4, 8)}, {}
    for result in found:
        values = result.values
        place = (result.trial.replicate, values["alpha_range"], result.trial.layer)
        if result.trial.layer is None:
            assert (values["train_loss"] is None) == (values["epoch"] == 0)
            assert (values["orthonormality"] is None) == (values["retraction"] == "free")
        elif values["epoch"] == 0:
            low, high = bounds[values["alpha_range"]]
            assert low <= values["alpha"] <= high
            assert values["alpha"] == pytest.approx(first.setdefault(place, values["alpha"]), rel=1e-10)
        elif values["retraction"] == "newton_schulz":
            assert values["alpha"] == pytest.approx(first[place], rel=1e-10)
            assert values["alpha_float32"] != values["alpha"]
        else:
            assert values["alpha"] != first[place] and values["alpha_float32"] == values["alpha"]


def test_a_group_costs_the_epochs_that_pass_without_a_row(made, pool, tmp_path):
    """By them it is told how long its worker may be silent: rows that are missing may be far from any checkpoint."""
    experiment, _ = made
    group = experiment.groups(experiment.trials())[0]
    last = tuple(trial for trial in group if experiment.places[trial.checkpoint][1] == 2)
    assert experiment.costs([group, last]) == [1.0, 1.0], "the checkpoint of the epoch before is there"
    assert built(pool, tmp_path).costs([group, last]) == [1.0, 2.0], "there is none"


def test_the_network_evaluated_is_the_one_measured(made):
    """The whole and its layers say the same; what is measured is in float64 and gives that accuracy."""
    experiment, _ = made
    group = experiment.groups(experiment.trials())[0]
    outcomes = list(experiment.run(group))
    assert [experiment.places[o.result.trial.checkpoint][1] for o in outcomes] == [0] * 4 + [1] * 4 + [2] * 4
    assert [o.result.trial.layer for o in outcomes[:4]] == [None, "fc1", "fc2", "fc3"]
    layers = outcomes[9:]
    assert all(o.weights.dtype == np.float64 for o in layers)
    model = experiment.places[group[0].checkpoint][0]
    kept = experiment.checkpoints.load(model.checkpoint(2))
    h = experiment.drawn.data.test_x.astype(np.float64)
    for k, outcome in enumerate(layers):
        h = h @ outcome.weights.T + kept[f"{outcome.layer.name}.bias"]
        h = np.maximum(h, 0) if k < 2 else h
    accuracy = (h.argmax(1) == experiment.drawn.data.test_y).mean()
    assert {o.result.values["accuracy"] for o in outcomes[8:]} == {accuracy}


def test_epochs_models_ranges_and_retractions_extend_a_folder(pool, made, tmp_path):
    """Epochs from the newest checkpoint, the rest as if it had been there from the first; the last two are kept."""
    _, whole = made
    few = built(pool, tmp_path, "train.epochs=1", "models=1", "ranges=[[4,8]]", "retractions=[newton_schulz]")
    before = stream(few)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    more = built(pool, tmp_path)
    done = {result.trial.id for result in before}
    pending = [trial for trial in more.trials() if trial.id not in done]
    work = more.work(pending)
    assert work["alpha in [4, 8], newton_schulz"] == "2 models, 3 epochs to train"  # one of two epochs is there
    assert work["alpha in [2, 4], free"] == "2 models, 4 epochs to train"
    assert by_id([*before, *stream(more, pending)]) == by_id(whole)
    kept = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {model.checkpoint(epoch) for model in more.models for epoch in (1, 2)}
    lost = [trial for trial in more.trials() if more.places[trial.checkpoint][1] == 2]  # rows of the last epoch
    assert more.work(lost)["alpha in [2, 4], free"] == "2 models, 2 epochs to train"


def test_a_run_broken_off_anywhere_goes_on_to_the_same_rows(pool, made, tmp_path):
    """Whatever rows had been written, before or behind the newest checkpoint, what is missing comes out the same."""
    experiment, whole = made
    group = experiment.groups(experiment.trials())[0]
    expected = {key: value for key, value in by_id(whole).items() if key in {trial.id for trial in group}}
    for taken in (1, 6, 9):
        here = built(pool, tmp_path / str(taken))
        outcomes = here.run(group)
        some = here.measure([next(outcomes) for _ in range(taken)])
        outcomes.close()
        written = some[: taken // 2]  # the rest was on its way
        again = stream(here, [trial for trial in group if trial.id not in {r.trial.id for r in written}])
        assert by_id([*written, *again]) == expected
    lost = built(pool, tmp_path / "lost")
    assert by_id(stream(lost, [trial for trial in group if trial.layer == "fc2"])).items() <= expected.items()


def test_what_diverges_fails_its_own_rows_only(pool, tmp_path):
    experiment = built(
        pool,
        tmp_path,
        *["train.learning_rate=1e6", "models=1", "retractions=[qr,free]", "train.momentum=0", "retraction.every=1"],
    )
    found = stream(experiment)
    assert len(found) == len(experiment.trials())
    kinds = {(result.values.get("retraction"), result.status) for result in found}
    assert kinds == {("qr", "ok"), ("free", "ok"), (None, "failed")}  # free: its initial weights
    failed = [experiment.places[r.trial.checkpoint] for r in found if r.status == "failed"]
    assert {(model.retraction, epoch) for model, epoch in failed} == {("free", 1), ("free", 2)}
    assert all("lower the learning rate" in r.error for r in found if r.status == "failed")


def test_a_retraction_of_ones_own(pool, tmp_path, monkeypatch):
    (tmp_path / "my_retraction.py").write_text(
        "import torch\n\ndef cholesky(q):\n    r = torch.linalg.cholesky(q.mT @ q).mT\n"
        "    return torch.linalg.solve_triangular(r, q, upper=True, left=False)\n\ndef flat(q):\n    return q[0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = "retractions=[my_retraction:cholesky,qr,my_retraction:flat]"
    experiment = built(pool, tmp_path / "r", "models=1", "ranges=[[2,4]]", mine)
    assert all(trial.own_code for trial in experiment.trials())
    last = {r.values["retraction"]: r for r in stream(experiment) if r.status == "ok" and r.trial.layer is None}
    ours, theirs = (last[name].values for name in ("my_retraction:cholesky", "qr"))
    assert ours["epoch"] == theirs["epoch"] == 2
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)  # Cholesky of the Gram matrix is QR
    assert last["my_retraction:flat"].values["epoch"] == 0
    failed = [r.error for r in stream(experiment, experiment.trials()) if r.status == "failed"]
    assert len(failed) == 8 and all("keep the shape" in error for error in failed)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("retractions=[newton]", "Unknown retraction 'newton'. Did you mean 'newton_schulz'"),
        ("retractions=[]", "names none"),
        ("retraction.every=0", "retraction.every=0 must be at least 1"),
        ("train.weight_decay=0.1", "would decay what is fixed"),
        ("pool=null", "from a pool of draws"),
        ("stack=2", "stack=2 is for kind=perturb_layers"),
        ("similarity=true", "is for kind=perturb_layers"),
        ("draws=3", "is for kind=perturb_layers"),
        ("perturbations=[reinit]", "is for kind=perturb_layers"),
        ("batch_size=10", "is for kind=perturb_layers"),
        ("layers=[fc1]", "drawn whole, and fc2 cannot be measured"),
    ],
)
def test_what_makes_no_sense_is_one_line(pool, tmp_path, override, says):
    with pytest.raises(UserError, match=says.replace("[", r"\[")) as error:
        built(pool, tmp_path, override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("experiment", ["digits", "gpt2", "spectra", "alpha_at_init", "models_by_alpha"])
@pytest.mark.parametrize("word", ["retractions=[free]", "retraction.every=1"])
def test_retractions_are_refused_elsewhere(experiment, word):
    with pytest.raises(UserError, match="is for kind=alpha_fixed"):
        config.compose([f"experiment={experiment}", word])


@pytest.mark.parametrize("experiment", ["digits", "gpt2", "spectra", "alpha_at_init"])
@pytest.mark.parametrize("word", ["pool=FOLDER", "ranges=[[2,6]]"])
def test_a_pool_is_refused_elsewhere(experiment, word):
    with pytest.raises(UserError, match="is for kind=initial_models"):
        config.compose([f"experiment={experiment}", word])


def test_a_folder_takes_what_extends_it_and_nothing_else(pool, tmp_path, capsys):
    here = ["cluster=inline", "progress=none", "models=1", "ranges=[[2,4]]", "retractions=[newton_schulz]"]
    assert main([*words(pool, tmp_path, *here), "train.epochs=1"]) == 0
    assert main([*words(pool, tmp_path, *here), "train.epochs=2"]) == 0
    assert len(load(tmp_path)) == 3 * 4
    assert main([*words(pool, tmp_path, *here), "train.learning_rate=0.02"]) == 2
    assert "another study (train.learning_rate: 0.01 -> 0.02)" in capsys.readouterr().err
    assert main([*words(pool, tmp_path, *here), "ranges=[[4,8]]", "plan=true"]) == 0
    # Its first models are made of the same draws: one of another number would go on from their checkpoints.
    assert main([*words(pool, tmp_path, *here), "ranges=[[4,8],[3,4]]"]) == 2
    assert "has models with alpha in [2, 4], some of which are in [3, 4] as well" in capsys.readouterr().err
    # Rows have six digits of a range; and of a search over ranges the settings have one of them.
    assert main([*words(pool, tmp_path, *here), "ranges=[[2,4.0000001]]", "plan=true"]) == 0
    searched = {"kind": "alpha_fixed", "ranges": [[3, 4]], "tune": {"space": {"ranges": "choice([[2,4]],[[3,4]])"}}}
    session._refuse_overlap(tmp_path, searched)
    with pytest.raises(UserError, match="does not overlap"):
        session._refuse_overlap(tmp_path, searched | {"tune": {"space": {}}})
