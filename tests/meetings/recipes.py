"""What simulated users save: recipes and pictures as plain values and as files' bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO

import yaml
from PIL import Image

TEMPLATE = "_pictures.yaml"
LORA = "extra"
SIZE = "64x64"  # of every picture, as small as can be
Seed = None | int | tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """An entry of a recipe. Several `steps` are a sweep."""

    prompt: str
    seed: Seed = None
    count: int = 1
    steps: tuple[int, ...] | None = None
    priority: int | None = None
    grid: bool = False
    image: str | None = None
    lora: bool = False

    @property
    def random(self) -> bool:
        return self.seed is None

    def written(self) -> dict[str, object]:
        """Return an entry as YAML has it, without fields left to defaults."""
        seed = list(self.seed) if isinstance(self.seed, tuple) else self.seed
        is_sweep = self.steps is not None and len(self.steps) > 1
        fields: dict[str, object] = {
            "prompt": self.prompt,
            "size": SIZE,
            "seed": seed,
            "count": None if self.count == 1 else self.count,
            "sweep": {"steps": list(self.steps)} if self.steps and is_sweep else None,
            "steps": self.steps[0] if self.steps and not is_sweep else None,
            "priority": self.priority,
            "grid": self.grid or None,
            "image": self.image,
            "loras": {LORA: 1} if self.lora else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def for_txt(self) -> "Entry":
        """Return an entry without what only YAML can say."""
        steps = self.steps[:1] if self.steps else None
        seed = self.seed[0] if isinstance(self.seed, tuple) else self.seed
        return replace(self, steps=steps, seed=seed, grid=False, lora=False)


@dataclass(frozen=True)
class Defaults:
    """A `_defaults.yaml`."""

    steps: int | None = None
    priority: int | None = None

    def content(self) -> bytes:
        found = {"steps": self.steps, "priority": self.priority}
        return yaml.safe_dump({k: v for k, v in found.items() if v is not None}).encode()


@dataclass(frozen=True)
class Text:
    """A file's entries, and a `note` that tells versions apart without a meaning.

    `broken`: it has a mistake. Without entries it is empty.
    """

    entries: tuple[Entry, ...] = ()
    note: int = 0
    broken: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.entries and not self.broken

    def content(self, path: str) -> bytes:
        """Return the bytes of a file of this name."""
        if self.is_empty:
            return b"\n" * (self.note % 3)
        written = [entry.written() for entry in self.entries]
        if self.broken:
            written.append({"prompt": "a mistake", "stesp": 3})
        if path.endswith(".txt"):
            return ("\n".join(map(_line, written)) + f"\n# {self.note}\n").encode()
        return (yaml.safe_dump(written, sort_keys=False) + f"# {self.note}\n").encode()


@dataclass(frozen=True)
class Picture(Text):
    """A dropped picture, whose template says what it requests."""

    colour: int = 0

    @property
    def is_empty(self) -> bool:
        return False

    def content(self, path: str) -> bytes:
        """Return a PNG, whatever the name is."""
        return png(self.colour)


@cache
def png(colour: int) -> bytes:
    """Return a picture of one colour."""
    content = BytesIO()
    Image.new("RGB", (64, 64), (colour % 256, 80, 160)).save(content, "PNG")
    return content.getvalue()


def _line(written: dict[str, object]) -> str:
    flags = [f"--{name} {value}" for name, value in written.items() if name != "prompt"]
    return " ".join([str(written["prompt"]), *flags])


@dataclass(frozen=True)
class Requested:
    """An entry as a save requests it, with everything looked up.

    `start` is the sha256 of the start image. Entries are equal if their `identity` is.
    """

    entry: Entry
    steps: tuple[int, ...]
    priority: int
    start: str

    @property
    def identity(self) -> object:
        entry = self.entry
        return entry.prompt, entry.seed, entry.count, self.steps, entry.grid, self.start

    def images(self) -> Iterator[tuple[int | None, int, int]]:
        """Return each image's written seed, what is added to it, and its steps."""
        seeds = self.entry.seed
        for number in range(len(seeds) if isinstance(seeds, tuple) else self.entry.count):
            for steps in self.steps:
                if isinstance(seeds, tuple):
                    yield seeds[number], 0, steps
                else:
                    yield seeds, number, steps

    @property
    def wants_sheet(self) -> bool:
        return self.entry.grid or len(self.steps) > 1


def requested(entry: Entry, defaults: list[Defaults], start: str) -> Requested:
    """Apply `defaults`, from the inbox down to the recipe's folder, to an entry."""
    steps, priority = entry.steps, entry.priority
    for one in reversed(defaults):
        steps = steps or (None if one.steps is None else (one.steps,))
        priority = one.priority if priority is None else priority
    return Requested(entry, steps or (24,), priority or 0, start)
