"""The numbers against tools we did not write: weightwatcher 0.7.7 (installed, and golden values) and powerlaw 2.0.0."""

import contextlib
import io
import itertools
import logging
import warnings

import numpy as np
import pytest
import torch

import raylab
from raylab import config
from raylab.layers import as_matrices
from raylab.spectral import fit_evals, measure, resolve
from raylab.types import Layer, SpectralOptions

CPU = SpectralOptions(device="cpu")

# Our column: the oracle's, relative tolerance.
SAME = {
    "alpha": ("alpha", 1e-9),
    "D": ("D", 1e-9),
    "xmin": ("xmin", 1e-9),
    "xmax": ("xmax", 1e-9),
    "sigma": ("sigma", 1e-9),
    "num_tail": ("num_pl_spikes", 0),
    "num_evals": ("num_evals", 0),
    "alpha_hat": ("alpha_weighted", 1e-9),
    "log_alpha_norm": ("log_alpha_norm", 1e-9),
    "log_norm": ("log_norm", 1e-9),
    "spectral_norm": ("spectral_norm", 1e-9),
    "log_spectral_norm": ("log_spectral_norm", 1e-9),
    "sigma_max": ("sv_max", 1e-9),
    "stable_rank": ("stable_rank", 1e-9),
    "entropy": ("entropy", 1e-9),
    "matrix_rank": ("matrix_rank", 0),
    "rank_loss": ("rank_loss", 0),
    "num_erg": ("detX_num", 0),
    "erg_gap": ("ERG_gap", 0),
    "N": ("N", 0),
    "M": ("M", 0),
    # The oracle's descent stops when neither sigma nor the residual moves by more than 1e-4.
    "mp_sigma": ("sigma_mp", 1e-4),
    "mp_softrank": ("mp_softrank", 2e-4),
    "bulk_edge": ("bulk_max", 2e-4),
    "num_spikes": ("num_spikes", 0),
}


@pytest.fixture(scope="module")
def weightwatcher():
    """weightwatcher's rows for a model, by layer, on the CPU (it reads weights as float16 where it sees CUDA)."""
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("MPLBACKEND", "agg")
        tool = pytest.importorskip("weightwatcher")

    def analyze(model, **options):
        with quiet():
            details = tool.WeightWatcher(model=model).analyze(plot=False, **options)
        return {row["longname"]: row for row in details.to_dict("records")}

    return analyze


@contextlib.contextmanager
def quiet():
    """Without the tool's log, prints and warnings (ours stay errors)."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def fcn():
    widths = [784, 512, 512, 512, 10]  # square ones with and without a heavy tail; the oracle takes a second for each
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


def cnn():
    convolutions = [torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 48, 5), torch.nn.Conv2d(48, 24, 1, bias=False)]
    return torch.nn.Sequential(*convolutions, torch.nn.Flatten(), torch.nn.Linear(24, 50))


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=96, n_head=4, vocab_size=400, n_positions=64)
    return transformers.GPT2LMHeadModel(config).eval()


def heavy_tailed(model):
    """Every other weight tensor redrawn from Student's t, so that the tails differ from layer to layer."""
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for i, parameter in enumerate(p for p in model.parameters() if p.ndim >= 2):
            if i % 2:
                drawn = rng.standard_t(2.5 + i / 4, size=parameter.shape) * float(parameter.std())
                parameter.copy_(torch.from_numpy(drawn))
    return model


@pytest.mark.parametrize("build", [fcn, cnn, gpt2])
def test_every_column_equals_weightwatchers(build, weightwatcher):
    torch.manual_seed(0)
    model = heavy_tailed(build())
    ours = raylab.analyze(model, ("standard", "marchenko_pastur"), CPU).to_pylist()
    measured = {row["layer"]: row for row in ours if row["status"] != "skipped"}
    theirs = weightwatcher(model, mp_fit=True, detX=True)
    assert measured.keys() == theirs.keys() - {"lm_head"}  # tied to the token embedding; the oracle counts it twice
    for name, row in measured.items():
        for column, (oracle, tolerance) in SAME.items():
            expected = theirs[name][oracle]
            assert row[column] == pytest.approx(expected, rel=tolerance, abs=0), f"{name} {column}"


