"""Against a stand-in with the functions of trackio 0.43, which was tried with the same calls by hand."""

import sys
from types import ModuleType
from typing import ClassVar

import pytest

from raylab.config.schema import TrackingConfig
from raylab.errors import UserError
from raylab.report import tracking

INFO = {"config": {"models": 2, "data": {"token": "hidden"}}, "command": "c", "code": "1", "started_at": "now"}


class StandIn(ModuleType):
    calls: ClassVar[list] = []

    def init(self, project, name, config):
        self.calls.append((project, name, config))
        return self

    def log(self, numbers):
        self.calls.append(numbers)
        raise ConnectionError("a tracker that fails costs no run")

    def finish(self):
        self.calls.append("finish")


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", StandIn("trackio"))
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    StandIn.calls.clear()
    return StandIn.calls


def test_progress_config_and_outcomes_are_told(calls, tmp_path):
    (tmp_path / "correlations.csv").write_text(
        "metric,target,scope,layer,condition,rho,tau\n"
        "alpha,accuracy,mean,,all,0.5,0.25\n"
        "alpha,accuracy,layer,fc1,all,1,1\n"
    )
    (tmp_path / "scoreboard.csv").write_text("metric,kind,auc\nalpha,data-free,0.75\n")
    with tracking.open_tracker(TrackingConfig(backend="trackio"), "digits", INFO, tmp_path) as tracker:
        tracker.progress(lambda: {"done": 3, "remaining": None})
    (project, name, config), progress, outcomes, finish = calls
    assert (project, name, finish) == ("raylab", "digits-now", "finish")
    assert config["data"] == {"token": "***"} and progress == {"done": 3}
    assert outcomes == {
        "correlations/accuracy/mean/all/alpha/rho": 0.5,
        "correlations/accuracy/mean/all/alpha/tau": 0.25,
        "scoreboard/alpha/auc": 0.75,
    }


def test_off_by_default_and_one_line_where_it_is_not_installed(calls, tmp_path, monkeypatch):
    with tracking.open_tracker(TrackingConfig(), "digits", INFO, tmp_path) as tracker:
        tracker.progress(lambda: pytest.fail("nobody asks"))
    assert calls == []
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(UserError, match=r"pip install 'raylab\[wandb\]'"),
        tracking.open_tracker(TrackingConfig(backend="wandb"), "digits", INFO, tmp_path),
    ):
        pass
