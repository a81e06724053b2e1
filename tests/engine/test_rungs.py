"""Every rung of the memory ladder draws the same pictures, with its placement of weights."""

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from picowatch.catalog import Catalog
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.memory import ENCODERS, FULL, LAYERS, MODELS, TURNS
from picowatch.engine.protocol import Progress
from picowatch.families import FAMILIES
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.part_files import weights_of, write_gguf
from tests.engine.reference.models import Models
from tests.engine.reference.requests import drawn, stored
from tests.engine.requests import difference, draw, pixels
from tests.engine.rungs import interrupt, lora_of, on_rung, reads, two_of
from tests.kinds import one_of_each_kind

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def renderer(models: Models) -> Renderer:
    return Renderer(models.options)


# Without the VAE's tiles, which overlap and so change larger pictures.
RUNGS = {rung.name: replace(rung, tiled=False) for rung in (ENCODERS, MODELS, LAYERS)}
# In this order: LoRAs come and go, another VAE comes to weights that were placed before.
CASES = (
    *("lora-two", "after-loras", "lora-control", "vae", "hires-latent", "hires-model"),
    *("inpainting", "sdxl-lora", "sdxl-control"),
)
PLACED = [(name, rung) for name in CASES for rung in RUNGS]
IN_EACH_RUN = [
    *(("lora-control", LAYERS.name), ("hires-latent", MODELS.name), ("sdxl-lora", ENCODERS.name))
]


@pytest.mark.parametrize(("name", "rung"), one_of_each_kind(PLACED, IN_EACH_RUN))
def test_every_rung_draws_the_stored_picture(
    models: Models, renderer: Renderer, name: str, rung: str
) -> None:
    """Weights are moved to the device, here the CPU, by model and by layer."""
    found = drawn(on_rung(renderer, RUNGS[rung]), models, name)
    assert np.abs(found - stored(name)).max() <= 2


def test_a_vae_is_released_when_another_is_named_after_a_lora(models: Models) -> None:
    """Nothing of what loaded the LoRA holds it."""
    renderer, given = Renderer(models.options), {"loras": {"both": 0.7}, **SMALL}
    with reads() as found:
        for wanted in (given, {**given, "vae": "warm"}):
            draw(renderer, models.request(wanted))
        gc.collect()
        assert [part for part, vae in found if part == "vae" and vae() is not None] == ["vae"]


FLOWS = (
    *("Z-Image-Turbo", "FLUX.1-dev", "Qwen-Image", "ERNIE-Image", "FLUX.2-klein", "Chroma1-HD"),
    *("sd3.5-medium", "Lumina-Image-2.0", "Krea-2-Raw", "Anima", "FLUX.3-klein-base"),
    *("Ovis-Image-7B", "LongCat-Image", "Ideogram-4", "Sana"),
)


ON_ALL_RUNGS = ("FLUX.1-dev", "Sana")


@pytest.mark.parametrize("name", one_of_each_kind(FLOWS, ["FLUX.1-dev"]))
def test_flow_families_draw_the_same_on_every_rung(name: str) -> None:
    """A batch, also after an interruption, and a start image with hires if the family takes one.

    By layers all of a family moves, by turns it is read again: two families show the other rungs.
    """
    models = flow_models(name)
    (model,) = Catalog(models).scan().of_kind("checkpoint")  # another test may have added a LoRA
    ours, row, batches = flow_renderer(models), FAMILIES[model.family], [two_of(models, name)]
    if "hires" not in {**row.lacks, **row.variant(model.variant).lacks}:
        more = "\nimage: start.png\nhires: {scale: 1.5, steps: 2}"
        batches.append(two_of(models, name, more)[:1])
    plain = [draw(on_rung(ours, FULL), *batch) for batch in batches]
    rungs = [*RUNGS.values()] if name in ON_ALL_RUNGS else [RUNGS[LAYERS.name]]
    if row.kind != "general":  # whose pipeline reads prompts itself
        rungs.append(replace(TURNS, tiled=False))
    for rung in rungs:
        interrupt(on_rung(ours, rung), batches[0])
        for batch, images in zip(batches, plain, strict=True):
            for image, expected in zip(draw(ours, *batch), images, strict=True):
                assert pixels(expected).std() > 1
                assert difference(image, expected) <= 1, rung


def test_text_encoders_and_denoiser_take_turns() -> None:
    """Only one of them is in memory; prompts that are known need no text encoder."""
    name, encoders = "FLUX.1-dev", ["text_encoder", "text_encoder_2"]
    models = flow_models(name)
    lora = lora_of(models, name)
    one, two = two_of(models, name)
    expected = {
        one: [*encoders, "vae", "transformer"],
        two: [*encoders, "transformer"],
        replace(one, seed=8): [],
        replace(one, loras=(lora,)): [],
        replace(one, prompt="a star", loras=(lora,)): [*encoders, "transformer"],
        replace(two, seed=9): [],
    }
    plainly = flow_renderer(models)
    plain = [draw(plainly, wanted)[0] for wanted in expected]
    assert difference(plain[0], plain[3]) > 1  # by the LoRA
    renderer, alive = on_rung(flow_renderer(models), TURNS), set[str]()
    for (wanted, read), picture in zip(expected.items(), plain, strict=True):
        with reads() as found:

            def look(now: Progress) -> None:
                if now.done:
                    alive.update(part for part, reference in found if reference() is not None)

            (image,) = renderer.render([wanted], look)
        assert sorted(part for part, _ in found) == sorted(read)
        assert difference(image, picture) <= 1
    assert alive == {"vae", "transformer"}


@pytest.mark.heavy
def test_a_lora_of_a_text_encoder_counts_where_parts_take_turns() -> None:
    """Its texts are others, and are encoded again with the next LoRA; nothing of it is unused."""
    models = flow_models("FLUX.1-dev")
    lora = lora_of(models, "FLUX.1-dev", "text_encoder")
    wanted, other = two_of(models, "FLUX.1-dev")
    batches = [replace(wanted, loras=uses) for uses in ((lora,), (), (replace(lora, weight=0.2),))]
    batches.append(replace(other, loras=(lora,)))
    plain = [draw(flow_renderer(models), request)[0] for request in batches]
    turning = on_rung(flow_renderer(models), TURNS)
    for request, expected in zip(batches, plain, strict=True):
        (image,) = draw(turning, request)
        assert difference(image, expected) <= 1
        assert image.warnings == ()


def test_a_gguf_transformer_works_on_every_rung() -> None:
    """Its weights move as they are; a LoRA is added to layers of which weights are packed bytes."""
    models, name = flow_models("Z-Image-Turbo"), "mine-turbo.gguf"
    write_gguf(models / "checkpoints" / name, weights_of("Z-Image-Turbo"), "Q8_0")
    (wanted,) = requests_of(models, name, "prompt: a red cube")
    (whole,) = requests_of(models, "Z-Image-Turbo", "prompt: a red cube")
    lora = lora_of(models, "Z-Image-Turbo")
    styled, expected = (replace(request, loras=(lora,)) for request in (wanted, whole))
    renderer = flow_renderer(models)
    pictures = [draw(on_rung(renderer, FULL), request)[0] for request in (wanted, styled, expected)]
    assert difference(*pictures[1:]) <= 4 and difference(*pictures[:2]) > 20
    for rung in (LAYERS, TURNS):
        on_rung(renderer, rung)
        for request, picture in ((styled, pictures[1]), (wanted, pictures[0])):
            assert difference(draw(renderer, request)[0], picture) <= 1, rung
