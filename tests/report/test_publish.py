import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylab.errors import UserError
from raylab.report import publish
from raylab.report.picture import Panel, Picture
from raylab.results.text import TextTable

TEXT = TextTable("Title", ("layer", "alpha"), [("fc_1", "4.82 ± 0.02")], note="A note.")
NUMBERS = pa.table({"layer": ["fc_1"], "alpha": [4.8212345], "sem": [0.0249]})


def test_a_table_is_markdown_latex_and_parquet(tmp_path):
    made = publish.table(tmp_path / "new", "table_1", TEXT, NUMBERS)
    assert [path.name for path in made] == ["table_1.md", "table_1.tex", "table_1.parquet"]
    assert "| fc_1 | 4.82 ± 0.02 |" in made[0].read_text() and "A note." in made[0].read_text()
    assert r"fc\_1 & 4.82 $\pm$ 0.02 \\" in made[1].read_text()
    assert pq.read_table(made[2]).equals(NUMBERS)


def test_a_figure_is_png_and_svg(tmp_path):
    picture = Picture("figure_3", "Title", "Caption.", [Panel("a", lambda ax: ax.plot([0, 1], [1, 0]))])
    made = publish.figure(tmp_path, picture)
    assert [path.name for path in made] == ["figure_3.png", "figure_3.svg"]
    assert made[0].read_bytes()[:4] == b"\x89PNG"
    assert publish.embedded(picture, "figures/figure_3.png").startswith("![Title](figures/figure_3.png)")


def test_folders_of_a_machine_are_left_out_of_a_command():
    command = "python -m raylab.run experiment=fcn_mnist data.root=/a/b results=results/mine seed=3"
    without = "python -m raylab.run experiment=fcn_mnist data.root=FOLDER results=results/mine seed=3"
    assert publish.command({"command": command}) == without


def test_a_script_prints_what_it_wrote(tmp_path, capsys):
    def main(folder, output):
        yield from publish.table(output, folder, TEXT, NUMBERS)

    publish.script(main, "About.", argv=["name", "--output", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / f"name.{kind}") for kind in ("md", "tex", "parquet")]


def test_by_default_files_go_beside_the_first_results():
    seen = []
    publish.script(lambda folders, output: seen.append((folders, str(output))) or [], "", True, ["a", "b"])
    publish.script(lambda folder, output: seen.append((folder, str(output))) or [], "", argv=["a"])
    assert seen == [(["a", "b"], "a/analysis"), ("a", "a/analysis")]


def test_bad_input_is_one_line_and_exit_code_2(capsys, monkeypatch):
    def main(folder, output):
        raise UserError(f"There is no folder {folder}.")

    monkeypatch.setattr("sys.argv", ["analysis/table_1.py", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        publish.script(main, "")
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "table_1: There is no folder nowhere.\n")
