import logging
import threading
import warnings

from raylab import places
from raylab.results.logbook import MOST_FILES, Logbook, own_name
from raylab.types import TrialResult
from tests import made_up


def test_a_file_a_process_bounded_and_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("OUR_HUB_TOKEN", "swordfish-1")
    book = Logbook(tmp_path, most_bytes=2000)
    for at in range(200):
        book.write("host-1", [f"line {at} swordfish-1"])
    book.write("../../outside", ["x" * 5000])
    kept = sorted(path.name for path in book.folder.iterdir())
    assert kept == [".._.._outside.log", "host-1.log", "host-1.log.old"]
    assert all(path.stat().st_size <= 2000 for path in book.folder.iterdir())
    text = (book.folder / "host-1.log").read_text()
    assert "line 199 ***" in text and "swordfish" not in text


def test_a_failed_row_is_in_the_log_that_its_error_names(tmp_path):
    book = Logbook(tmp_path)
    trial = made_up.trials(1)[3]
    book.failed(
        TrialResult(
            trial, "failed", {}, error="Traceback\nOops\nLog of its worker, in the results folder: logs/node-7-12.log\n"
        )
    )
    text = (tmp_path / "logs" / "node-7-12.log").read_text()
    assert trial.id in text and "Oops" in text


def test_warnings_and_records_of_libraries_go_there(tmp_path, capfd):
    book = Logbook(tmp_path)
    with warnings.catch_warnings(), book.of_this_process():
        warnings.simplefilter("always")
        warnings.warn("a library warns", stacklevel=1)
        logging.getLogger("some.library").warning("and logs")
        logging.getLogger("some.library").info("this not")
    text = (tmp_path / "logs" / f"{own_name()}.log").read_text()
    assert "a library warns" in text and "some.library: and logs" in text and "this not" not in text
    assert capfd.readouterr() == ("", "")


def test_old_files_go(tmp_path):
    (tmp_path / "logs").mkdir()
    for at in range(MOST_FILES + 9):
        (tmp_path / "logs" / f"h-{at}.log").touch()
    assert len(list(Logbook(tmp_path).folder.iterdir())) == MOST_FILES


def test_on_s3_a_log_is_sent_when_it_has_changed(cloud):
    home = places.at(cloud.bucket("logs"))
    book = Logbook(home)
    book.write("host-1", ["one"])
    book.send()
    book.write("host-1", ["two"])
    book.write("host-2", ["three"])
    with book.of_this_process():
        pass
    before = cloud.requests["PUT"]
    book.send()
    assert cloud.requests["PUT"] == before
    assert (home / "logs").names() == ["host-1.log", "host-2.log"]
    assert [line.split(" ")[1] for line in (home / "logs").read("host-1.log").decode().splitlines()] == ["one", "two"]


def test_who_writes_does_not_wait_for_s3(cloud):
    home = places.at(cloud.bucket("silent"))
    book = Logbook(home)
    book.write("host-1", ["one"])
    asked, answers = threading.Event(), threading.Event()
    cloud.disturb("", lambda *_: asked.set() or not answers.wait(60))
    sender = threading.Thread(target=book.send, daemon=True)
    sender.start()
    assert asked.wait(60)
    book.write("host-1", ["two"])
    book.send()  # by another thread: at once
    assert not answers.is_set() and sender.is_alive()
    answers.set()
    sender.join()
    book.send()
    assert (home / "logs").read("host-1.log").count(b"\n") == 2
