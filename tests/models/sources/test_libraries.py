"""Models that libraries build; the caches are folders of the test, and the network is never asked."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from raylab.errors import UserError
from raylab.models.randomness import private_randomness
from raylab.models.sources import libraries, open_model


@pytest.fixture(autouse=True)
def no_network_and_an_empty_cache(tmp_path, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def oracle(build):
    """The library's own model after its own draw from the seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().state_dict()


def same(model, state):
    assert model.state_dict().keys() == state.keys()
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def timm_resnet(**options):
    import timm

    return timm.create_model("resnet10t", **options)


def torchvision_shufflenet():
    import torchvision

    return torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)


def transformers_albert():
    import transformers

    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model("albert"))


RANDOM = {
    "timm/resnet10t": timm_resnet,
    "torchvision/shufflenet_v2_x0_5": torchvision_shufflenet,
    "transformers/albert": transformers_albert,
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_are_the_librarys_from_a_seed_of_our_own(name):
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    source = open_model(name, pretrained=False)
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    assert same(source.model, oracle(RANDOM[name]))
    assert not source.model.training
    assert (source.name, source.origin) == (f"{name.partition('/')[2]}-random", f"{name}, random weights")
    assert open_model(name, pretrained=False).digest == source.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet34", r"timm/resnet34 is not in the local cache: give model\.download=true .*, or a local file"),
        ("timm/resnet34.tv_in1k", r"timm/resnet34\.tv_in1k is not in the local cache: give model\.download=true"),
        ("torchvision/resnet18", r"torchvision/resnet18 is not in the local cache: give model\.download=true"),
        ("timm/resnet3", r"timm has no model 'resnet3'\. Did you mean '"),
        ("timm/resnet34.tv_in1", r"Did you mean 'resnet34\.tv_in1k'"),
        ("torchvision/resnet8", r"torchvision has no model 'resnet8'\. Did you mean 'resnet"),
        ("transformers/gpt22", r"no model type 'gpt22'\. Did you mean 'gpt2'"),
        ("transformers/gpt2", r"without trained weights: give model\.pretrained=false"),
        ("gpt2", r"There is no path 'gpt2', and as a hub id gpt2 is not in the local cache: give model\.download=true"),
        ("openai-community/gpt2", r"openai-community/gpt2 is not in the local cache: give model\.download=true"),
    ],
)
def test_what_is_not_at_hand_and_what_is_misspelt(name, message):
    with pytest.raises(UserError, match=message) as caught:
        open_model(name)
    assert "\n" not in str(caught.value)


def test_a_detector_does_not_fetch_its_backbone():
    source = open_model("torchvision/lraspp_mobilenet_v3_large", pretrained=False)
    assert any(name.startswith("backbone.") for name, _ in source.model.named_parameters())


def test_trained_weights_of_torchvision_from_its_cache(tmp_path):
    import torchvision

    weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    state = torchvision_shufflenet().state_dict()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / weights.url.rpartition("/")[2])
    source = open_model("torchvision/shufflenet_v2_x0_5")
    assert same(source.model, state)
    assert source.origin == "torchvision/shufflenet_v2_x0_5"


def cached(tmp_path, repo, files):
    """A repository in the hub's cache, as huggingface_hub lays it out."""
    root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    commit = "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def test_trained_weights_of_timm_from_the_hubs_cache(tmp_path):
    from safetensors.torch import save

    state = timm_resnet().state_dict()
    cached(tmp_path, "timm/resnet10t.c3_in1k", {"model.safetensors": save(state)})
    for name in ("timm/resnet10t", "timm/resnet10t.c3_in1k"):
        source = open_model(name)
        assert source.name == "resnet10t.c3_in1k" and source.origin == "timm/resnet10t.c3_in1k"
        assert same(source.model, state)


def test_a_name_of_the_hub_is_its_folder_in_the_cache(tmp_path):
    from safetensors.torch import save

    state = {"h.0.attn.c_attn.weight": torch.randn(20, 60)}
    cached(tmp_path, "openai-community/gpt2", {"model.safetensors": save(state), "config.json": b"{}"})
    source = open_model("openai-community/gpt2")
    assert source.name == "gpt2"
    assert source.origin == f"openai-community/gpt2 on the Hugging Face hub, revision {'0' * 40}"
    np.testing.assert_array_equal(np.asarray(source.model["h.0.attn.c_attn.weight"]), *state.values())


CONFIG = b'{"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 50}'


def test_random_weights_from_a_configuration(tmp_path):
    import transformers

    snapshot = cached(tmp_path, "someone/tiny", {"config.json": CONFIG})
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50)
    state = oracle(lambda: transformers.GPT2Model(config))
    for source in ("someone/tiny", snapshot):
        assert same(open_model(source, pretrained=False).model, state)


def test_code_of_a_repository_is_never_run(tmp_path):
    config = b'{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}'
    code = b"import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch(); raise SystemExit"
    snapshot = cached(tmp_path, "someone/mine", {"config.json": config, "mine.py": code})
    with pytest.raises(UserError, match="transformers cannot build a model") as caught:
        open_model(snapshot, pretrained=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.ran")) and "mine" not in sys.modules


def test_a_download_that_fails_is_one_line(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(UserError, match=r"Cannot open torchvision/resnet18 \(ConnectionError: no route\)") as caught:
        open_model("torchvision/resnet18", download=True)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("offline") from ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=r"No answer about 'someone/something' \(ConnectionError\): give a local"):
        open_model("someone/something", download=True)


def test_a_download_takes_safetensors_and_pickles_only_where_there_are_none(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    asked = []

    def fetch(hub_id, allow_patterns, ignore_patterns):
        asked.append([pattern for pattern in allow_patterns if pattern != "*.json"])
        if "*.safetensors" in allow_patterns and hub_id.endswith("safe"):
            save_file({"w": torch.ones(3, 3)}, tmp_path / "model.safetensors")
        if "pytorch_model*.bin" in allow_patterns:
            torch.save({"w": torch.ones(3, 3)}, tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert list(open_model("someone/pickled", download=True).model) == ["w"]
    assert asked == [["*.safetensors"], ["pytorch_model*.bin", "adapter_model.bin"]]
    assert list(open_model("someone/safe", download=True).model) == ["w"]
    assert len(asked) == 3


def test_the_network_is_not_asked_unless_told(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: asked.append(kwargs) or "/nowhere")
    with pytest.raises(UserError):
        open_model("someone/something")
    assert asked == [{"local_files_only": True}]


def test_the_same_seed_whatever_was_drawn_before():
    with private_randomness(libraries.SEED):
        first = torch.rand(3)
    torch.rand(5)
    with private_randomness(libraries.SEED):
        assert torch.equal(torch.rand(3), first)


def test_threads_that_build_together_draw_the_same_weights():
    """torch's generator is one for all threads."""

    def digest(_):
        return open_model("timm/test_vit", pretrained=False).digest

    alone = digest(0)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(digest, range(8))) == {alone}
