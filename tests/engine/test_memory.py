"""The memory ladder: the rungs that a batch tries, and behaviour when memory runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

from picowatch.engine import checkpoints
from picowatch.engine.memory import CUDA_LADDER, MODELS, TILED, MemoryLadder, Weights, shrunken
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine.reference.models import Models
from tests.engine.requests import difference, draw, request

GIGABYTE = 2**30
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2}
# Of Z-Image in bfloat16 and of SDXL in float16.
Z_IMAGE = Weights(8 * GIGABYTE, 12 * GIGABYTE, GIGABYTE // 6, takes_turns=True)
SDXL = Weights(int(1.5 * GIGABYTE), 5 * GIGABYTE, GIGABYTE // 6)
SMALL_ONE = Weights(GIGABYTE // 4, GIGABYTE, GIGABYTE // 6)


CARD = ["full", "VAE tiling", "model offload", "group offload"]
COMPUTER = ["full", "VAE tiling"]
TURNING = [*COMPUTER, "text encoders in turn"]


def names(
    ladder: MemoryLadder, one: ImageRequest, weights: Weights = SMALL_ONE, main: float = 64
) -> list[str]:
    """The rungs that an image may try, with so many gigabytes of main memory."""
    return [rung.name for rung in ladder.rungs(one, weights, int(main * GIGABYTE))]


def cuda(gigabytes: float = 24, setting: Any = "auto") -> MemoryLadder:
    """Return the ladder of a GPU."""
    return MemoryLadder(setting, int(gigabytes * GIGABYTE))


@pytest.mark.parametrize(
    ("setting", "weights", "gigabytes", "order", "first"),
    [
        ("auto", Z_IMAGE, 24, CARD, "full"),
        ("auto", Z_IMAGE, 16, CARD, "model offload"),
        ("auto", Z_IMAGE, 12, CARD, "group offload"),
        ("auto", Z_IMAGE, 4, CARD, "group offload"),
        ("auto", SDXL, 8, CARD, "full"),
        ("auto", SDXL, 6.5, CARD, "model offload"),
        ("auto", SDXL, 4, CARD, "group offload"),
        ("auto", SMALL_ONE, 4, CARD, "full"),
        ("full", Z_IMAGE, 4, CARD, "full"),
        ("low", SMALL_ONE, 24, CARD, "model offload"),
        ("auto", Z_IMAGE, 32, TURNING, "full"),
        ("auto", Z_IMAGE, 20, TURNING, "text encoders in turn"),
        ("auto", Z_IMAGE, 8, TURNING, "text encoders in turn"),
        ("auto", replace(SMALL_ONE, takes_turns=True), 2, TURNING, "full"),
        ("full", Z_IMAGE, 8, TURNING, "full"),
        ("low", Z_IMAGE, 64, TURNING, "text encoders in turn"),
        ("auto", SDXL, 4, COMPUTER, "full"),
        ("low", SDXL, 64, COMPUTER, "VAE tiling"),
    ],
)
def test_a_batch_begins_where_the_weights_fit(
    setting: Any, weights: Weights, gigabytes: float, order: list[str], first: str
) -> None:
    """All rungs below follow; the other settings are obeyed exactly.

    Main memory is never tried out: when it runs out, the kernel kills the process.
    """
    found = (
        names(cuda(gigabytes, setting), request(), weights)
        if order is CARD
        else names(MemoryLadder(setting, None), request(), weights, gigabytes)
    )
    assert found == order[order.index(first) :]


def test_the_rung_that_worked_is_where_the_next_image_begins() -> None:
    """Only for the same checkpoint and size; others begin at the top."""
    ladder = cuda()
    ladder.worked(request(), MODELS)
    assert names(ladder, request(seed=9)) == ["model offload", "group offload"]
    assert names(ladder, request(width=64))[0] == "full"
    assert names(ladder, request(checkpoint_hash="1"))[0] == "full"
    ladder.worked(request(), TILED)
    assert names(ladder, request())[0] == "VAE tiling"


def test_after_some_batches_the_rung_above_is_tried_again() -> None:
    """Another program may have freed memory; until then it is retried once in a while.

    Nobody climbs above the setting, or tries a computer's memory.
    """
    ladder, one = cuda(), request()

    def batches_until_it_climbs() -> int:
        done = 0
        while names(ladder, one)[0] == MODELS.name:
            ladder.worked(one, MODELS)
            done += 1
        assert names(ladder, one)[:2] == [TILED.name, MODELS.name]
        return done

    ladder.worked(one, MODELS)
    first = batches_until_it_climbs()
    ladder.worked(one, MODELS)  # it was still too much
    assert batches_until_it_climbs() == first > 10
    ladder.worked(one, TILED)
    assert names(ladder, one)[0] == TILED.name
    for ladder, rung in ((cuda(setting="low"), MODELS), (MemoryLadder("auto", None), TILED)):
        for _ in range(100):
            ladder.worked(one, rung)
            assert names(ladder, one)[0] == rung.name


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
    rungs = list(ladder.rungs(wanted, SMALL_ONE, GIGABYTE))
    smaller = [shrunken(wanted, rung.shrunk) for rung in rungs if rung.shrunk]
    assert [(one.width, one.height) for one in smaller] == made
    last = [(rung.name, rung.place) for rung in rungs[len(CARD) :]]
    assert last == [("smaller picture", "layers")] * len(made)
    ladder.worked(wanted, rungs[-2])
    assert list(ladder.rungs(wanted, SMALL_ONE, GIGABYTE)) == rungs[-2:]
    assert names(cuda(), replace(wanted, shrink_to_fit=False)) == CARD


def card(renderer: Renderer) -> Renderer:
    """The renderer, with a card's ladder on the CPU, where all of its rungs work, too."""
    renderer._ladder = cuda()
    return renderer


