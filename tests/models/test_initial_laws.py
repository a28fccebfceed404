"""Laws against what the libraries themselves draw, parameter by parameter."""

import copy
import functools
import math
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import timm
import torch
import torchvision
import transformers
from torch import nn

from raylab.errors import UserError
from raylab.models.initial_laws import Built, laws_of
from raylab.models.recording.entry_laws import Constant, Fixed, Normal, Uninitialised
from raylab.models.recording.memory import Patched

FALSE_ALARM = 1e-6  # that a right law of any parameter of a model is refused; the seeds are fixed besides
MOST = 200_000  # entries of a parameter that are compared: 5 % of scale show from about 30,000 on


def timm_model(name, **options):
    return timm.create_model(name, **options)


def torchvision_model(name):
    return torchvision.models.get_model(name, weights=None)


def swin():
    """torchvision's second version, as swin_v2_t but of two stages, and a third as wide."""
    of = torchvision.models.swin_transformer
    blocks = {"block": of.SwinTransformerBlockV2, "downsample_layer": of.PatchMergingV2}
    return of.SwinTransformer([4, 4], 32, [2, 2], [2, 4], [8, 8], **blocks)


GPT2 = {"n_layer": 4, "n_embd": 96, "n_head": 4, "vocab_size": 500, "n_positions": 64}
SMALL = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "vocab_size": 500,
}


def transformers_model(head, model_type, **options):
    return getattr(transformers, head)._from_config(transformers.AutoConfig.for_model(model_type, **options))


class Mine(nn.Module):
    """A user's own: what the libraries do, and some of what they do not."""

    def __init__(self):
        super().__init__()
        self.xavier, self.gain, self.orthogonal = nn.Linear(80, 60), nn.Linear(80, 60), nn.Linear(60, 60)
        nn.init.xavier_uniform_(self.xavier.weight)
        nn.init.xavier_normal_(self.gain.weight, gain=2.0)
        nn.init.orthogonal_(self.orthogonal.weight)
        self.sparse = nn.Parameter(nn.init.sparse_(torch.empty(60, 60), sparsity=0.5))
        self.computed = nn.Parameter(torch.log(torch.rand(3000) + 1))
        self.functional = nn.Parameter(1 - 0.02 * torch.randn(50, 60) / 4)
        self.narrow = nn.Parameter(nn.init.trunc_normal_(torch.empty(5000), mean=3.0, std=1.0, a=-1.0, b=1.0))
        self.tail = nn.Parameter(nn.init.trunc_normal_(torch.empty(5000), std=1.0, a=-9.0, b=-2.0))
        self.slices = nn.Parameter(torch.empty(3, 40, 40))
        for part, std in zip(self.slices, (0.1, 1.0, 10.0), strict=True):
            nn.init.normal_(part, std=std)
        self.columns = nn.Parameter(torch.randn(40, 40))
        self.columns.data[:, 3].zero_()
        self.scaled = nn.Linear(50, 50)
        with torch.no_grad():
            self.scaled.weight *= 0.3
            self.scaled.bias[:20].fill_(1.0)
        self.twice = nn.Parameter(torch.empty(2, 3000))
        self.twice.data[:] = torch.randn(3000)  # both rows are the same
        self.copied = nn.Parameter(self.gain.weight.detach().clone().half().float())
        self.clamped = nn.Parameter(torch.randn(3000).clamp_(min=-0.5))
        self.mixed = nn.Parameter(torch.randn(3000) * torch.rand(3000))
        self.scalar = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))


