import made_up
import numpy as np
import pytest

from raylab.report import html, picture, scoreboard, several
from raylab.report.__main__ import main
from raylab.results import load
from raylab.results.correlate import Resampling, correlate

FEW = Resampling(bootstrap=20, permutations=20)


def gini(table):
    """A metric of a user's own: a column that nobody has heard of, good where the accuracy is."""
    accuracy, whole = table["accuracy"].to_numpy(), table["layer"].is_null().to_numpy()
    return table.append_column("gini", [np.where(whole, np.nan, accuracy)])


@pytest.fixture(scope="module")
def scores(finished):
    table = gini(load(finished))
    return scoreboard.of(table, correlate(table, resampling=FEW))


def test_a_metric_of_ones_own_has_its_place_without_another_line(scores):
    board = scoreboard.board(scores)
    assert board and board.rows[0][:3] == ["gini", "1", "own"] and board.rows[0][-1] == "b c"
    assert "None of 12 data-free metrics tells robust from critical cases" in scores.findings()[0]
    only = next(text for text in scores.findings() if "your own" in text)
    assert only.startswith("The only metric of your own tells robust from critical cases. gini has an AUC of 1.00")
    (picture,) = scores.pictures()
    assert {key.text for key in picture.keys} >= {"data-free", "data-based", "your own"} and len(picture.panels) == 3


def test_the_names_of_metrics_stand_once_and_whole(scores):
    (drawn,) = scores.pictures()
    with picture._styled():
        figure = picture._laid_out(drawn.figure())
        figure.set_dpi(200)  # of the file; the layout is found with another
        figure.canvas.draw()
        first, *others = ([text for text in ax.get_yticklabels() if text.get_visible()] for ax in figure.axes)
        assert "activation disagreement" in [text.get_text() for text in first] and others == [[], []]
        assert min(text.get_window_extent().x0 for text in first) > 0
        boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0
    assert boxes[2].x1 < figure.bbox.width


def test_a_hollow_key_is_drawn_hollow(scores):
    (drawn,) = scores.pictures()
    assert [key.hollow for key in drawn.keys if key.text.startswith("hollow")] == [True]
    filled = {line.get_label(): line.get_fillstyle() == "full" for line in picture._handles(drawn.keys)}
    assert filled == {key.text: not key.hollow for key in drawn.keys}


def test_the_board_says_what_it_counts(scores):
    board = scoreboard.board(scores)
    rows = scores.evidence.filter(scores.evidence["headline"]).to_pylist()
    n = next(row["n_robust"] for row in rows if (row["metric"], row["question"]) == ("entropy", "robust_critical"))
    assert f"Robust: it costs at most 10 points, {n} of 214 cases." in board.note  # 216 but for two that failed
    assert "no spread: matrix_rank, rank_loss" in board.note
    sweep = scores.tables()[1]
    assert sweep.header[1:] == [*(f"≤ {each:g} points" for each in (0.5, 1, 2, 5, 10, 20)), "half is left"]
    row = next(row for row in board.rows if row[0] == "activation_disagreement")
    at = next(row for row in sweep.rows if row[0] == "activation_disagreement")[5]
    assert row[4] == "–" and row[5].startswith(at[:3])  # no spread over trained models: no shift


def test_results_without_a_verdict_have_no_scoreboard(finished):
    table = load(finished)
    table = table.filter(table["perturbation"].to_numpy(zero_copy_only=False) == "original")
    scores = scoreboard.of(table, correlate(table, resampling=FEW, metrics=[]))
    assert (scores.found, scores.tables(), scores.pictures(), scores.findings()) == ([], [], [], [])
    assert scores.files() == {}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two experiments, one of them cut short, and a folder that is damaged."""
    folder = tmp_path_factory.mktemp("results")
    made_up.folder(folder / "whole", models=6)
    made_up.folder(folder / "begun", models=1)
    (folder / "damaged" / "trials").mkdir(parents=True)
    (folder / "damaged" / "trials" / "part-000001.parquet").write_text("nonsense")
    return folder


def test_one_page_over_all_experiments(results, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(html, "write", lambda folder, view: written.append((folder.path.name, view.scores.found)))
    assert main([str(results)]) == 0
    assert capsys.readouterr().out.strip() == str(results / "report.html")
    text = " ".join((results / "report.html").read_text().split())
    assert 'href="whole/report.html"' in text and 'href="begun/report.html"' in text
    assert "part-000001.parquet is damaged" in text
    assert (results / "figures" / "scoreboard.png").exists()
    assert "2 of 3 experiments have enough robust and critical cases" in text
    assert [name for name, _ in written] == ["begun", "whole"]
    assert all(f'data-name="metric">{one.metric}</td>' in text for one in dict(written)["whole"] if one.passes())
    assert "src=" not in text and "<script" not in text


def standing_of(auc, better="lower"):
    from raylab.results.standing import Number, Standing

    number, none = Number(auc, auc - 0.01, auc + 0.01, "ok", "layer"), Number()
    return Standing("m", "data-free", better, none, none, number, none, none, none, none)


def test_a_metric_without_a_direction_has_the_same_one_in_all_experiments():
    opposite = [several._overall([standing_of(auc, better) for auc in (0.1, 0.95)]) for better in ("", "lower")]
    assert [one.strength for one in opposite] == [pytest.approx(0.525), pytest.approx(0.525)]
    alike = several._overall([standing_of(auc, "") for auc in (0.1, 0.2)])
    assert (alike.strength, alike.turned, alike.passed) == (pytest.approx(0.85), True, 2)


@pytest.mark.parametrize(
    ("aucs", "said"),
    [
        ((0.9, 0.9), "tells robust from critical cases in every experiment that can say so."),
        ((0.1, 0.9), "does not tell robust from critical cases in every experiment, but in some."),
        ((0.1, 0.1), "does not tell robust from critical cases in any experiment."),
    ],
)
def test_a_single_metric_is_not_counted(aucs, said):
    found = [several._overall([standing_of(auc) for auc in aucs])]
    first = several.findings([], found)[0]
    assert first.startswith(f"The only data-free metric {said} m has an AUC of ")
    assert several.findings([], found * 2)[0].startswith(("2 of 2 data-free metrics tell ", "None of 2 "))


def test_a_folder_with_rows_of_its_own_is_one_experiment(results):
    assert several.holds(results) and not several.holds(results / "whole") and not several.holds(results / "nowhere")
