"""The goals for an H200, and what the parts of ten minutes on a card found of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MET, MISSED, NOT_MEASURED, NO_CARD = "met", "missed", "not measured", "no card"
SHORT_OF_MEMORY = "failed: "  # what pictures say that fit on no level


class Row(NamedTuple):
    """A goal, what was measured of it, and whether it was met."""

    goal: str
    measured: str
    reached: str


def rows(out: Path, *, on_card: bool) -> list[Row]:
    """Each goal, from the files that the parts wrote. A processor's figures meet none."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    return [_row(goal, find(found), bound, on_card) for goal, find, bound in _GOALS]


def _row(goal: str, value: Any, bound: Callable[[Any], bool], on_card: bool) -> Row:
    if value is None:
        return Row(goal, "", NOT_MEASURED)
    told = f"{value:.3g}" if isinstance(value, float) else str(value)
    return Row(goal, told, (MET if bound(value) else MISSED) if on_card else NO_CARD)


def _at(found: Any, *names: str) -> Any:
    """What is there under these names; None where a part did not come so far, or failed."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _number(found: Any, *names: str) -> float | None:
    value = _at(found, *names)
    return float(value) if isinstance(value, int | float) else None


def _steps(found: Any, batch: int) -> float | None:
    """Steps a second of the UNet that picowatch would choose: the fastest."""
    kinds = (("ours", "eager", f"{batch}"), ("ours", "graph", f"{batch}"), ("compiled", f"{batch}"))
    rates = [_number(found, "unet", *kind, "steps a second") for kind in kinds]
    return max((rate for rate in rates if rate is not None), default=None)


def _gain(found: Any, batch: int) -> float | None:
    """How many times as fast as diffusers' UNet as it is."""
    ours = _steps(found, batch)
    theirs = _number(found, "unet", "eager NCHW", f"{batch}", "steps a second")
    return ours / theirs if ours and theirs else None


def _small_card(found: Any) -> str | None:
    """The memory-saving levels that a card of 4 GB took."""
    levels = _at(found, "pictures", "4 GB")
    return ", ".join(f"{name}: {level}" for name, level in levels.items()) if levels else None


_Goal = tuple[str, Callable[[Any], Any], Callable[[Any], bool]]
# Of Stable Diffusion 1.5 at 512x512 in float16.
_GOALS: tuple[_Goal, ...] = (
    ("steps a second at batch 1: 100", lambda found: _steps(found, 1), lambda x: x >= 100),
    ("times diffusers' steps at batch 1: 2", lambda found: _gain(found, 1), lambda x: x >= 2),
    ("times diffusers' steps at batch 16: 1.5", lambda found: _gain(found, 16), lambda x: x >= 1.5),
    (
        "pictures a second of 24 steps: 8",
        lambda found: _number(found, "pictures", "8", "images a second"),
        lambda x: x >= 8,
    ),
    (
        "GB at batch 1, at most: 3.5",
        lambda found: _number(found, "pictures", "1", "peak GB"),
        lambda x: x <= 3.5,
    ),
    ("pictures in 4 GB: all", _small_card, lambda levels: SHORT_OF_MEMORY not in levels),
)
