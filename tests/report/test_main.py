from raylab.report.__main__ import main


def test_writes_the_report_of_a_folder(finished, capsys):
    assert main([str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("raylab: There is no folder")
    assert main([]) == 2
    assert main(["--help"]) == 0
