import made_up
import pyarrow.parquet as pq
import pytest

from raylab import places
from raylab.errors import UserError
from raylab.results import heartbeat, read_run_info, write_run_info
from raylab.results.status import DEAD, DONE, FAILED, RUNNING, STOPPED, Watcher


def look(folder):
    return Watcher([folder]).look()[0]


def folder(path, planned, **beat):
    made_up.folder(path, models=2)
    write_run_info(path, {"planned": planned, "command": "python -m raylab.run", "started_at": "2026-01-01"})
    if beat:
        heartbeat.write(path, {"beat": 1, "every": 0.01, **beat})
    return path


def counts(path):
    statuses = [status for part in files(path) for status in pq.read_table(part)["status"].to_pylist()]
    return len(statuses) - statuses.count("failed"), statuses.count("failed")


def files(path):
    return sorted((path / "trials").glob("*.parquet"))


def test_rows_are_counted_by_footers_alone(tmp_path, monkeypatch):
    path = folder(tmp_path, planned=1000)
    expected = counts(path)
    monkeypatch.setattr(pq, "read_table", None)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    status = look(path)
    assert (status.done, status.failed) == expected and expected[1] > 0


@pytest.mark.parametrize(
    ("planned", "beat", "state"),
    [
        ("all", {}, FAILED),
        ("all", {"state": "finished"}, FAILED),
        (1000, {}, STOPPED),
        (1000, {"state": "interrupted"}, STOPPED),
        (1000, {"state": "running"}, DEAD),
        ("all", {"state": "running"}, FAILED),  # killed while it wrote the report: no row is missing
    ],
)
def test_states(tmp_path, planned, beat, state):
    path = folder(tmp_path, planned=sum(counts(made_up.folder(tmp_path / "same", models=2))), **beat)
    if planned != "all":
        write_run_info(path, {"planned": planned})
    assert look(path).state == state


def test_a_damaged_part_is_named_and_the_others_are_counted(tmp_path):
    path = folder(tmp_path, planned=1000)
    part = files(path)[0]
    lost, whole = pq.read_table(part).num_rows, look(path)
    part.write_bytes(part.read_bytes()[:400])
    status = look(path)
    assert status.damaged == (str(part),) and whole.damaged == ()
    assert status.done + status.failed == whole.done + whole.failed - lost and lost > 0


def test_a_living_one_runs_and_rows_of_other_trials_do_not_count(tmp_path):
    path = folder(tmp_path, planned=40)
    done, failed = counts(path)
    with heartbeat.Heart(path, lambda: {"others": 5, "remaining": 60.0, "rate": 2.0}, every=0.05):
        status = look(path)
    assert (status.state, status.remaining, status.done, status.failed) == (RUNNING, 60.0, done - 5, failed)
    for part in files(path):
        if "failed" in pq.read_table(part)["status"].to_pylist():
            part.unlink()
    write_run_info(path, {"planned": done - 5})
    status = look(path)
    assert (status.state, status.remaining, status.ended) == (DONE, None, "finished")


def test_what_is_no_results_folder_is_one_line(tmp_path):
    for path, says in ((tmp_path / "nowhere", "There is no folder"), (tmp_path, "is no results folder")):
        with pytest.raises(UserError, match=says):
            look(path)


def test_results_on_s3_stand_as_they_do_in_a_folder(cloud, tmp_path):
    local, far = folder(tmp_path, planned=40), cloud.bucket("stands")
    for part in files(local):
        content = part.read_bytes()
        (places.at(far) / "trials").create(part.name, lambda file, content=content: file.write(content))
    write_run_info(far, read_run_info(local))
    with heartbeat.Heart(far, lambda: {"rate": 2.0}, every=0.05):
        status = look(far)
    assert (status.state, status.rate, status.done, status.failed) == (RUNNING, 2.0, *counts(local))
    assert look(far).ended == "finished"
    cloud.disturb("503", lambda method, path, before: path.endswith(heartbeat.FILE))
    with pytest.raises(places.UnreachableError):  # rather than to say that nobody is at work
        look(far)
    cloud.disturb()
    with pytest.raises(UserError, match="There is no folder s3://"):
        look(f"{far}/nothing")


def test_a_run_that_is_refused_says_why(tmp_path):
    path = folder(tmp_path, planned=1000)
    with pytest.raises(UserError), heartbeat.Heart(path, dict):
        raise UserError("No node can hold it: lower it.")
    status = look(path)
    assert (status.state, status.ended, status.reason) == (STOPPED, "refused", "No node can hold it: lower it.")
