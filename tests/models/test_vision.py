"""The CIFAR ResNets: He et al. 2016 in numbers, written out once more, and on real images with real weights."""

import copy
import io
import math
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from raylab.errors import UserError
from raylab.layers import find_layers
from raylab.models.vision import BasicBlock, CifarResNet, cifar_resnet

FILES = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}


def images(shared, count):
    """(count, 3, 32, 32) uint8 and classes of CIFAR-10's test images."""
    table = pq.read_table(shared / "data" / "cifar10" / "plain_text" / "test-00000-of-00001.parquet").slice(0, count)
    pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table["img"].to_pylist()]
    return np.stack(pixels).transpose(0, 3, 1, 2), table["label"].to_numpy()


def accuracy(shared, depth):
    model = cifar_resnet(depth, shared / "data" / "pretrained" / FILES[depth])
    x, y = images(shared, 2000)
    mean, std = (torch.tensor(model.preprocessing[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        batches = [model((torch.from_numpy(part) / 255 - mean) / std).argmax(1) for part in np.split(x, 10)]
    return float((torch.cat(batches).numpy() == y).mean())


def written_out(state, x, depth):
    """The network from its definition: a loop over blocks, the shortcut by indexing and concatenation."""

    def norm(x, name):
        scale = state[f"{name}.weight"] / torch.sqrt(state[f"{name}.running_var"] + 1e-5)
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    x = norm(functional.conv2d(x, state["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = functional.conv2d(x, state[f"{name}.conv1.weight"], padding=1, stride=stride)
            y = functional.conv2d(norm(y, f"{name}.bn1").clamp(min=0), state[f"{name}.conv2.weight"], padding=1)
            if stride == 2:
                zeros = torch.zeros(len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3] // 2)
                x = torch.cat([zeros, x[:, :, 0::2, 0::2], zeros], 1)
            x = (norm(y, f"{name}.bn2") + x).clamp(min=0)
    return x.mean(3).mean(2) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("depth", FILES)
def test_real_weights_give_the_logits_of_the_network_written_out(shared, depth):
    model = cifar_resnet(depth, shared / "data" / "pretrained" / FILES[depth])
    content = torch.load(shared / "data" / "pretrained" / FILES[depth], weights_only=True, map_location="cpu")
    state = {name.removeprefix("module."): tensor for name, tensor in content["state_dict"].items()}
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32))
    with torch.no_grad():
        torch.testing.assert_close(model(x), written_out(state, x, depth), rtol=1e-4, atol=1e-4)


def test_accuracy_of_a_trained_resnet20(shared):
    assert accuracy(shared, 20) == pytest.approx(0.820, abs=0.003)


@pytest.mark.slow
def test_accuracy_of_a_trained_resnet56(shared):
    assert accuracy(shared, 56) == pytest.approx(0.837, abs=0.003)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_table_6_of_the_paper(depth, millions):
    model = CifarResNet(depth)
    parameters = sum(p.numel() for p in model.parameters())
    assert round(parameters / 1e6, 1 if depth == 110 else 2) == millions
    assert len(find_layers(model)[0]) == depth  # layers with weights: option A adds none


def test_the_shortcut_of_option_a():
    x = torch.arange(2 * 4 * 6 * 6.0).view(2, 4, 6, 6)
    short = BasicBlock(4, 8).shortcut(x)
    expected = torch.zeros(2, 8, 3, 3)
    for sample, channel, row, column in np.ndindex(2, 4, 3, 3):
        expected[sample, channel + 2, row, column] = x[sample, channel, 2 * row, 2 * column]
    assert torch.equal(short, expected)
    assert BasicBlock(4, 4).shortcut(x) is x


def test_initial_weights_follow_kaimings_law_and_biases_torchs():
    model = cifar_resnet(56, pretrained=False, seed=1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            spread = float(module.weight.detach().double().square().mean()) / (2 / fan_in)
            assert abs(spread - 1) < 5 * math.sqrt(2 / module.weight.numel()), name
    assert model.linear.bias.abs().max() <= 1 / math.sqrt(64) and model.linear.bias.std() > 0.02
    assert not model.training


def test_a_seed_gives_the_same_weights_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second, other = (cifar_resnet(20, pretrained=False, seed=seed).conv1.weight for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_survive_a_file_and_the_module_pickle_and_copy(tmp_path):
    model = cifar_resnet(20, pretrained=False, classes=7)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    torch.save({"state_dict": nn.DataParallel(model).state_dict()}, tmp_path / "m.th")
    again = [cifar_resnet(20, tmp_path / name, classes=7) for name in ("m.safetensors", "m.th")]
    for other in [*again, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]:
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        assert other.preprocessing["input_size"] == (3, 32, 32)


def refusal(*args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        cifar_resnet(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_refused_in_one_line(shared, tmp_path):
    folder = shared / "data" / "pretrained"
    assert "'layer1.3.conv1.weight' is (16, 16, 3, 3) in the file, missing in" in refusal(20, folder / FILES[56])
    assert "'layer1.3.conv1.weight' is missing in the file" in refusal(56, folder / FILES[20])
    assert "'linear.weight' is (10, 64) in the file, (100, 64)" in refusal(20, folder / FILES[20], classes=100)
    assert "There is no file" in refusal(20, tmp_path / "none.th")
    assert "give model.source=FILE" in refusal(20)
    for depth in (2, 18, 51, -4):
        assert f"depth {depth}: give 6n + 2" in refusal(depth, pretrained=False)