def test_the_kinds_of_layer_are_all_compared():
    rows = [*raylab.analyze(cnn(), ("norms",), CPU).to_pylist(), *raylab.analyze(gpt2(), ("norms",), CPU).to_pylist()]
    assert {row["kind"] for row in rows if row["status"] == "ok"} == {"linear", "conv2d", "hf_conv1d", "embedding"}


def test_the_permuted_control_equals_weightwatchers_given_the_same_permutation(weightwatcher, monkeypatch):
    torch.manual_seed(3)
    model = heavy_tailed(torch.nn.Sequential(torch.nn.Linear(150, 200), torch.nn.Linear(200, 120)))
    ours = raylab.analyze(model, ("randomized",), CPU).to_pylist()
    monkeypatch.setattr(np.random, "shuffle", lambda x: np.random.default_rng(0).shuffle(x))
    theirs = weightwatcher(model, randomize=True)
    names = {
        "rand_lambda_max": ("max_rand_eval", 1e-9),
        "rand_distance": ("rand_distance", 1e-7),  # a root of a difference: half the digits
        "rand_softrank": ("ww_softrank", 1e-9),
        "rand_maxdist": ("ww_maxdist", 1e-9),
        "rand_mp_softrank": ("rand_mp_softrank", 2e-4),
        "rand_mp_sigma": ("rand_sigma_mp", 1e-4),
        "rand_bulk_edge": ("rand_bulk_max", 2e-4),
        "num_traps": ("num_traps", 0),
    }
    for row, expected in zip(ours, theirs.values(), strict=True):
        for column, (oracle, tolerance) in names.items():
            assert row[column] == pytest.approx(expected[oracle], rel=tolerance, abs=0), column


def test_the_parity_preset_skips_what_weightwatcher_skips(weightwatcher):
    torch.manual_seed(0)
    sizes = [(30, 7), (30, 8), (30, 20)]
    model = torch.nn.Sequential(*(torch.nn.Linear(*size) for size in sizes), torch.nn.Embedding(50_001, 8))
    preset = config.compose(["spectral=oracle", "spectral.device=cpu"])[0].spectral
    measured = {row["layer"] for row in raylab.analyze(model, ("norms",), preset).to_pylist() if row["status"] == "ok"}
    assert measured == weightwatcher(model).keys() == {"1", "2"}
    assert raylab.analyze(model, ("norms",), CPU)["status"].to_pylist() == ["skipped", "ok", "ok", "ok"]


def test_the_fourier_transform_of_a_kernel_is_weightwatchers(weightwatcher):
    """Its transform only: 0.7.7 then drops the imaginary part and takes singular values over the wrong dimensions."""
    import weightwatcher as tool

    weights = torch.nn.Conv2d(16, 24, 3).weight.detach().numpy()
    with quiet():
        theirs, *_ = tool.weightwatcher.WWLayer.get_conv2d_fft(None, weights)
    ours = as_matrices(weights, Layer("c", 0, "conv2d", weights.shape), "fft")
    np.testing.assert_allclose(ours, theirs[0].transpose(2, 3, 0, 1).reshape(ours.shape), atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 7, 8, 9, 12, 19, 20, 21, 60])
