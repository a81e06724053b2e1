"""The memory ladder: which rungs, in which order, and what is remembered."""

from dataclasses import replace
from itertools import pairwise

import pytest

from picowatch.engine.memory import (
    FLOW_LADDER,
    LADDER,
    LADDERS,
    SHARED_LADDER,
    MemoryLadder,
    Rung,
    Weights,
    shrink_warning,
    shrunken,
)
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import request

CUDA, CPU = LADDERS["cuda"], LADDERS["cpu"]
GIGABYTE = 2**30
NAMES = [
    "full",
    "smaller batch",
    "VAE tiling",
    "model offload",
    "sequential offload",
]
SHARED_NAMES = [*NAMES[:3], "attention slicing"]


FLOW_NAMES = [
    "full",
    "smaller batch",
    "VAE tiling",
    "text encoders offloaded",
    "model offload",
    "text encoders by layer",
    "group offload",
    "fp8 weights",
]
# Of Z-Image in bfloat16, reckoned from its configs.
Z_IMAGE = Weights(8 * GIGABYTE, 12 * GIGABYTE, GIGABYTE // 6, flow=True)
Z_IMAGE_Q4 = replace(Z_IMAGE, denoiser=4 * GIGABYTE, quantised=True)
SDXL = Weights(int(1.5 * GIGABYTE), 5 * GIGABYTE, GIGABYTE // 6)


def names(ladder: MemoryLadder, *batch: ImageRequest, weights: Weights | None = None) -> list[str]:
    return [rung.name for rung in ladder.rungs(batch, weights or Weights())]


def test_flow_families_have_rungs_of_their_own() -> None:
    """Attention is not sliced for them, and 8-bit weights come last and never for exact images."""
    ladder = MemoryLadder("auto", CUDA, None)
    flow = Weights(flow=True)
    assert names(ladder, request(), request(seed=2), weights=flow) == FLOW_NAMES
    exact = request(exact=True)
    assert names(ladder, exact, weights=flow)[-1] == "group offload"
    ladder.worked([request()], FLOW_LADDER[-1])
    assert names(ladder, request(), weights=flow) == ["fp8 weights"]
    assert names(ladder, exact, weights=flow) == ["group offload"]
    (*_, smallest) = ladder.rungs([request(width=1024, height=1024, shrink_to_fit=True)], flow)
    assert smallest.cast and smallest.shrunk


@pytest.mark.parametrize(
    ("weights", "gigabytes", "first"),
    [
        (Z_IMAGE, 32, "full"),
        (Z_IMAGE, 24, "full"),
        (Z_IMAGE, 16, "model offload"),
        (Z_IMAGE, 12, "group offload"),
        (Z_IMAGE, 4, "group offload"),
        (Z_IMAGE_Q4, 8, "text encoders by layer"),
        (Z_IMAGE_Q4, 12, "model offload"),
        (Z_IMAGE_Q4, 4, "group offload"),
        (SDXL, 8, "full"),
        (SDXL, 6, "model offload"),
        (SDXL, 4, "sequential offload"),
        (Weights(), 4, "VAE tiling"),
    ],
)
def test_what_cannot_fit_is_not_tried(weights: Weights, gigabytes: int, first: str) -> None:
    """With `memory: auto`; the other settings are taken at their word."""
    total = gigabytes * GIGABYTE
    one = request()
    assert names(MemoryLadder("auto", CUDA, total), one, weights=weights)[0] == first
    assert names(MemoryLadder("full", CUDA, total), one, weights=weights)[0] == "full"
    assert names(MemoryLadder("low", CUDA, total), one, weights=weights)[0] == "model offload"


@pytest.mark.parametrize(
    ("weights", "gigabytes", "first"),
    [
        (Z_IMAGE, 32, "full"),
        (Z_IMAGE, 20, "text encoders unloaded"),
        (Z_IMAGE, 14, "fp8 weights"),
        (Z_IMAGE, 8, "fp8 weights"),
        (Weights(GIGABYTE, GIGABYTE, flow=True), 4, "full"),
        (SDXL, 4, "full"),
    ],
)
def test_main_memory_is_never_tried_out(weights: Weights, gigabytes: int, first: str) -> None:
    """Nobody says that it ran out: the kernel ends the process."""
    room = gigabytes * GIGABYTE
    ladder = MemoryLadder("auto", CPU, None)
    assert next(ladder.rungs([request()], weights, room)).name == first
    exact = next(ladder.rungs([request(exact=True)], weights, room)).name
    assert exact == ("text encoders unloaded" if first == "fp8 weights" else first)
    ladder = MemoryLadder("full", CPU, None)
    assert next(ladder.rungs([request()], weights, room)).name == "full"


def test_the_rungs_come_in_order_and_each_once() -> None:
    """A batch of one cannot get smaller."""
    ladder = MemoryLadder("auto", CUDA, None)
    assert names(ladder, request(), request(seed=2)) == NAMES
    assert names(ladder, request()) == [NAMES[0], *NAMES[2:]]


def test_each_rung_keeps_what_the_ones_before_it_save() -> None:
    """Otherwise a rung could need more memory than the one above it."""
    for ladder in (LADDER, SHARED_LADDER, FLOW_LADDER):
        for before, after in pairwise(ladder):
            for saving in ("alone", "tiled", "sliced", "cast"):
                assert getattr(after, saving) >= getattr(before, saving)
    assert [rung.offload for rung in LADDER] == ["", "", "", "model", "sequential"]
    assert not any(rung.sliced for rung in LADDER), "CUDA's attention holds no score matrix"


@pytest.mark.parametrize(
    ("setting", "gpu_bytes", "first"),
    [
        ("auto", None, "full"),
        ("auto", 24 * 2**30, "full"),
        ("auto", 4 * 2**30, "VAE tiling"),
        ("full", 4 * 2**30, "full"),
        ("low", 24 * 2**30, "model offload"),
    ],
)
def test_the_setting_decides_where_it_begins(
    setting: str, gpu_bytes: int | None, first: str
) -> None:
    """And small GPUs begin lower by themselves."""
    ladder = MemoryLadder(setting, CUDA, gpu_bytes)  # type: ignore[arg-type]
    assert names(ladder, request())[0] == first


def test_a_cpu_has_no_other_memory_to_offload_to() -> None:
    """Its weights are in the computer's memory already."""
    for kind in ("cpu", "mps"):
        shared = MemoryLadder("auto", LADDERS[kind], None)
        assert names(shared, request(), request()) == SHARED_NAMES
    assert names(MemoryLadder("low", CPU, None), request()) == ["attention slicing"]
    low = names(MemoryLadder("low", CPU, None), request(), weights=Weights(flow=True))
    assert low == ["text encoders unloaded", "fp8 weights"]
    apple = names(MemoryLadder("auto", LADDERS["mps"], None), request(), weights=Z_IMAGE)
    assert apple[-1] == "text encoders unloaded"


def test_the_rung_that_worked_is_where_the_next_image_begins() -> None:
    """Of the same checkpoint and size; others begin at the top."""
    ladder = MemoryLadder("auto", CUDA, None)
    ladder.worked([request()], LADDER[3])
    assert names(ladder, request(seed=9)) == NAMES[3:]
    assert names(ladder, request(width=64))[0] == "full"
    assert names(ladder, request(checkpoint_hash="1"))[0] == "full"
    ladder.worked([request()], LADDER[1])
    assert names(ladder, request()) == NAMES[1:]


def test_after_some_batches_the_rung_above_is_tried_again() -> None:
    """Another program may have given memory back; each vain try doubles the wait."""
    ladder = MemoryLadder("auto", CUDA, 24 * GIGABYTE)
    one = request()
    tiled, model = LADDER[2], LADDER[3]

    def batches_until_it_climbs() -> int:
        done = 0
        while names(ladder, one)[0] == model.name:
            ladder.worked([one], model)
            done += 1
        assert names(ladder, one)[:2] == [tiled.name, model.name]
        return done

    ladder.worked([one], model)
    first = batches_until_it_climbs()
    ladder.worked([one], model)  # it was still too much
    assert batches_until_it_climbs() == 2 * first
    ladder.worked([one], tiled)
    assert names(ladder, one)[0] == tiled.name


def test_nobody_climbs_above_the_setting_or_tries_a_computers_memory() -> None:
    """`memory: low` stays low; a process that takes too much memory is killed by the kernel."""
    for ladder, rung in (
        (MemoryLadder("low", CUDA, 24 * GIGABYTE), LADDER[3]),
        (MemoryLadder("auto", CPU, None), SHARED_LADDER[2]),
    ):
        for _ in range(100):
            ladder.worked([request()], rung)
            assert names(ladder, request())[0] == rung.name


def test_smaller_pictures_come_last_and_only_on_request() -> None:
    """Down to 384 pixels and 25 steps, and no further."""
    ladder = MemoryLadder("auto", CUDA, None)
    large = request(width=1024, height=768, steps=50, shrink_to_fit=True)
    rungs = list(ladder.rungs([large]))
    made = [shrunken(large, rung.shrunk) for rung in rungs if rung.shrunk]
    sizes = [(one.width, one.height, one.steps) for one in made]
    assert sizes == [(768, 576, 37), (576, 416, 28), (512, 384, 25)]
    assert [rung.name for rung in rungs][-3:] == ["smaller picture"] * 3
    assert all(rung.offload == "sequential" for rung in rungs[-3:])


def test_a_shrink_that_worked_is_remembered() -> None:
    """And goes on from there."""
    ladder = MemoryLadder("auto", CUDA, None)
    large = request(width=1024, height=768, steps=50, shrink_to_fit=True)
    rungs = list(ladder.rungs([large]))
    ladder.worked([large], rungs[-2])
    assert list(ladder.rungs([large])) == rungs[-2:]


def test_smaller_sides_suit_every_family() -> None:
    """Some take multiples of 16 or 32 only; a size that is not reduced stays as it is."""
    odd = request(width=1000, height=1336, steps=50)
    for times in range(1, 6):
        smaller = shrunken(odd, times)
        assert not smaller.width % 32 and not smaller.height % 32
        assert min(smaller.width, smaller.height) >= 384
    few = shrunken(request(width=328, height=408, steps=50), 1)
    assert (few.width, few.height, few.steps) == (328, 408, 37)


@pytest.mark.parametrize(
    ("width", "height", "steps"), [(384, 512, 25), (128, 128, 6), (384, 384, 10)]
)
def test_what_is_small_already_stays(width: int, height: int, steps: int) -> None:
    """The demo's 128 pixels would become useless."""
    small = request(width=width, height=height, steps=steps, shrink_to_fit=True)
    assert [rung for rung in MemoryLadder("auto", CUDA, None).rungs([small]) if rung.shrunk] == []


def test_a_warning_says_what_was_shrunk() -> None:
    """With both sizes and steps."""
    large = request(width=1024, height=768, steps=50)
    assert shrink_warning(large, large) == ()
    (warning,) = shrink_warning(large, shrunken(large, 1))
    assert "at 768x576 with 37 steps instead of 1024x768 with 50" in warning


def test_rungs_are_values() -> None:
    """One is chosen for a whole batch."""
    assert Rung() == LADDER[0]
    assert len(set(LADDER)) == len(LADDER)
