import json
from dataclasses import replace

import made_up
import pytest

from raylab.places import UnreachableError
from raylab.report import status
from raylab.report.status import main
from raylab.results import heartbeat, write_run_info
from raylab.results.status import Watcher


@pytest.fixture
def folder(tmp_path):
    made_up.folder(tmp_path / "one", models=2)
    about = {"planned": 1000, "command": "python -m raylab.run models=9", "started_at": "2026-01-01T00:00:00+00:00"}
    write_run_info(tmp_path / "one", about)
    error = {
        "at": "2026-01-01T00:01:00",
        "trial": "fcn 1, fc1",
        "error": "Traceback\nOops: no\nLog of its worker, in the results folder: x",
    }
    told = {"last_error": error, "host": "node-7", "pid": 12, "workers": 2, "rate": 2.0, "elapsed": 61.0}
    heartbeat.write(tmp_path / "one", {"beat": 1, "every": 0.01, "state": "interrupted", **told})
    return tmp_path / "one"


def test_one_folder_in_full(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([str(folder)]) == 4
    out = capsys.readouterr().out
    for word in ("unfinished: interrupted", "of 1,000 done", "failed", "node-7, process 12", "2.0 trials/s, 2 workers"):
        assert word in out
    assert "fcn 1, fc1: Oops: no" in out and "models=9" in out and "1 min 01 s of work" in out


def test_damaged_parts_are_named(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    part = sorted((folder / "trials").iterdir())[0]
    part.write_bytes(b"PAR1")
    assert main([str(folder)]) == 4
    assert f"{part}: the next run works these trials again" in capsys.readouterr().out


def test_several_as_a_table_and_as_json_with_the_code_of_the_worst(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    made_up.folder(tmp_path / "two", models=2)
    write_run_info(tmp_path / "two", {"planned": 1})
    assert main([str(tmp_path / "two")]) == 1
    assert main([str(tmp_path / "two"), str(folder)]) == 4
    assert "finished, some failed" in capsys.readouterr().out
    assert main([str(folder), "--format", "json"]) == 4
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["planned"], told["last_error"]["error"]) == ("unfinished", 1000, "Oops: no")


def test_watching_ends_with_the_run(folder, capsys):
    assert main([str(folder), "--watch"]) == 4
    assert capsys.readouterr().out.count("unfinished") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_watching_goes_on_while_a_place_is_out_of_reach(folder, capsys, monkeypatch, form):
    (last,) = Watcher([folder]).look()
    away = UnreachableError("s3://bucket/one cannot be reached: wait.")
    looks = iter([[replace(last, state="running")], away, away, [last]])

    def look(self):
        if isinstance(found := next(looks), Exception):
            raise found
        return found

    monkeypatch.setattr(Watcher, "look", look)
    monkeypatch.setattr(status, "EVERY", 0.01)
    assert main([str(folder), "--watch", "--format", form]) == 4
    told = capsys.readouterr()
    said = told.out if form == "text" else told.err
    assert said.count("cannot be reached") == said.count("Watching on") == said.count("There is an answer again.") == 1
    if form == "json":
        assert [json.loads(line)[0]["state"] for line in told.out.splitlines()] == ["running", "unfinished"]


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["x", "--format", "jso"])
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("raylab.status: argument --format: invalid choice: 'jso'"), told


def test_a_command_that_was_refused_goes_on_once_that_is_mended(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    heartbeat.write(folder, {"beat": 2, "every": 0.01, "state": "refused", "reason": "No node can hold it: lower it."})
    assert main([str(folder)]) == 4
    told = capsys.readouterr().out
    assert "No node can hold it" in told and "Once mended" in told and "Go on" not in told


def test_a_table_has_errors_only_where_there_are_some(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    heartbeat.write(folder, {"beat": 2, "every": 0.01, "state": "interrupted"})
    assert main([str(folder), str(folder)]) == 4
    assert "last error" not in capsys.readouterr().out
