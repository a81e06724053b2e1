"""What a file is, recognised from its header, in one clear sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from picowatch.catalog import Catalog, Kind, Model, Refused
from picowatch.catalog.models import FOLDERS
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.resolve.installed import find_lora
from tests.catalog.files import (
    TEXT,
    UNET,
    UNET_CROSS,
    UNET_INPUT,
    Shapes,
    kohya_lora_shapes,
    sd15_shapes,
    vae_file_shapes,
    write_model,
)


def look_at(tmp_path: Path, shapes: Shapes, kind: Kind = "checkpoint") -> Model | Refused:
    """What the catalog says of one file in the folder of a kind."""
    write_model(tmp_path / FOLDERS[kind] / "it.safetensors", shapes)
    found = Catalog(tmp_path).scan()
    entries: list[Model | Refused] = [*found.models, *found.refused]
    assert len(entries) == 1
    return entries[0]


def reason(found: Model | Refused) -> str:
    assert isinstance(found, Refused)
    return found.reason


def test_a_stable_diffusion_1_file_is_a_checkpoint_of_native_size_512(tmp_path: Path) -> None:
    """All 1,130 tensors with their real names and shapes, no weight read."""
    found = look_at(tmp_path, sd15_shapes())
    assert isinstance(found, Model)
    assert (found.name, found.kind, found.family) == ("it", "checkpoint", "sd1")
    assert (found.native_size, found.in_channels, found.layout) == (512, 4, "file")
    assert found.bytes == found.path.stat().st_size


def test_an_inpainting_checkpoint_says_so_by_its_inputs(tmp_path: Path) -> None:
    """Its UNet looks at nine channels."""
    found = look_at(tmp_path, sd15_shapes() | {UNET_INPUT: (320, 9, 3, 3)})
    assert isinstance(found, Model)
    assert (found.family, found.in_channels) == ("sd1", 9)


def test_ema_weights_position_ids_and_buffers_do_not_confuse(tmp_path: Path) -> None:
    """Unpruned checkpoints hold more than is needed."""
    extra: Shapes = {
        "model_ema.diffusion_modelinput_blocks00weight": (320, 4, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
        "alphas_cumprod": (1000,),
    }
    assert isinstance(look_at(tmp_path, sd15_shapes() | extra), Model)


def without(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


OTHERS: dict[str, tuple[Shapes, str]] = {
    "Stable Diffusion 2's UNet with the text encoder of 1": (
        sd15_shapes() | {UNET_CROSS: (320, 1024)},
        "is only the UNet of a checkpoint, without text encoder",
    ),
    "Stable Diffusion 3": (
        {f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (64, 64)},
        "is a checkpoint of Stable Diffusion 3",
    ),
    "InstructPix2Pix": (
        sd15_shapes() | {UNET_INPUT: (320, 8, 3, 3)},
        "is an image-editing checkpoint (InstructPix2Pix)",
    ),
    "no text encoder": (
        without(sd15_shapes(), "cond_stage_model."),
        "is only the UNet of a checkpoint",
    ),
    "no VAE": (
        without(sd15_shapes(), "first_stage_model."),
        "is a checkpoint without its VAE",
    ),
    "LoRA": (kohya_lora_shapes(), "is a LoRA, not a checkpoint: move it to models/loras/"),
    "LoRA of peft": (
        {"unet.down_blocks.0.attentions.0.to_k.lora_A.weight": (8, 768)},
        "is a LoRA, not a checkpoint",
    ),
    "VAE": (vae_file_shapes(), "is a VAE, not a checkpoint: move it to models/vae/"),
    "embedding": (
        {"emb_params": (8, 768)},
        "is an embedding, not a checkpoint: move it to models/embeddings/",
    ),
    "ControlNet": (
        {
            "control_model.input_hint_block.0.weight": (16, 3, 3, 3),
            "control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
            "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        },
        "is a ControlNet, not a checkpoint: move it to models/controlnet/",
    ),
    "UNet of a diffusers folder": (
        {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.norm1.bias": (320,)},
        "is only the UNet of a diffusers folder",
    ),
    "text encoder": (
        {"text_model.final_layer_norm.bias": (768,)},
        "is a text encoder of an unknown kind",
    ),
    "nothing": ({}, "is an empty safetensors file"),
    "TAESD": ({"decoder.layers.0.weight": (64, 4, 3, 3)}, "is only a half of a TAESD"),
    "something else": (
        {"model.layers.0.mlp.weight": (8, 8)},
        "is not a model that picowatch knows",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_checkpoint_is_named_and_refused(tmp_path: Path, name: str) -> None:
    """One sentence that begins with the file's name and says what the file is."""
    shapes, sentence = OTHERS[name]
    said = reason(look_at(tmp_path, shapes))
    assert said.startswith(f"it.safetensors {sentence}")
    assert said.endswith(".")


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_vae_file_is_a_vae_with_and_without_prefix(tmp_path: Path, prefix: str) -> None:
    """As kohya's tools save it, and as cut out of a checkpoint."""
    found = look_at(tmp_path, vae_file_shapes(prefix), "vae")
    assert isinstance(found, Model)
    assert (found.kind, found.native_size) == ("vae", 0)


