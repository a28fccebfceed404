"""The command as a person types it."""

import csv
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from raylab import places
from raylab.experiments import checkpoints
from raylab.report import html, several
from raylab.results import statuses
from tests.cluster import clusters
from tests.e2e import commands
from tests.paced import METRIC, SLOWLY

TINY = ["debug=tiny", "cluster=inline", "progress=plain"]
QUICK = ["results=out", *TINY, "report=false"]
ON_RAY = ["debug=tiny", "cluster=local", "progress=plain", "report=false"]
ROWS = 2 * (1 + 3 * 4)  # two models: the baseline, and three layers with four perturbations each


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return commands.start(folder, "raylab.run", *_with_results(arguments), **environment)


def run(folder: Path, *arguments: str) -> commands.Ended:
    return commands.run(folder, "raylab.run", *_with_results(arguments))


def _with_results(arguments: Sequence[str]) -> list[str]:
    where = [] if any(word.startswith("results=") for word in arguments) else ["results=out"]
    return [*where, *arguments]


def rows(folder: Path) -> dict[str, dict]:
    """Every row by trial, without what may differ between two runs of the same work."""
    return clusters.rows(folder / "out")


def committed(folder: Path) -> dict[str, str]:
    return statuses(folder / "out")


def write_lab(folder: Path, **functions: str) -> None:
    (folder / "my_lab.py").write_text("\n".join(functions.values()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    code, out, err = run(folder, *TINY)
    assert code == 0, err
    return folder, out


def test_ends_with_rows_a_report_and_the_next_command(undisturbed):
    folder, out = undisturbed
    assert len(rows(folder)) == ROWS
    assert {row["status"] for row in rows(folder).values()} == {"'ok'"}
    assert "out/report.html" in out and 'python -m raylab.query out "SELECT layer' in out
    assert (folder / "out" / "report.html").stat().st_size > 10_000
    for suffix in ("png", "svg"):
        assert len(list((folder / "out" / "figures").glob(f"*.{suffix}"))) >= 3


def test_the_same_command_again_runs_nothing(undisturbed, here):
    folder, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "trials").iterdir()}
    code, _, err = here(folder, *QUICK)
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in (folder / "out" / "trials").iterdir()} == before


def test_a_larger_study_adds_only_what_is_missing(undisturbed, tmp_path, here):
    shutil.copytree(undisturbed[0] / "out", tmp_path / "out")
    before = rows(tmp_path)
    code, _, err = here(tmp_path, *QUICK, "models=3")
    assert code == 0, err
    after = rows(tmp_path)
    assert len(after) == ROWS // 2 * 3 and before.items() <= after.items()


def test_plan_shows_the_work_and_does_none_of_it(tmp_path, here):
    code, out, _ = here(tmp_path, *QUICK, "plan=true")
    assert code == 0 and f"{ROWS} trials" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment=digit"], "Did you mean 'digits'"),
        (["data=mnist", "data.root=nowhere"], "data.root=FOLDER"),
        (["perturbations=[original,rerandomise]"], "Did you mean 'rerandomize'"),
        (["metrics=[standart]"], "Did you mean 'standard'"),
        (["metrics=[my_lab:entropy]"], "Cannot import 'my_lab'"),
        (["layers=[fc9]"], "matches no layer"),
        (["model.depth=deep"], "refuses its arguments (name=fcn-32xdeep, depth=deep"),
        (["model._target_=raylab.models.fcn.FNC"], "Did you mean 'FCN'"),
        (["+model.activation=gelu"], "takes no 'activation'"),
        (["spectral.estimator=kss"], "ks"),
        (["spectral.conv=slices"], "use pooled here"),
        (["spectral.dtype=float16"], "Unknown dtype=float16"),
        (["spectral.device=cuda:0"], "Unknown device 'cuda:0'. Did you mean 'cuda'"),
        (["kind=pertub_layers"], "Did you mean 'perturb_layers'"),
        (["layers=fc1"], "layers=fc1 must be a list"),
        (["results=a=b"], "Cannot read results=a=b: "),
        (["cluster.workers=2"], "cluster.workers=2: cluster=inline has one, this process"),
        (["cluster.backend=threads", "cluster.workers=0"], "must be between 1 and"),
        (["cluster.backend=threads", "cluster.workers=999"], "must be between 1 and"),
        (["cluster.backend=ray", "cluster.address=10.0.0.1:6379", "cluster.workers=0"], "must be at least 1"),
        (["cluster.backend=ray", "cluster.address=ray://head:10001"], "give HOST:PORT of the head"),
        (["cluster.eigen_actors=-1"], "must be at least 1"),
        (["cluster.cpus_per_worker=0"], "must be more than 0"),
        (["cluster=inline", "cluster.gpus_per_worker=1"], "is for workers of Ray, which cluster=inline has not"),
        (["cluster.object_store_gb=0.01"], "must be at least 0.1"),
        (["--verbose"], "--help"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, here, arguments, says):
    code, _, err = here(tmp_path, *QUICK, *arguments)
    assert code == 2
    assert err.startswith("raylab: ") and says in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()


