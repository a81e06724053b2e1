"""The memory ladder: the rungs that a batch tries, and behaviour when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import diffusers
import pytest
import torch
from PIL import Image

from picowatch.catalog import Kind
from picowatch.catalog.scan import EMBEDDED
from picowatch.engine.drawing import models as kept_models
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model import lora_files, loras
from picowatch.engine.model.memory import (
    ENCODERS,
    FULL,
    MODELS,
    TILED,
    MemoryLadder,
    Room,
    Sizes,
    shrunken,
)
from picowatch.engine.model.prompts import TextTower
from picowatch.engine.protocol import Progress
from picowatch.errors import RenderFailed
from picowatch.families.row import References
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest, ReferenceUse
from tests.engine.flow_requests import flow_models, flow_renderer, hash_of, requests_of
from tests.engine.reference.models import Models
from tests.engine.requests import DEMO_UPSCALER, difference, draw, request
from tests.engine.rungs import on_rung, reads
from tests.fault_points import preceded_by, wrap

GIGABYTE = 2**30
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2}


def weights(encoder: float, denoiser: float, **more: Any) -> Sizes:
    """Parts of so many gigabytes, with what computes them for each pixel."""
    usual = {"vae": GIGABYTE // 6, "drawing": 600, "decoding": 1540}
    return Sizes((int(encoder * GIGABYTE),), int(denoiser * GIGABYTE), **usual | more)


# Of Z-Image in bfloat16 and of SDXL in float16, whose VAE decodes in float32.
Z_IMAGE = weights(8, 12, takes_turns=True)
SDXL = weights(1.5, 5, decoding=3080)
SMALL_ONE = weights(0.25, 1)
LARGE: dict[str, Any] = {"width": 1024, "height": 1024}

COMPUTER = ["full", "VAE tiling"]
TURNING = [*COMPUTER, "text encoders in turn"]
CARD = [*COMPUTER, "text encoders by layers", "model offload", "group offload"]


def names(ladder: MemoryLadder, image: ImageRequest, parts: Sizes = SMALL_ONE) -> list[str]:
    return [rung.name for rung in ladder.rungs(image, parts)]


def cuda(gigabytes: float = 24, setting: Any = "auto", main: float = 64) -> MemoryLadder:
    """Return the ladder of a card, with so much main memory."""
    return MemoryLadder(setting, lambda: Room(int(main * GIGABYTE), int(gigabytes * GIGABYTE)))


def computer(gigabytes: float, setting: Any = "auto") -> MemoryLadder:
    """Return the ladder of a computer without a card, a third of whose memory is in use."""
    free = int(gigabytes * GIGABYTE)
    return MemoryLadder(setting, lambda: Room(free, None, free * 3 // 2))


@pytest.mark.parametrize(
    ("ladder", "parts", "expected"),
    [
        (cuda(24), Z_IMAGE, CARD),
        (cuda(16), Z_IMAGE, CARD[2:]),
        (cuda(4), Z_IMAGE, CARD[4:]),
        (cuda(16, main=16), Z_IMAGE, ["text encoders by layers", "text encoders in turn"]),
        (cuda(13.4, main=8), Z_IMAGE, ["text encoders in turn"]),
        (cuda(10.5), SDXL, CARD),
        (cuda(4, main=4), SMALL_ONE, CARD),
        (cuda(4, "full"), Z_IMAGE, ["full", "group offload"]),
        (cuda(24, "low"), SMALL_ONE, CARD[3:]),
        (computer(32), Z_IMAGE, TURNING),
        (computer(20), Z_IMAGE, TURNING[2:]),
        (computer(9), Z_IMAGE, TURNING[2:]),
        (computer(1.5), replace(SMALL_ONE, takes_turns=True), TURNING),
        (computer(21, "full"), Z_IMAGE, TURNING),
        (computer(64, "low"), Z_IMAGE, TURNING[2:]),
        (computer(11), SDXL, COMPUTER[1:]),
        (computer(64, "low"), SDXL, COMPUTER[1:]),
    ],
)
def test_a_batch_begins_where_everything_fits(
    ladder: MemoryLadder, parts: Sizes, expected: list[str]
) -> None:
    """Weights, the denoiser's numbers and the VAE's; those below follow if the weights fit.

    Text encoders take turns only where main memory is short: it is never tried out, because the
    kernel kills the process that takes too much.
    """
    assert names(ladder, request(**LARGE), parts) == expected


def test_a_batch_that_is_too_large_is_drawn_one_by_one() -> None:
    """The VAE decodes one picture at a time anyway."""
    found = [*cuda(9.5).rungs(request(**LARGE), SMALL_ONE, images=16)]
    assert [rung.name for rung in found] == CARD[1:]
    assert names(cuda(9.5), request(**LARGE), SMALL_ONE)[0] == "full"


FLUX = weights(9.4, 22.2, takes_turns=True)


@pytest.mark.parametrize("ladder", [cuda(9, main=19), computer(14)])
def test_weights_that_fit_nowhere_are_refused(ladder: MemoryLadder) -> None:
    with pytest.raises(RenderFailed, match=r"weights of demo take 34.1 GB, and .* used"):
        names(ladder, request(**LARGE), FLUX)


def test_the_rung_that_worked_is_where_the_next_image_begins() -> None:
    """Only for the same checkpoint and size; others begin at the top."""
    ladder = cuda()
    ladder.worked(request(), MODELS)
    assert names(ladder, request(seed=9)) == CARD[3:]
    assert names(ladder, request(width=64))[0] == "full"
    assert names(ladder, request(checkpoint_hash="1"))[0] == "full"
    ladder.worked(request(), TILED)
    assert names(ladder, request())[0] == "VAE tiling"


def test_after_some_batches_the_rung_above_is_tried_again() -> None:
    """Another program may have freed memory; nobody climbs above the setting."""
    ladder, image = cuda(), request()

    def batches_until_it_climbs() -> int:
        done = 0
        while names(ladder, image)[0] == MODELS.name:
            ladder.worked(image, MODELS)
            done += 1
        assert names(ladder, image)[:2] == [ENCODERS.name, MODELS.name]
        return done

    ladder.worked(image, MODELS)
    first = batches_until_it_climbs()
    ladder.worked(image, MODELS)  # it was still too much
    assert batches_until_it_climbs() == first > 10
    ladder.worked(image, TILED)
    assert names(ladder, image)[0] == TILED.name
    for ladder, rung in ((cuda(setting="low"), MODELS), (computer(64), TILED)):
        for _ in range(100):
            ladder.worked(image, rung)
            assert names(ladder, image)[0] == rung.name


@pytest.mark.parametrize(
    ("width", "height", "made"),
    [
        (1024, 768, [(768, 576), (576, 416), (512, 384)]),
        (1000, 1336, [(736, 992), (544, 736), (416, 544), (384, 512)]),
        (384, 384, []),
        (328, 408, []),
    ],
)
def test_smaller_pictures_come_last_and_only_on_request(
    width: int, height: int, made: list[tuple[int, int]]
) -> None:
    """Down to 384 pixels, and no further, in multiples of 32; what worked is remembered."""
    ladder, wanted = cuda(), request(width=width, height=height, shrink_to_fit=True)
    rungs = list(ladder.rungs(wanted, SMALL_ONE))
    smaller = [shrunken(wanted, rung.shrunk) for rung in rungs if rung.shrunk]
    assert [(image.width, image.height) for image in smaller] == made
    last = [(rung.name, rung.place) for rung in rungs[len(CARD) :]]
    assert last == [("smaller picture", "layers")] * len(made)
    ladder.worked(wanted, rungs[-2])
    assert list(ladder.rungs(wanted, SMALL_ONE)) == rungs[-2:]
    assert names(cuda(), replace(wanted, shrink_to_fit=False)) == CARD


@pytest.mark.parametrize(
    ("stretched", "made"), [(True, []), (False, [(864, 864), (640, 640), (480, 480), (384, 384)])]
)
def test_an_edit_becomes_smaller_than_what_is_drawn_or_not_at_all(
    stretched: bool, made: list[tuple[int, int]]
) -> None:
    """A photo of 2048x2048 is edited in a megapixel; a later, smaller one begins anew."""
    parts = weights(0.25, 1, references=References(most=1, stretched=stretched))
    photo = (ReferenceUse("it", ""),)
    large, small = (
        request(width=side, height=side, references=photo, shrink_to_fit=True)
        for side in (2048, 256)
    )
    ladder = cuda()
    rungs = list(ladder.rungs(large, parts))
    smaller = [shrunken(large, rung.shrunk) for rung in rungs if rung.shrunk]
    assert [(image.width, image.height) for image in smaller] == made
    ladder.worked(large, rungs[-1])
    assert list(ladder.rungs(small, parts))


def card(renderer: Renderer, setting: Any = "auto") -> Renderer:
    """The renderer, with a card's ladder on the CPU, where all of its rungs work, too."""
    renderer._ladder = cuda(setting=setting)
    return renderer


