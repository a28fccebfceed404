"""Networks opened from everywhere give the logits of the model that was put there; the network is never asked."""

import json
import pickle
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raylab.errors import UserError
from raylab.models.networks import Network, of_module, open_network

IDS = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 16}
LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
TIMM = "test_resnet"  # timm's own, of 30 KB


@pytest.fixture(autouse=True)
def no_network_and_an_empty_cache(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def language_model(kind: str = "gpt2", **settings) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.for_model(kind, **(settings or (GPT2 if kind == "gpt2" else LLAMA)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def image_model(seed: int = 1) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(TIMM).eval()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += torch.randn(buffer.shape)
        return model


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def same_logits(network: Network, original: nn.Module, inputs: torch.Tensor) -> None:
    with torch.no_grad():
        here, there = network.module()(inputs), original.eval()(inputs)
    tensors = [out if isinstance(out, torch.Tensor) else out.logits for out in (here, there)]
    assert torch.equal(*tensors)


def test_a_hugging_face_folder(tmp_path):
    from transformers import GPT2Tokenizer

    original = language_model()
    original.save_pretrained(tmp_path / "mine")
    assert open_network(str(tmp_path / "mine")).tokenizer is None
    GPT2Tokenizer(vocab={"<|endoftext|>": 0, "a": 1}, merges=[]).save_pretrained(tmp_path / "mine")
    network = open_network(str(tmp_path / "mine"))
    same_logits(network, original, IDS)
    assert (network.name, network.tokenizer) == ("mine", str(tmp_path / "mine"))
    assert str(tmp_path / "mine") in network.origin
    module = network.module()
    assert module.lm_head.weight is module.transformer.wte.weight
    assert not module.training and not module.config.use_cache
    assert open_network(str(tmp_path / "mine")).digest == network.digest


def test_buffers_that_no_file_holds_are_there(tmp_path):
    """Llama's rotary frequencies are computed when the model is built."""
    original = language_model("llama")
    original.save_pretrained(tmp_path)
    network = open_network(str(tmp_path))
    assert "model.rotary_emb.inv_freq" in network.tensors
    same_logits(network, original, IDS)


def test_a_folder_of_a_trunk_whose_head_is_its_embedding(tmp_path):
    original = language_model()
    original.transformer.save_pretrained(tmp_path)
    same_logits(open_network(str(tmp_path)), original, IDS)


def test_a_timm_folder(tmp_path):
    from timm.models import save_for_hf

    original = image_model()
    save_for_hf(original, tmp_path, model_config={"num_classes": 1000}, safe_serialization=True)
    network = open_network(str(tmp_path))
    same_logits(network, original, IMAGES)
    assert network.preprocessing and network.preprocessing["input_size"] == (3, 160, 160)
    assert network.anew is not None
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in (network.anew(), original)]
    assert shapes[0] == shapes[1]


def test_a_file_with_its_architecture(tmp_path):
    original = image_model()
    save_file(original.state_dict(), tmp_path / "trained.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, tmp_path / "trained.pt")
    networks = [
        open_network(str(tmp_path / f"trained.{kind}"), architecture=f"timm/{TIMM}") for kind in ("safetensors", "pt")
    ]
    for network in networks:
        same_logits(network, original, IMAGES)
        assert network.name == "trained" and "trained." in network.origin and network.preprocessing


def test_random_weights_of_timm_are_always_the_same_and_can_be_built_anew():
    network = open_network(f"timm/{TIMM}", pretrained=False)
    assert network.digest == open_network(architecture=f"timm/{TIMM}", pretrained=False).digest
    assert network.anew is not None
    assert {name for name, _ in network.anew().named_parameters()} <= network.tensors.keys()
    same_logits(network, network.module(), IMAGES)


def test_random_weights_of_torchvision():
    network = open_network("torchvision/shufflenet_v2_x0_5", pretrained=False)
    assert network.preprocessing and network.preprocessing["crop_pct"] == 224 / 256
    assert network.module()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert network.anew is not None and type(network.anew()) is type(network.skeleton)


def test_random_weights_of_transformers_with_other_settings():
    network = open_network("transformers/gpt2", settings=GPT2, pretrained=False)
    assert network.module()(IDS).logits.shape == (2, 8, 50)
    assert network.anew is not None and network.anew().config.n_layer == 2
    with pytest.raises(UserError, match="transformers cannot build a model"):
        open_network("transformers/gpt2", settings={**GPT2, "n_head": 3}, pretrained=False)


class Lab(nn.Module):
    """Shared parameters, a shared module, buffers of both kinds and a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.again = self.one
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("shift", torch.randn(4), persistent=False)
        self.register_buffer("nothing", None)
        self.plain = torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.again(self.two(self.one(x))) + self.shift + self.plain)


def test_a_module_of_ones_own():
    torch.manual_seed(0)
    original = Lab()
    original(torch.randn(9, 4))  # running averages
    network = of_module("lab", original, Lab)
    module = network.module()
    same_logits(network, original, torch.randn(3, 4))
    assert module.two.weight is module.one.weight and module.again is module.one
    assert "Lab" in network.origin and original.training is False
    with pytest.raises(UserError, match="The model lab is a dict: a torch module is needed"):
        of_module("lab", {}, None)


def test_a_pickle_is_a_skeleton_and_arrays_that_are_not_copied():
    torch.manual_seed(0)
    network = of_module("large", nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 3)), None)
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(network, protocol=5, buffer_callback=buffers.append)
    assert len(small) < 20_000 < sum(buffer.raw().nbytes for buffer in buffers)
    read_only = [memoryview(bytes(buffer.raw())) for buffer in buffers]  # as Ray hands them out
    there = pickle.loads(small, buffers=read_only)
    weight = there.module().get_parameter("0.weight")
    assert not there.tensors["0.weight"].flags.writeable
    assert weight.data_ptr() == there.tensors["0.weight"].ctypes.data
    same_logits(there, network.module(), torch.randn(2, 512))


def test_a_forward_pass_that_writes_to_a_buffer_writes_to_one_of_its_own():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += len(x)
            return self.fc(x)

    network = of_module("counting", Counting(), Counting)
    for array in network.tensors.values():
        array.flags.writeable = False  # Ray's memory: a write ends the process
    one, other = network.module(), network.module()
    one(torch.ones(3, 2))
    assert one.seen == 3 and other.seen == 0 and network.tensors["seen"] == 0


def test_a_precision_is_that_of_floats():
    network = open_network("transformers/gpt2", settings=GPT2, pretrained=False)
    module = network.module(dtype=torch.bfloat16)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module.lm_head.weight is module.transformer.wte.weight
    assert of_module("lab", Lab(), Lab).module(dtype=torch.bfloat16).norm.num_batches_tracked.dtype == torch.int64


def test_a_lower_precision_is_that_of_transformers_where_it_keeps_angles_in_float32(tmp_path):
    import transformers

    language_model("llama").save_pretrained(tmp_path)
    own = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    ids = torch.randint(0, 50, (1, 500), generator=torch.Generator().manual_seed(0))
    module = open_network(str(tmp_path)).module(dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(module(ids).logits, own(ids).logits)


def test_float64_is_not_rounded_in_silence():
    with pytest.raises(
        UserError, match=r"lab has float64 weights \(one.weight\), and would be evaluated in float32: say"
    ):
        of_module("lab", Lab().double(), Lab)


def test_theta_0_goes_by_the_names_of_the_model(tmp_path):
    trained, initial = image_model(1), image_model(2)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    save_file(initial.state_dict(), tmp_path / "initial.safetensors")
    network = open_network(
        str(tmp_path / "trained.safetensors"),
        architecture=f"timm/{TIMM}",
        initial=str(tmp_path / "initial.safetensors"),
    )
    assert network.initial is not None
    for name, parameter in initial.named_parameters():
        np.testing.assert_array_equal(network.initial[name], parameter.detach())
        assert not np.array_equal(network.tensors[name], network.initial[name]) or parameter.ndim < 2


def test_a_tied_tensor_is_one_array_which_ray_keeps_once():
    network = of_module("tied", language_model(), None)
    assert network.tensors["lm_head.weight"] is network.tensors["transformer.wte.weight"]


def test_theta_0_of_a_language_model_has_its_tied_head(tmp_path):
    language_model().save_pretrained(tmp_path / "trained")
    language_model().save_pretrained(tmp_path / "initial")
    network = open_network(str(tmp_path / "trained"), initial=str(tmp_path / "initial"))
    assert network.initial is not None and network.initial["transformer.wte.weight"].shape == (50, 16)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with things that cannot be opened."""
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("place")
    save_file(image_model().state_dict(), folder / "resnet.safetensors")
    save_file({"fc.weight": torch.zeros(3, 3)}, folder / "other.safetensors")
    language_model().save_pretrained(folder / "gpt2")
    language_model("llama").model.save_pretrained(folder / "trunk")
    for name in ("nonsense", "untyped", "list", "unknown", "deeper", "wider", "foreign"):
        language_model().save_pretrained(folder / name)
    config = json.loads((folder / "gpt2" / "config.json").read_text())
    (folder / "nonsense" / "config.json").write_text("{nonsense")
    (folder / "untyped" / "config.json").write_text("{}")
    (folder / "list" / "config.json").write_text("[1]")
    (folder / "unknown" / "config.json").write_text(json.dumps({**config, "model_type": "gpt9"}))
    (folder / "deeper" / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    (folder / "wider" / "config.json").write_text(json.dumps({**config, "n_embd": 32}))
    (folder / "foreign" / "config.json").write_text(json.dumps({**config, "architectures": ["MyModel"]}))
    save_for_hf(image_model(), folder / "timm", model_config={"num_classes": 1000}, safe_serialization=True)
    described = json.loads((folder / "timm" / "config.json").read_text())
    (folder / "timm" / "config.json").write_text(json.dumps({**described, "architecture": "resnet_of_mine"}))
    return folder


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (None, {}, "give model.source=PATH_OR_NAME"),
        ("{}/missing.safetensors", {}, "There is no file or folder"),
        ("{}/resnet.safetensors", {}, "give model.architecture=timm/NAME"),
        ("{}/resnet.safetensors", {"architecture": "timm/test_vit"}, "does not fit timm/test_vit"),
        ("{}/other.safetensors", {"architecture": "timm/test_resnet"}, "does not fit timm/test_resnet"),
        ("{}/resnet.safetensors", {"architecture": "timm/test_resnt"}, "timm has no model 'test_resnt'"),
        ("{}/resnet.safetensors", {"architecture": "resnet"}, "model.architecture=resnet"),
        ("{}/nonsense", {}, "nonsense"),
        ("{}/untyped", {}, "untyped"),
        ("{}/list", {}, "list"),
        ("{}/unknown", {}, "gpt9"),
        ("{}/deeper", {}, "transformer.h.2"),
        ("{}/wider", {}, "wider"),
        ("{}/foreign", {}, "MyModel"),
        ("{}/trunk", {}, "no weights for 'lm_head.weight'"),
        ("{}/timm", {}, "resnet_of_mine"),
        ("timm/test_resnet.r160_in1k", {}, "not in the local cache: give model.download=true"),
        ("torchvision/resnet18", {}, "not in the local cache: give model.download=true"),
        ("transformers/gpt2", {}, "give model.pretrained=false"),
        ("openai-community/gpt2", {}, "not in the local cache: give model.download=true"),
        (
            "transformers/gpt2",
            {"pretrained": False, "settings": {"n_lyer": 3}},
            "has no 'n_lyer'. Did you mean 'n_layer'",
        ),
        ("transformers/t5", {"pretrained": False}, "neither a causal language model nor"),
        (
            "{}/resnet.safetensors",
            {"architecture": "timm/test_resnet", "initial": "{}/other.safetensors"},
            "it is another model's",
        ),
    ],
)
def test_what_cannot_be_opened_is_one_line(place, source, options, says):
    filled = {k: v.format(place) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(UserError) as error:
        open_network(source and source.format(place), **filled)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_random_weights_of_a_model_whose_trained_ones_are_not_at_hand():
    settings = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 50}
    network = open_network(
        "openai-community/gpt2-large", architecture="transformers/gpt2", settings=settings, pretrained=False
    )
    assert network.skeleton.config.n_layer == 2
    assert network.tokenizer is None or network.tokenizer == "openai-community/gpt2-large"


def test_a_named_model_is_built_as_itself_whatever_the_architecture_beside_it():
    network = open_network("timm/resnet10t", architecture="transformers/gpt2", pretrained=False)
    assert type(network.skeleton).__name__ == "ResNet"
    assert network.anew is not None and type(network.anew()).__name__ == "ResNet"


def test_another_activation_is_another_model(tmp_path):
    import transformers

    settings = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 11}
    digests = set()
    for activation in ("gelu_new", "relu"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, activation_function=activation))
        model.save_pretrained(tmp_path / activation)
        digests.add(open_network(str(tmp_path / activation)).digest)
    assert len(digests) == 2
