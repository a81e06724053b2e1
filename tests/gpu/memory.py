"""What is in a card's memory on each rung, counted on the pretended one.

Run by test_on_a_pretended_card.py.
"""

import gc
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from diffusers import ZImageTransformer2DModel

from picowatch.catalog import Kind
from picowatch.catalog.scan import EMBEDDED
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model import memory
from picowatch.engine.model.memory import CARD_LADDER, MODELS, TURNS, MemoryLadder, Room, Rung
from picowatch.errors import RenderFailed
from picowatch.recipe.passes import passes_of
from picowatch.recipe.request import ImageRequest
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.part_files import weights_of, write_gguf
from tests.engine.requests import DEMO_UPSCALER, ignore_progress
from tests.engine.rungs import on_rung
from tests.engine.sdnq_packer import pack_folder
from tests.engine.tiny_flows import UNETS, folder_until_exit, tiny_flow, tiny_unet
from tests.gpu.pretended import BYTES, MEMORY

SLACK = 2**22  # tiny models lose little between their tensors
SIDE = 128
# A tiny model of each row of docs/models.md's table, and its form: what a recipe says, or a file's.
# Q4_K is read as Q8_0 is; its blocks are larger than a tiny model's matrices.
ROWS = {
    "Stable Diffusion 1.5": ("demo", ""),
    "Stable Diffusion XL": ("sdxl", ""),
    "Stable Diffusion 3.5 Medium": ("sd3.5-medium", ""),
    "Stable Diffusion 3.5 Large": ("sd3.5-large-turbo", ""),
    "FLUX.1": ("FLUX.1-dev", ""),
    "FLUX.1, fp8": ("FLUX.1-dev", "quantize: fp8"),
    "FLUX.1, Q8_0": ("FLUX.1-dev", "Q8_0"),
    "FLUX.2 klein 4B": ("FLUX.2-klein", ""),
    "FLUX.2 klein 4B, SDNQ uint4": ("FLUX.2-klein", "uint4"),
    "Z-Image": ("Z-Image-Turbo", ""),
    "Qwen-Image": ("Qwen-Image", ""),
}
MORE = {
    "hires": "hires: {scale: 1.5, steps: 1}",
    "detail": "detail: {find: a red circle, confidence: 0.1, size: 192x192, count: 1}",
    "upscale": f"upscale: {{model: {DEMO_UPSCALER}, scale: 2}}",
    "cutout": f"cutout: {EMBEDDED['cutout'][0]}",
}


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_CARD_SLACK", SLACK)
    yield
    MEMORY.size = BYTES


@cache
def packed_models(name: str, form: str) -> Path:
    """A models folder with the checkpoint `mine-turbo`, whose weights are packed."""
    models = folder_until_exit("packed-")
    checkpoints = models / "checkpoints"
    checkpoints.mkdir()
    if form == "uint4":
        parts = {part: {"weights_dtype": form} for part in ("transformer", "text_encoder")}
        pack_folder(tiny_flow(name), checkpoints / "mine-turbo", models / "wide", parts)
    else:
        (checkpoints / name).symlink_to(tiny_flow(name))
        write_gguf(checkpoints / "mine-turbo.gguf", weights_of(name), form)
    return models


def model(name: str, said: str = "", form: str = "") -> tuple[Renderer, ImageRequest]:
    if form:
        models, name = packed_models(name, form), "mine-turbo"
    else:
        folder = tiny_unet(name) if name in UNETS else None
        models = flow_models("Z-Image-Turbo" if name == "demo" else name, folder)
    (wanted,) = requests_of(
        models, name, f"prompt: a red circle\nsize: {SIDE}x{SIDE}\nsteps: 1\nexact: false\n{said}"
    )
    return flow_renderer(models), wanted


def peak(renderer: Renderer, wanted: ImageRequest, rung: Rung) -> int:
    """The most bytes that a pass takes on the card by the estimate."""
    sizes, networks = renderer._checkpoints.sizes(wanted), renderer._networks
    pixels = [memory._drawn_pixels(wanted, sizes.references)]
    pixels += [part.pixels for part in passes_of(wanted) if part.kind == "detail"]
    kinds: tuple[Kind, ...] = ("upscaler", "cutout", "segmentation")
    files = [(kind, *file) for kind in kinds for file in wanted.files_of(kind).items()]
    taken = [sum(networks.bytes_of(*file)) for file in files]
    return max(sizes.on_device(rung, max(pixels)), *taken, 0) + SLACK


STAYS = [rung.name for rung in CARD_LADDER[:3]]  # where the denoiser does not move
WITH_MORE = ("demo", "FLUX.2-klein", "Qwen-Image")  # a UNet, a family that edits, and another


@pytest.mark.parametrize(
    ("name", "form", "with_more"),
    [
        *((*row, False) for row in ROWS.values()),
        *((name, form, True) for name, form in ROWS.values() if name in WITH_MORE and not form),
    ],
)
def test_no_pass_is_run_twice(name: str, form: str, with_more: bool) -> None:
    """A card that has just room for a rung renders on it, or above, at the first attempt."""
    is_said = ":" in form
    more = [form * is_said, *(MORE.values() if with_more else ())]
    if name == "FLUX.2-klein" and with_more:  # it draws no larger run, but edits
        more[more.index(MORE["hires"])] = "references: start.png"
    rungs = CARD_LADDER[not with_more :: 2] if name in WITH_MORE else CARD_LADDER
    for rung in rungs:
        renderer, wanted = model(name, "\n".join(more), form * (not is_said))
        weights = renderer._checkpoints.sizes(wanted)
        if rung == TURNS and not weights.takes_turns:
            continue
        gc.collect()
        size = peak(renderer, wanted, rung)
        before = MEMORY.used
        MEMORY.size, MEMORY.most, MEMORY.refused = before + size, 0, 0
        room = partial(Room, 0 if rung == TURNS else 2**40, size)
        renderer._ladder = MemoryLadder("auto", room)
        (image,) = renderer.render([wanted], ignore_progress)
        above = [level.name for level in CARD_LADDER[: CARD_LADDER.index(rung) + 1]]
        assert (image.memory_rung in above, MEMORY.refused) == (True, 0)
        if image.memory_rung in STAYS and not with_more:
            assert MEMORY.used - before > 0.9 * weights.denoiser


def test_a_text_encoder_makes_room_though_what_follows_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without references nothing is seen by siglip, which stands before the transformer."""
    renderer, wanted = model("Z-Image-Omni")
    renderer = on_rung(renderer, MODELS)
    draw, beside = ZImageTransformer2DModel.forward, list[str]()

    def look(self: ZImageTransformer2DModel, *given: Any, **named: Any) -> Any:
        loaded = renderer._checkpoints.held(wanted, MODELS.place)
        assert loaded
        beside.append(next(loaded.parts.by_name["text_encoder"].parameters()).device.type)
        return draw(self, *given, **named)

    monkeypatch.setattr(ZImageTransformer2DModel, "forward", look)
    (image,) = renderer.render([wanted], ignore_progress)
    assert (image.memory_rung, {*beside}) == (MODELS.name, {"cpu"})


def test_weights_without_room_are_refused_and_none_is_loaded() -> None:
    renderer, wanted = model("FLUX.1-dev")
    before = MEMORY.used
    renderer._ladder = MemoryLadder("auto", lambda: Room(2**10, 2**10))
    with pytest.raises(RenderFailed, match="can be used"):
        list(renderer.render([wanted], ignore_progress))
    assert before >= MEMORY.used