@contextmanager
def failing(where: str, times: int, error: Exception) -> Iterator[list[int]]:
    calls: list[int] = []
    point = {
        "denoiser": "diffusers:UNet2DConditionModel.forward",
        "VAE": "diffusers:AutoencoderKL.decode",
        "upscaler": "picowatch.engine.networks.upscale:Compact.forward",
        "cutout": "picowatch.engine.networks.cutout:Network.forward",
    }[where]

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        if len(calls) <= times:
            raise error

    with pytest.MonkeyPatch.context() as patched:
        wrap(point, preceded_by(fail), patched.setattr)
        yield calls


FULL_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


def test_the_next_rungs_are_tried_when_memory_runs_out(models: Models) -> None:
    """The one that was enough is remembered; when none is, it says so, and the next batch works."""
    wanted = request(**SMALL)
    (plain,) = draw(Renderer(models.options), wanted)
    renderer = card(Renderer(models.options))
    with failing("denoiser", len(CARD) - 1, FULL_CARD):
        (image,) = draw(renderer, wanted)
        (again,) = draw(renderer, replace(wanted, seed=9))
    assert image.memory_rung == again.memory_rung == CARD[-1]
    assert difference(image, plain) <= 1
    renderer = card(Renderer(models.options))
    with (
        failing("denoiser", 99, FULL_CARD),
        pytest.raises(RenderFailed, match="not have enough memory") as at,
    ):
        draw(renderer, wanted)
    assert at.value.remedy.endswith("or shrink_to_fit: true.")
    (after,) = draw(renderer, wanted)
    assert (after.memory_rung, after.pixels) == ("full", plain.pixels)
    with failing("denoiser", 99, RuntimeError("a fault")) as calls, pytest.raises(RuntimeError):
        draw(renderer, wanted)
    assert len(calls) == 1  # what is no lack of memory is not tried again


