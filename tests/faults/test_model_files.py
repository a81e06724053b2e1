"""Model files and copies of start images that change, vanish or are incomplete.

No picture is rendered with other weights than those whose hash was accepted, and loaded models
stay as they were.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from picowatch.catalog import Kind, embedded
from picowatch.engine.process.child import ChildEngine
from tests.engine.ldm import write_single_file
from tests.faults.demo_engine import GO_FILE, HOLD, SWAPPED, HoldingEngine, another
from tests.house import House, wait_for

DEMO = embedded("checkpoint").path
WORDS = {"checkpoint": "checkpoint", "vae": "VAE", "lora": "LoRA", "embedding": "embedding"}
STYLES = Path(__file__).parents[1] / "styles"
FOLDERS: dict[Kind, str] = {
    "checkpoint": "checkpoints",
    "vae": "vae",
    "lora": "loras",
    "embedding": "embeddings",
}


def write_model(kind: Kind, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "checkpoint":
        # As they are computed with on a CPU: nothing is copied by being converted.
        write_single_file(DEMO, path, torch.float32)
    elif kind == "vae":
        (weights,) = (DEMO / "vae").glob("*.safetensors")
        shutil.copy(weights, path)
    else:
        name = {"lora": "pixel-art", "embedding": "mascot"}[kind]
        shutil.copy(STYLES / f"{name}.safetensors", path)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Overwrite a file in place, with as many bytes as it had."""
    with path.open("r+b") as file:
        file.write(b"no model " * (path.stat().st_size // 9 + 1))
        file.truncate(path.stat().st_size)


def lie(path: Path) -> None:
    """Write a header whose offsets fit the file, but whose last shape does not fit them."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[next(name for name in reversed(header) if header[name].get("shape"))]["shape"] += [2]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


CHANGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "replaced": another,
    "cut": cut,
    "overwritten": overwrite,
}
AGAIN = "ave the recipe again"
ANOTHER = "The {word} '{name}', or what completes it, is no longer the one that was requested."
SAID = {
    "deleted": ("There is no '{name}' in models/{folder}/.", AGAIN),
    "replaced": (ANOTHER, AGAIN),
    SWAPPED: (ANOTHER, AGAIN),
    "cut": ("{name}.safetensors is cut off: ", AGAIN),
    "overwritten": ("{name}.safetensors is not a safetensors file", AGAIN),
    "lying": ("The {word} '{name}' is damaged: SafetensorError", "Get the file again"),
}
# What is done to all kinds of files, and what to one kind of them.
CASES: list[tuple[Kind, str]] = [
    *((kind, change) for kind in FOLDERS for change in ("replaced", SWAPPED)),
    *(("lora", "deleted"), ("checkpoint", "cut"), ("vae", "overwritten"), ("checkpoint", "lying")),
]


class ModelHouse(House):
    """A house with the real engine, which keeps its first image until `go`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.make_engine = lambda options: ChildEngine(options, HoldingEngine)

    def file(self, kind: Kind, name: str) -> Path:
        return self.models / FOLDERS[kind] / f"{name}.safetensors"

    def ask(
        self, name: str, models: Mapping[Kind, str], prompt: str = "a red circle", **fields: Any
    ) -> None:
        recipe = {"seed": 1, "size": "128x128", "steps": 2, "checkpoint": "demo", **fields}
        for kind, model in models.items():
            if kind == "embedding":
                prompt += f", {model}"
            else:
                recipe |= {"loras": {model: 1}} if kind == "lora" else {kind: model}
        self.save(f"{name}.yaml", json.dumps({"prompt": prompt, **recipe}))

    def picture(self, recipe: str) -> bytes:
        (name,) = self.pictures(recipe)
        with Image.open(self.outbox / name) as picture:
            return picture.tobytes()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHouse]:
    """Run the real engine while everything goes wrong that was accepted."""
    house = ModelHouse(tmp_path_factory.mktemp("house"))
    names = {(kind, change): f"{change}-{kind}" for kind, change in CASES}
    for (kind, change), name in names.items():
        write_model(kind, house.file(kind, name))
        if change == "lying":
            lie(house.file(kind, name))
    for kind in FOLDERS:
        for name in ("held", "intact"):
            write_model(kind, house.file(kind, name))
    with house.running(batch_size=1, precision="float32"):
        # Before the others, of which the engine would take one while the rest are answered.
        house.ask("hold", dict.fromkeys(FOLDERS, "held"), HOLD, priority=10)
        wait_for(lambda: house.status().get("step") == 2, "the held image")
        house.ask("held", dict.fromkeys(FOLDERS, "held"), "a star", priority=9)
        for (kind, _), name in names.items():
            house.ask(name, {kind: name})
        Image.new("RGB", (128, 128), (9, 50, 90)).save(house.inbox / "start.png")
        house.ask("start", {}, image="start.png")
        house.ask("intact", dict.fromkeys(FOLDERS, "intact"), "a star")
        house.ask("good", {}, priority=-1)
        wait_for(lambda: sum(house.status()["images"].values()) == len(CASES) + 5, "all saves")
        for (kind, change), name in names.items():
            if change in CHANGES:
                CHANGES[change](house.file(kind, name))
        for kind in FOLDERS:
            cut(house.file(kind, "held"))
        start = (house.inbox / "start.png").read_bytes()
        copies = (house.outbox / ".picowatch/start-images").iterdir()
        overwrite(next(copy for copy in copies if copy.read_bytes() == start))
        (house.models / GO_FILE).touch()
        wait_for(lambda: house.status()["images"]["done"] == 4, "the end of the queue")
        yield house


@pytest.mark.parametrize(("kind", "change"), CASES)
def test_a_file_that_was_changed_makes_no_picture(
    house: ModelHouse, kind: Kind, change: str
) -> None:
    """Its hash is verified again after reading; the message says what has become of it."""
    name = f"{change}-{kind}"
    error = house.error(f"{name}.yaml") or ""
    what, remedy = SAID[change]
    assert what.format(kind=kind, name=name, folder=FOLDERS[kind], word=WORDS[kind]) in error
    assert remedy in error
    assert not house.pictures(name)


def test_what_is_loaded_stays_what_it_was(house: ModelHouse) -> None:
    """Checkpoint, VAE, LoRA and embedding are truncated in place while they are in memory."""
    assert house.picture("held") == house.picture("intact")


def test_after_all_that_the_next_recipe_runs(house: ModelHouse) -> None:
    """It runs in the same engine, which none of these faults ends."""
    assert house.picture("good")
    assert "died" not in house.log()
    assert "tried again" not in house.log()


def test_what_is_back_is_used_at_the_next_save(house: ModelHouse) -> None:
    """The errors say so; a start image is copied again."""
    error = house.error("start.yaml") or ""
    assert "The copy of 'start.png' is missing or damaged." in error
    assert "Save the recipe again to make a new copy." in error
    assert not house.pictures("start")
    write_model("lora", house.file("lora", "deleted-lora"))
    for name in ("deleted-lora", "start"):
        (house.inbox / f"{name}.yaml").touch()
        wait_for(partial(house.pictures, name), "the picture")
        assert house.error(f"{name}.yaml") is None
