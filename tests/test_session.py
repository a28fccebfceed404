import shlex

import pytest

from raylab import session


@pytest.fixture(autouse=True)
def without_uv(monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)


def test_sql_stands_in_double_quotes():
    typed = session.asking("a folder", "SELECT alpha\n  FROM trials WHERE status = 'ok'")
    assert typed == "python -m raylab.query 'a folder' \"SELECT alpha FROM trials WHERE status = 'ok'\""


@pytest.mark.parametrize(
    "query", ["SELECT 'ok'", 'SELECT "a.b"', "SELECT '$HOME'", "SELECT '`date`'", "SELECT '\\\\'", "SELECT 'no!'"]
)
def test_a_shell_reads_the_sql_as_it_is(query):
    assert shlex.split(session.asking("out", query)) == ["python", "-m", "raylab.query", "out", query]
    assert ('"SELECT' in session.asking("out", query)) == (query == "SELECT 'ok'")