class Torch(nn.Module):
    """The layers of torch."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(30, 40), nn.Conv2d(8, 16, 3, groups=2)
        self.transposed, self.norm = nn.ConvTranspose2d(8, 4, 3), nn.BatchNorm2d(4)
        self.embedding = nn.Embedding(50, 20, padding_idx=7)
        self.lstm, self.gru = nn.LSTM(20, 30, num_layers=2, bidirectional=True), nn.GRU(20, 30)
        self.attention, self.cross = (
            nn.MultiheadAttention(40, 4),
            nn.MultiheadAttention(40, 4, kdim=24, add_bias_kv=True),
        )
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64), 2, enable_nested_tensor=False)
        self.bilinear = nn.Bilinear(10, 11, 12)
        self.weight_norm = nn.utils.parametrizations.weight_norm(nn.Linear(40, 50))
        self.orthogonal = nn.utils.parametrizations.orthogonal(nn.Linear(20, 20))
        self.tied = nn.Linear(20, 50, bias=False)
        self.tied.weight = self.embedding.weight


def module_of(make):
    def build():
        module = nn.Module()
        module.weight = nn.Parameter(make())
        return module

    return build


MODELS = {
    "timm resnet34": functools.partial(timm_model, "resnet34"),
    "timm vit_tiny": functools.partial(timm_model, "vit_tiny_patch16_224", depth=4),
    "timm convnext_atto": functools.partial(timm_model, "convnext_atto"),
    "timm mixer": functools.partial(timm.models.mlp_mixer.MlpMixer, patch_size=32, num_blocks=2),
    "timm efficientnet": functools.partial(timm_model, "test_efficientnet"),
    "timm vit_relpos": functools.partial(timm_model, "test_vit_relpos"),
    "timm nfnet": functools.partial(timm_model, "test_nfnet"),
    "torchvision resnet18": functools.partial(torchvision_model, "resnet18"),
    "torchvision squeezenet": functools.partial(torchvision_model, "squeezenet1_1"),
    "torchvision swin": swin,
    "gpt2": functools.partial(transformers_model, "GPT2LMHeadModel", "gpt2", **GPT2),
    "bert": functools.partial(transformers_model, "BertForMaskedLM", "bert", **SMALL),
    "llama": functools.partial(transformers_model, "LlamaForCausalLM", "llama", **SMALL, num_key_value_heads=2),
    "mamba": functools.partial(transformers_model, "MambaModel", "mamba", **SMALL),
    "torch": Torch,
    "mine": Mine,
}
LARGE = {
    "torchvision vgg11": functools.partial(torchvision_model, "vgg11"),
    "torchvision vit_b_16": functools.partial(torchvision_model, "vit_b_16"),
    "timm vit_base": functools.partial(timm_model, "vit_base_patch16_224"),
    "timm beit_base": functools.partial(timm_model, "beit_base_patch16_224"),
}


@functools.cache
def known(name):
    """The laws of one of MODELS, for tests that only read them: a model is built twice for its laws."""
    return laws_of(MODELS[name])


def real(build, seed=20):
    """The library's own parameters, really initialised."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: p.detach().float().numpy() for name, p in build().named_parameters(remove_duplicate=False)}


def refused(laws, parameters, scale=1.0):
    """Parameters whose values the law does not explain, with Bonferroni's threshold."""
    rng, wrong = np.random.default_rng(30), []
    for name, theirs in parameters.items():
        ours = scale * laws[name].draw(rng, theirs.shape)
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        if laws[name].constant:
            p = float(np.array_equal(ours, theirs))
        else:
            p = unlike(ours.ravel()[:MOST].astype(float), theirs.ravel()[:MOST].astype(float))
        if p < FALSE_ALARM / len(parameters):
            wrong.append(name)
    return wrong


def unlike(ours, theirs):
    """p of two samples having one law: Kolmogorov-Smirnov for the shape, a t-test of the squares for the scale."""
    if len(ours) < 500:
        return scipy.stats.ks_2samp(ours, theirs, method="exact").pvalue
    p = scipy.stats.kstwobign.sf(distance(ours, theirs) * math.sqrt(len(ours) / 2))
    return 2 * min(p, scipy.stats.ttest_ind(ours**2, theirs**2, equal_var=False).pvalue)


def distance(ours, theirs):
    """Of Kolmogorov and Smirnov. ks_2samp would add a finite sample's p, which takes ten times as long."""
    both = np.sort(np.concatenate([ours, theirs]))
    below = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (ours, theirs)]
    return np.abs(below[0] - below[1]).max()


def test_the_distance_is_that_of_scipy():
    ours, theirs = np.random.default_rng(0).integers(0, 400, (2, 900)) / 7  # with ties
    found = scipy.stats.ks_2samp(ours, theirs, method="asymp")
    assert distance(ours, theirs) == pytest.approx(found.statistic, rel=1e-12)