def test_a_drawn_picture_is_decoded_in_tiles_when_memory_runs_out(models: Models) -> None:
    """From the latents that are there: no step is computed twice; the next begins in tiles."""
    size: dict[str, Any] = {"width": 192, "height": 64, "steps": 2}
    wanted, seamless = request(**size), request(**size, tiling=True)
    renderer = card(Renderer(models.options))
    (plain,) = draw(renderer, wanted)
    with failing("denoiser", 0, FULL_CARD) as steps, failing("VAE", 1, FULL_CARD):
        (image,) = draw(renderer, wanted)
        (again,) = draw(renderer, replace(wanted, seed=9))
    rungs = [picture.memory_rung for picture in (plain, image, again)]
    assert rungs == ["full", "VAE tiling", "VAE tiling"]
    assert len(steps) == 4
    (tiled,) = draw(on_rung(renderer, TILED), wanted)
    assert difference(image, tiled) == 0 < difference(image, plain)
    with failing("VAE", 1, FULL_CARD):  # its tiles would not continue at the opposite edge
        (image,) = draw(card(Renderer(models.options)), seamless)
    assert difference(image, draw(Renderer(models.options), seamless)[0]) <= 1


def test_what_was_drawn_stays_when_a_later_pass_runs_out_of_memory(models: Models) -> None:
    """It is tried again in smaller tiles, then alone on the device; else its model is named."""
    later = {"upscale": {"model": DEMO_UPSCALER, "scale": 2}, "cutout": EMBEDDED["cutout"][0]}
    wanted = models.request({**SMALL, "steps": 3, **later})
    renderer = card(Renderer(models.options))
    (plain,) = draw(renderer, wanted)
    for where, times in (("upscaler", 2), ("cutout", 1)):
        with failing("denoiser", 0, FULL_CARD) as steps, failing(where, times, FULL_CARD):
            (image,) = draw(renderer, wanted)
        assert len(steps) == 3 and image.memory_rung == "full"
        assert difference(image, plain) <= 2
    with failing("upscaler", 99, FULL_CARD), pytest.raises(RenderFailed, match=DEMO_UPSCALER):
        draw(renderer, wanted)


