from raylab.results import prometheus
from raylab.results.prometheus import Labels


def test_the_file_is_prometheus_text(tmp_path):
    odd = Labels('a"b\\c', "rerandomize", "ok")
    numbers = {"total": 5, "done": 1_234_567, "elapsed": 86400.25, "remaining": None}
    prometheus.write(tmp_path, {odd: 2, Labels("e", "original", "failed"): 1}, {odd: 1234567.5}, numbers)
    assert [path.name for path in tmp_path.iterdir()] == [prometheus.FILE]
    lines = (tmp_path / prometheus.FILE).read_text().splitlines()
    assert 'raylab_trials_total{experiment="a\\"b\\\\c",perturbation="rerandomize",status="ok"} 2' in lines
    assert (
        'raylab_trial_seconds_total{experiment="a\\"b\\\\c",perturbation="rerandomize",status="ok"} 1234567.5' in lines
    )
    assert "raylab_trials_planned 5" in lines and not any("remaining" in line for line in lines)
    assert "raylab_elapsed_seconds 86400.25" in lines
    assert "raylab_trials_done 1234567" in lines
    prometheus.write(tmp_path / prometheus.FILE, {}, {}, {})  # no folder can be there: a disk that refuses ends no run