def check(laws, build):
    parameters = real(build)
    assert laws.keys() == parameters.keys()
    assert not refused(laws, parameters)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_drawn_as_its_library_draws_it(name):
    check(known(name), MODELS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_parameter_of_a_larger_model_too(name):
    check(laws_of(LARGE[name]), LARGE[name])


@pytest.fixture(scope="module")
def resnet34():
    return known("timm resnet34"), real(MODELS["timm resnet34"])


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_a_law_that_is_wrong_by_five_per_cent_is_refused(scale, resnet34):
    """The test of the test."""
    laws, parameters = resnet34
    large = {name: p for name, p in parameters.items() if p.size > 30_000 and not laws[name].constant}
    assert len(large) > 25
    assert refused(laws, large, scale) == list(large)


def test_only_what_is_no_simple_program_is_built_anew():
    built = {model: {name for name, law in known(model).items() if isinstance(law, Built)} for model in MODELS}
    assert built.pop("mine") == {
        "orthogonal.weight", "sparse", "computed", "twice", "clamped", "mixed",
    }  # fmt: skip
    assert built.pop("mamba") == {f"layers.{k}.mixer.dt_proj.bias" for k in range(2)}
    assert built.pop("torch") == {"weight_norm.parametrizations.weight.original0"}
    assert not any(built.values()), built


def test_structure_that_entries_alone_do_not_show():
    laws, rng = known("mine"), np.random.default_rng(40)
    q = laws["orthogonal.weight"].draw(rng, (60, 60))
    np.testing.assert_allclose(q @ q.T, np.eye(60), atol=1e-5)
    twice = laws["twice"].draw(rng, (2, 3000))
    assert np.array_equal(twice[0], twice[1])
    assert np.all((laws["sparse"].draw(rng, (60, 60)) == 0).sum(axis=0) == 30)
    columns = laws["columns"].draw(rng, (40, 40))
    assert np.array_equal(np.flatnonzero((columns == 0).all(axis=0)), [3])
    slices = laws["slices"].draw(rng, (3, 40, 40))
    np.testing.assert_allclose(slices.std(axis=(1, 2)), [0.1, 1, 10], rtol=0.1)
    bias = laws["scaled.bias"].draw(rng, (50,))
    assert np.all(bias[:20] == 1) and len(np.unique(bias[20:])) == 30


def test_the_row_of_an_embedding_that_stands_for_padding_is_zero():
    laws = known("torch")
    drawn = laws["embedding.weight"].draw(np.random.default_rng(0), (50, 20))
    assert np.array_equal(np.flatnonzero((drawn == 0).all(axis=1)), [7])
    assert not laws["embedding.weight"].constant
    assert str(laws["embedding.weight"]) == "N(0, 1); 20 entries 0"


def test_tied_parameters_have_one_law():
    laws = known("gpt2")
    assert laws["lm_head.weight"] is laws["transformer.wte.weight"]


# Numbers from the libraries' papers and documentation, to the last digit.


def test_residual_projections_of_gpt2():
    laws = known("gpt2")
    for name, law in laws.items():
        if name.endswith("c_proj.weight"):
            assert law == Normal(0.0, 0.02 / math.sqrt(2 * 4)), name
        elif name.endswith(("c_attn.weight", "c_fc.weight", "wte.weight", "wpe.weight")):
            assert law == Normal(0.0, 0.02), name
    assert laws["transformer.h.0.attn.c_proj.bias"] == Constant(0.0)
    assert laws["transformer.ln_f.weight"] == Constant(1.0)


def test_convolutions_of_torchvision_are_kaiming_normal_by_fan_out():
    laws, convolutions = known("torchvision resnet18"), 0
    for name, p in real(MODELS["torchvision resnet18"]).items():
        if p.ndim == 4:
            convolutions += 1
            assert laws[name] == Normal(
                0.0, pytest.approx(math.sqrt(2 / (p.shape[0] * p.shape[2] * p.shape[3])), 1e-14)
            )
    assert convolutions == 20
    assert laws["fc.weight"].high == pytest.approx(1 / math.sqrt(512), rel=1e-14)


def test_vision_transformers_of_timm_are_truncated_at_two_not_at_two_sigma():
    laws = known("timm vit_tiny")
    assert laws["blocks.3.attn.qkv.weight"] == Normal(0.0, pytest.approx(0.02, rel=1e-14), -2, 2)
    assert str(laws["blocks.3.attn.qkv.weight"]) == "truncated N(0, 0.02) in [-2, 2]"
    assert laws["cls_token"] == Normal(0.0, 1e-6)
    assert str(laws["patch_embed.proj.weight"]) == "U(-0.0361, 0.0361)"


def test_blocks_of_beit_are_rescaled_after_the_fill():
    laws = laws_of(LARGE["timm beit_base"])
    for k in range(12):
        assert laws[f"blocks.{k}.mlp.fc2.weight"].std == pytest.approx(0.02 / math.sqrt(2 * (k + 1)), rel=1e-12)


def test_tensors_that_are_computed_without_randomness_are_constant():
    angles = np.outer(np.arange(20), 1 / 10_000 ** (np.arange(8) / 8))
    law = laws_of(
        module_of(lambda: torch.zeros(20, 16).copy_(torch.from_numpy(np.hstack([np.sin(angles), np.cos(angles)]))))
    )
    assert isinstance(law["weight"], Fixed) and law["weight"].constant and str(law["weight"]) == "a fixed array"
    drawn = law["weight"].draw(np.random.default_rng(0), (20, 16))
    assert np.array_equal(drawn, np.hstack([np.sin(angles), np.cos(angles)]).astype(np.float32))
    a_log = known("mamba")["layers.0.mixer.A_log"]
    np.testing.assert_allclose(np.exp(a_log.draw(np.random.default_rng(0), (-1, 16))[5]), np.arange(1, 17), rtol=1e-6)


@pytest.mark.parametrize(
    ("init", "built"), [(nn.init.eye_, False), (nn.init.dirac_, False), (nn.init.orthogonal_, True)]
)
def test_identities_are_kept(init, built):
    shape = (80, 80, 3) if init is nn.init.dirac_ else (80, 80)

    def build():
        module = nn.Module()
        module.weight = nn.Parameter(init(torch.randn(shape)))
        return module

    law = laws_of(build)["weight"]
    assert isinstance(law, Built) == built
    if not built:
        assert np.array_equal(law.draw(np.random.default_rng(0), shape), init(torch.empty(shape)).numpy())


# What must not be guessed.


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.from_numpy(np.random.standard_normal((20, 20))).float(),
        lambda: torch.tensor([random.random() for _ in range(100)]),
        lambda: torch.randn(100) * random.random(),
        lambda: torch.randn(100) * torch.rand(1).item(),
        lambda: torch.randn(100) * torch.rand(1),
        lambda: torch.tensor(torch.randn(100).tolist()),
        lambda: torch.from_numpy(torch.randn(100).numpy() ** 2),
        lambda: torch.cat([torch.randn(50)] * 2),
        lambda: torch.randn(100).cumsum(0),
        lambda: torch.empty(100).exponential_(),
        lambda: torch.empty(100).bernoulli_(0.3),
        lambda: torch.empty(100).copy_(torch.randn(1)),
        lambda: copy.deepcopy(torch.randn(100)),
        lambda: torch.randn(100).view(torch.int32).add_(1).view(torch.float32),
        lambda: torch.zeros(100) if torch.rand(1) < 2 else torch.ones(100),
    ],
)
def test_a_law_that_cannot_be_known_is_built_anew(make):
    law = laws_of(module_of(make))["weight"]
    assert isinstance(law, Built) and not law.constant and str(law) == "built anew"