@pytest.mark.parametrize(("times", "upscaler"), [(3, "Latent"), (2, DEMO_UPSCALER)])
def test_the_first_run_stays_when_the_second_runs_out_of_memory(
    models: Models, times: int, upscaler: str
) -> None:
    """Only hires is drawn again, on the next rungs; its upscaler works once."""
    is_model = upscaler == DEMO_UPSCALER
    hires = {"scale": 2, "steps": 2, "denoising_strength": 0.9, "upscaler": upscaler}
    wanted = models.request({**SMALL, "steps": 3, "hires": hires})
    told: list[Progress] = []
    renderer, sides = card(Renderer(models.options)), list[int]()
    (plain,) = draw(renderer, wanted)
    failures = iter([FULL_CARD] * times)

    def fail_if_large(_: object, latents: torch.Tensor, *__: Any, **___: Any) -> None:
        sides.append(latents.shape[-1] * 8)
        if sides[-1] == 128 and (failure := next(failures, None)):
            raise failure

    with pytest.MonkeyPatch.context() as patched:
        forward = "diffusers:UNet2DConditionModel.forward"
        wrap(forward, preceded_by(fail_if_large), patched.setattr)
        (image,) = renderer.render([wanted], told.append)
    assert sides.count(64) == 3
    assert told.count(Progress("enlarge", 1, 1)) == is_model
    rung = CARD[times - is_model]  # before a rung does, the upscaler goes
    assert image.memory_rung == rung and difference(image, plain) <= 2


@pytest.mark.parametrize(
    ("size", "hires", "most", "drawn"),
    [
        ((640, 512), None, 480, (480, 384)),
        # The first run stays as it was requested.
        ((448, 448), Hires(1.5, steps=1, denoising_strength=0.9), 520, (504, 504)),
    ],
)
def test_shrink_to_fit_renders_it_smaller_and_says_so(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    hires: Hires | None,
    most: int,
    drawn: tuple[int, int],
) -> None:
    """The real size is the picture's; only hires becomes smaller if only that is too large."""
    sides: list[int] = []

    def forward(self: Any, latents: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        sides.append(latents.shape[-1] * 8)
        if sides[-1] > most:
            raise FULL_CARD
        return (torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)),)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", forward)
    wanted = request(width=size[0], height=size[1], steps=1, hires=hires, shrink_to_fit=True)
    (image,) = draw(card(Renderer(models.options), "low"), wanted)
    assert (image.width, image.height) == drawn
    assert sides[-1] == drawn[0] and sides.count(448) == (hires is not None)
    assert f"at {drawn[0]}x{drawn[1]} instead of" in image.warnings[0]


