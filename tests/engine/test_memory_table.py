"""The table of docs/models.md: which memory-saving level real models begin with on which card."""

import json
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.gguf import BLOCKS, stays_quantised
from picowatch.catalog.parts import ASSETS
from picowatch.engine.model.load import DECODING, DECODING_OF, DRAWING
from picowatch.engine.model.memory import CARD_LADDER, MemoryLadder, Room, Weights
from picowatch.errors import RenderFailed
from tests.engine.requests import request

PAGE = Path(__file__).parents[2] / "docs/models.md"
CARDS, COMPUTERS = (4, 6, 8, 12, 16, 24), (16, 32, 64)
# What a desktop and the driver take of a card, and what other programs take of main memory.
CARD_TAKEN, MAIN_TAKEN = 0.5, 4
CLASSES = {
    "CLIP L": "CLIPTextModel",
    "CLIP G": "CLIPTextModelWithProjection",
    "T5 XXL": "T5EncoderModel",
    "Qwen3 4B": "Qwen3Model",
}
CLIPS, T5 = ("CLIP L", "CLIP G"), "T5 XXL"
# Read from folders only, so the package has no config of it: the numbers of its model card.
NUMBERS = {"Qwen2.5-VL 7B": 8_292_166_656}
FLUX = ("FluxTransformer2DModel", "flux/transformer", "flux/vae", ("CLIP L", T5))
Row = tuple[str, str, str, tuple[str, ...]]
# The denoiser's class and config, the VAE's config and the text encoders; the denoiser's form.
MODELS: dict[str, tuple[Row, str]] = {
    "Stable Diffusion 1.5": (
        ("UNet2DConditionModel", "sd15/unet", "sd15/vae", ("CLIP L",)),
        "float16",
    ),
    "Stable Diffusion XL": (
        ("UNet2DConditionModel", "sdxl/unet", "sdxl/vae", CLIPS),
        "float16",
    ),
    "Stable Diffusion 3.5 Medium": (
        ("SD3Transformer2DModel", "sd3/3.5-medium/transformer", "sd3/vae", (*CLIPS, T5)),
        "bfloat16",
    ),
    "Stable Diffusion 3.5 Large": (
        ("SD3Transformer2DModel", "sd3/3.5-large/transformer", "sd3/vae", (*CLIPS, T5)),
        "bfloat16",
    ),
    "FLUX.1": (FLUX, "bfloat16"),
    "FLUX.1, Q8_0": (FLUX, "Q8_0"),
    "FLUX.1, fp8": (FLUX, "fp8"),
    "FLUX.1, Q4_K": (FLUX, "Q4_K"),
    "FLUX.2 klein 4B": (
        ("Flux2Transformer2DModel", "flux2/transformer", "flux2/vae", ("Qwen3 4B",)),
        "bfloat16",
    ),
    "Z-Image": (
        ("ZImageTransformer2DModel", "z_image/transformer", "flux/vae", ("Qwen3 4B",)),
        "bfloat16",
    ),
    "Qwen-Image": (("QwenImageTransformer2DModel", "", "", ("Qwen2.5-VL 7B",)), "bfloat16"),
}


def shapes(kind: Any, folder: str) -> dict[str, torch.Size]:
    """The shapes of a model's weights, made without memory; without a folder of its defaults."""
    config = json.loads((ASSETS / folder / "config.json").read_text()) if folder else {}
    with torch.device("meta"):
        of_diffusers = issubclass(kind, diffusers.ModelMixin)
        model = kind.from_config(config) if of_diffusers else kind(kind.config_class(**config))
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def encoder_bytes(name: str) -> int:
    """The bytes of a text encoder in 16 bits."""
    if name in NUMBERS:
        return NUMBERS[name] * 2
    found = shapes(getattr(transformers, CLASSES[name]), ENCODERS[name].config)
    return sum(prod(shape) for one, shape in found.items() if "encoder.embed_tokens" not in one) * 2


def weights(row: Row, form: str) -> Weights:
    """What a real model takes, by the numbers that the engine reckons with."""
    denoiser, config, vae, encoders = row
    found = shapes(getattr(diffusers, denoiser), config)
    size = 0
    for name, shape in found.items():
        quantised = form in BLOCKS and stays_quantised(name, form, tuple(shape))
        values, taken = BLOCKS[form] if quantised else (1, 2)
        if form == "fp8" and name.endswith(".weight") and len(shape) > 1:
            taken = 1
        size += prod(shape) // values * taken
    kind = "AutoencoderKLQwenImage"
    wide = 2
    if vae:
        vae_config = json.loads((ASSETS / vae / "config.json").read_text())
        kind, wide = vae_config["_class_name"], 4 if vae == "sdxl/vae" else 2
    decoder = sum(map(prod, shapes(getattr(diffusers, kind), vae).values()))
    return Weights(
        encoders=tuple(map(encoder_bytes, encoders)),
        denoiser=size,
        vae=decoder * wide,
        numbers=sum(map(prod, found.values())),
        drawing=DRAWING * 2,
        decoding=DECODING_OF.get(kind, DECODING) * wide,
        takes_turns=not denoiser.startswith("UNet"),
    )


def level(parts: Weights, card: float, main: float, side: int) -> str:
    """The number of the first rung, or a dash for what is refused."""
    room = Room(int((main - MAIN_TAKEN) * 2**30), int((card - CARD_TAKEN) * 2**30))
    ladder = MemoryLadder("auto", lambda: room)
    try:
        first = next(ladder.rungs(request(width=side, height=side), parts))
    except RenderFailed:
        return "–"
    return str(CARD_LADDER.index(first) + 1)


def cell(parts: Weights, card: int, side: int) -> str:
    """The levels, with the least main memory that each needs if it is more than the smallest."""
    found = {main: level(parts, card, main, side) for main in COMPUTERS}
    least = found[COMPUTERS[0]]
    shown = [] if least == "–" else [least]
    for before, main in pairwise(COMPUTERS):
        if found[main] != found[before]:
            shown.append(f"{found[main]} ({main})")
    return ", ".join(shown) or least


def lines() -> Iterator[str]:
    yield f"| | text encoders | denoiser | {' | '.join(f'{one} GB' for one in CARDS)} |"
    yield "|---" * (3 + len(CARDS)) + "|"
    for name, (row, form) in MODELS.items():
        parts = weights(row, form)
        side = 512 if name == "Stable Diffusion 1.5" else 1024
        sizes = [f"{size / 1e9:.1f} GB" for size in (sum(parts.encoders), parts.denoiser)]
        levels = [cell(parts, card, side) for card in CARDS]
        yield f"| {' | '.join([name, *sizes, *levels])} |"


@pytest.mark.filterwarnings("ignore")
def test_the_page_shows_where_real_models_begin() -> None:
    """All parts are counted from the models' configs, on a device without memory."""
    table = "\n".join(lines())
    assert table in PAGE.read_text(), table
    for number, rung in enumerate(CARD_LADDER, 1):
        assert f"\n{number}. `{rung.name}`" in PAGE.read_text()
