"""LoRAs of whole models, in the names and with the numbers of layers that trainers write.

Each module gets the rows that diffusers' converters for whole checkpoints give it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from torch import nn

from picowatch.catalog.headers import Header
from picowatch.catalog.parts import ASSETS
from picowatch.catalog.recognise import recognise
from picowatch.engine.model.lora_files import read_lora
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from tests.engine.adapters import Tensors, write
from tests.engine.original_names import anima_names, flux3_names, unet_names, z_image_names

CONFIGS = {
    "sd1": "sd15",
    "sdxl": "sdxl",
    "sd3": "sd3/3.5-medium",
    "flux2": "flux2",
    "anima": "anima",
}
# What trainers write before and behind a layer's name, which has "_" for the dots in "{flat}".
KOHYA = ("lora_unet_{flat}", "lora_down", "lora_up")
ONE_TRAINER = ("lora_transformer_{flat}", "lora_down", "lora_up")
LYCORIS = ("lycoris_{flat}", "lora_down", "lora_up")
PEFT = ("base_model.model.{name}", "lora_A", "lora_B")
COMFYUI = ("diffusion_model.{name}", "lora_A", "lora_B")
LIGHTNING = ("{name}", "lora_down", "lora_up")
DIFFUSERS = ("transformer.{name}", "lora_A", "lora_B")


def part_of(family: str) -> str:
    return "unet" if FAMILIES[family].kind == "unet" else "transformer"


@cache
def denoiser_of(family: str) -> Any:
    """Return a pipeline of a family with its denoiser in real size, without weights."""
    part, row = part_of(family), FAMILIES[family]
    kind = getattr(diffusers, row.parts[part][0])
    with torch.device("meta"):
        if config := CONFIGS.get(family):
            model = kind.from_config(kind.load_config(ASSETS / config / part))
        else:
            model = kind()
    pipeline = getattr(diffusers, row.pipelines.text)
    made = pipeline.__new__(pipeline)
    setattr(made, part, model)
    return made


def weights_of(pipeline: Any, family: str) -> dict[str, Any]:
    """Return the layers of the denoiser's blocks, which trainers adapt."""
    marks = ("blocks.", "block.", "layers.", "refiner.")
    return {
        name: module.weight
        for name, module in getattr(pipeline, part_of(family)).named_modules()
        if isinstance(module, nn.Linear) and any(mark in name for mark in marks)
    }


def lora_of(layers: dict[str, tuple[int, int]], naming: tuple[str, str, str]) -> Tensors:
    """Return a LoRA of rank 1 for layers: `up` counts rows, `down` has the layer's number."""
    stem, down, up = naming
    tensors: Tensors = {}
    for number, (name, (outputs, inputs)) in enumerate(layers.items()):
        named = stem.format(name=name, flat=name.replace(".", "_"))
        tensors[f"{named}.{down}.weight"] = torch.full((1, inputs), float(number))
        tensors[f"{named}.{up}.weight"] = torch.arange(float(outputs))[:, None]
        tensors[f"{named}.alpha"] = torch.tensor(1.0)
    return tensors


def used(tensors: Tensors, folder: Path, pipeline: Any, family: str) -> dict[str, torch.Tensor]:
    """Return the rows of each module; every layer must be used, and `check` say the family."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = recognise(Header(shapes, {"modelspec.architecture": FAMILIES[family].lora_marks[0]}))
    assert (found.kind, found.family) == ("lora", family)
    path = write(folder / "it.safetensors", tensors)
    given, unused, *_ = read_lora("it", path, pipeline, family)
    assert unused == []
    start = f"{part_of(family)}."
    return {
        f"{part}.{name}".removeprefix(start): up[:, 0] for (part, name), (_, up) in given.items()
    }


@pytest.mark.parametrize(
    ("family", "naming"),
    [
        *(("flux", trainer) for trainer in (ONE_TRAINER, LYCORIS, PEFT)),
        *((key, ONE_TRAINER) for key in ("chroma", "flux2", "z_image", "sd3")),
        *(("qwen_image", LIGHTNING), ("sdxl", PEFT), ("sd1", KOHYA)),
        *(("krea2", COMFYUI), ("lumina2", KOHYA), ("ernie_image", COMFYUI)),
        *(("anima", DIFFUSERS), ("flux3", DIFFUSERS)),
        *(("qwen_image_21", COMFYUI), ("ideogram4", DIFFUSERS)),
    ],
)
def test_all_layers_in_diffusers_names_are_used(
    tmp_path: Path, family: str, naming: tuple[str, str, str]
) -> None:
    pipeline = denoiser_of(family)
    weights = weights_of(pipeline, family)
    tensors = lora_of({name: tensor.shape for name, tensor in weights.items()}, naming)
    found = used(tensors, tmp_path, pipeline, family)
    assert {name: len(rows) for name, rows in found.items()} == {
        name: len(weight) for name, weight in weights.items()
    }


def each(stem: str, blocks: int, **layers: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return layers in each of some blocks, with "." for "__", and their rows and columns."""
    return {
        f"{stem.format(block)}{name.replace('__', '.')}": shape
        for block in range(blocks)
        for name, shape in layers.items()
    }