def test_a_model_that_seeds_itself_has_no_law_where_it_would_have_to_be_built_anew():
    """Every draw would be the same, and theta_0 in disguise."""

    def build():
        torch.manual_seed(7)
        module = nn.Linear(8, 8)
        module.same = nn.Parameter(nn.init.orthogonal_(torch.empty(4, 4)))
        module.constant = nn.Parameter(torch.ones(9) if torch.rand(1) < 2 else torch.rand(9))
        module.other = nn.Parameter(torch.from_numpy(np.random.standard_normal(9)).float())
        return module

    laws = laws_of(build)
    assert laws.keys() == {"weight", "bias", "constant", "other"}
    assert str(laws["weight"]).startswith("U(") and str(laws["constant"]) == str(laws["other"]) == "built anew"


def test_draws_of_a_model_built_anew_are_seeded_whatever_its_source_of_randomness():
    law = laws_of(module_of(lambda: torch.from_numpy(np.random.standard_normal(9)) * random.random() * torch.rand(9)))[
        "weight"
    ]
    a, b, c = (law.draw(np.random.default_rng(seed), (9,)) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_copies_of_layers_have_the_laws_of_their_originals():
    def build():
        first = nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40))
        return nn.Sequential(first, copy.deepcopy(first))

    laws = laws_of(build)
    assert not any(isinstance(law, Built) for law in laws.values())
    assert laws["0.0.weight"] == laws["1.0.weight"] and laws["1.1.bias"] == Constant(0.0)


