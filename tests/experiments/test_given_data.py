"""What a given model is evaluated on: refused where the two do not belong together, in one line."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

from raylab.data import EvaluationData
from raylab.errors import UserError
from raylab.experiments.given_data import data_of, described, outputs_of
from raylab.models.networks import of_module, open_network
from tests import tiny_pretrained


class Config:
    data = {"_target_": "lab:data"}  # noqa: RUF012
    model = {"_target_": "lab:make"}  # noqa: RUF012


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "given_lab.py").write_text(tiny_pretrained.LAB)
    sys.path.insert(0, str(folder))
    import given_lab

    yield given_lab
    sys.path.remove(str(folder))


def text(y, context=12, **protocol):
    x = np.zeros((3, context), np.int32)
    labels = np.full((3, context), -100)
    labels[0, : len(y)] = y
    return EvaluationData(name="letters", task="text", x=x, y=labels, protocol=protocol)


def refused(says, data, network):
    with pytest.raises(UserError) as error:
        data_of(lambda: data, Config, network)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_labels_that_a_model_has_no_output_for_are_said_before_any_work(lab):
    network = of_module("net", lab.make(), None)
    assert data_of(lab.images, Config, network).name == "noise"
    refused("noise has labels up to 999, and net only 5 outputs (0 to 4)", lab.too_many(), network)
    refused("noise has labels below 0, such as -1: only -100", lab.negative(), network)
    nothing = dataclasses.replace(lab.images(), y=np.full(40, -100))
    refused("noise has no label that is scored", nothing, network)


def test_a_model_of_other_classes_is_said_before_any_work(lab):
    """CIFAR-10's ten labels are valid ones of an ImageNet model, and mean other things to it."""
    network, data = (
        of_module("net", lab.make(), None),
        dataclasses.replace(lab.images(), classes=3, y=np.arange(40) % 3),
    )
    refused(
        "noise has 3 classes, and net tells 5 others apart: give the data set that it was trained on", data, network
    )
    assert data_of(lambda: dataclasses.replace(data, classes=5), Config, network).classes == 5
    rehearsal = type("Rehearsal", (Config,), {"model": {"pretrained": False}})
    assert data_of(lambda: data, rehearsal, network).classes == 3


def test_token_ids_of_another_tokenizer_are_said_before_any_work():
    network = open_network("transformers/gpt2", settings=tiny_pretrained.GPT2, pretrained=False)
    most = tiny_pretrained.GPT2["vocab_size"] - 1
    assert data_of(lambda: text([0, most]), Config, network).y.max() == most
    refused(f"token ids up to {most + 1}, and gpt2-random only {most + 1} outputs", text([0, most + 1]), network)
    refused("give data.tokenizer=FOLDER, the model's own", text([9999]), network)
    refused("longer than the 32 that gpt2-random has positions for", text([1], context=33), network)


@pytest.mark.parametrize(
    "name", ["timm/resnet10t", "timm/vit_tiny_patch16_224", "torchvision/squeezenet1_1", "timm/efficientnet_lite0"]
)
def test_how_many_outputs_a_model_has_is_seen_in_a_pass_without_numbers(name):
    network = open_network(name, pretrained=False)
    data = EvaluationData(name="i", task="image", x=np.zeros((1, 3, 224, 224), np.uint8), y=np.zeros(1, np.int64))
    assert outputs_of(network, data) == 1000


def test_the_plan_says_through_which_windows_a_text_is_seen(lab):
    assert (
        described(text([1, 2, 3], context=8, stride=4)) == "letters, 3 tokens scored in 3 windows (context 8, stride 4)"
    )
    assert described(text([1, 2], context=8)) == "letters, 2 tokens scored in 3 windows (context 8)"
    assert described(lab.images()) == "noise, 40 images"


def test_a_model_and_data_of_another_kind_are_said_before_any_work(lab):
    language = open_network("transformers/gpt2", settings=tiny_pretrained.GPT2, pretrained=False)
    refused("gpt2-random cannot be run on noise: ", lab.images(), language)
    refused("Give a model that takes texts and gives logits", text([1]), of_module("net", lab.make(), None))


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 3)

    def forward(self, x):
        return {"features": self.fc(x.mean((2, 3)))}


def test_a_model_without_logits_is_said_before_any_work(lab):
    refused("gives a dict, in which no logits are to be found", lab.images(), of_module("odd", Odd(), None))
