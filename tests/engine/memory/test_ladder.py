"""The memory ladder: which rungs, in which order, and what is remembered."""

from itertools import pairwise

import pytest

from picowatch.engine.memory.ladder import (
    CPU_LADDER,
    LADDER,
    MemoryLadder,
    Rung,
    shrink_warning,
    shrunken,
)
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import request

NAMES = [
    "full",
    "smaller batch",
    "VAE tiling",
    "attention slicing",
    "model offload",
    "sequential offload",
]


def names(ladder: MemoryLadder, *batch: ImageRequest) -> list[str]:
    return [rung.name for rung in ladder.rungs(batch)]


def test_the_rungs_come_in_order_and_each_once() -> None:
    """A batch of one cannot get smaller."""
    ladder = MemoryLadder("auto", LADDER, None)
    assert names(ladder, request(), request(seed=2)) == NAMES
    assert names(ladder, request()) == [NAMES[0], *NAMES[2:]]


def test_each_rung_keeps_what_the_ones_before_it_save() -> None:
    """Otherwise a rung could need more memory than the one above it."""
    for before, after in pairwise(LADDER):
        for saving in ("alone", "tiled", "sliced"):
            assert getattr(after, saving) >= getattr(before, saving)
    assert [rung.offload for rung in LADDER] == ["", "", "", "", "model", "sequential"]


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
    ladder = MemoryLadder(setting, LADDER, gpu_bytes)  # type: ignore[arg-type]
    assert names(ladder, request())[0] == first


def test_a_cpu_has_no_other_memory_to_offload_to() -> None:
    """Its weights are in the computer's memory already."""
    assert names(MemoryLadder("auto", CPU_LADDER, None), request())[-1] == "attention slicing"
    assert names(MemoryLadder("low", CPU_LADDER, None), request()) == ["attention slicing"]


def test_the_rung_that_worked_is_where_the_next_image_begins() -> None:
    """Of the same checkpoint and size; others begin at the top."""
    ladder = MemoryLadder("auto", LADDER, None)
    ladder.worked([request()], LADDER[3])
    assert names(ladder, request(seed=9)) == NAMES[3:]
    assert names(ladder, request(width=64))[0] == "full"
    assert names(ladder, request(checkpoint_hash="1"))[0] == "full"
    ladder.worked([request()], LADDER[1])
    assert names(ladder, request()) == NAMES[1:]


def test_smaller_pictures_come_last_and_only_on_request() -> None:
    """Down to 384 pixels and 25 steps, and no further."""
    ladder = MemoryLadder("auto", LADDER, None)
    large = request(width=1024, height=768, steps=50, shrink_to_fit=True)
    rungs = list(ladder.rungs([large]))
    made = [shrunken(large, rung.shrunk) for rung in rungs if rung.shrunk]
    sizes = [(one.width, one.height, one.steps) for one in made]
    assert sizes == [(768, 576, 37), (576, 416, 28), (512, 384, 25)]
    assert [rung.name for rung in rungs][-3:] == ["smaller picture"] * 3
    assert all(rung.offload == "sequential" for rung in rungs[-3:])


def test_a_shrink_that_worked_is_remembered() -> None:
    """And goes on from there."""
    ladder = MemoryLadder("auto", LADDER, None)
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
    assert [rung for rung in MemoryLadder("auto", LADDER, None).rungs([small]) if rung.shrunk] == []


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
