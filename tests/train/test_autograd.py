"""Training by autograd against a plain loop with torch's schedules, and against the steps that are written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torchvision.transforms import functional as images

from raylab.data import ClassificationData, digits
from raylab.models.drawn import drawn
from raylab.models.fcn import FCN
from raylab.train import DivergedError, train, train_by_autograd
from raylab.train.augmentation import augmenting
from raylab.types import Recipe

DIGITS = digits.load()
FEW = replace(DIGITS, train_x=DIGITS.train_x[:200], train_y=DIGITS.train_y[:200])
PIXELS = np.random.default_rng(1).integers(0, 256, (90, 3, 6, 6), dtype=np.uint8)
COLOURED = ClassificationData(
    name="noise",
    train_x=PIXELS,
    train_y=np.arange(90) % 4,
    test_x=PIXELS[:8],
    test_y=np.arange(8) % 4,
    classes=4,
    input_shape=(3, 6, 6),
    revision="",
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.25),
)


def convolutional(dropout: float = 0.0) -> nn.Sequential:
    """Without a bias below the norm: its gradient is rounding alone, which Adam makes steps of."""
    layers = [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 4),
    ]
    return nn.Sequential(*layers)


def rng(k: int = 0) -> np.random.Generator:
    return np.random.default_rng([7, k])


SGD = Recipe(learning_rate=0.1, batch_size=32, epochs=3, momentum=0.9, weight_decay=0.01)
COSINE = replace(SGD, schedule="cosine", label_smoothing=0.1)
WARM = replace(SGD, learning_rate=0.01, optimizer="adamw", momentum=0.0, schedule="cosine", warmup=1)


def schedule_of(recipe: Recipe, optimizer: torch.optim.Optimizer, batches: int) -> lr_scheduler.LRScheduler:
    """torch's own."""
    rising, steps = round(recipe.warmup * batches), batches * recipe.epochs
    if recipe.schedule == "constant":
        return lr_scheduler.ConstantLR(optimizer, 1.0)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, steps - rising)
    if not rising:
        return cosine
    warmup = lr_scheduler.LinearLR(optimizer, 1 / rising, 1.0, rising - 1)
    return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [rising])


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # torch's SequentialLR warns of itself
@pytest.mark.parametrize("recipe", [SGD, COSINE, WARM], ids=["sgd", "cosine", "adamw"])
def test_training_is_that_of_a_plain_loop(recipe):
    torch.manual_seed(0)
    model, oracle = convolutional(), convolutional()
    oracle.load_state_dict(model.state_dict())
    made = train_by_autograd(model, COLOURED, recipe, rng())

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (COLOURED.mean, COLOURED.std))
    x, y = (torch.from_numpy(COLOURED.train_x) / 255 - mean) / std, torch.from_numpy(COLOURED.train_y)
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    optimizer = torch.optim.SGD(oracle.parameters(), momentum=0.9, **common)
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(oracle.parameters(), **common)
    schedule, shuffle = schedule_of(recipe, optimizer, batches=3), rng()
    for _ in range(recipe.epochs):
        for rows in torch.from_numpy(shuffle.permutation(90)).split(32):
            loss = nn.functional.cross_entropy(oracle(x[rows]), y[rows], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    for name, tensor in oracle.state_dict().items():  # batch norm's statistics too
        np.testing.assert_allclose(made[name], tensor.numpy(), rtol=0, atol=2e-5, err_msg=name)


def test_a_relu_network_is_trained_alike_on_both_roads():
    recipe = Recipe(learning_rate=0.05, batch_size=64, epochs=3, momentum=0.9, weight_decay=0.01)
    network = drawn("fcn", lambda: FCN(64, 10, depth=2, width=16))
    start = network.initial_state(rng(1))
    written_out = train(start, DIGITS, recipe, rng())
    by_autograd = train_by_autograd(network.trainable(start), DIGITS, recipe, rng(), flat=True)
    for name, array in written_out.items():
        np.testing.assert_allclose(by_autograd[name], array, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(start["fc1.weight"], network.initial_state(rng(1))["fc1.weight"])


def test_the_generator_says_all_and_torchs_own_goes_on_where_it_was():
    """Shuffles, crops, mirrors and dropout."""
    recipe = replace(SGD, augmentation="crop_flip")
    network = drawn("conv", lambda: convolutional(dropout=0.3))

    def trained(k: int, outside: int) -> dict[str, np.ndarray]:
        torch.manual_seed(outside)
        made = train_by_autograd(network.trainable(network.initial_state(rng(9))), COLOURED, recipe, rng(k))
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(outside))
        return made

    first, again, other = trained(0, outside=1), trained(0, outside=2), trained(3, outside=1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["0.weight"], other["0.weight"])


def test_a_cropped_image_is_one_of_torchvisions_crops_and_half_are_mirrored():
    image = torch.from_numpy(PIXELS[:1])
    padded = images.pad(image[0], [4], fill=7)
    crops = {}
    for down in range(9):
        for right in range(9):
            crop = images.crop(padded, down, right, 6, 6)
            crops |= {crop.numpy().tobytes(): (down, right, 0), images.hflip(crop).numpy().tobytes(): (down, right, 1)}
    many = augmenting("crop_flip", rng(), fill=7)(image.expand(4000, -1, -1, -1))
    found = [crops[each.numpy().tobytes()] for each in many]  # a KeyError is no crop
    assert len(set(found)) == 162
    assert abs(np.mean([mirrored for _, _, mirrored in found]) - 0.5) < 0.03


def test_divergence_is_said_with_its_epoch():
    network = drawn("fcn", lambda: FCN(64, 10, depth=2, width=16))
    model = network.trainable(network.initial_state(rng()))
    with pytest.raises(DivergedError, match="not finite in epoch 1 of 2: lower the learning rate"):
        train_by_autograd(model, FEW, Recipe(learning_rate=1e30, batch_size=50, epochs=2), rng(), flat=True)
