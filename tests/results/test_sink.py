"""Every trial exactly once on disk, whatever happens."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import made_up
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from raylab.errors import UserError
from raylab.places import at
from raylab.places import folder as folder_module
from raylab.results import ParquetSink, load, parts, read_run_info, schema, write_run_info
from raylab.results import sink as sink_module
from raylab.results import statuses as committed
from raylab.types import TrialResult

PLAN = made_up.trials(2)
SCHEMA = schema.schema(made_up.COLUMNS)


def opened(folder, **options):
    return ParquetSink(folder, SCHEMA, made_up.PROVENANCE, **options)


def good(at):
    return TrialResult(PLAN[at], "ok", {"accuracy": 0.5})


def bad(at):
    return TrialResult(PLAN[at], "failed", {}, error="boom")


def found(folder):
    return [folder / "trials" / name for name in parts.names(folder)]


def statuses(folder):
    table = load(folder, ["trial_id", "status"])
    ids = table["trial_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, table["status"].to_pylist(), strict=True))


def test_rows_are_read_back_by_any_reader(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
        sink.write(TrialResult(PLAN[1], "skipped", {}, error="too small"))
        sink.write(bad(2))
        assert sink.done() == {PLAN[0].id, PLAN[1].id} and sink.failed() == {PLAN[2].id}
        sink.flush()
        assert committed(tmp_path) == {PLAN[0].id: "ok", PLAN[1].id: "skipped", PLAN[2].id: "failed"}
    assert statuses(tmp_path) == committed(tmp_path)
    assert committed(tmp_path / "nowhere") == {}
    assert ds.dataset(tmp_path / "trials").to_table().num_rows == 3
    assert polars.read_parquet(tmp_path / "trials" / "*.parquet").height == 3
    row = load(tmp_path).to_pylist()[0]
    assert (row["accuracy"], row["code"], row["small_sample"]) == (0.5, made_up.PROVENANCE["code"], "standard")
    assert load(tmp_path).schema.field("accuracy").metadata[b"description"]


def test_done_survives_and_the_first_row_of_a_trial_wins(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
        sink.write(TrialResult(PLAN[0], "ok", {"accuracy": 0.9}))
    with opened(tmp_path) as sink:
        assert sink.done() == {PLAN[0].id}
        sink.write(bad(0))
    assert load(tmp_path)["accuracy"].to_pylist() == [0.5]


def test_rows_are_flushed_by_number_and_by_time_without_a_thread(tmp_path):
    now = [0.0]
    with opened(tmp_path, flush_rows=2, flush_seconds=10, clock=lambda: now[0]) as sink:
        sink.write(good(0))
        assert not found(tmp_path)
        sink.write(good(1))
        assert len(found(tmp_path)) == 1
        sink.write(good(2))
        now[0] = 9.9
        sink.tick()
        assert len(found(tmp_path)) == 1
        now[0] = 10.0
        sink.tick()
        assert len(found(tmp_path)) == 2


def test_a_result_that_does_not_fit_is_recorded_as_failed(tmp_path):
    with opened(tmp_path) as sink:
        recorded = sink.write(TrialResult(PLAN[0], "ok", {"nobody_declared": 1.0}))
        assert recorded.status == "failed" and "nobody_declared" in str(recorded.error)
        sink.write(good(1))
    assert statuses(tmp_path) == {PLAN[0].id: "failed", PLAN[1].id: "ok"}


def test_retry_forgets_the_failed_rows_asked_for_and_no_others(tmp_path):
    with opened(tmp_path) as sink:
        for result in (good(0), bad(1), bad(2)):
            sink.write(result)
    with opened(tmp_path) as sink:
        assert sink.retry([PLAN[0].id, PLAN[1].id, "unknown"]) == 1
        assert statuses(tmp_path) == {PLAN[0].id: "ok", PLAN[2].id: "failed"}
        assert sink.failed() == {PLAN[2].id}
        sink.write(good(1))
    assert statuses(tmp_path) == {PLAN[0].id: "ok", PLAN[1].id: "ok", PLAN[2].id: "failed"}


def test_retry_keeps_rows_of_another_schema(tmp_path):
    with ParquetSink(tmp_path, schema.schema({"their_metric": float}), {}) as sink:
        sink.write(TrialResult(PLAN[0], "failed", {"their_metric": 3.0}, error="boom"))
        sink.write(bad(1))
    with opened(tmp_path) as sink:
        sink.retry([PLAN[1].id])
        sink.write(good(2))
    table = load(tmp_path)
    assert sorted(table["their_metric"].to_pylist(), key=str) == [3.0, None]


def test_stale_temporary_files_are_cleaned_and_never_read(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
    stale = tmp_path / "trials" / ".part-000002.parquet.1.tmp"
    stale.write_bytes(b"half a part")
    assert len(statuses(tmp_path)) == 1
    with opened(tmp_path):
        assert not stale.exists()


def test_one_writer_at_a_time(tmp_path):
    with (
        opened(tmp_path),
        pytest.raises(UserError, match=rf"being written by another run \(pid {os.getpid()} on") as caught,
    ):
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    opened(tmp_path).close()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: b"", lambda data: data[:50] + b"?" * 9 + data[59:]]
)
def test_a_damaged_part_is_named_set_aside_and_its_trials_are_run_again(tmp_path, damage):
    with opened(tmp_path, flush_rows=1) as sink:
        sink.write(good(0))
        sink.write(good(1))
    part, _ = found(tmp_path)
    damaged = damage(part.read_bytes())
    part.write_bytes(damaged)
    for read in (committed, load):
        with pytest.raises(
            UserError, match=r"part-000001\.parquet is damaged .* run the command that wrote it again"
        ) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    with opened(tmp_path) as sink:
        (line,) = sink.set_aside
        assert "part-000001.parquet is damaged" in line and "damaged/" in line and "\n" not in line
        assert sink.done() == {PLAN[1].id}
        sink.write(good(0))
    assert statuses(tmp_path) == {PLAN[0].id: "ok", PLAN[1].id: "ok"}
    assert (tmp_path / "damaged" / part.name).read_bytes() == damaged
    with opened(tmp_path) as sink:
        assert not sink.set_aside


@contextlib.contextmanager
def failing(reads, error):
    """The disk fails so many times."""
    real, left = parts.pq.ParquetFile, [reads]

    def once_more(*arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.pq, "ParquetFile", once_more)
        yield


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Error reading bytes from file"), OSError("CRC checksum")])
def test_a_read_that_fails_once_sets_nothing_aside(tmp_path, error):
    with opened(tmp_path) as sink:
        sink.write(good(0))
    with failing(1, error), opened(tmp_path) as sink:
        assert sink.set_aside == [] and sink.done() == {PLAN[0].id}


def test_a_disk_that_fails_is_no_damage(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
    says = r"part-000001\.parquet cannot be read \(Input/output error\): see to the disk"
    for read in (committed, load, opened):
        with failing(2, OSError(errno.EIO, "Error reading bytes from file")), pytest.raises(UserError, match=says):
            read(tmp_path)
    with opened(tmp_path) as sink:
        assert sink.set_aside == [] and sink.done() == {PLAN[0].id}


def test_a_part_that_one_may_not_read_is_not_called_damaged(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
    with failing(1, PermissionError(errno.EACCES, "Failed to open")), pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{found(tmp_path)[0]} cannot be read (permission denied): ask whoever owns it to let you read it."
    )


def test_a_flipped_bit_is_never_another_kind_of_error(tmp_path):
    """What pyarrow says of damage has no number of the system, whatever it is."""
    with opened(tmp_path) as sink:
        sink.write(good(0))
    (part,) = found(tmp_path)
    sound, rng, said = part.read_bytes(), random.Random(3), Counter()
    for byte in rng.sample(range(len(sound)), 300):
        part.write_bytes(sound[:byte] + bytes([sound[byte] ^ 1 << rng.randrange(8)]) + sound[byte + 1 :])
        try:
            load(tmp_path)
        except parts.DamagedPartError:
            said["damaged"] += 1
    assert said["damaged"] > 75


def test_a_trial_in_two_parts_is_refused(tmp_path):
    with opened(tmp_path) as sink:
        sink.write(good(0))
    (part,) = found(tmp_path)
    part.with_name("part-000009.parquet").write_bytes(part.read_bytes())
    with pytest.raises(UserError, match=r"is in .*part-000001\.parquet and in .*part-000009"):
        opened(tmp_path)


def test_an_interrupt_just_after_a_part_took_its_name_doubles_nothing(tmp_path, monkeypatch):
    def interrupted(folder):
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as sink:
        sink.write(good(0))
        sink.write(bad(1))
        monkeypatch.setattr(folder_module, "_sync", interrupted)
        sink.flush()
    assert statuses(tmp_path) == {PLAN[0].id: "ok", PLAN[1].id: "failed"}
    with opened(tmp_path) as sink:
        assert sink.retry([PLAN[1].id]) == 1


def test_a_full_disk_is_one_line_and_loses_only_what_was_not_committed(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as sink:
        sink.write(good(0))
        sink.flush()
        sink.write(good(1))
        with monkeypatch.context() as patch:
            patch.setattr(sink_module.pq, "write_table", full)
            with pytest.raises(UserError, match=r"No space left on device\. Mend it"):
                sink.flush()
        assert len(statuses(tmp_path)) == 1
    assert len(statuses(tmp_path)) == 2
    assert not list((tmp_path / "trials").glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for 512 KiB; whoever may not mount one skips."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_keeps_what_was_committed_and_goes_on_after_room_is_made(small_disk):
    """As the same command does: what has no row is run again, until all rows are those of an undisturbed run."""
    ballast, folder = small_disk / "somebody_else's", small_disk / "results"
    ballast.write_bytes(bytes(300_000))
    committed_before = {}
    with pytest.raises(UserError, match=r"^Cannot write to .*: No space left on device\. Mend it") as caught:  # noqa: SIM117
        with opened(folder, flush_rows=1) as sink:
            for trial in PLAN:
                sink.write(made_up.result(trial))
                committed_before = statuses(folder)
    assert 0 < len(committed_before) < len(PLAN) and "\n" not in str(caught.value)
    assert statuses(folder) == committed_before == committed(folder)
    assert not list((folder / "trials").glob(".*"))
    ballast.unlink()
    with opened(folder) as sink:
        for trial in PLAN:
            if trial.id not in sink.status:
                sink.write(made_up.result(trial))
    undisturbed = {trial.id: made_up.result(trial).values.get("accuracy") for trial in PLAN}
    table = load(folder)
    assert dict(zip(table["trial_id"].to_pylist(), table["accuracy"].to_pylist(), strict=True)) == undisturbed


def test_file_systems_without_hard_links_work(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(folder_module.os, "link", none)
    with opened(tmp_path) as sink:
        sink.write(good(0))
    with opened(tmp_path) as sink:
        sink.write(good(1))
    assert len(statuses(tmp_path)) == 2


def test_a_name_that_is_taken_is_never_overwritten(tmp_path):
    target = tmp_path / "part-000001.parquet"
    sink_module.publish(pa.table({"a": [1]}), at(tmp_path), target.name)
    with pytest.raises(FileExistsError):
        sink_module.publish(pa.table({"a": [2]}), at(tmp_path), target.name)
    assert polars.read_parquet(target)["a"].to_list() == [1]
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to .*file: Not a directory"):
        opened(tmp_path / "file")


def test_unknown_provenance_is_a_mistake_in_the_code(tmp_path):
    with pytest.raises(ValueError, match="'colour' is no column of provenance"):
        ParquetSink(tmp_path, SCHEMA, {"colour": "red"})


def test_run_info_is_kept(tmp_path):
    assert read_run_info(tmp_path) == {}
    write_run_info(tmp_path, made_up.run_info(3))
    write_run_info(tmp_path, made_up.run_info(4))
    assert read_run_info(tmp_path)["planned"] == 100
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read .* delete it"):
        read_run_info(tmp_path)


def started(folder, attempt, step=0):
    here = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here / "tests")])}
    script = Path(__file__).with_name("killed_writer.py")
    command = [sys.executable, str(script), str(folder), str(attempt), str(step)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_again_and_again_every_trial_is_there_exactly_once(tmp_path):
    """Real processes, real SIGKILLs: at random moments, and just before some call that changes the disk."""
    rng = random.Random(2)
    before: dict[str, str] = {}
    killed = 0
    for attempt in range(14):
        step = rng.randint(1, 30) if attempt % 2 else 0
        writer = started(tmp_path, attempt, step)
        assert writer.stdout is not None
        if not step:
            if attempt % 4:  # else: it may still be opening the folder or removing failed rows
                assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.2))
            writer.send_signal(signal.SIGKILL)
        killed += writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        now = statuses(tmp_path) if found(tmp_path) else {}
        assert {trial for trial, status in before.items() if status == "ok"} <= set(now)
        before = now
    assert killed >= 9
    last = started(tmp_path, attempt=99)
    assert last.communicate()[0] == "ready\n" and last.returncode == 0
    assert set(statuses(tmp_path)) == {trial.id for trial in made_up.trials(8)}
    assert Counter(statuses(tmp_path).values()) == {"ok": 200}


def test_readers_never_see_half_a_part_while_a_run_retries(tmp_path):
    with opened(tmp_path, flush_rows=1) as sink:
        for at in range(20):
            sink.write(bad(at) if at % 2 else good(at))
    script = (
        "import sys; from raylab.results import load\n"
        "print('ready', flush=True)\n"
        "for _ in range(40):\n"
        "    ids = load(sys.argv[1])['trial_id'].to_pylist(); assert len(ids) == len(set(ids))\n"
        "print('fine')"
    )
    reader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None and reader.stdout.readline() == "ready\n"  # until then nobody would see anything
    while reader.poll() is None:
        with opened(tmp_path, flush_rows=1) as sink:
            sink.retry(sink.failed())
            for at in range(1, 20, 2):
                sink.write(bad(at))
    assert reader.communicate()[0] == "fine\n"
    assert len(statuses(tmp_path)) == 20