@pytest.mark.parametrize("seed", range(4))
def test_small_samples_equal_weightwatchers(size, seed, weightwatcher):
    from weightwatcher.WW_powerlaw import WWFit

    points = np.sort(np.random.default_rng([size, seed]).pareto(1.5, size) + 1)
    with quiet():
        theirs = WWFit(points)
    ours = fit_evals(points)
    assert (ours.alpha, ours.D, ours.xmin) == pytest.approx((theirs.alpha, theirs.D, theirs.xmin), rel=1e-9, abs=0)
    if size >= 8:  # below, its sigma is -1/sqrt(n): computed before the fall-back sets alpha
        assert ours.sigma == pytest.approx(theirs.sigma, rel=1e-9, abs=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_equals_powerlaws(seed):
    powerlaw = pytest.importorskip("powerlaw")
    rng = np.random.default_rng(seed)
    weights = rng.standard_t(2 + seed, size=(260, 200 + 10 * seed)) / 16
    evals = np.linalg.eigvalsh(weights.T @ weights)
    evals = evals[evals > 1e-5]
    with quiet():
        # Without the range its alpha is silently capped at 3.
        theirs = powerlaw.Fit(evals, parameter_ranges={"alpha": [1, None]}, verbose=False)
    ours = fit_evals(evals)
    assert (ours.alpha, ours.xmin, ours.D) == pytest.approx((theirs.alpha, theirs.xmin, theirs.D), rel=1e-9, abs=0)


# weightwatcher 0.7.7 on matrices anyone can rebuild: alpha, D, xmin, sigma, num_tail, log_norm, stable_rank, entropy,
# matrix_rank, num_erg, log_alpha_norm
GOLDEN = {
    "uniform": "10.704646466554454 0.10712422356965326 1.0179079748866209 1.8340057937360565 28 2.2317302398646595 "
    "130.9626531172095 0.920427672772366 512 376 2.189761916356352",
    "student": "3.1248816657419556 0.03139532580366189 0.018043658274701557 0.2332360636058263 83 0.7296801680481712 "
    "8.5557011784861 0.8437866694985454 512 322 -0.6208416380173791",
    "pareto": "2.983990304186772 0.0138748249154233 0.0108593743362968 0.092908858460849 456 1.0281971263394005 "
    "20.7015270008586 0.9470202850855801 512 341 -0.7288886413321238",
    "gauss": "25.678560013475263 0.12518023262828826 2.4845729099164955 5.14583548098215 23 2.974781566930636 "
    "345.20230569159355 0.9810496722680022 768 668 12.144921876655998",
    "conv": "5.148504498068079 0.13127504444815197 0.060485062105266316 0.3755879496933374 122 1.3283996820032042 "
    "202.05222631789113 0.9605555736573156 576 470 -3.475412227042914",
}
GOLDEN_COLUMNS = ["alpha", "D", "xmin", "sigma", "num_tail", "log_norm", "stable_rank", "entropy"]
GOLDEN_COLUMNS += ["matrix_rank", "num_erg", "log_alpha_norm"]


def golden_weights():
    n, rng = 512, np.random.default_rng(0)
    uniform = rng.uniform(-1 / np.sqrt(n), 1 / np.sqrt(n), (n, n))
    student = rng.standard_t(2.5, (n, n)) / n
    left, right = np.linalg.qr(rng.normal(size=(n, n))).Q, np.linalg.qr(rng.normal(size=(n, n))).Q
    pareto = (left * np.sqrt((1 - rng.uniform(size=n)) ** (-1 / 2))) @ right.T / 10
    gauss = rng.normal(size=(3072, 768)) * 0.02
    torch.manual_seed(0)
    for into, out in [(512, 512)] * 3 + [(768, 3072)]:
        torch.nn.Linear(into, out, bias=False)
    conv = torch.nn.Conv2d(64, 128, 3, bias=False).weight.detach().numpy()
    return {"uniform": uniform, "student": student, "pareto": pareto, "gauss": gauss, "conv": conv}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    weights = golden_weights()[name].astype(np.float32)
    layer = Layer(name, 0, "conv2d" if weights.ndim == 4 else "linear", weights.shape)
    values = measure(weights, layer, resolve(["standard"]), CPU)
    expected = [float(number) for number in GOLDEN[name].split()]
    assert [values[column] for column in GOLDEN_COLUMNS] == pytest.approx(expected, rel=1e-9, abs=0)


def test_other_estimators_give_what_their_authors_tools_give():
    weights = golden_weights()["uniform"].astype(np.float32)
    layer = Layer("uniform", 0, "linear", weights.shape)
    alphas = {
        estimator: measure(weights, layer, resolve(["power_law"]), SpectralOptions(estimator=estimator))["alpha"]
        for estimator in ("median", "xmin_peak")
    }
    assert alphas == {"median": pytest.approx(2.142, abs=5e-4), "xmin_peak": pytest.approx(5.624, abs=6e-4)}