def test_an_expanded_tensor_has_one_value():
    law = laws_of(module_of(lambda: torch.randn(1).expand(50)))["weight"]
    assert len(np.unique(law.draw(np.random.default_rng(0), (50,)))) == 1


def test_a_part_of_a_larger_storage_has_its_own_law():
    def make():
        flat = torch.empty(60)
        flat[:30].normal_(0, 3)
        flat[30:].zero_()
        return flat[20:40].view(4, 5)

    drawn = laws_of(module_of(make))["weight"]
    assert isinstance(drawn, Patched)
    values = drawn.draw(np.random.default_rng(0), (4, 5))
    assert np.all(values[:2] != 0) and np.all(values[2:] == 0)


def test_memory_that_nobody_wrote_to_has_no_law():
    law = laws_of(module_of(lambda: torch.empty(5)))["weight"]
    assert law == Uninitialised()
    with pytest.raises(UserError, match="never initialised"):
        law.draw(np.random.default_rng(0), (5,))


def test_a_lazy_layer_has_no_law_yet():
    assert laws_of(lambda: nn.LazyLinear(3)) == {"weight": Uninitialised(), "bias": Uninitialised()}


def test_what_is_no_module_is_refused_in_one_line():
    with pytest.raises(UserError, match="not of a dict") as caught:
        laws_of(dict)
    assert "\n" not in str(caught.value)


def test_a_model_elsewhere_is_refused():
    with pytest.raises(UserError, match="build the model on the CPU"):
        laws_of(lambda: nn.Linear(3, 3, device="meta"))


# The process is left as it was.


def fails():
    torch.set_default_dtype(torch.float64)
    nn.Linear(3, 3)
    raise RuntimeError("no such model")


@pytest.mark.parametrize("build", [MODELS["timm efficientnet"], Mine, fails])
def test_global_generators_and_defaults_are_untouched(build):
    before = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].copy(),
        torch.nn.init._no_grad_trunc_normal_,
    )
    if build is fails:
        with pytest.raises(RuntimeError, match="no such model"):
            laws_of(build)
    else:
        for law in laws_of(build).values():
            if isinstance(law, Built) and law.parameter == "mixed":
                law.draw(np.random.default_rng(0), (3000,))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1], torch.nn.init._no_grad_trunc_normal_
    assert torch.get_default_dtype() == torch.float32
    assert after[1] == before[1] and np.array_equal(after[2], before[2]) and after[3] is before[3]
    assert torch.equal(after[0], before[0])


def test_equal_generators_draw_equal_tensors_and_laws_are_picklable():
    parameters = real(Mine)
    for name, law in known("mine").items():
        shape = parameters[name].shape
        again = pickle.loads(pickle.dumps(law))
        assert again == law and hash(again) == hash(law) and str(again) == str(law)
        first, second = law.draw(np.random.default_rng(5), shape), again.draw(np.random.default_rng(5), shape)
        assert np.array_equal(first, second), name
        other = law.draw(np.random.default_rng(6), shape)
        assert np.array_equal(first, other) == law.constant, name


def test_models_built_in_threads():
    names = ["torch", "gpt2", "timm efficientnet", "mine"]
    alone = [known(name) for name in names]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(laws_of, [MODELS[name] for name in names])) == alone


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_gpt2_large_is_recorded_without_its_three_gigabytes():
    code = """
import functools, re, time
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
from raylab.models.initial_laws import laws_of

def peak():  # MiB; that of getrusage is the parent's where that was larger
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

laws_of(functools.partial(GPT2LMHeadModel._from_config, GPT2Config(n_layer=1, n_embd=8, n_head=2)))
before, start = peak(), time.process_time()
laws = laws_of(functools.partial(GPT2LMHeadModel._from_config, GPT2Config(n_layer=36, n_embd=1280, n_head=20)))
print(peak() - before, time.process_time() - start, laws["transformer.h.35.mlp.c_proj.weight"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mebibytes, seconds, law = done.stdout.split(maxsplit=2)
    print(f"{mebibytes} MiB, {seconds} s of process time")
    assert float(mebibytes) < 300  # of 2,953
    assert law.strip() == "N(0, 0.00236)"
