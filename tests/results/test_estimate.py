import made_up
import pyarrow as pa
import pytest

from raylab.results import ParquetSink, schema
from raylab.results.estimate import Means, Work, left, of_folder
from raylab.types import Trial, TrialResult


def trial(layer, perturbation="rerandomize", draw=0):
    return Trial("e", "m", 0, "c", "d", layer, perturbation, draw, 0, "s")


def means(table):
    found = Means()
    found.take(table)
    return found


ROWS = pa.Table.from_pylist(
    [
        {"layer": layer, "perturbation": perturbation, "status": status, "seconds": seconds}
        for layer, perturbation, status, seconds in (
            (None, "original", "ok", 7.0),
            ("a", "original", "ok", 0.5),
            ("a", "rerandomize", "ok", 10.0),
            ("a", "rerandomize", "ok", 20.0),
            ("b", "rerandomize", "ok", 3.0),
            ("b", "rerandomize", "failed", 1000.0),
            ("b", "rerandomize", "ok", float("nan")),
        )
    ]
)


@pytest.mark.parametrize(
    ("pending", "seconds"),
    [
        ([trial("a")], 15.0),  # the mean of its layer
        ([trial("b")], 3.0),  # neither the failed row nor the one without a time
        ([trial("c")], 11.0),  # of the perturbation
        ([trial("c", "original")], 0.5),  # not that of the whole model, which is evaluated
        ([trial(None, "original")], 7.0),
        ([trial("a", "permute")], 40.5 / 5),  # of all
        ([trial("a"), trial("a", draw=1), trial("c")], 41.0),
    ],
)
def test_a_trial_takes_as_long_as_those_like_it(pending, seconds):
    assert left(means(ROWS), pending) == (pytest.approx(seconds), 5)


def test_without_rows_there_is_no_estimate(tmp_path):
    for none in (means(ROWS.slice(5)), of_folder(tmp_path), of_folder(tmp_path / "nowhere")):
        assert none.rows == 0 and left(none, [trial("a")]) is None


def test_a_folder_of_rows_gives_the_work_of_the_trials_it_lacks(tmp_path):
    folder, plan = made_up.folder(tmp_path, models=4, share=0.5), made_up.trials(4)
    estimate = left(of_folder(folder), plan[50:])
    frame = [made_up.result(each) for each in plan[:50] if made_up.result(each).status == "ok"]
    assert estimate is not None and estimate.rows == len(frame)
    assert estimate.seconds == pytest.approx(sum(each.seconds for each in frame), rel=0.1)
    assert left(of_folder(folder), []) is None


def test_the_plan_says_what_is_left_only_where_rows_are(tmp_path):
    from raylab.session import work_left

    folder, plan = made_up.folder(tmp_path / "rows", models=2, share=0.5), made_up.trials(2)
    said = work_left(of_folder(folder), plan[25:])
    assert set(said) == {"left"} and said["left"].endswith("of work, by the seconds of 25 rows already there")
    assert work_left(of_folder(tmp_path / "nowhere"), plan) == {} and work_left(of_folder(folder), []) == {}


def test_a_run_learns_from_its_own_rows_and_knows_nothing_of_what_it_has_not_seen(tmp_path):
    pending = [*[trial(None, "original")] * 4, trial("a"), trial("a"), trial("b")]
    work = Work(Means(), pending)
    assert work.left() is None
    work.learn(TrialResult(pending[0], "ok", {}, seconds=10.0))
    assert work.left() is None  # of layers nothing is known, and training says nothing of them
    work.learn(TrialResult(pending[4], "ok", {}, seconds=0.5))
    assert work.left() == pytest.approx(3 * 10 + 0.5 + 0.5) and work.done == 10.5
    work.learn(TrialResult(pending[6], "failed", {}, seconds=99.0))
    assert work.left() == pytest.approx(3 * 10 + 0.5)


def test_a_run_that_goes_on_learns_from_earlier_rows(tmp_path):
    folder, plan = made_up.folder(tmp_path, models=4, share=0.5), made_up.trials(4)
    known = of_folder(folder)
    estimate = left(known, plan[50:])
    assert estimate is not None and Work(known, plan[50:]).left() == pytest.approx(estimate.seconds)


def test_who_writes_a_folder_knows_what_its_rows_took_without_reading_them_again(tmp_path):
    folder, plan = made_up.folder(tmp_path, models=4, share=0.5), made_up.trials(4)
    with ParquetSink(folder, schema.schema(made_up.COLUMNS), {}) as rows:
        assert left(rows.means, plan[50:]) == left(of_folder(folder), plan[50:])
