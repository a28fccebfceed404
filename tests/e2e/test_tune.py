"""`python -m raylab.tune` as a person types it, in a process of its own."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from raylab.results import load, statuses
from raylab.results.searched import read_samples
from tests.e2e import commands

ROOT = Path(__file__).parents[2]
VOLATILE = {"seconds", "started_at", "finished_at", "host", "code", "versions"}
OURS = ["--config-dir", "conf", "experiment=slopes", "progress=plain"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]  # five starts of Ray, on a busy machine too


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    lines = ["# @package _global_", "name: slopes", "kind: tests.cluster.slopes:build", "models: 1"]
    lines += ["model: {_target_: none, name: softmax, pause: 0.0, breaks: 1.0e+9}"]
    lines += ["train: {epochs: 6, learning_rate: 0.1, batch_size: 64}"]
    (tmp_path / "conf" / "experiment" / "slopes.yaml").write_text("\n".join(lines) + "\n")
    return tmp_path


def start(lab, module, *words):
    return commands.start(lab, module, *OURS, *words, PYTHONPATH=str(ROOT))


def run(lab, module, *words):
    return commands.run(lab, module, *OURS, *words, PYTHONPATH=str(ROOT))


def rows(folder):
    table = load(folder).to_pylist()
    found = {row["trial_id"]: {k: v for k, v in row.items() if k not in VOLATILE} for row in table}
    assert len(found) == len(table)
    return found


def kill_when(process, ready):
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()


def trained(folder):
    """How often each epoch of each model was trained."""
    return Counter((folder / "trained.log").read_text().split("\n")[:-1])


def test_a_sweep_that_was_killed_gives_the_rows_of_raylab_run(lab):
    code, _, err = run(lab, "raylab.run", "results=plain", "models=3", "cluster=inline", "report=false")
    assert code == 0, err
    words = ["results=out", "models=3", "model.pause=0.3", "cluster.workers=2", "report=false"]
    kill_when(start(lab, "raylab.tune", *words), lambda: 4 <= len(statuses(lab / "out")) < 36)
    # A row may be committed before the others of its epoch, which is then trained again for them.
    of_epoch = Counter(row["checkpoint"] + f" {row['epoch']}" for row in load(lab / "out").to_pylist())
    there = {epoch for epoch, rows in of_epoch.items() if rows == 2}
    # Tune deletes an old checkpoint before its state names the new one, and may be killed in between.
    gone = list((lab / "out" / "tune").rglob("checkpoint_*"))
    assert gone
    for folder in gone[1:]:
        shutil.rmtree(folder)
    (gone[0] / ".reported.json").unlink()
    code, out, err = run(lab, "raylab.tune", *words)
    assert code == 0 and f"{len(statuses(lab / 'plain'))} trials" in out, out + err
    same = {"config"}  # it knows of the pause
    strip = lambda found: {key: {k: v for k, v in row.items() if k not in same} for key, row in found.items()}  # noqa: E731
    assert strip(rows(lab / "out")) == strip(rows(lab / "plain"))
    assert there and all(trained(lab / "out")[epoch] == 1 for epoch in there), "what had rows was trained again"
    assert run(lab, "raylab.tune", *words)[0] == 0
    assert max(trained(lab / "out").values()) <= 2
    code, _, err = run(lab, "raylab.tune", *words, "train.learning_rate=0.2")
    assert code == 2 and "train.learning_rate: 0.1 -> 0.2" in err


def test_a_search_that_was_killed_goes_on_as_if_nothing_had_been(lab):
    words = ["train.learning_rate=tag(log,interval(1e-3,1))", "tune.search=optuna", "tune.scheduler=asha"]
    words += ["tune.samples=7", "tune.max_concurrent=1", "cluster.workers=1", "model.breaks=0.4"]
    code, _, _ = run(lab, "raylab.tune", "results=plain", "report=false", *words)
    whole = len(statuses(lab / "plain"))
    disturbed = start(lab, "raylab.tune", "results=out", "model.pause=0.2", *words)
    kill_when(disturbed, lambda: 16 <= len(statuses(lab / "out")) < whole)
    again, out, err = run(lab, "raylab.tune", "results=out", "model.pause=0.2", *words)
    assert code == again, err
    samples = [read_samples(lab / name).to_pylist() for name in ("plain", "out")]
    assert samples[0] == samples[1] and len(samples[0]) == 7
    assert {sample["ended"] for sample in samples[0]} >= {"finished", "stopped early"}
    assert (
        len(rows(lab / "out"))
        == len(rows(lab / "plain"))
        == json.loads((lab / "out" / "run.json").read_text())["planned"]
    )
    assert "Samples: 7, best first" in out and (lab / "out" / "samples.md").exists()
    assert (lab / "out" / "report.html").stat().st_size > 10_000
    before, epochs = rows(lab / "out"), trained(lab / "out")
    more = ["tune.samples=9", *(word for word in words if word != "tune.samples=7")]
    last, out, err = run(lab, "raylab.tune", "results=out", "model.pause=0.2", "report=false", *more)
    assert "Samples: 9, best first" in out, err
    assert last == int(any(sample["ended"] == "failed" for sample in read_samples(lab / "out").to_pylist()))
    raised = read_samples(lab / "out").to_pylist()
    assert len(raised) == 9 and all(sample in raised for sample in samples[1])
    ok = lambda found: {key: row for key, row in found.items() if row["status"] == "ok"}  # noqa: E731
    assert ok(before).items() <= rows(lab / "out").items()
    assert all(trained(lab / "out")[epoch] == times for epoch, times in epochs.items()), "samples were trained again"
