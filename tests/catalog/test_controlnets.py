"""ControlNets in models/controlnet/: recognised by their headers, and their kin refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, Model, Refused
from picowatch.families import DEMO_WIDTH
from tests.catalog.files import Shapes, sd15_shapes, write_model

_CROSS = "input_blocks.{}.1.transformer_blocks.{}.attn2.to_k.weight"


def original(width: int, *, prefix: str = "", deepest: int = 1, sdxl: bool = False) -> Shapes:
    """lllyasviel's names; SDXL is told the picture's size."""
    shapes: Shapes = {
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "zero_convs.0.0.weight": (320, 320, 1, 1),
    }
    shapes |= {_CROSS.format(4, block): (640, width) for block in range(deepest)}
    if sdxl:
        shapes |= {"label_emb.0.0.weight": (1280, 2816), "label_emb.0.0.bias": (1280,)}
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def diffusers(width: int, *, deepest: int = 1, sdxl: bool = False, kinds: int = 0) -> Shapes:
    """diffusers' names; with `kinds` a union's."""
    shapes: Shapes = {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "conv_in.weight": (320, 4, 3, 3),
    }
    block = "down_blocks.2.attentions.0.transformer_blocks.{}.attn2.to_k.weight"
    shapes |= {block.format(index): (640, width) for index in range(deepest)}
    if sdxl:
        shapes |= {"add_embedding.linear_1.weight": (1280, 2816)}
    if kinds:
        shapes |= {"task_embedding": (kinds, 320), "control_add_embedding.linear_1.bias": (1280,)}
    return shapes


KNOWN: dict[str, tuple[Shapes, str, str]] = {
    "SD 1.x": (original(768, prefix="control_model."), "sd1", ""),
    "SD 1.x without prefix": (original(768), "sd1", ""),
    "SD 1.x with its checkpoint": (
        original(768, prefix="control_model.") | sd15_shapes(),
        "sd1",
        "",
    ),
    "SD 1.x of diffusers": (diffusers(768), "sd1", ""),
    "SD 2.x": (original(1024, prefix="control_model."), "sd2", ""),
    "SDXL": (original(2048, deepest=10, sdxl=True), "sdxl", ""),
    "SDXL of diffusers": (diffusers(2048, deepest=10, sdxl=True), "sdxl", ""),
    "SDXL mid": (diffusers(2048, sdxl=True), "sdxl", "mid"),
    "SDXL small": (diffusers(0, deepest=0, sdxl=True), "sdxl", "small"),
    "the demo model": (diffusers(DEMO_WIDTH), "demo", ""),
    "the demo model without attention": (
        diffusers(0, deepest=0) | {"conv_in.weight": (64, 4, 3, 3)},
        "demo",
        "",
    ),
    "union": (diffusers(2048, deepest=10, sdxl=True, kinds=6), "sdxl", "union"),
    "union ProMax": (diffusers(2048, deepest=10, sdxl=True, kinds=8), "sdxl", "union ProMax"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_controlnet_is_recognised_by_its_header(tmp_path: Path, name: str) -> None:
    """Whichever layout it is stored in."""
    shapes, family, variant = KNOWN[name]
    write_model(tmp_path / "controlnet/it.safetensors", shapes)
    (found,) = Catalog(tmp_path).scan().models
    assert (found.kind, found.family, found.variant) == ("controlnet", family, variant)
    if family == "demo":  # Stable Diffusion 1.x of another width
        assert found.text_width == Catalog(tmp_path).demo.text_width


@pytest.mark.parametrize("folder", ["controlnet", "ControlNet"])
def test_the_folders_of_a1111_and_comfyui_are_read(tmp_path: Path, folder: str) -> None:
    """Below `models`, as those programs write it."""
    write_model(tmp_path / folder / "sd15/canny.safetensors", original(768))
    assert [one.name for one in Catalog(tmp_path).scan().models] == ["sd15/canny"]


USE = "Use a ControlNet: a file with its own copy of the layers."
REFUSED: dict[str, tuple[Shapes, str]] = {
    "difference": (
        original(768) | {"difference": (1,)},
        "has only the difference between a ControlNet and Stable Diffusion 1.5: get the whole "
        "ControlNet.",
    ),
    "Control-LoRA": (
        original(2048, sdxl=True) | {"lora_controlnet": (1,)},
        "is a Control-LoRA, which only works together with the checkpoint's weights: not "
        f"supported. {USE}",
    ),
    "LLLite": (
        {"lllite_unet_input_blocks_4_1.conditioning1.0.weight": (32, 3, 4, 4)},
        f"is a ControlNet-LLLite: not supported. {USE}",
    ),
    "T2I-Adapter": (
        {"conv_in.weight": (320, 192, 3, 3), "body.0.block2.weight": (320, 320, 1, 1)},
        f"is a T2I-Adapter: not supported. {USE}",
    ),
    "T2I-Adapter of diffusers": (
        {"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
        f"is a T2I-Adapter: not supported. {USE}",
    ),
    "light T2I-Adapter": (
        {"body.0.in_conv.weight": (80, 192, 1, 1)},
        f"is a T2I-Adapter: not supported. {USE}",
    ),
    "IP-Adapter": (
        {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)},
        f"is an IP-Adapter: not supported. {USE}",
    ),
    "ControlNet for FLUX.1": (
        {"controlnet_x_embedder.weight": (3072, 64), "transformer_blocks.0.norm.bias": (1,)},
        f"is a ControlNet for FLUX.1: not supported. {USE}",
    ),
    "detector of poses": (
        {"Mconv1_stage2_L1.weight": (128, 185, 7, 7)},
        "is a detector of poses (OpenPose): picowatch runs none. Make the map with another "
        "program, and use it with 'preprocess: none'.",
    ),
    "maps with one channel": (
        original(768) | {"input_hint_block.0.weight": (16, 1, 3, 3)},
        "is a ControlNet whose maps have 1 channels and whose latents 4: only those with 3 and 4 "
        "are supported.",
    ),
    "another family": (
        original(4096),
        "is a ControlNet for an unknown family, with texts 4096 wide.",
    ),
    "another union": (
        diffusers(2048, deepest=10, sdxl=True, kinds=7),
        "is a union ControlNet for 7 kinds of maps; known are 6 and 8.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_guides_otherwise_is_named_and_refused(tmp_path: Path, name: str) -> None:
    """Exactly in these words."""
    shapes, words = REFUSED[name]
    write_model(tmp_path / "controlnet/it.safetensors", shapes)
    (found,) = Catalog(tmp_path).scan().refused
    assert found.reason == f"it.safetensors {words}"


@pytest.mark.parametrize(
    ("folder", "shapes", "words"),
    [
        ("checkpoints", original(768), "is a ControlNet, not a checkpoint: move it to"),
        ("loras", diffusers(768), "is a ControlNet, not a LoRA: move it to"),
        ("controlnet", {"emb_params": (8, 768)}, "is an embedding, not a ControlNet: move it to"),
    ],
)
def test_a_controlnet_belongs_in_its_folder(
    tmp_path: Path, folder: str, shapes: Shapes, words: str
) -> None:
    """And nothing else does."""
    write_model(tmp_path / folder / "it.safetensors", shapes)
    (found,) = Catalog(tmp_path).scan().refused
    assert words in found.reason


def folder_with(path: Path, config: dict[str, Any], shapes: Shapes) -> Model | Refused:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    write_model(path / "diffusion_pytorch_model.safetensors", shapes)
    scanned = Catalog(path.parents[1]).scan()
    found: list[Model | Refused] = [*scanned.models, *scanned.refused]
    return found[0]


def test_a_diffusers_folder_is_a_controlnet_with_its_config(tmp_path: Path) -> None:
    """Named as the folder."""
    config = {"_class_name": "ControlNetModel"}
    found = folder_with(tmp_path / "controlnet/canny-sdxl", config, KNOWN["SDXL mid"][0])
    assert isinstance(found, Model)
    assert (found.name, found.family, found.variant) == ("canny-sdxl", "sdxl", "mid")


@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_another_name_in_a_folder_are_a_controlnet_of_their_own(
    tmp_path: Path, *, whole: bool
) -> None:
    """As in xinsir's repository of the union and its ProMax."""
    folder = tmp_path / "controlnet/xinsir"
    folder_with(folder, {"_class_name": "ControlNetUnionModel"}, KNOWN["union"][0])
    pro = folder / "diffusion_pytorch_model_promax.safetensors"
    write_model(pro, KNOWN["union ProMax"][0])
    write_model(folder / "diffusion_pytorch_model.non_ema.safetensors", KNOWN["union"][0])
    if not whole:
        (folder / "diffusion_pytorch_model.safetensors").unlink()
    found = Catalog(tmp_path).scan()
    names = {model.name: model.variant for model in found.models}
    own = {"xinsir": "union"} if whole else {}
    assert names == own | {"xinsir/diffusion_pytorch_model_promax": "union ProMax"}
    assert not found.refused


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "FluxControlNetModel"}, "is a diffusers folder, but not of a ControlNet"),
        ({"_class_name": "T2IAdapter"}, "is a diffusers folder, but not of a ControlNet"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    """By its config's class."""
    found = folder_with(tmp_path / "controlnet/x", config, KNOWN["SD 1.x of diffusers"][0])
    assert isinstance(found, Refused)
    assert words in found.reason


BACKBONE = {"model_type": "dinov2", "hidden_size": 384}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "depth_anything", "backbone_config": BACKBONE}, ""),
        ({"model_type": "dpt"}, "is not a folder of Depth Anything"),
        ({"model_type": "depth_anything", "backbone": "a/b"}, "with an unknown backbone"),
        (
            {
                "model_type": "depth_anything",
                "backbone_config": BACKBONE | {"hidden_size": 10**9},
            },
            "its backbone_config says hidden_size: 1000000000; the limit is 10,000.",
        ),
    ],
)
def test_depth_is_guessed_by_depth_anything_alone(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    """Whose config is looked at before anything is made of it."""
    path = tmp_path / "depth/Depth-Anything-V2-Small-hf"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    write_model(path / "model.safetensors", {"x": (8,)})
    found = Catalog(tmp_path).scan()
    if words:
        assert words in found.refused[0].reason
    else:
        assert [(one.kind, one.name) for one in found.models] == [("depth", path.name)]
