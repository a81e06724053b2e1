"""What simulated users save: recipes and pictures as plain values and as files' bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import yaml
from PIL import Image

from picowatch.recipe.request import ImageRequest
from tests.pictures import encoded

TEMPLATE = "_pictures.yaml"
STYLE = "style.png"  # beside the template that names it
SIZE = "64x64"  # of every picture, as small as can be


@dataclass(frozen=True)
class Entry:
    """An entry of a recipe. Several `steps` are a sweep.

    `start` is the sha256 of the start image, once that is looked up: of the picture that `image`
    names, or of the dropped one that a template's entry is applied to; `mask` is that of the mask
    beside it, and `style` that of STYLE, which a template's entry that `has_style` names besides,
    with its name as seen from the dropped picture's folder. Its result `replaces` an earlier one.
    """

    prompt: str
    seed: int | tuple[int, ...] | None = None
    count: int = 1
    steps: tuple[int, ...] = (1,)
    priority: int = 0
    image: str = ""
    start: str = ""
    has_style: bool = False
    replaces: bool = False
    style: str = ""
    mask: str = ""

    @property
    def random(self) -> bool:
        return self.seed is None

    @property
    def identity(self) -> "Entry":
        """Return what two entries have in common that request the same."""
        return replace(self, priority=0, image="")

    @property
    def wants_sheet(self) -> bool:
        return len(self.steps) > 1

    def written(self) -> dict[str, object]:
        """Return an entry as YAML has it, without fields left to defaults."""
        fields: dict[str, object] = {
            "prompt": self.prompt,
            "size": SIZE,
            "seed": list(self.seed) if isinstance(self.seed, tuple) else self.seed,
            "count": None if self.count == 1 else self.count,
            "sweep": {"steps": list(self.steps)} if self.wants_sheet else None,
            "steps": None if self.wants_sheet else self.steps[0],
            "priority": self.priority or None,
            "image": self.image or None,
            "replace": True if self.replaces else None,
            "control": {"image": STYLE, "model": "demo-sketch"} if self.has_style else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def images(self) -> Iterator[tuple[int | None, int, int]]:
        """Return each image's written seed, what is added to it, and its steps."""
        seeds: list[tuple[int | None, int]]
        if isinstance(self.seed, tuple):
            seeds = [(seed, 0) for seed in self.seed]
        else:
            seeds = [(self.seed, number) for number in range(self.count)]
        for seed, plus in seeds:
            yield from ((seed, plus, steps) for steps in self.steps)


def drawn(request: ImageRequest) -> tuple[str, int, str, str, str]:
    style = "".join(f"{control.image} {control.image_hash}" for control in request.control)
    return request.prompt, request.steps, request.image_hash, style, request.mask_hash


@dataclass(frozen=True)
class Text:
    """A file's entries, none if it is empty; `note` tells versions apart, `broken` is a mistake."""

    entries: tuple[Entry, ...] = ()
    note: int = 0
    broken: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.entries and not self.broken

    def content(self) -> bytes:
        if self.is_empty:
            return b"\n" * (self.note % 3)
        written = [entry.written() for entry in self.entries]
        if self.broken:
            written.append({"prompt": "a mistake", "stesp": 3})
        return (yaml.safe_dump(written, sort_keys=False) + f"# {self.note}\n").encode()

    def alike(self) -> "Text":
        """Return what asks for something else in as many bytes."""
        other = (replace(entry, prompt=entry.prompt.swapcase()) for entry in self.entries)
        return replace(self, entries=tuple(other))


@dataclass(frozen=True)
class Picture(Text):
    """A dropped picture, whose template says what it requests."""

    colour: int = 0
    is_empty = False

    def content(self) -> bytes:
        return png(self.colour)

    def alike(self) -> Text:
        return replace(self, colour=self.colour + 1)


@cache
def png(colour: int) -> bytes:
    return encoded(Image.new("RGB", (64, 64), (colour % 256, 80, 160)))