@contextmanager
def failing(where: str, times: int, error: Exception) -> Iterator[list[int]]:
    """Let a function fail so many times, and count its calls."""
    calls: list[int] = []
    owner: Any
    owner, name = {
        "denoiser": (diffusers.UNet2DConditionModel, "forward"),
        "VAE": (diffusers.AutoencoderKL, "decode"),
        "loader": (checkpoints, "load_part"),
    }[where]
    real: Callable[..., Any] = getattr(owner, name)

    def fails(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return real(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fails)
        yield calls


FULL_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


@pytest.mark.parametrize("where", ["denoiser", "VAE", "loader"])
def test_the_next_rungs_are_tried_when_memory_runs_out(models: Models, where: str) -> None:
    """The one that was enough is remembered; when none is, it says so, and the next batch works."""
    wanted = request(**SMALL)
    (plain,) = draw(Renderer(models.options), wanted)
    for times, rung in enumerate(CUDA_LADDER):
        renderer = card(Renderer(models.options))
        with failing(where, times, FULL_CARD):
            (image,) = draw(renderer, wanted)
            (again,) = draw(renderer, replace(wanted, seed=9))
        assert image.memory_rung == again.memory_rung == rung.name
        assert difference(image, plain) <= 1
    renderer = card(Renderer(models.options))
    with (
        failing(where, 99, FULL_CARD),
        pytest.raises(RenderFailed, match="not have enough memory") as at,
    ):
        draw(renderer, wanted)
    assert at.value.remedy.endswith("or shrink_to_fit: true.")
    (after,) = draw(renderer, wanted)
    assert (after.memory_rung, after.pixels) == ("full", plain.pixels)


def test_other_checkpoints_go_before_a_rung_does(models: Models) -> None:
    """The same rung is tried again without them."""
    renderer = card(Renderer(models.options))
    other, wanted = models.request({"checkpoint": "tiny-sdxl", **SMALL}), request(**SMALL)
    draw(renderer, other)
    with failing("denoiser", 1, FULL_CARD):
        (image,) = draw(renderer, wanted)
    assert image.memory_rung == "full"
    assert renderer._checkpoints.held(other, "device") is None
    assert renderer._checkpoints.held(wanted, "device") is not None


def test_what_is_no_lack_of_memory_is_not_tried_again(models: Models) -> None:
    """The batch fails at once, on the first rung."""
    renderer = card(Renderer(models.options))
    with failing("denoiser", 99, RuntimeError("a fault")) as calls, pytest.raises(RuntimeError):
        draw(renderer, request(**SMALL))
    assert len(calls) == 1


def test_shrink_to_fit_renders_it_smaller_and_says_so(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real size is the picture's."""

    def forward(self: Any, latents: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        if latents[0].numel() > 4 * 60 * 48:
            raise FULL_CARD
        return (torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)),)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", forward)
    wanted = request(width=640, height=512, shrink_to_fit=True)
    (image,) = draw(card(Renderer(models.options)), wanted)
    assert (image.width, image.height) == (480, 384)
    assert image.memory_rung == "smaller picture"
    assert "at 480x384 instead of 640x512" in image.warnings[0]
