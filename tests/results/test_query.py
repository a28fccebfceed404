"""SQL over a results folder: right answers, one-line errors, and no way out."""

import contextlib
import csv
import json
import subprocess
import sys

import made_up
import pyarrow.parquet as pq
import pytest

from raylab.errors import UserError
from raylab.results import ParquetSink, load, parts, schema
from raylab.results.query import main, query
from raylab.types import TrialResult


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return made_up.folder(tmp_path_factory.mktemp("results"), models=3)


def test_answers_equal_those_of_pandas(results):
    got = query(
        results, "SELECT layer, avg(accuracy) a FROM trials WHERE status = 'ok' GROUP BY layer ORDER BY layer"
    ).to_pandas()
    frame = load(results).to_pandas().query("status == 'ok'").groupby("layer").accuracy.mean()
    assert got.dropna().set_index("layer").a.to_dict() == pytest.approx(frame.to_dict())


def test_parts_with_other_columns_are_one_view(results, tmp_path):
    plan = made_up.trials(1)
    for at, columns in enumerate(({"alpha": float}, {"their_count": int}, {"their_count": float})):
        with ParquetSink(tmp_path, schema.schema(columns), {}) as sink:
            sink.write(TrialResult(plan[at], "ok", dict.fromkeys(columns, 2)))
    assert query(tmp_path, "SELECT alpha, their_count FROM trials ORDER BY ALL").to_pylist() == [
        {"alpha": 2.0, "their_count": None}, {"alpha": None, "their_count": 2.0}, {"alpha": None, "their_count": 2.0}
    ]  # fmt: skip


def test_works_while_a_run_goes_on(tmp_path):
    plan = made_up.trials(1)
    with ParquetSink(tmp_path, schema.schema(made_up.COLUMNS), {}, flush_rows=1) as sink:
        for at, trial in enumerate(plan[:5]):
            sink.write(made_up.result(trial))
            (tmp_path / "trials" / ".part-000099.parquet.1.tmp").write_bytes(b"half")
            assert query(tmp_path, "SELECT count(*) n FROM trials").to_pylist() == [{"n": at + 1}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY trials TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
        "ATTACH '{folder}/out.db'",
        "EXPORT DATABASE '{folder}/out'",
        "SET enable_external_access = true",
        "RESET lock_configuration; SELECT 1",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM sql",  # a variable of ours
        "SELECT * FROM '{folder}/*.csv'",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''{secret}'')'))",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SELECT * FROM 's3://bucket/x.parquet'",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_secrets()",
        "ATTACH ':memory:' AS more; CREATE TABLE more.t AS SELECT 1; FROM more.t",
        "CREATE MACRO m(p) AS TABLE SELECT * FROM read_text(p); SELECT * FROM m('{secret}')",
        "CREATE PERSISTENT SECRET a (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
        "SET log_query_path = '{folder}/out.log'",
        "PRAGMA profile_output = '{folder}/out.json'",
        "CALL enable_logging(storage = 'file', storage_config = {{'path': '{folder}/log'}})",
        "SET allowed_directories = ['/']",
        "SET temp_directory = '{folder}/tmp'",
        "PREPARE p AS SELECT 1",
        "IMPORT DATABASE '{folder}'",
    ],
)
def test_no_way_out_of_the_view(results, tmp_path, sql):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nswordfish\n")
    before = sorted(path.name for path in results.rglob("*"))
    with pytest.raises(UserError, match=r"^The query failed\. ") as caught:
        query(results, sql.format(secret=secret, folder=tmp_path))
    assert "\n" not in str(caught.value) and "swordfish" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert sorted(path.name for path in results.rglob("*")) == before


def test_a_part_that_is_a_link_to_elsewhere_is_refused(results, tmp_path):
    private, folder = tmp_path / "private.parquet", tmp_path / "given"
    private.write_bytes(next((results / "trials").glob("*.parquet")).read_bytes())
    (folder / "trials").mkdir(parents=True)
    (folder / "trials" / "part-000001.parquet").symlink_to(private)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "trials").symlink_to(results / "trials")
    for given in (folder, tmp_path / "whole"):
        with pytest.raises(UserError, match="is a link that leads out of"):
            query(given, "FROM trials")
    (tmp_path / "linked").symlink_to(results)  # the folder itself may be one
    assert query(tmp_path / "linked", "FROM trials").num_rows == query(results, "FROM trials").num_rows


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT trials ON status USING count(*)",
        "SUMMARIZE trials",
        "DESCRIBE trials",
        "EXPLAIN FROM trials",
        "WITH t AS (FROM trials) SELECT count(*) FROM t",
        "FROM trials;",
    ],
)
def test_whatever_asks_is_taken(results, sql):
    assert query(results, sql).num_rows > 0


