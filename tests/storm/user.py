"""The storm's user: saves, edits, moves and deletes recipes, and knows what must come of it."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import yaml
from PIL import Image

from tests.house import House

RECIPES = 60
SIZE = 64
IN_2400 = 13_569_465_600.0


@dataclass
class Entry:
    """One entry of a recipe; its prompt is used once in the whole storm."""

    prompt: str
    count: int
    seed: int | None
    priority: int
    image: str | None = None
    grid: bool = False
    draws: int = 1  # how often its seed may be drawn
    twice: bool = False  # whether it may be made again with the same seed
    wanted: bool = True  # not after a cancel, which leaves what was made
    names: set[str] = field(default_factory=set)  # of the recipe, while it was in there

    def as_yaml(self) -> dict[str, object]:
        fixed = {} if self.seed is None else {"seed": self.seed}
        image = {} if self.image is None else {"image": self.image}
        return {
            "prompt": self.prompt,
            "count": self.count,
            "priority": self.priority,
            "steps": 3,
            "size": f"{SIZE}x{SIZE}",
            "grid": self.grid,
            **image,
            **fixed,
        }


@dataclass
class User:
    """Acts in the inbox, and remembers what was asked."""

    house: House
    dice: random.Random
    recipes: dict[str, list[Entry]] = field(default_factory=dict)
    asked: dict[str, Entry] = field(default_factory=dict)  # every entry ever, by its prompt
    left_alone: set[str] = field(default_factory=set)  # names that are not saved again
    saves: int = 0
    at_the_end: list[Callable[[], object]] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        return self.house.inbox

    def act(self) -> None:
        """An edit or a deletion; never the same bytes twice, that would be 'again'."""
        name = f"{self.dice.choice(('', 'pets/', 'a/b/'))}{self.dice.randrange(RECIPES):02}.yaml"
        if name in self.left_alone:
            return
        if name in self.recipes and self.dice.random() < 0.15:
            del self.recipes[name]
            (self.inbox / name).unlink()
            return
        entries = [e for e in self.recipes.get(name, []) if self.dice.random() < 0.7]
        for entry in entries:
            if self.dice.random() < 0.2:
                entry.priority = self.dice.randrange(3)
        entries += [self.new_entry() for _ in range(self.dice.randint(1, 3))]
        self.dice.shuffle(entries)
        self.save(name, entries)

    def new_entry(self) -> Entry:
        entry = Entry(
            f"picture {len(self.asked)}",
            self.dice.randint(1, 6),
            self.dice.choice((None, self.dice.randrange(2**32))),
            self.dice.choice((0, 0, 0, 5)),
        )
        self.asked[entry.prompt] = entry
        return entry

    def new_name(self, folder: str) -> str:
        """A name that no recipe ever had."""
        self.saves += 1
        return f"{folder}new-{self.saves}.yaml"

    def save(self, name: str, entries: list[Entry]) -> None:
        """In place, or by rename, as editors do."""
        self.saves += 1
        self.recipes[name] = entries
        for entry in entries:
            entry.names.add(name)
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._text(entries)
        if self.dice.random() < 0.5:
            path.write_text(text)
        else:
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(text)
            temporary.replace(path)

    def _text(self, entries: list[Entry]) -> str:
        """The number of the save makes its bytes its own."""
        return yaml.safe_dump([entry.as_yaml() for entry in entries]) + f"# save {self.saves}\n"

    # -- what is drawn from the table

    def write_for_make(self) -> Path:
        """A recipe beside the inbox, into which `picowatch make` puts it."""
        name, entry = self.new_name(""), self.new_entry()
        entry.names.add(name)
        self.left_alone.add(name)
        path = self.house.folder / name
        path.write_text(self._text([entry]))
        self.recipes[name] = [entry]
        return path

    def rename(self) -> None:
        """To a new name, which may be in `live/`."""
        old = self._accepted()
        if old is not None:
            self._move(old, self.new_name(self.dice.choice(("", "pets/", "live/"))))

    def _accepted(self) -> str | None:
        """A recipe of which the last save was certainly answered: what it brought is being made.

        Other bytes than those that were accepted, under another name, are another recipe.
        """
        made = {line["prompt"] for line in listed(self.house)}
        found = [
            name
            for name, entries in list(self.recipes.items())
            if name not in self.left_alone
            and entries
            and max(entries, key=lambda entry: int(entry.prompt.split()[1])).prompt in made
        ]
        return self.dice.choice(found) if found else None

    def _move(self, old: str, new: str) -> None:
        """Neither name is saved again: picowatch may see a rename long after it happened."""
        target = self.inbox / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.inbox / old).replace(target)
        self.recipes[new] = self.recipes.pop(old)
        self.left_alone |= {old, new}
        for entry in self.recipes[new]:
            entry.names.add(new)

    def cancel(self) -> str | None:
        """The name of a recipe of which nothing more is wanted; it stays in the inbox."""
        name = self._accepted()
        if name is not None:
            self.left_alone.add(name)
            for entry in self.recipes[name]:
                entry.wanted = False
        return name

    def ledger_is_lost(self) -> None:
        """A new ledger is made from the pictures and from the recipes.

        Seeds of which no picture tells are drawn anew. What was renamed is made again where nobody
        could note the renaming in time; here it may be, and need not be.
        """
        made = {line["prompt"] for line in listed(self.house)}
        for entry in list(self.asked.values()):
            if len(entry.names) > 1:
                entry.twice = True
                entry.draws += 1
            elif entry.prompt not in made and entry.seed is None:
                entry.draws += 1

    def touch_random(self) -> None:
        """Again: random seeds are drawn once more, if picowatch saw the save before."""
        name = self._accepted()
        if name is None or any(entry.seed is not None for entry in self.recipes[name]):
            return
        self.left_alone.add(name)
        for entry in self.recipes[name]:
            entry.draws += 1
        os.utime(self.inbox / name)

    def save_in_2400(self) -> None:
        """A camera with a wrong clock."""
        name = self.new_name("far/")
        self.save(name, [self.new_entry()])
        self.left_alone.add(name)
        os.utime(self.inbox / name, (IN_2400, IN_2400))
        # Seen before and after, a random seed is drawn for both.
        for entry in self.recipes[name]:
            entry.draws += 1

    def save_grid(self) -> None:
        """With a contact sheet."""
        name = self.new_name("grids/")
        entry = self.new_entry()
        entry.grid = True
        self.save(name, [entry])
        self.left_alone.add(name)

    def save_before_its_start_image(self, picture: bytes) -> None:
        """The start image appears later, is away for a while perhaps, and is there at the end."""
        name = self.new_name("late/")
        image = self.inbox / f"{name}.png"
        entry = self.new_entry()
        entry.image = image.name
        self.save(name, [entry])
        self.left_alone.add(name)
        self.at_the_end.append(lambda: image.write_bytes(picture))

    def show_or_hide_start_image(self, picture: bytes) -> None:
        """Of any of those recipes."""
        recipes = sorted(self.inbox.glob("late/*.yaml"))
        if recipes:
            image = self.dice.choice(recipes)
            image = image.with_name(f"{image.name}.png")
            if image.exists():
                image.unlink()
            else:
                image.write_bytes(picture)

    def drop_picture(self) -> None:
        """A picture that is written slowly, and its prompt."""
        name, entry = f"frames/{self.saves}.png", self.new_entry()
        self.saves += 1
        entry.count, entry.seed, entry.priority = 1, None, 0
        (self.inbox / "frames").mkdir(exist_ok=True)
        (self.inbox / "frames/_pictures.yaml").write_text("steps: 3\nsize: 64x64\n")
        self._write_picture(name, entry)

    def replace_picture(self) -> None:
        """By another one, with another prompt; what is being made for the old one may be."""
        name = self._dropped()
        if name is not None:
            for old in self.recipes[name]:
                old.wanted = False
            entry = self.new_entry()
            entry.count, entry.seed, entry.priority = 1, None, 0
            self._write_picture(name, entry)

    def _write_picture(self, name: str, entry: Entry) -> None:
        """The prompt first: the picture is quiet for longer than it takes to write both."""
        entry.names.add(name)
        self.recipes[name] = [entry]
        self.left_alone.add(name)
        path = self.inbox / name
        path.with_suffix(".txt").write_text(entry.prompt)
        buffer = BytesIO()
        number = int(entry.prompt.split()[1])
        colour = (number % 256, number // 256, 1)
        Image.new("RGB", (SIZE, SIZE), colour).save(buffer, "PNG")
        whole = buffer.getvalue()
        with path.open("wb", buffering=0) as file:
            file.write(whole[:70])
            file.write(whole[70:])

    def rename_picture(self) -> None:
        """With its prompt; a picture that is answered keeps its queue."""
        name = self._dropped()
        if name is None:
            return
        new = f"frames/deep/{self.saves}.png"
        self.saves += 1
        (self.inbox / "frames/deep").mkdir(exist_ok=True)
        for suffix in (".txt", ".png"):
            source = (self.inbox / name).with_suffix(suffix)
            source.rename((self.inbox / new).with_suffix(suffix))
        self.recipes[new] = self.recipes.pop(name)
        self.left_alone.add(new)
        for entry in self.recipes[new]:
            entry.names.add(new)

    def delete_picture(self) -> None:
        """What is in progress is finished."""
        name = self._dropped()
        if name is not None:
            del self.recipes[name]
            (self.inbox / name).unlink()

    def _dropped(self) -> str | None:
        """One that was certainly answered: its own picture is made."""
        made = {line["prompt"] for line in listed(self.house)}
        found = [
            name
            for name, entries in list(self.recipes.items())
            if name.startswith("frames/") and entries[0].prompt in made
        ]
        return self.dice.choice(found) if found else None

    def save_defaults(self) -> None:
        """Of a field that changes no picture of the storm; holds from the next saves on."""
        self.saves += 1
        folder = self.inbox / self.dice.choice(("", "pets", "a/b"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_defaults.yaml").write_text(f"priority: 0\n# save {self.saves}\n")


def listed(house: House) -> list[dict[str, object]]:
    """The lines of images.jsonl, or none where it is away or being written."""
    try:
        return house.listed()
    except (OSError, ValueError):
        return []
