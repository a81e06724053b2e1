"""Recognises cutout networks, U²-Net and IS-Net, by the names and shapes in headers.

From their authors' code, https://github.com/xuebinqin/U-2-Net (model/u2net.py) and
https://github.com/xuebinqin/DIS (IS-Net/models/isnet.py). Both have six stages down and five up,
each a small U-Net; IS-Net has a convolution before them that halves the picture.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

U2NET, ISNET = "U²-Net", "IS-Net"
# The number of layers on the way down in each stage; those with FLAT keep the size.
FLAT = 4
DEPTHS = {
    "stage1": 7, "stage2": 6, "stage3": 5, "stage4": 4, "stage5": FLAT, "stage6": FLAT,
    "stage5d": FLAT, "stage4d": 4, "stage3d": 5, "stage2d": 6, "stage1d": 7,
}  # fmt: skip
IS_FLAT = {"stage5", "stage6", "stage5d"}
LEVELS = 6
_COLOURS = 3
COUNTED = ".num_batches_tracked"  # missing in files from before PyTorch 0.4.1
WRAPPED = "net."  # of training programs, before all names
Shapes = Mapping[str, tuple[int, ...]]


class Widths(NamedTuple):
    """The channels of a stage: in, inside, and out."""

    takes: int
    inside: int
    gives: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A network as its shapes tell it; `stem` are the channels before the stages, 0 for none."""

    stem: int
    stages: Mapping[str, Widths]

    @property
    def architecture(self) -> str:
        return ISNET if self.stem else U2NET

    @property
    def sides(self) -> list[str]:
        """The stages whose features become masks, the finest first."""
        return [*(f"stage{number}d" for number in range(1, LEVELS)), f"stage{LEVELS}"]


def layout_of(shapes: Shapes) -> Layout | None:
    """Return the network that has exactly these weights; None for any other."""
    shapes = {name.removeprefix(WRAPPED): shape for name, shape in shapes.items()}
    stages: dict[str, Widths] = {}
    try:
        stem = shapes["conv_in.weight"][0] if "conv_in.weight" in shapes else 0
        takes = stem or _COLOURS
        for stage in DEPTHS:
            if stage.endswith("d"):
                number = int(stage[5])
                below = f"stage{number + 1}d" if number + 1 < LEVELS else f"stage{LEVELS}"
                takes = stages[below].gives + stages[f"stage{number}"].gives
            first, second = (f"{stage}.rebnconv{own}.conv_s1.weight" for own in ("in", "1"))
            stages[stage] = Widths(takes, inside=shapes[second][0], gives=shapes[first][0])
            takes = stages[stage].gives
    except LookupError:
        return None
    layout = Layout(stem, stages)
    there = {name: shape for name, shape in shapes.items() if not name.endswith(COUNTED)}
    return layout if there == dict(tensors_of(layout)) else None


def layers_of(stage: str, widths: Widths) -> Iterator[tuple[str, int, int, int]]:
    """Yield the layers of a stage in order: name, channels in and out, and dilation."""
    depth, flat = DEPTHS[stage], stage in IS_FLAT
    takes, inside, gives = widths
    yield "rebnconvin", takes, gives, 1
    for number in range(1, depth + 1):
        wide = 2 ** (number - 1) if flat else 1 + (number == depth)
        yield f"rebnconv{number}", gives if number == 1 else inside, inside, wide
    for number in range(depth - 1, 0, -1):
        wide = 2 ** (number - 1) if flat else 1
        yield f"rebnconv{number}d", 2 * inside, gives if number == 1 else inside, wide


def tensors_of(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield all tensors of a network and their shapes."""
    if layout.stem:
        yield from _convolution("conv_in", _COLOURS, layout.stem)
    for stage, widths in layout.stages.items():
        for name, takes, gives, _ in layers_of(stage, widths):
            yield from _convolution(f"{stage}.{name}.conv_s1", takes, gives)
            for part in ("weight", "bias", "running_mean", "running_var"):
                yield f"{stage}.{name}.bn_s1.{part}", (gives,)
    for number, stage in enumerate(layout.sides, 1):
        yield from _convolution(f"side{number}", layout.stages[stage].gives, 1)
    if not layout.stem:
        yield from _convolution("outconv", LEVELS, 1, 1)


def _convolution(
    name: str, takes: int, gives: int, side: int = 3
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (gives, takes, side, side)
    yield f"{name}.bias", (gives,)
