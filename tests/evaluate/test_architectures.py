"""Models of timm, torchvision and transformers: a cut at every block, and from each the numbers of whole passes."""

import re

import pytest
import torch
from torch import nn

from raylab.evaluate import PrefixWalk
from tests.evaluate.whole_passes import visible, walked

IMAGES = {side: torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(side)) for side in (32, 64, 112)}
CLASSES = torch.tensor([3, 700, 41])
IDS = torch.randint(0, 90, (3, 12), generator=torch.Generator().manual_seed(0))
NEXT = torch.cat([IDS[:, 1:], torch.full((3, 1), -100)], 1)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 90,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARED_KEYS = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {**SHARED_KEYS, "num_local_experts": 4}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 90, "n_positions": 16}
OPT = {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}
SWIN = {"img_size": 112, "embed_dim": 24, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}  # windows 16, 4 and 1
B0 = (  # the first three stages and a later one of EfficientNet-B0
    "ds_r1_k3_s1_e1_c16_se0.25",
    "ir_r2_k3_s2_e6_c24_se0.25",
    "ir_r2_k5_s2_e6_c40_se0.25",
    "ir_r2_k5_s1_e6_c112_se0.25",
)
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 90}


def of_timm(name: str, **options) -> nn.Module:
    import timm

    return timm.create_model(name, **options)


def of_torchvision(name: str, **options) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(**options)


def efficientnet(stages: tuple[str, ...]) -> nn.Module:
    """timm's, of stages as it writes them."""
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.efficientnet import EfficientNet

    return EfficientNet(decode_arch_def([[stage] for stage in stages]))


def vgg11_bn() -> nn.Module:
    """torchvision's, an eighth as wide: the first layer of its head alone has a hundred million weights."""
    from torchvision.models import vgg

    widths = [each if each == "M" else each // 8 for each in vgg.cfgs["A"]]
    with torch.device("meta"):
        model = vgg.VGG(vgg.make_layers(widths, batch_norm=True), init_weights=False)
    model.features = vgg.make_layers(widths, batch_norm=True)
    model.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 1000))
    return model


def of_transformers(model_type: str, settings: dict) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.for_model(model_type, **settings)
    config.use_cache = False
    return transformers.AutoModelForCausalLM.from_config(config)


def built(make, *arguments, **options) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return visible(make(*arguments, **options))


def missing_blocks(model: nn.Module, blocks: str, walk: PrefixWalk) -> set[str]:
    """Blocks with no cut behind them; what a container gives is what its last block gives."""
    cuts = {cut.module for cut in walk.anatomy.cuts}

    def is_cut(name: str) -> bool:
        parent, _, leaf = name.rpartition(".")
        last = parent and [child for child, _ in model.get_submodule(parent).named_children()][-1] == leaf
        return name in cuts or (bool(last) and is_cut(parent))

    wanted = {name for name, _ in model.named_modules() if re.fullmatch(blocks, name)}
    assert len(wanted) > 1
    return {name for name in wanted if not is_cut(name)}


@pytest.mark.parametrize(
    ("name", "side", "blocks", "options"),
    [
        ("resnet18", 32, r"layer\d\.\d", {}),
        ("vit_tiny_patch16_224", 64, r"blocks\.\d+", {"img_size": 64, "depth": 4}),
        ("convnext_atto", 32, r"stages\.\d\.blocks\.\d", {}),
        pytest.param("mixer_s32_224", 64, r"blocks\.\d", {"img_size": 64}, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", 112, r"layers\.\d\.blocks\.\d", SWIN, marks=pytest.mark.slow),
    ],
)
def test_models_of_timm(name, side, blocks, options):
    model = built(of_timm, name, **options)
    assert not missing_blocks(model, blocks, walked(model, IMAGES[side], CLASSES))


@pytest.mark.parametrize(
    ("name", "side", "blocks", "options"),
    [
        ("resnet18", 32, r"layer\d\.\d", {}),
        ("DenseNet", 32, r"features\.(denseblock|transition)\d", {"growth_rate": 8, "block_config": (2, 3, 4, 3)}),
    ],
)
def test_models_of_torchvision(name, side, blocks, options):
    model = built(of_torchvision, name, **options)
    assert not missing_blocks(model, blocks, walked(model, IMAGES[side], CLASSES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "arguments", "blocks"),
    [
        (efficientnet, [B0], r"blocks\.\d\.\d"),
        (vgg11_bn, [], r"features\.(0|4|8|11|15|18|22|25)"),
    ],
)
def test_smaller_ones_of_the_same_classes(make, arguments, blocks):
    model = built(make, *arguments)
    assert not missing_blocks(model, blocks, walked(model, IMAGES[64], CLASSES))


@pytest.mark.parametrize(
    ("model_type", "settings", "blocks"),
    [
        ("gpt2", GPT2, r"transformer\.h\.\d"),
        ("gpt2", {**GPT2, "pad_token_id": 0}, r"transformer\.h\.\d"),
        ("llama", SHARED_KEYS, r"model\.layers\.\d"),
        ("gpt_neox", SMALL, r"gpt_neox\.layers\.\d"),
        ("opt", OPT, r"model\.decoder\.layers\.\d"),
        ("bloom", BLOOM, r"transformer\.h\.\d"),
        ("falcon", {**SMALL, "num_kv_heads": 4}, r"transformer\.h\.\d"),
        ("gemma2", SHARED_KEYS, r"model\.layers\.\d"),
        ("mixtral", EXPERTS, r"model\.layers\.\d"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # advice of the library to those who pad
def test_models_of_transformers(model_type, settings, blocks):
    model = built(of_transformers, model_type, settings)
    assert not missing_blocks(model, blocks, walked(model, IDS, NEXT))