def test_a_batch_that_becomes_smaller_is_decoded_anew(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the images that were decoded before memory ran out for those with longer prompts."""
    sides: list[int] = []

    def forward(_: Any, latents: torch.Tensor, *__: Any, **___: Any) -> tuple[torch.Tensor]:
        return (latents,)

    def fail_if_large(_: Any, latents: torch.Tensor, *__: Any, **___: Any) -> None:
        sides.append(latents.shape[-1] * 8)
        if sides[-1] == 400 and len(sides) > 1:
            raise FULL_CARD

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", forward)
    wrap("diffusers:AutoencoderKL.decode", preceded_by(fail_if_large), monkeypatch.setattr)
    size: dict[str, Any] = {"width": 400, "height": 400, "steps": 1, "shrink_to_fit": True}
    batch = [request("red " * words, **size) for words in (1, 90)]
    made = draw(card(Renderer(models.options), "low"), *batch)
    assert [(image.width, len(image.warnings)) for image in made] == [(384, 1)] * 2
    assert sides[-2:] == [384] * 2


def test_hires_becomes_smaller_in_sides_that_the_family_takes() -> None:
    """FLUX.1 would draw 464x672 instead of 464x680, and the picture would fail."""
    models, left = flow_models("FLUX.1-dev"), 2  # with model and group offload
    text = "prompt: red\nsize: 416x608\nsteps: 1\nhires: {scale: 1.5, denoising_strength: 0.5}"
    (wanted,) = requests_of(models, "FLUX.1-dev", f"{text}\nshrink_to_fit: true")

    def fail_on_every_rung(now: Progress) -> None:
        nonlocal left
        if now.kind == "hires" and left:
            left -= 1
            raise FULL_CARD

    (image,) = card(flow_renderer(models), "low").render([wanted], fail_on_every_rung)
    assert (image.memory_rung, image.width, image.height) == ("smaller picture", 464, 672)


def test_an_edit_that_is_too_large_is_drawn_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference is read again in the smaller size."""
    models, tokens = flow_models("FLUX.2-klein"), list[int]()
    Image.effect_noise((512, 512), 50).convert("RGB").save(models / "large.png")
    text = "prompt: red\nreferences: large.png\nsize: 512x512\nsteps: 1\nshrink_to_fit: true"
    (wanted,) = requests_of(models, "FLUX.2-klein", text)

    def fail_if_large(*_: Any, hidden_states: torch.Tensor, **__: Any) -> None:
        tokens.append(hidden_states.shape[1])
        if tokens[-1] > 1500:  # two pictures of 512x512 have 2048
            raise FULL_CARD

    forward = "diffusers:Flux2Transformer2DModel.forward"
    wrap(forward, preceded_by(fail_if_large), monkeypatch.setattr)
    (image,) = draw(card(flow_renderer(models), "low"), wanted)
    assert (image.width, image.height) == (384, 384) and tokens[-1] == 2 * 576


def test_a_network_that_helps_to_draw_leaves_the_checkpoint_where_it_is(models: Models) -> None:
    """However little memory is free: it is in use, and the next batch needs it, too."""
    hires = {"scale": 2, "steps": 1, "denoising_strength": 0.5, "upscaler": DEMO_UPSCALER}
    wanted = models.request({**SMALL, "hires": hires})
    renderer = Renderer(models.options)
    renderer._kept._free = lambda: (0, 0)
    with reads() as found:
        for seed in (1, 2):
            draw(renderer, replace(wanted, seed=seed))
    assert sorted(part for part, _ in found) == ["text_encoder", "unet", "vae"]


def test_what_is_used_by_turns_is_read_once(models: Models) -> None:
    """Sets of LoRAs, networks and encoded texts are kept while memory has room."""
    renderer, folder = Renderer(models.options), models.options.models
    kinds: tuple[Kind, ...] = ("upscaler", "cutout", "segmentation")
    with (
        patch.object(loras, "read_lora", wraps=lora_files.read_lora) as files,
        patch.object(kept_models, "read_network", wraps=kept_models.read_network) as read,
        patch.object(TextTower, "encoded", autospec=True, side_effect=TextTower.encoded) as texts,
    ):
        for number in range(4):
            used = {"both": 0.7} if number % 2 else {"both": 0.6, "with-kernels": 0.5}
            draw(renderer, models.request({"loras": used, **SMALL, "seed": number}))
        for kind in kinds * 3:
            name = EMBEDDED[kind][0]
            sha256 = hash_of(folder, kind, name)
            renderer._networks.use(kind, name, sha256, lambda network, _: network)
    assert sorted(call.args[0] for call in files.mock_calls) == ["both", "with-kernels"]
    assert texts.call_count == 2 * 2
    names = sorted(call.args[3] for call in read.mock_calls)
    assert names == sorted(EMBEDDED[kind][0] for kind in kinds)


def test_other_checkpoints_go_before_a_rung_does(models: Models) -> None:
    renderer = card(Renderer(models.options))
    other, wanted = models.request({"checkpoint": "tiny-sdxl", **SMALL}), request(**SMALL)
    draw(renderer, other)
    with failing("denoiser", 1, FULL_CARD):
        (image,) = draw(renderer, wanted)
    assert image.memory_rung == "full"
    assert renderer._checkpoints.held(other, "device") is None
    assert renderer._checkpoints.held(wanted, "device") is not None


def test_a_finder_is_on_a_card_only_beside_what_a_batch_takes_there() -> None:
    """In main memory it always has room: there is no other."""
    taken = weights(encoder=1, denoiser=5)
    for card, beside, has_room in ((None, 99, True), (10, 2, True), (10, 4, False), (7, 2, False)):
        ladder = MemoryLadder("auto", partial(Room, GIGABYTE, card and card * GIGABYTE))
        assert ladder.leaves_room(FULL, request(), taken, 1, beside * GIGABYTE) == has_room, card
