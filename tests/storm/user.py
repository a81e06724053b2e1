"""The storm's user: saves, edits and deletes recipes, drops pictures, and knows what must come."""

import random
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import yaml
from PIL import Image

from tests.house import House

RECIPES = 60
SIZE = 64


@dataclass
class Entry:
    """One entry of a recipe; its prompt is used once in the whole storm."""

    prompt: str
    count: int
    seed: int | None
    priority: int
    draws: int = 1  # how often its seed may be drawn
    recipe: str = ""

    def as_yaml(self) -> dict[str, object]:
        fixed = {} if self.seed is None else {"seed": self.seed}
        fields = {"prompt": self.prompt, "count": self.count, "priority": self.priority}
        return {**fields, "steps": 3, "size": f"{SIZE}x{SIZE}", **fixed}


@dataclass
class User:
    """Acts in the inbox, and remembers what was requested."""

    house: House
    dice: random.Random
    recipes: dict[str, list[Entry]] = field(default_factory=dict)
    requested: dict[str, Entry] = field(default_factory=dict)  # every entry ever, by its prompt
    saves: int = 0

    def act(self) -> None:
        """An edit, a deletion or a dropped picture; never the same bytes twice."""
        if self.dice.random() < 0.2:
            self._drop_picture()
            return
        name = f"{self.dice.choice(('', 'pets/', 'a/b/'))}{self.dice.randrange(RECIPES):02}.yaml"
        if name in self.recipes and self.dice.random() < 0.15:
            del self.recipes[name]
            (self.house.inbox / name).unlink()
            return
        entries = [e for e in self.recipes.get(name, []) if self.dice.random() < 0.7]
        for entry in entries:
            if self.dice.random() < 0.2:
                entry.priority = self.dice.randrange(3)
        entries += [self._new_entry(name) for _ in range(self.dice.randint(1, 3))]
        self.dice.shuffle(entries)
        self._save(name, entries)

    def _new_entry(self, recipe: str) -> Entry:
        entry = Entry(
            f"picture {len(self.requested)}",
            self.dice.randint(1, 6),
            self.dice.choice((None, self.dice.randrange(2**32))),
            self.dice.choice((0, 0, 0, 5)),
            recipe=recipe,
        )
        self.requested[entry.prompt] = entry
        return entry

    def _save(self, name: str, entries: list[Entry]) -> None:
        """In place, or by rename, as editors do."""
        self.recipes[name] = entries
        path, text = self.house.inbox / name, self._text(entries)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.with_name(f".{path.name}.tmp") if self.dice.random() < 0.5 else path
        target.write_text(text)
        target.replace(path)

    def _text(self, entries: list[Entry]) -> str:
        """The number of the save makes its bytes its own."""
        self.saves += 1
        return yaml.safe_dump([entry.as_yaml() for entry in entries]) + f"# save {self.saves}\n"

    def _drop_picture(self) -> None:
        """The prompt first: the picture is quiet for longer than it takes to write both."""
        name = f"frames/{len(self.requested)}.png"
        entry = self._new_entry(name)
        entry.count, entry.seed, entry.priority = 1, None, 0
        self.recipes[name] = [entry]
        self.house.save("frames/_pictures.yaml", "steps: 3\nsize: 64x64\n")
        self.house.save(name.replace(".png", ".txt"), entry.prompt)
        colour, content = (len(self.requested) % 256, len(self.requested) // 256, 1), BytesIO()
        Image.new("RGB", (SIZE, SIZE), colour).save(content, "PNG")
        with (self.house.inbox / name).open("wb", buffering=0) as file:
            file.write(content.getvalue()[:70])
            file.write(content.getvalue()[70:])

    def write_for_make(self) -> Path:
        """A recipe beside the inbox, into which `picowatch make` puts it."""
        name = f"made-{self.saves}.yaml"
        self.recipes[name] = [self._new_entry(name)]
        path = self.house.folder / name
        path.write_text(self._text(self.recipes[name]))
        return path

    def ledger_is_lost(self) -> None:
        """Seeds of which no picture tells are drawn anew."""
        made = {line["prompt"] for line in self.house.listed()}
        for entry in list(self.requested.values()):
            entry.draws += entry.prompt not in made and entry.seed is None