def test_a_diffusers_vae_file_is_a_vae(tmp_path: Path) -> None:
    """diffusers' key names in a single file."""
    shapes: Shapes = {
        "decoder.conv_in.weight": (512, 4, 3, 3),
        "decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3),
        "post_quant_conv.weight": (4, 4, 1, 1),
    }
    assert isinstance(look_at(tmp_path, shapes, "vae"), Model)


def test_a_checkpoint_in_the_vae_folder_is_refused(tmp_path: Path) -> None:
    """With the folder that it belongs to."""
    said = reason(look_at(tmp_path, sd15_shapes(), "vae"))
    assert said == ("it.safetensors is a checkpoint, not a VAE: move it to models/checkpoints/.")


TE1 = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"


def peft_lora(width: int) -> Shapes:
    """One adapted layer, in diffusers' names of today."""
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    return {f"{layer}.lora_A.weight": (8, width), f"{layer}.lora_B.weight": (320, 8)}


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (kohya_lora_shapes(), "sd1"),
        (peft_lora(768), "sd1"),
        (peft_lora(DEMO_WIDTH), "demo"),
        (peft_lora(1024), "sd2"),
        (peft_lora(2048), "sdxl"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 1280)}, "sdxl"),
        ({"lora_unet_x.lora_down.weight": (8, 320)}, ""),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768)}, ""),
        # diffusers' convert_state_dict_to_kohya names the only text encoder te1.
        (kohya_lora_shapes() | {TE1: (8, 768)}, "sd1"),
        ({TE1: (8, 768)}, ""),
    ],
)
def test_a_lora_says_its_family_where_it_can(tmp_path: Path, shapes: Shapes, family: str) -> None:
    """By the width of the text that its cross-attention looks at."""
    found = look_at(tmp_path, shapes, "lora")
    assert isinstance(found, Model)
    assert (found.kind, found.family) == ("lora", family)


def described(tmp_path: Path, **metadata: str) -> Model:
    """A LoRA file with a trainer's notes in it."""
    tmp_path.joinpath("loras").mkdir()
    weights = {name: np.zeros(shape, np.float16) for name, shape in kohya_lora_shapes().items()}
    save_file(weights, tmp_path / "loras/it.safetensors", metadata)
    (found,) = Catalog(tmp_path).scan().models
    return found


def test_a_lora_names_its_base_model_and_trigger_words(tmp_path: Path) -> None:
    """kohya's notes: the checkpoint's file, and how often each tag was trained."""
    tags = {"10_pixel": {"pixel art": 40, "a dog": 3}, "5_more": {"pixel art": 9, "sprite\n": 20}}
    found = described(
        tmp_path, ss_sd_model_name="v1-5.safetensors", ss_tag_frequency=json.dumps(tags)
    )
    assert found.base_model == "v1-5.safetensors"
    assert found.trigger_words == ("pixel art", "sprite", "a dog")


def test_a_lora_can_be_called_by_the_name_that_its_trainer_gave_it(tmp_path: Path) -> None:
    """kohya writes it, and A1111 calls the file so in prompts."""
    found = described(tmp_path, ss_output_name="Pixel Art v2")
    inventory = Catalog(tmp_path).inventory()
    assert find_lora("pixel art v2", inventory) == find_lora("it", inventory) == found.name == "it"


