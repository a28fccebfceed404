import csv
import re
from html.parser import HTMLParser

import made_up
import pytest

from raylab.errors import UserError
from raylab.report import html
from raylab.report.perturbed import Perturbed
from raylab.results import ParquetSink, load, schema
from raylab.types import Trial, TrialResult

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags match and collects ids, links and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.text, self.loads = [], [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "a":
            self.links.append(attributes["href"])
        self.loads += [value for name, value in attrs if name in ("src", "data", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(finished):
    return Page(html.write(finished).read_text())


def test_report_says_what_the_rows_say(page, finished):
    text = " ".join(page.text.split())
    for words in ("fcn_mnist", "12 trained models reach", "numpy.linalg.LinAlgError", "re-randomised", "train.epochs"):
        assert words in text
    assert "Unfinished" not in text
    with (finished / "correlations.csv").open() as file:
        rho = {
            row["metric"]: row["rho"]
            for row in csv.DictReader(file)
            if (row["scope"], row["condition"]) == ("mean", "all")
        }
    assert f"is {float(rho['alpha']):.3f} on average over layers" in text


def test_page_stands_alone(finished, page):
    text = (finished / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert "://" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
    assert "<script" not in text and "@import" not in text
    assert all(link.startswith("#") or (finished / link).exists() for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert len(list((finished / "figures").iterdir())) == 12


def test_error_text_is_escaped(tmp_path):
    with ParquetSink(tmp_path, schema.schema({}), {}) as sink:
        sink.write(TrialResult(made_up.trials(1)[1], "failed", {}, error="<script>alert(1)</script>"))
    text = html.write(tmp_path).read_text()
    assert "<script>" not in text and "&lt;script&gt;alert(1)" in text


def test_unfinished_run_says_so(tmp_path, sparing):
    made_up.folder(tmp_path, models=4, share=0.4)
    text = " ".join(Page(html.write(tmp_path).read_text()).text.split())
    assert "Unfinished. 40 of 100 trials are done (40%)" in text


def test_another_experiment_gets_a_report_of_what_it_has(tmp_path, sparing):
    with ParquetSink(tmp_path, schema.schema({"loss": float, "perplexity": float, "alpha": float}), {}) as sink:
        for at in range(12):
            trial = Trial("alpha_at_init", "gpt2", 0, "c", "wikitext", f"h.{at}", "rerandomize", 0, 0, "m")
            values = {"loss": 3.0 + at, "perplexity": 20.0, "alpha": 2.0 + at % 5, "layer_index": at}
            sink.write(TrialResult(trial, "ok" if at else "skipped", values, error=None if at else "a layer too small"))
    text = " ".join(Page(html.write(tmp_path).read_text()).text.split())
    assert "There is no run.json" in text and "1 skipped: a layer too small" in text
    assert "loss against the spectral metrics" not in text
    assert (
        "α by layer" in text and "Loss [nats] by layer" in text and "accuracy" not in text.partition("Configuration")[0]
    )


def test_only_experiments_that_train_are_said_to_lack_a_similarity(finished):
    given = load(finished)
    trained = given.append_column("train_seconds", [[9.0] * given.num_rows])
    assert any(text.startswith("similarity") for text in Perturbed(trained).missing([]))
    said = Perturbed(given).missing([])
    assert said and not any("similarity" in text for text in said)


def test_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(UserError, match="No results in"):
        html.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_report_is_written_whole(finished, page):
    assert not list(finished.glob("*.tmp")) and not list(finished.glob(".*.tmp"))


def test_failures_of_one_kind_are_shown_once_whichever_process_they_are_from():
    errors = [
        f"Traceback ...\nOops: no\nLog of its worker, in the results folder: logs/node-{pid}.log\n" for pid in (7, 8)
    ]
    rows = [TrialResult(trial, "failed", {}, error=errors[k]) for k, trial in enumerate(made_up.trials(1)[:2])]
    of = schema.schema(made_up.COLUMNS)
    cells = [schema.cells(schema.row(each, made_up.PROVENANCE), of) for each in rows]
    (shown,) = html._failures(schema.table(cells, of), "failed")
    assert (shown["last"], shown["count"]) == ("Oops: no", "2") and "logs/node-7.log" in shown["error"]
