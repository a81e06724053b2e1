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
from torch.nn import functional

from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.headers import BLOCKS, stays_quantised
from picowatch.catalog.parts import ASSETS
from picowatch.engine.model.load import reads_of
from picowatch.engine.model.memory import CARD_LADDER, MemoryLadder, Room, Sizes
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES
from picowatch.families.row import DECODING, Family
from tests.engine.alive import most_bytes
from tests.engine.requests import request
from tests.gpu.test_launches import FLUX as FLUX_CALL
from tests.gpu.test_launches import XL, attention, flow_call, real, tensors_of, unet_call

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
# Read from folders only, so the package has no config of it: its model card's, without its head.
NUMBERS = {"Qwen2.5-VL 7B": 8_292_166_656 - 152_064 * 3_584}
SDNQ = "uint4"  # the form of its folders
Row = tuple[str, str, str, tuple[str, ...]]
UNET, QWEN_IMAGE = "UNet2DConditionModel", "QwenImageTransformer2DModel"
FLUX: Row = ("FluxTransformer2DModel", "flux/transformer", "flux/vae", ("CLIP L", T5))
KLEIN: Row = ("Flux2Transformer2DModel", "flux2/transformer", "flux2/vae", ("Qwen3 4B",))
Z_IMAGE: Row = ("ZImageTransformer2DModel", "z_image/transformer", "flux/vae", ("Qwen3 4B",))


def sd3(size: str) -> Row:
    return "SD3Transformer2DModel", f"sd3/3.5-{size}/transformer", "sd3/vae", (*CLIPS, T5)


# The denoiser's class and config, the VAE's config and the text encoders; the denoiser's form.
MODELS: dict[str, tuple[Row, str]] = {
    "Stable Diffusion 1.5": ((UNET, "sd15/unet", "sd15/vae", ("CLIP L",)), "float16"),
    "Stable Diffusion XL": ((UNET, "sdxl/unet", "sdxl/vae", CLIPS), "float16"),
    "Stable Diffusion 3.5 Medium": (sd3("medium"), "bfloat16"),
    "Stable Diffusion 3.5 Large": (sd3("large"), "bfloat16"),
    "FLUX.1": (FLUX, "bfloat16"),
    "FLUX.1, Q8_0": (FLUX, "Q8_0"),
    "FLUX.1, fp8": (FLUX, "fp8"),
    "FLUX.1, Q4_K": (FLUX, "Q4_K"),
    "FLUX.2 klein 4B": (KLEIN, "bfloat16"),
    "FLUX.2 klein 4B, SDNQ uint4": (KLEIN, SDNQ),
    "Z-Image": (Z_IMAGE, "bfloat16"),
    "Qwen-Image": ((QWEN_IMAGE, "", "", ("Qwen2.5-VL 7B",)), "bfloat16"),
}


def shapes(kind: Any, folder: str) -> dict[str, torch.Size]:
    """The shapes of a model's weights, made without memory; without a folder of its defaults."""
    config = json.loads((ASSETS / folder / "config.json").read_text()) if folder else {}
    with torch.device("meta"):
        of_diffusers = issubclass(kind, diffusers.ModelMixin)
        model = kind.from_config(config) if of_diffusers else kind(kind.config_class(**config))
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def encoder_bytes(name: str, layers: int, form: str) -> int:
    """The bytes of a text encoder, usually in 16 bits; of so many layers, 0 for all."""
    if name in NUMBERS:
        return NUMBERS[name] * 2
    found = shapes(getattr(transformers, CLASSES[name]), ENCODERS[name].config)
    reads = reads_of("text_encoder", layers)
    read = (key for key in found if reads(key) and "encoder.embed_tokens" not in key)
    return sum(
        packed_bytes(key, found[key]) if form == SDNQ else prod(found[key]) * 2 for key in read
    )


def packed_bytes(name: str, shape: torch.Size) -> int:
    """The bytes of a weight in a folder that SDNQ has packed, with two scales for 64 numbers."""
    is_packed = name.endswith(".weight") and len(shape) == 2 and "embed" not in name
    return prod(shape) // 2 + prod(shape) // 64 * 8 if is_packed else prod(shape) * 2


def vae_class(folder: str) -> str:
    """The class of a VAE; Qwen-Image's has no config here."""
    if not folder:
        return "AutoencoderKLQwenImage"
    return str(json.loads((ASSETS / folder / "config.json").read_text())["_class_name"])