def test_another_study_is_not_mixed_in(undisturbed, here):
    code, _, err = here(undisturbed[0], *QUICK, "train.epochs=3")
    assert code == 2 and "train.epochs: 2 -> 3" in err and "results=ANOTHER_FOLDER" in err


def test_a_failed_row_is_kept_named_and_tried_again(tmp_path, here):
    lines = ["from pathlib import Path", "def broken(weights, rng):", "    if not Path('luck').exists():"]
    lines += ["        raise RuntimeError('no such luck')", "    return -weights.trained", ""]
    write_lab(tmp_path, broken="\n".join(lines))
    arguments = [*QUICK, "perturbations=[original,my_lab:broken]"]
    code, out, _ = here(tmp_path, *arguments)
    assert code == 1 and "no such luck" in out
    failed = [row for row in rows(tmp_path).values() if row["status"] == "'failed'"]
    assert len(failed) == 6 and all("no such luck" in row["error"] for row in failed)
    assert "python -m raylab.report out" in out and not (tmp_path / "out" / "report.html").exists()
    (tmp_path / "luck").touch()
    code, _, err = here(tmp_path, *arguments)
    assert code == 0, err
    assert [row["status"] for row in rows(tmp_path).values()] == ["'ok'"] * 14


def test_a_perturbation_whose_code_was_edited_is_another_study(tmp_path, here):
    arguments = [*QUICK, "models=1", "perturbations=[my_lab:flip]"]
    write_lab(tmp_path, flip="def flip(weights, rng):\n    return -weights.trained\n")
    assert here(tmp_path, *arguments)[0] == 0
    before = rows(tmp_path)
    write_lab(tmp_path, flip="def flip(weights, rng):\n    return 0 * weights.trained\n")
    code, _, err = here(tmp_path, *arguments)
    assert code == 2 and "another version of code of my_lab" in err
    code, _, err = here(tmp_path, *QUICK, "models=1", "perturbations=[original]")  # all trials would get other ids
    assert code == 2 and "another version of code of my_lab" in err
    assert rows(tmp_path) == before


def test_a_model_that_is_no_relu_network_is_trained_as_what_it_is(tmp_path, here):
    lines = ["import torch", "from raylab.models.fcn import FCN", "class Tanh(FCN):", "    def forward(self, x):"]
    lines += ["        for name in self.layer_names[:-1]:", "            x = torch.tanh(getattr(self, name)(x))"]
    lines += ["        return getattr(self, self.layer_names[-1])(x)", ""]
    write_lab(tmp_path, tanh="\n".join(lines))
    code, out, _ = here(tmp_path, *QUICK, "models=1", "model._target_=my_lab.Tanh")
    assert code == 0 and "reaches an accuracy of" in out


def test_training_that_diverges_is_a_failed_row(tmp_path, here):
    code, out, _ = here(tmp_path, *QUICK, "train.learning_rate=1e9", "models=1")
    assert code == 1 and "lower the learning rate" in out
    assert {row["status"] for row in rows(tmp_path).values()} == {"'failed'"}