def flux_layers(doubles: int, singles: int, mlp: int = 4, gate: int = 1) -> dict[str, Any]:
    """Return those that the layers of FLUX.1, Chroma and FLUX.2 have in common."""
    d = 3072
    both = {"attn__qkv": (3 * d, d), "attn__proj": (d, d)}
    both |= {"mlp__0": (mlp * gate * d, d), "mlp__2": (d, mlp * d)}
    single = {"linear1": ((3 + mlp * gate) * d, d), "linear2": (d, (1 + mlp) * d)}
    return {
        **each("double_blocks.{}.img_", doubles, **both),
        **each("double_blocks.{}.txt_", doubles, **both),
        **each("single_blocks.{}.", singles, **single),
    }


D, L, A, K = 1536, 2304, 3072, 6144
MODULATED = {
    **each("double_blocks.{}.img_mod.", 19, lin=(6 * A, A)),
    **each("double_blocks.{}.txt_mod.", 19, lin=(6 * A, A)),
    **each("single_blocks.{}.modulation.", 38, lin=(3 * A, A)),
    "final_layer.adaLN_modulation.1": (2 * A, A),
}
IN_JOINT_BLOCKS: dict[str, tuple[int, int]] = {"mlp__fc1": (4 * D, D), "mlp__fc2": (D, 4 * D)}
IN_JOINT_BLOCKS |= {"attn__qkv": (3 * D, D), "attn__proj": (D, D)}
OF_LUMINA: dict[str, tuple[int, int]] = {"attention__qkv": (3840, L), "attention__out": (L, L)}
OF_LUMINA |= {"feed_forward__w1": (4 * L, L), "feed_forward__w2": (L, 4 * L)}
OF_IDEOGRAM: dict[str, tuple[int, int]] = {
    "attention__qkv": (3 * 4608, 4608),
    "attention__o": (4608, 4608),
    "feed_forward__w1": (12288, 4608),
    "feed_forward__w2": (4608, 12288),
    "feed_forward__w3": (12288, 4608),
    "adaln_modulation": (4 * 4608, 512),
}
# The layers of whole models in their authors' names.
AUTHORS: dict[str, dict[str, tuple[int, int]]] = {
    "flux": flux_layers(19, 38) | MODULATED,
    "chroma": flux_layers(19, 38)
    | each("distilled_guidance_layer.layers.{}.", 5, in_layer=(5120, 5120), out_layer=(5120, 5120)),
    "flux2": flux_layers(5, 20, mlp=3, gate=2) | {"single_stream_modulation.lin": (3 * A, A)},
    "sd3": {
        **each("joint_blocks.{}.x_block.", 24, **IN_JOINT_BLOCKS),
        **each("joint_blocks.{}.context_block.", 23, **IN_JOINT_BLOCKS),
        **each("joint_blocks.{}.x_block.attn2.", 13, qkv=(3 * D, D), proj=(D, D)),
        "joint_blocks.23.context_block.attn.qkv": (3 * D, D),
        "joint_blocks.23.context_block.adaLN_modulation.1": (2 * D, D),
        "final_layer.adaLN_modulation.1": (2 * D, D),
    },
    "lumina2": {
        **each("layers.{}.", 26, **OF_LUMINA, adaLN_modulation__1=(4 * L, 1024)),
        **each("noise_refiner.{}.", 2, **OF_LUMINA),
        **each("context_refiner.{}.", 2, **OF_LUMINA),
    },
    "krea2": {
        **each("blocks.{}.attn.", 28, wq=(K, K), wk=(K // 4, K), wo=(K, K), gate=(K, K)),
        **each("blocks.{}.mlp.", 28, up=(16384, K), down=(K, 16384)),
        **each("txtfusion.refiner_blocks.{}.attn.", 2, wq=(2560, 2560)),
        "txtmlp.1": (K, 2560),
    },
    "qwen_image_21": each("transformer_blocks.{}.img_mlp.", 32, gate_up=(24576, 4096)),
    "ideogram4": each("layers.{}.", 34, **OF_IDEOGRAM),
}


# Families whose names the tests know for whole checkpoints, too.
IN_CHECKPOINTS: dict[str, Callable[[Tensors], Tensors]] = {
    "z_image": z_image_names,
    "anima": lambda tensors: anima_names(tensors, {}),
    "flux3": flux3_names,
}


def authors_layers(family: str) -> dict[str, tuple[int, int]]:
    if family in AUTHORS:
        return AUTHORS[family]
    tensors = getattr(denoiser_of(family), part_of(family)).state_dict()
    return {
        name.removesuffix(".weight"): (len(tensor), tensor.shape[1])
        for name, tensor in IN_CHECKPOINTS[family](dict(tensors)).items()
        if tensor.ndim == 2 and name.endswith(".weight")
    }


def ideogram4(weights: Tensors, **_: Any) -> Tensors:
    """As diffusers' converter of LoRAs: it has none for checkpoints."""
    converted: Tensors = {}
    for name, weight in weights.items():
        if ".attention.qkv." in name:
            for letter, rows in zip("qkv", weight.chunk(3), strict=True):
                converted[name.replace("qkv", f"to_{letter}")] = rows
        else:
            converted[name.replace("attention.o.", "attention.to_out.0.")] = weight
    return converted


CONVERTERS = {
    family: getattr(single_file_utils, f"convert_{name}_to_diffusers")
    for family, name in {
        "flux": "flux_transformer_checkpoint",
        "chroma": "chroma_transformer_checkpoint",
        "flux2": "flux2_transformer_checkpoint",
        "sd3": "sd3_transformer_checkpoint",
        "lumina2": "lumina2",
        "z_image": "z_image_transformer_checkpoint",
        "krea2": "krea2_transformer_checkpoint",
        "anima": "cosmos_transformer_checkpoint",
        "flux3": "flux3_transformer_checkpoint",
        "qwen_image_21": "qwen_image21_transformer_checkpoint",
    }.items()
} | {"ideogram4": ideogram4}


class _Whole(dict[str, torch.Tensor]):
    """A checkpoint's weights; those that it lacks are negative."""

    def __missing__(self, _: str) -> torch.Tensor:
        return torch.full((7 * A, 1), -1.0)

    def pop(self, key: str, *_: Any) -> torch.Tensor:
        return super().pop(key, self[key])


@pytest.mark.parametrize(
    ("family", "naming"),
    [
        *((key, KOHYA) for key in ("sd3", "lumina2", "krea2", "chroma", "flux2", "anima")),
        *((key, COMFYUI) for key in ("flux", "qwen_image_21", "flux3", "ideogram4")),
        *(("flux", KOHYA), ("z_image", KOHYA)),
    ],
)
def test_all_layers_in_the_authors_names_are_used(
    tmp_path: Path, family: str, naming: tuple[str, str, str]
) -> None:
    """One that holds several of diffusers' layers is split, and its halves change their places."""
    layers = authors_layers(family)
    found = used(lora_of(layers, naming), tmp_path, denoiser_of(family), family)
    rows = {
        f"{name}.weight": torch.arange(float(outputs))[:, None]
        for name, (outputs, _) in layers.items()
    }
    converted = CONVERTERS[family](_Whole(rows), config={})
    expected = {
        name.removesuffix(".weight"): weight[:, 0]
        for name, weight in converted.items()
        if name.endswith(".weight") and weight is not None and (weight >= 0).all()
    }
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_all_layers_of_sdxl_in_its_authors_names_are_used(tmp_path: Path) -> None:
    """kohya's scripts write them; those of ResNets, too."""
    pipeline = denoiser_of("sdxl")
    modules = {
        name: module.weight
        for name, module in pipeline.unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    names = {name: torch.tensor([number]) for number, name in enumerate(modules)}
    theirs = unet_names({f"{name}.": value for name, value in names.items()}, pipeline.unet.config)
    tensors = {}
    for name, number in theirs.items():
        outputs, inputs, *kernel = [*modules.values()][number].shape
        flat = f"lora_unet_{name[:-1].replace('.', '_')}"
        tensors[f"{flat}.lora_down.weight"] = torch.ones(1, inputs, *kernel)
        tensors[f"{flat}.lora_up.weight"] = torch.full((outputs, 1, *[1 for _ in kernel]), 1.0)
        tensors[f"{flat}.lora_up.weight"] *= number
    found = used(tensors, tmp_path, pipeline, "sdxl")
    assert {name: int(rows[0]) for name, rows in found.items()} == {
        name: int(number) for name, number in names.items()
    }


def test_a_lora_with_layers_of_no_known_name_is_refused() -> None:
    """When it is found, with the trainer and the count: a part of a LoRA is another LoRA."""
    layers = {f"transformer_blocks.{block}.attn.to_q": (3072, 3072) for block in range(19)}
    layers |= {f"transformer_blocks.{block}.ff.net.0.proj": (12288, 3072) for block in range(19)}
    odd = {f"transformer_blocks.{block}.mlp.7": (3072, 3072) for block in range(3)}
    tensors = lora_of(layers | odd, ONE_TRAINER)
    words = (
        "is a LoRA for FLUX.1 in names of OneTrainer .* for 3 of its 41 layers, such as 'lora_tr"
    )
    with pytest.raises(ModelRefused, match=words):
        recognise(Header({name: tuple(tensor.shape) for name, tensor in tensors.items()}, {}))