def row_of(denoiser: str, config: str) -> Family:
    """The family of a config, or the first one whose denoiser has this class."""
    rows = (row for row in FAMILIES.values() if (denoiser,) in row.parts.values())
    return min(rows, key=lambda row: row.key != config.partition("/")[0])


def weights(model: Row, form: str) -> Sizes:
    """What a real model takes, by the numbers that the engine reckons with."""
    denoiser, config, vae, encoders = model
    found = shapes(getattr(diffusers, denoiser), config)
    size = 0
    for name, shape in found.items():
        if form == SDNQ:
            size += packed_bytes(name, shape)
            continue
        quantised = form in BLOCKS and stays_quantised(name, form, tuple(shape))
        values, taken = BLOCKS[form] if quantised else (1, 2)
        if form == "fp8" and name.endswith(".weight") and len(shape) > 1:
            taken = 1
        size += prod(shape) // values * taken
    kind, wide = vae_class(vae), 4 if vae == "sdxl/vae" else 2
    decoder = sum(map(prod, shapes(getattr(diffusers, kind), vae).values()))
    row = row_of(denoiser, config)
    layers = row.encoder_layers if config else 0
    return Sizes(
        encoders=tuple(encoder_bytes(encoder, layers, form) for encoder in encoders),
        denoiser=size,
        vae=decoder * wide,
        drawing=row.drawing * 2,
        decoding=DECODING[kind] * wide,
        takes_turns=not denoiser.startswith("UNet"),
    )


def level(parts: Sizes, card: float, main: float, side: int) -> str:
    room = Room(int((main - MAIN_TAKEN) * 2**30), int((card - CARD_TAKEN) * 2**30))
    ladder = MemoryLadder("auto", lambda: room)
    try:
        first = next(ladder.rungs(request(width=side, height=side), parts))
    except RenderFailed:
        return "–"
    return str(CARD_LADDER.index(first) + 1)


def cell(parts: Sizes, card: int, side: int) -> str:
    """The levels, with the least main memory that each needs if it is more than the smallest."""
    found = {main: level(parts, card, main, side) for main in COMPUTERS}
    least = found[COMPUTERS[0]]
    shown = [] if least == "–" else [least]
    for before, main in pairwise(COMPUTERS):
        if found[main] != found[before]:
            shown.append(f"{found[main]} ({main})")
    return ", ".join(shown) or least


def lines() -> Iterator[str]:
    yield f"| | text encoders | denoiser | {' | '.join(f'{memory} GB' for memory in CARDS)} |"
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


# A call of each denoiser for a picture of the table; both prompts where its pipeline joins them.
SD3 = {
    "hidden_states": (2, 16, 128, 128),
    "encoder_hidden_states": (2, 333, 4096),
    "pooled_projections": (2, 2048),
    "timestep": (2,),
}
QWEN = {"hidden_states": (1, 4096, 64), "encoder_hidden_states": (1, 512, 3584), "timestep": (1,)}
CALLS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5": unet_call(64, 768),
    "Stable Diffusion XL": unet_call(128, 2048) | {"added_cond_kwargs": XL},
    "Stable Diffusion 3.5 Medium": SD3,
    "Stable Diffusion 3.5 Large": SD3,
    "FLUX.1": flow_call(64, 4096) | FLUX_CALL,
    "FLUX.2 klein 4B": flow_call(128, 7680, 1),
    "Z-Image": {"x": [(16, 1, 128, 128)] * 2, "t": (2,), "cap_feats": [(512, 2560)] * 2},
    "Qwen-Image": QWEN,
}


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_real_models_take_what_is_estimated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are alive at once on the meta device, a step's and a VAE's that decodes."""
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    (kind, config, vae, _), _ = MODELS[name]
    side = 512 if name == "Stable Diffusion 1.5" else 1024
    pixels, given = side**2, tensors_of(CALLS[name])
    if name == "Qwen-Image":
        given |= {"img_shapes": [[(1, 64, 64)]]}
    denoiser = real(config, kind)
    drawing = most_bytes(lambda: denoiser(**given, return_dict=False)) / 2
    most = row_of(kind, config).drawing * pixels
    assert 0.5 * most <= drawing <= most
    decoder = real(vae, vae_class(vae))
    channels, frames = decoder.config.get("latent_channels", 16), () if vae else (1,)
    latents = tensors_of((1, channels, *frames, side // 8, side // 8))
    decoding = most_bytes(lambda: decoder.decode(latents, return_dict=False)) / 2
    most = DECODING[vae_class(vae)] * pixels
    assert 0.9 * most <= decoding <= most