@pytest.mark.parametrize("tags", ["", "no JSON", "[1]", '{"a": 1}', '{"a": {"b": "c"}}', "null"])
def test_odd_notes_in_a_lora_do_no_harm(tmp_path: Path, tags: str) -> None:
    """Anybody can write anything there."""
    found = described(tmp_path, ss_tag_frequency=tags, ss_sd_model_name="None")
    assert (found.base_model, found.trigger_words) == ("", ())


def test_a_trigger_phrase_comes_before_tags(tmp_path: Path) -> None:
    """Stability's ModelSpec has a field for it."""
    notes = {"modelspec.trigger_phrase": "pxl style", "modelspec.architecture": "sd-v1/lora"}
    found = described(tmp_path, **notes)
    assert (found.base_model, found.trigger_words) == ("sd-v1/lora", ("pxl style",))


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
REFUSED_LORAS: dict[str, tuple[Shapes, str]] = {
    "Wan": (
        {"lora_unet_blocks_0_self_attn_q.lora_down.weight": (8, 1536)},
        "is a LoRA for Wan: ",
    ),
    "LoRA with biases": (peft_lora(768) | {"unet.x.lora_B.bias": (320,)}, "is a LoRA with biases"),
    "OFT": ({"base_model.model.unet.x.oft_r": (4, 8, 8)}, "is an OFT adapter: "),
    "OFT of kohya": ({"lora_unet_x.oft_blocks": (4, 8, 8)}, "is an OFT adapter: "),
    "BOFT": ({"base_model.model.unet.x.boft_R": (1, 4, 8, 8)}, "is a BOFT adapter: "),
    "IA3 of peft": ({"base_model.model.unet.x.ia3_l": (320, 1)}, "is an (IA)^3 adapter: "),
    "cloneofsimo": ({"unet:0:up": (320, 4), "unet:0:down": (4, 320)}, "is a LoRA in cloneofsimo's"),
}


@pytest.mark.parametrize("name", REFUSED_LORAS)
def test_a_lora_that_cannot_be_used_is_named_and_refused(tmp_path: Path, name: str) -> None:
    """Before a recipe names it."""
    shapes, sentence = REFUSED_LORAS[name]
    assert reason(look_at(tmp_path, shapes, "lora")).startswith(f"it.safetensors {sentence}")


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({"emb_params": (8, 768)}, "sd1"),
        ({"emb_params": (768,)}, "sd1"),
        ({"clip_l": (4, 768)}, "sd1"),
        ({"<corgi>": (1, 768)}, "sd1"),
        ({"emb_params": (2, DEMO_WIDTH)}, "demo"),
        ({"<corgi>": (1, 1024)}, "sd2"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "sdxl"),
    ],
)
def test_an_embedding_says_its_family(tmp_path: Path, shapes: Shapes, family: str) -> None:
    """By its width."""
    found = look_at(tmp_path, shapes, "embedding")
    assert isinstance(found, Model)
    assert (found.kind, found.family) == ("embedding", family)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"clip_l": (4, 768), "clip_g": (3, 1280)}, "is an embedding of an unknown form: "),
        ({"clip_g": (4, 1280)}, "is an embedding of an unknown form: "),
        ({"emb_params": (4, 500)}, "is an embedding with 500 numbers a vector; "),
        ({"emb_params": (2, 4, 768)}, "is an embedding of an unknown form"),
        ({"emb_params": (0, 768)}, "is an embedding of an unknown form"),
    ],
)
def test_an_embedding_of_another_width_is_refused(
    tmp_path: Path, shapes: Shapes, sentence: str
) -> None:
    """With the family it is for, where that is known."""
    said = reason(look_at(tmp_path, shapes, "embedding"))
    assert said.startswith(f"it.safetensors {sentence}")


def test_an_old_text_encoder_prefix_is_known(tmp_path: Path) -> None:
    """Some merges lack `text_model.` in the text encoder's names."""
    shapes = without(sd15_shapes(), "cond_stage_model.")
    shapes[TEXT.replace("text_model.", "")] = (49408, 768)
    assert isinstance(look_at(tmp_path, shapes), Model)
