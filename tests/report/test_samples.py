"""The samples of a search as a table."""

import math

import pyarrow as pa

from raylab.report.samples import ranked, samples_table

ROWS = [
    {"lr": 0.1, "method": "qr", "accuracy": 0.8, "epochs": 4, "epochs_planned": 4, "ended": "finished"},
    {"lr": 0.2, "method": "qr", "accuracy": 0.9, "epochs": 1, "epochs_planned": 4, "ended": "stopped early"},
    {"lr": 9.0, "method": "qr", "accuracy": 0.95, "epochs": 2, "epochs_planned": 4, "ended": "failed"},
    {"lr": 0.3, "method": "cayley", "accuracy": math.nan, "epochs": None, "epochs_planned": None, "ended": "finished"},
]


def test_the_best_comes_first_and_what_failed_last():
    assert [row["lr"] for row in ranked(ROWS, "accuracy", "max")] == [0.2, 0.1, 0.3, 9.0]
    assert [row["lr"] for row in ranked(ROWS, "accuracy", "min")] == [0.1, 0.2, 0.3, 9.0]


def test_a_table_says_how_far_each_came():
    text = samples_table(pa.Table.from_pylist(ranked(ROWS, "accuracy", "max")), "accuracy").markdown()
    assert "| lr | method | accuracy [%] | epochs | ended |" in text
    assert "| 0.2 | qr | 90.00 | 1 of 4 | stopped early |" in text and "| 0.3 | cayley | – | – | finished |" in text
    assert "1 of 4 stopped early by ASHA, 1 failed." in text
