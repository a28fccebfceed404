"""One contract for every place: a local folder, S3 (moto's), a store of objects and a file system behind fsspec."""

import errno
import itertools
import pickle
import sys
import threading

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raylab import places, redact
from raylab.errors import UserError
from raylab.places import reach, s3_client
from tests.places import streams  # noqa: F401  # which registers them

NUMBER = itertools.count()


@pytest.fixture(params=["folder", "s3", "memory", "streams", "likesftp"])
def place(request, tmp_path):
    if request.param == "folder":
        return places.at(tmp_path / "there")
    if request.param == "s3":
        return places.at(request.getfixturevalue("cloud").bucket(f"bucket-{next(NUMBER)}") + "/a/there")
    urls = {
        "memory": f"memory://{next(NUMBER)}/there",
        "streams": f"streams://{tmp_path}/there",
        "likesftp": f"likesftp://me@host{tmp_path}/there",
    }
    return places.at(urls[request.param])


@pytest.fixture
def unslept(monkeypatch):
    """The pauses between botocore's attempts, which are not made."""
    pauses = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", pauses.append)
    return pauses


def put(place, name, data, new=True):
    (place.create if new else place.replace)(name, lambda file: file.write(data))


def test_files_are_listed_read_replaced_and_removed(place):
    place.check()
    assert (place.exists(), place.names(), place.folders()) == (False, [], [])
    put(place, "b", b"1")
    put(place, "a", b"2", new=False)
    put(place / "in", "c", b"3")
    put(place, ".hidden", b"4", new=False)
    assert (place.exists(), place.names(), place.folders()) == (True, ["a", "b"], ["in"])
    with pytest.raises(FileExistsError):
        put(place, "b", b"5")
    assert place.read("b") == b"1"
    put(place, "b", b"6", new=False)
    again = pickle.loads(pickle.dumps(place))
    with again.local(["b", "a"]) as paths:
        assert [path.read_bytes() for path in paths] == [b"6", b"2"]
    for _ in range(2):
        place.remove("b")
    assert place.names() == ["a"] and (place / "in").read("c") == b"3"
    with pytest.raises(FileNotFoundError):
        place.read("b")
    assert str(place.file("a")) == f"{place}/a"


def test_a_tree_is_written_and_what_killed_writers_left_is_tidied(place):
    with place.written() as folder:
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / "one.png").write_bytes(b"png")
        (folder / "report.html").write_bytes(b"page")
    assert place.read("report.html") == b"page" and (place / "figures").read("one.png") == b"png"
    put(place, ".part.4711.tmp", b"half", new=False)
    place.tidy()
    with pytest.raises(FileNotFoundError):
        place.read(".part.4711.tmp")


def test_of_many_that_create_a_name_the_first_wins(place):
    if not getattr(place, "first_wins", True):
        assert str(place).startswith("streams://")
        pytest.skip("whoever has the lease writes alone: such a file system cannot decide")
    start, won = threading.Barrier(6), []

    def create(at):
        start.wait()
        try:
            put(place, "part", b"%d" % at * 1000)
            won.append(at)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=[at]) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and place.read("part") == b"%d" % won[0] * 1000


def test_what_s3_cannot_do_at_once_is_tried_again(cloud, unslept):
    place = places.at(cloud.bucket(f"bucket-{next(NUMBER)}"))
    for kind in ("503", "500", "lost"):
        cloud.disturb(kind, lambda method, path, before: method == "PUT" and before < 2)
        put(place, kind, b"whole")  # "lost": S3 has it, says so never, and at the third attempt that the name is taken
        assert place.read(kind) == b"whole" and cloud.requests["PUT"] >= 2
    assert unslept and max(unslept) <= 20


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("503", "cannot be reached .*SlowDown.* run the same command again: committed rows are kept"),
        ("500", "cannot be reached .*InternalError"),
        ("refused", r"S3 refuses .* \(InvalidAccessKeyId\): check the credentials"),
        ("skewed", "clock is wrong: set it"),
    ],
)
def test_what_s3_does_not_do_at_all_is_one_line_after_a_few_attempts(cloud, unslept, kind, says):
    place = places.at(cloud.bucket(f"bucket-{next(NUMBER)}"))
    cloud.disturb(kind, lambda method, *_: method == "PUT")
    with pytest.raises(UserError, match=says) as caught:
        put(place, "part", b"rows")
    assert cloud.requests["PUT"] == (3 if kind in ("503", "500") else 1)
    assert "\n" not in str(caught.value) and "swordfish" not in str(caught.value)
    cloud.disturb()
    assert place.names() == []


