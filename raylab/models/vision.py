"""Networks for images of 32 x 32 pixels.

The residual networks of He et al. 2016 (arXiv:1512.03385, Section 4.2), with shortcuts of option A: names of layers,
initialisation and the files of trained weights are those of akamaster/pytorch_resnet_cifar10. And torchvision's VGG.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raylab.errors import UserError
from raylab.models.randomness import one_at_a_time, private_randomness
from raylab.models.sources.files import files_of
from raylab.models.sources.naming import nearby

WIDTH = 16  # channels of the first stage
# What the trained weights expect of an image, in the words of timm's data config. They were trained with the mean and
# the standard deviation of ImageNet.
PREPROCESSING = {
    "input_size": (3, 32, 32),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.padding = outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, inputs, height, width) -> (samples, outputs, height / stride, width / stride)."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: every second pixel, and channels of zeros, as many below as above."""
        if not self.padding:
            return x
        half = self.padding // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.padding - half))


class CifarResNet(nn.Module):
    """conv1, bn1, stages layer1 .. layer3 of blocks, linear. Initial weights come from torch's global generator."""

    def __init__(self, depth: int, classes: int = 10, width: int = WIDTH) -> None:
        """depth: layers with weights, 6n + 2: 20, 32, 44, 56, 110, ... Raises UserError for another one.

        width: channels at 32 pixels; twice as many at 16, and again at 8.
        """
        if depth < 8 or depth % 6 != 2:
            raise UserError(f"No CIFAR ResNet has depth {depth}: give 6n + 2, as 20, 32, 44, 56 or 110.")
        super().__init__()
        self.depth = depth
        self.preprocessing = dict(PREPROCESSING)
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks)
        self.layer2 = _stage(width, 2 * width, blocks)
        self.layer3 = _stage(2 * width, 4 * width, blocks)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, classes) of images (samples, 3, 32, 32)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(inputs if k == 0 else outputs, outputs) for k in range(blocks)))


def cifar_resnet(
    depth: int,
    source: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    classes: int = 10,
    seed: int = 0,
) -> CifarResNet:
    """A ResNet with the weights of a PyTorch or safetensors file, ready to be evaluated.

    pretrained=False: initial weights from `seed`, with or without a file. Raises UserError for a file of another
    network, and where trained weights are wanted without a file.
    """
    if pretrained and source is None:
        raise UserError("A trained CIFAR ResNet needs its file: give model.source=FILE, or model.pretrained=false.")
    with one_at_a_time, private_randomness(seed):
        model = CifarResNet(depth, classes)
    if pretrained and source is not None:
        model.load_state_dict(_fitting(Path(source).expanduser(), model))
    return model.eval()


def cifar_vgg(depth: int = 11, width: int = 64, batch_norm: bool = True, classes: int = 10) -> nn.Sequential:
    """torchvision's VGG for 32 pixels: its convolutions and their initialisation, one linear layer for its three.

    depth: layers with weights of the original, 11, 13, 16 or 19 (here two fewer). width: channels of the first one, 64
    in the original; the others are in proportion. Raises UserError for another depth.
    """
    from torchvision.models.vgg import cfgs, make_layers

    plans = dict(zip((11, 13, 16, 19), "ABDE", strict=True))
    if depth not in plans or width < 8:
        raise UserError(f"No VGG has depth {depth} and width {width}: give depth 11, 13, 16 or 19, width 8 or more.")
    plan = [item if isinstance(item, str) else item * width // 64 for item in cfgs[plans[depth]]]
    features = make_layers(plan, batch_norm)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=_linear(8 * width, classes)))


def _linear(inputs: int, classes: int) -> nn.Linear:
    """As torchvision's VGG has them."""
    layer = nn.Linear(inputs, classes)
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _fitting(path: Path, model: CifarResNet) -> dict[str, Tensor]:
    """The tensors of a file, if they are those of this network by name and shape."""
    if not path.exists():
        raise UserError(f"There is no file {path}.{nearby(path) or ' Give the file of a trained CIFAR ResNet.'}")
    stored, _ = files_of(path).open()
    own, found = _shapes(model.state_dict()), _shapes(stored)
    wrong = next((name for name in {**own, **found} if own.get(name) != found.get(name)), None)
    if wrong is not None:
        shapes = f"{found.get(wrong, 'missing')} in the file, {own.get(wrong, 'missing')} in the network"
        raise UserError(
            f"{path} is of another network than depth {model.depth} makes ('{wrong}' is {shapes}): give model.depth=N."
        )
    return {name: _as_tensor(tensor) for name, tensor in stored.items()}


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Without the counters of batch norm, which files of torch before 0.4.1 lack and nothing here reads."""
    return {name: tuple(one.shape) for name, one in tensors.items() if not name.endswith("num_batches_tracked")}


def _as_tensor(stored: Any) -> Tensor:
    return stored if isinstance(stored, Tensor) else torch.from_numpy(np.asarray(stored))