def test_the_results_cannot_be_changed(results):
    before = [part.read_bytes() for part in sorted((results / "trials").iterdir())]
    for sql in ("DELETE FROM trials", "DROP VIEW trials", "UPDATE trials SET alpha = 0"):
        with contextlib.suppress(UserError):
            query(results, sql)
        assert [part.read_bytes() for part in sorted((results / "trials").iterdir())] == before


def test_a_damaged_part_is_named(tmp_path):
    made_up.folder(tmp_path, models=2)
    part = tmp_path / "trials" / parts.names(tmp_path)[0]
    data = part.read_bytes()
    part.write_bytes(data[:60] + b"?" * 200 + data[260:])
    with pytest.raises(UserError, match=rf"{part.name} is damaged"):
        query(tmp_path, "SELECT * FROM trials")


@pytest.mark.parametrize("sql", ["selec 1", "SELECT nope FROM trials", "SELECT * FROM nowhere", "", "SELECT 1/'x'"])
def test_a_bad_query_is_one_line_and_exit_code_2(results, capsys, sql):
    assert main([str(results), sql]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("raylab.query: ") and err.count("\n") == 1


def test_a_folder_without_results_is_one_line_and_exit_code_2(tmp_path, capsys):
    for folder, says in ((tmp_path / "nowhere", "There is no folder"), (tmp_path, "No results in")):
        assert main([str(folder), "SELECT 1"]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1


def test_every_format_says_the_same(results, tmp_path, capsysbinary):
    sql = "SELECT layer, replicate, alpha, error, started_at FROM trials ORDER BY trial_id"
    whole = load(results)
    rows = sorted(whole.to_pylist(), key=lambda row: row["trial_id"])
    for form in ("csv", "json", "parquet"):
        assert main([str(results), sql, "--format", form]) == 0
        printed = capsysbinary.readouterr().out
        assert main([str(results), sql, "--output", str(tmp_path / f"out.{form}")]) == 0
        assert (tmp_path / f"out.{form}").read_bytes() == printed
        capsysbinary.readouterr()
    with (tmp_path / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["layer"] or None for row in read] == [row["layer"] for row in rows]
    objects = json.loads((tmp_path / "out.json").read_text())
    finite = [row["alpha"] if row["alpha"] == row["alpha"] else None for row in rows]
    assert [row["alpha"] for row in objects] == finite
    assert pq.read_table(tmp_path / "out.parquet")["replicate"].to_pylist() == [row["replicate"] for row in rows]


def test_output_never_lands_among_the_parts(results, capsys):
    assert main([str(results), "FROM trials", "--output", str(results / "trials" / "x.parquet")]) == 2
    assert "choose an --output outside" in capsys.readouterr().err
    assert main([str(results), "FROM trials", "--output", str(results / "no" / "x.csv")]) == 2
    assert "Cannot write" in capsys.readouterr().err


def test_output_below_a_plain_file_is_one_line_and_exit_code_2(results, tmp_path, capsys):
    (tmp_path / "plain").touch()
    assert main([str(results), "FROM trials", "--output", str(tmp_path / "plain" / "x.csv")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("raylab.query: Cannot write ") and said.count("\n") == 1


def test_numbers_on_the_terminal_are_whole_however_narrow_it_is(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert (
        main(
            [
                str(results),
                "SELECT 1234567890123456 a, 'x' b, 0.000123456 c, 'nan'::double d, NULL e, repeat('long ', 40) f",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    for word in ("1234567890123456", "0.000123456", "NaN"):
        assert word in out
    assert all(len(line) <= 60 for line in out.splitlines())
    assert main([str(results), "FROM trials LIMIT 2"]) == 0
    out = capsys.readouterr().out
    for name in load(results).column_names:
        assert name in out


def test_columns_are_listed_without_a_query(results, capsys):
    assert main([str(results)]) == 0
    out = capsys.readouterr().out
    assert "alpha" in out and "exponent" in out


def test_the_module_is_a_command(results):
    command = [sys.executable, "-m", "raylab.query"]
    done = subprocess.run([*command, str(results), "SELECT 40 + 2 AS answer"], capture_output=True, text=True)
    assert done.returncode == 0 and "42" in done.stdout
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "examples:" in shown.stdout and "isfinite" in shown.stdout
    head = subprocess.run(
        f"{sys.executable} -m raylab.query {results} 'FROM trials, range(2000)' --format csv | head -1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert head.stdout.startswith('"trial_id"') and head.stderr == ""
