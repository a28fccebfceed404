"""Networks other than ReLU FCNs in the experiment that trains, and what is refused before any work."""

import numpy as np
import pytest
import torch
from torch import nn

from raylab import config, experiments
from raylab.cluster import inline
from raylab.errors import UserError
from raylab.experiments.trained import _initial
from raylab.experiments.trainees import AutogradTrainee, ReluTrainee
from raylab.models.fcn import FCN


class Conv(nn.Module):
    """For 8 x 8 grey images."""

    def __init__(self, classes: int, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(36 * channels, classes)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).flatten(1)))


def relu(inputs: int, outputs: int, depth: int, width: int) -> FCN:
    return FCN(inputs, outputs, depth, width)


class Tanh(FCN):
    """It draws its own weights and takes flat samples, and is no ReLU network."""

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))


class Chained(nn.Module):
    """It draws its own weights, which are not those of a chain of fully connected layers: no biases, or a kernel."""

    def __init__(self, classes: int, kernel: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3) if kernel else nn.Linear(64, 16, bias=False)
        self.last = nn.Linear(144 if kernel else 16, classes, bias=kernel)

    def forward(self, x):
        x = x.view(-1, 1, 8, 8) if self.last.bias is not None else x.flatten(1)
        return self.last(torch.relu(self.first(x)).flatten(1))

    def initial_state(self, rng):
        return {name: self.initial_law(array, name)(rng) for name, array in self.state_dict().items()}

    def initial_law(self, layer, parameter):
        shape = tuple(layer.shape)
        return lambda rng: (0.1 * rng.standard_normal(shape)).astype(np.float32)

    def load(self, state):
        self.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
        return self.eval()


def lone_output(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))


def wide(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(65, classes))


def built(tmp_path, name, *overrides):
    words = [f"model._target_={__name__}.{name}", "data=digits", "train=sgd", "train.epochs=6", "draws=1", *overrides]
    words = ["experiment=cifar_trained", "model=own", *words, "train.batch_size=64"]
    return experiments.build(config.compose([*words, f"results={tmp_path}"])[0])


def results(experiment):
    return [r for batch in inline.stream(experiment, experiment.trials()) for r in batch]


def test_a_convolutional_network_is_trained_and_its_layers_perturbed(tmp_path):
    experiment = built(tmp_path, "Conv", "+model.channels=6")
    found = {(r.trial.layer, r.trial.perturbation): r for r in results(experiment)}
    assert {r.status for r in found.values()} == {"ok"} and len(found) == 7
    baseline = found[None, "original"]
    assert baseline.values["accuracy"] > 0.85 and baseline.values["train_seconds"] > 0
    row = found["conv", "reinit"].values
    assert (row["depth"], row["width"], row["law"]) == (2, 216, "U(-0.333, 0.333)")
    assert (row["bias"], row["buffers"]) == ("replaced", "kept")
    assert set(row) <= set(experiment.columns)

    checkpoint = baseline.trial.checkpoint
    state, initial = experiment.checkpoints.load(checkpoint), _initial(experiment, checkpoint)
    model = Conv(10, channels=6).eval()
    mixed = {name: initial[name] if name.startswith("conv.") else array for name, array in state.items()}
    model.load_state_dict({name: torch.tensor(array) for name, array in mixed.items()})
    with torch.no_grad():
        guess = model(torch.from_numpy(experiment.data.test_x).view(-1, 1, 8, 8)).argmax(1).numpy()
    assert row["accuracy"] == np.mean(guess == experiment.data.test_y)
    assert state["norm.running_mean"].any() and not initial["norm.running_mean"].any()
    assert [r.values.get("alpha") for r in results(built(tmp_path, "Conv", "+model.channels=6"))] == [
        r.values.get("alpha") for r in found.values()
    ]


def test_what_is_no_relu_network_or_has_a_recipe_of_its_own_goes_by_autograd(tmp_path):
    shape = ("+model.depth=1", "+model.width=24")
    tanh = built(tmp_path, "Tanh", *shape)
    assert isinstance(tanh.trainee, AutogradTrainee) and tanh.trainee.flat
    baseline = results(tanh)[0]
    assert baseline.values["accuracy"] > 0.8 and (tanh.depth, tanh.width) == (1, 24)
    roads = [type(built(tmp_path, "relu", *shape, *more).trainee) for more in ([], ["train.schedule=cosine"])]
    assert roads == [ReluTrainee, AutogradTrainee]


@pytest.mark.parametrize("kernel", [True, False])
def test_weights_that_are_no_chain_of_layers_go_by_autograd(tmp_path, kernel):
    made = built(tmp_path, "Chained", f"+model.kernel={kernel}")
    assert isinstance(made.trainee, AutogradTrainee) and not made.trainee.flat


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lone_output"], r"gives 2 x 1 for 2 samples of digits: give a model with logits of 10 classes"),
        (["wide"], r"cannot be trained on digits \(samples of 1 x 8 x 8; 2 at once\): "),
        (["Conv", "train.optimizer=adam"], "train.optimizer=adam is not known. Did you mean 'adamw'"),
        (["Conv", "train.optimizer=adamw", "train.momentum=0.9"], "adamw would not read it"),
        (["Conv", "train.warmup=7"], "train.warmup=7 must be between 0 and train.epochs=6"),
        (["Conv", "train.label_smoothing=1"], "must be at least 0 and below 1"),
        (["Conv", "data=cifar10", "data.root=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, words, says):
    with pytest.raises(UserError, match=says) as error:
        built(tmp_path, *words)
    assert "\n" not in str(error.value)


def test_ids_of_trials_are_what_they_were_before_recipes_said_more(tmp_path):
    """Golden: results and checkpoints of earlier releases are still found."""
    first, last = experiments.build(config.compose(["cluster=inline"])[0]).trials()[:: 500 - 1]
    assert first.checkpoint == "9ce272f9407e7a6b7702f9be"
    assert (first.id, last.id) == ("afcc6a8b15cd86ba24b11ae9", "5854a7bb829f91fd373203c6")
    assert (
        built(tmp_path, "Conv").trials()[0].checkpoint
        != built(tmp_path, "Conv", "train.warmup=1").trials()[0].checkpoint
    )
