import made_up
import pytest

from raylab.report.__main__ import main


def test_writes_the_report_of_a_folder(finished, capsys, sparing):
    assert main([str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("raylab: There is no folder")
    assert main([]) == 2
    assert main(["--help"]) == 0


@pytest.mark.parametrize("name", ["figures", "correlations.csv", "report.html"])
def test_what_cannot_be_written_is_one_line_that_says_how_to_get_the_report(tmp_path, capsys, sparing, name):
    folder = made_up.folder(tmp_path / "a run", models=1, share=0.2)  # correlations of more take seconds
    obstacle = folder / name
    _ = obstacle.write_text("mine") if name == "figures" else obstacle.mkdir()
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"raylab: Cannot write {obstacle} (") and said.count("\n") == 1
    assert "The rows are kept" in said and f"`python -m raylab.report '{folder}'`" in said
    _ = obstacle.unlink() if name == "figures" else obstacle.rmdir()
    assert main([str(folder)]) == 0
