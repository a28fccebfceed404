"""A metric that takes its time, on any machine: who disturbs a run must find it at work.

A run of so much computing is over too soon on a fast machine, and takes too long on a slow one.
"""

import os
import time

METRIC = "tests.paced:count"
SLOWLY = {"SECONDS_A_LAYER": "0.06"}  # environment of the run


def count(spectrum) -> float:
    time.sleep(float(os.environ.get("SECONDS_A_LAYER", 0)))
    return float(len(spectrum.evals))