@pytest.mark.cluster
def test_a_metric_from_outside_the_package_on_ray_as_in_one_process(tmp_path, here):
    lines = ["import numpy as np", "def gini(spectrum):"]
    lines += ["    x = spectrum.evals", "    return float(np.abs(x[:, None] - x).mean() / (2 * x.mean()))", ""]
    write_lab(tmp_path, gini="\n".join(lines))
    code, _, err = run(tmp_path, *ON_RAY, "cluster.workers=4", metrics := "metrics=[standard,my_lab:gini]")
    assert code == 0, err
    measured = [float(row["gini"]) for row in rows(tmp_path).values() if row["layer"] != "None"]
    assert len(measured) == ROWS - 2 and all(0 < value < 1 for value in measured)
    assert here(tmp_path, *TINY, metrics, "results=alone", "report=false")[0] == 0
    assert clusters.rows(tmp_path / "alone") == rows(tmp_path)
    assert "gini" in html.write(tmp_path / "out").read_text()
    page = several.write(tmp_path).read_text()  # over all experiments in a folder
    assert "out/report.html" in page and '<td class="" data-name="metric">gini</td>' in page
    with (tmp_path / "out" / "scoreboard.csv").open() as file:
        kinds = {row["metric"]: row["kind"] for row in csv.DictReader(file)}
    assert (kinds["gini"], kinds["alpha"], kinds["linear_cka"]) == ("own", "data-free", "data-based")


@pytest.mark.cluster
@pytest.mark.timeout(900)  # three starts of Ray, on a busy machine too
def test_killed_at_random_moments_loses_and_doubles_nothing(tmp_path, here):
    """Each time in the middle of the work, seen by the rows that are there; in the end it is as if nothing had been."""
    more, planned = ["models=24", f"metrics=[{METRIC}]"], 24 * ROWS // 2
    moments, seen, said = random.Random(0), 0, ""
    (disturbed := tmp_path / "disturbed").mkdir()
    for _ in range(2):  # of eight seconds of work for two workers
        process = start(disturbed, *ON_RAY, "cluster.workers=2", *more, **SLOWLY)
        while process.poll() is None and len(committed(disturbed)) <= seen:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[1]
        before, seen = seen, len(committed(disturbed))
        assert before < seen < planned, f"it was not killed at work: the test shows nothing.\n{said}"
    code, _, err = run(disturbed, *ON_RAY, *more)
    assert code == 0, err
    (quiet := tmp_path / "quiet").mkdir()
    assert here(quiet, *QUICK, *more)[0] == 0
    assert rows(disturbed) == rows(quiet)


@pytest.fixture
def where(request, monkeypatch):
    """This machine alone, or a cluster that is there before a run and after it. Their work takes long."""
    for name, value in SLOWLY.items():
        monkeypatch.setenv(name, value)
    if request.param == "alone":
        yield ON_RAY
        return
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 150 * 1024**2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield [*ON_RAY, "cluster=ray", f"cluster.address={cluster.address}"]
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        deadline = time.monotonic() + 60
        while (free := ray.available_resources().get("CPU", 0)) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert free == 2, "who interrupted a run has left its workers behind"
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.cluster
@pytest.mark.parametrize(("where", "sent"), [("alone", signal.SIGINT), ("joined", signal.SIGTERM)], indirect=["where"])
def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(tmp_path, where, sent):
    more = ["models=200", "cluster.workers=2", f"metrics=[{METRIC}]"]
    process = start(tmp_path, *where, *more)
    while not committed(tmp_path):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    said, command = err.strip().splitlines()[-2:]
    assert said.startswith("Interrupted. Finished trials are kept") and "models=200" in command
    assert 0 < len(rows(tmp_path)) < 2600


@pytest.mark.slow
def test_killed_on_one_machine_it_goes_on_from_s3_on_another(tmp_path, here, cloud):
    """No folder is shared; the second does not train what the first has, and the rows are those of a quiet run."""
    url = cloud.bucket("two-machines") + "/out"
    for folder in (one := tmp_path / "one", another := tmp_path / "another", quiet := tmp_path / "quiet"):
        folder.mkdir()
    words = [*TINY, f"metrics=[standard,{METRIC}]"]
    first = start(one, *words, f"results={url}", **SLOWLY)
    while first.poll() is None and not checkpoints.of(url).kept():
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(statuses(url)) < ROWS
    kept = checkpoints.of(url).kept()
    code, out, err = run(another, *words, f"results={url}")
    assert code == 0, err
    assert f"2 x fcn-32x2; {2 - len(kept)} to train" in out and len(kept) >= 1
    assert here(quiet, "results=out", *words, "report=false")[0] == 0
    assert clusters.rows(url) == rows(quiet)
    assert not list(one.iterdir()) and not list(another.iterdir())
    assert b"swordfish" not in places.at(url).read("run.json")
    assert b"<html" in places.at(url).read("report.html")
