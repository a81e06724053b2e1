"""Model files and copies of start images that change, vanish or are incomplete.

No picture is rendered with other weights than those whose hash was accepted, and loaded models
stay as they were.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog, Kind, Model
from picowatch.catalog.hashes import OnBlock, ignore_block
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.checkpoints import Checkpoints
from picowatch.engine.child import ChildEngine
from picowatch.engine.devices import choose_target
from picowatch.errors import RenderFailed
from picowatch.recipe.request import EmbeddingUse, ImageRequest, LoraUse
from tests.engine.ldm import write_single_file
from tests.engine.requests import request
from tests.faults.demo_engine import GO_FILE, HOLD, HoldingEngine
from tests.house import House, wait_for

DEMO = Catalog(Path("nowhere")).demo.path
STYLES = Path(__file__).parents[1] / "styles"
FOLDERS: dict[Kind, str] = {
    "checkpoint": "checkpoints",
    "vae": "vae",
    "lora": "loras",
    "embedding": "embeddings",
}


def write_model(kind: Kind, path: Path) -> None:
    """Write a model file that fits the demo model."""
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


def another(path: Path) -> None:
    """Rename the same tensors with other numbers over the file, as downloads do."""
    tensors = {
        name: tensor + 1 if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


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


def word(kind: Kind) -> str:
    """Return the word for a kind in the engine's sentences."""
    return {"lora": "LoRA", "vae": "VAE"}.get(kind, kind)


CHANGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "replaced": another,
    "cut": cut,
    "overwritten": overwrite,
}
AGAIN = "ave the recipe again"
SAID = {
    "deleted": ("There is no '{name}' in models/{folder}/.", AGAIN),
    "replaced": (
        "The {word} '{name}' is a different file now than when this image was requested",
        AGAIN,
    ),
    "cut": ("{name}.safetensors is cut off: ", AGAIN),
    "overwritten": ("{name}.safetensors is not a safetensors file", AGAIN),
    "lying": ("The {word} '{name}' is damaged: SafetensorError", "Get the file again"),
}
# An embedding whose header lies is none by its header alone.
CASES = [
    (kind, said) for kind in FOLDERS for said in SAID if (kind, said) != ("embedding", "lying")
]


class ModelHouse(House):
    """A house with the real engine, which keeps its first image until `go`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.make_engine = lambda options: ChildEngine(options, HoldingEngine)

    def file(self, kind: Kind, name: str) -> Path:
        return self.models / FOLDERS[kind] / f"{name}.safetensors"

    def ask(self, name: str, prompt: str = "a red circle", **fields: Any) -> Path:
        """A small recipe."""
        recipe = {"prompt": prompt, "seed": 1, "size": "128x128", "steps": 2} | fields
        return self.save(f"{name}.yaml", json.dumps({"checkpoint": "demo"} | recipe))

    def ask_for(self, kind: Kind, name: str) -> None:
        """A recipe of this name that uses the model of this name."""
        if kind == "embedding":
            self.ask(name, f"a red circle, {name}")
        elif kind == "lora":
            self.ask(name, loras={name: 1})
        else:
            self.ask(name, **{kind: name})

    def ask_for_all(self, name: str, prompt: str, models: str, **fields: Any) -> None:
        """A recipe that uses a model of each kind."""
        prompt = f"{prompt}, {models}"
        self.ask(name, prompt, checkpoint=models, vae=models, loras={models: 1}, **fields)

    def picture(self, recipe: str) -> bytes:
        """Return the pixels of a recipe's only picture."""
        (name,) = self.pictures(recipe)
        with Image.open(self.outbox / name) as picture:
            return picture.tobytes()

    def wait_until_idle(self) -> None:
        """Wait until nothing is queued or in progress."""
        wait_for(lambda: self._waiting() == 0, "the end of the queue")

    def accepted(self) -> int:
        return sum((self.status()["images"] or {}).values())

    def _waiting(self) -> int:
        images = self.status()["images"]
        return int(images["queued"] + images["running"])


def kept_copy(house: House, start: Path) -> Path:
    """Return the copy of a start image, found by its bytes."""
    folder = house.outbox / ".picowatch/start-images"
    (copy,) = (one for one in folder.iterdir() if one.read_bytes() == start.read_bytes())
    return copy


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
        house.ask_for_all("hold", HOLD, "held", priority=10)
        wait_for(lambda: house.status().get("step") == 2, "the held image")
        house.ask_for_all("held", "a star", "held", priority=9)
        for (kind, _), name in names.items():
            house.ask_for(kind, name)
        Image.new("RGB", (128, 128), (9, 50, 90)).save(house.inbox / "start.png")
        house.ask("start", image="start.png")
        house.ask_for_all("intact", "a star", "intact")
        house.ask("good", priority=-1)
        wait_for(lambda: house.accepted() == len(CASES) + 5, "all saves")
        for (kind, change), name in names.items():
            if change in CHANGES:
                CHANGES[change](house.file(kind, name))
        for kind in FOLDERS:
            cut(house.file(kind, "held"))
        overwrite(kept_copy(house, house.inbox / "start.png"))
        (house.models / GO_FILE).touch()
        house.wait_until_idle()
        yield house


@pytest.mark.parametrize(("kind", "change"), CASES)
def test_a_file_that_is_not_what_was_accepted_makes_no_picture(
    house: ModelHouse, kind: Kind, change: str
) -> None:
    """The message says whether it is gone, replaced, truncated, overwritten or damaged."""
    name = f"{change}-{kind}"
    error = house.error(f"{name}.yaml") or ""
    what, remedy = SAID[change]
    assert what.format(kind=kind, name=name, folder=FOLDERS[kind], word=word(kind)) in error
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


class ChangingCatalog(Catalog):
    """Changes a file after its hash was verified and before it is read."""

    def __init__(self, models: Path, kind: Kind, change: Callable[[Path], None]) -> None:
        super().__init__(models)
        self._kind = kind
        self._changes = [change]

    def sha256(self, model: Model, on_block: OnBlock = ignore_block) -> str:
        digest = super().sha256(model, on_block)
        if model.kind == self._kind and self._changes:
            self._changes.pop()(model.path)
        return digest


def asked(models: Path) -> ImageRequest:
    """Return a request with a file of each kind, all called "it"."""
    catalog = Catalog(models)
    hashes = {kind: catalog.sha256(catalog.find(kind, "it")) for kind in FOLDERS}
    return replace(
        request("a red circle, it", steps=1),
        checkpoint="it",
        checkpoint_hash=hashes["checkpoint"],
        vae="it",
        vae_hash=hashes["vae"],
        loras=(LoraUse("it", hashes["lora"], 1.0),),
        embeddings=(EmbeddingUse("it", hashes["embedding"]),),
    )


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_file_that_is_replaced_while_it_is_read_makes_no_picture(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is verified again after reading."""
    for each in FOLDERS:
        write_model(each, tmp_path / FOLDERS[each] / "it.safetensors")
    wanted = asked(tmp_path)
    catalog = ChangingCatalog(tmp_path, kind, another)
    for family in ("sd1", "demo"):
        monkeypatch.setitem(CONFIGS, family, DEMO)
    checkpoints = Checkpoints(catalog, choose_target("cpu", "float32"))
    for _ in range(2):
        with pytest.raises(RenderFailed, match=f"The {word(kind)} 'it' is a different file now"):
            loaded = checkpoints.held(wanted, "device") or checkpoints.load(wanted, "device")
            loaded.use_loras(wanted.loras)
            loaded.prompts.guiding(wanted)