def test_a_bucket_that_is_missing_is_one_line(cloud):
    for do in (lambda: places.at("s3://nowhere/a").check(), lambda: put(places.at("s3://nowhere"), "a", b"")):
        with pytest.raises(UserError, match=r"^There is no bucket nowhere: correct its name, or make it"):
            do()


def test_missing_credentials_are_one_line(cloud, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3_client.forget()
    with pytest.raises(UserError, match=r"^There are no credentials for s3://some/where: set AWS_PROFILE, or"):
        places.at("s3://some/where").check()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    s3_client.forget()
    with pytest.raises(UserError, match=r"^No way to S3 .*nobody.*: correct AWS_PROFILE"):
        places.at("s3://some/where").check()
    s3_client.forget()


@pytest.mark.parametrize(
    "url", ["s3://key:swordfish@bucket/a", "sftp://me:swordfish@host/a", "s3://b/a?token=swordfish"]
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(UserError, match="give credentials in the environment") as caught:
        places.at(url)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("carrier://pigeon/a", "^carrier:// is served by nothing here: give a folder, s3://"),
        ("gs://a/b", r"^gs:// needs gcsfs: `uv sync --extra gcp`, or `pip install gcsfs`\.$"),
        ("az://a/b", r"^az:// needs adlfs: `uv pip install adlfs`, or `pip install adlfs`\.$"),
        ("sftp://host/b", r"^sftp:// needs paramiko: `uv pip install paramiko`, or `pip install paramiko`\.$"),
    ],
)
def test_a_scheme_that_nothing_serves_is_one_line(url, says, monkeypatch):
    """pyarrow could serve gs:// and az://, but two writers' rows would mix: it is not asked."""
    for name in ("gcsfs", "adlfs", "paramiko"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=says) as caught:
        places.at(url).check()
    assert "\n" not in str(caught.value)


def test_without_boto3_there_is_one_line_that_says_what_to_install(cloud, monkeypatch):
    s3_client.forget()
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(UserError, match=r"^s3:// needs boto3: `uv sync --extra s3`"):
        places.at("s3://some/where").names()
    s3_client.forget()


def test_who_one_is_on_a_machine_is_no_secret():
    """Else the command to type goes nowhere."""
    assert redact.text("results=sftp://me@host/a") == "results=sftp://me@host/a"
    assert redact.text("sftp://me:swordfish@host/a ssh://me@host") == "sftp://***@host/a ssh://me@host"


def test_a_file_url_is_the_folder(tmp_path):
    assert places.at(f"file://{tmp_path}") == places.at(tmp_path) == places.at(places.at(str(tmp_path)))


class RefusalError(Exception):
    def __init__(self, code):
        self.code = code


def named(name, *bases):
    return type(name, bases, {})(f"{name} says")


ClientConnectionError = type("ClientConnectionError", (Exception,), {})  # aiohttp's


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError("reset by peer"), True),
        (TimeoutError("no answer"), True),
        (RefusalError(503), True),
        (RefusalError(429), True),
        (RefusalError(403), False),
        (PermissionError("not yours"), False),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError("Unable to open file: HDFS connection failed"), True),  # pyarrow's, of nothing but words
        (OSError("Forbidden: bucket/a"), False),  # gcsfs's
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False),
        (IsADirectoryError("a folder"), False),
        (EOFError("of a connection"), True),
        (ValueError("a mistake"), False),
        (named("ServerDisconnectedError", ClientConnectionError), True),
        (named("ClientConnectorError", ClientConnectionError, OSError), True),
        (named("ServiceRequestError", Exception), True),  # azure's
        (named("AuthenticationException", type("SSHException", (Exception,), {})), False),  # paramiko's
    ],
)
def test_other_systems_are_out_of_reach_or_refuse(error, passes, monkeypatch):
    assert reach.is_of_the_way(error) == passes
    place = places.at("memory://outage/study")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(UserError, match="committed rows are kept") as caught:
        place.names()
    assert isinstance(caught.value, places.UnreachableError) == passes


def test_an_address_where_nobody_listens_is_out_of_reach(cloud, unslept, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_client.forget()
    try:
        with pytest.raises(places.UnreachableError, match=r"cannot be reached .*EndpointConnectionError"):
            places.at("s3://bucket/study").names()
    finally:
        s3_client.forget()
