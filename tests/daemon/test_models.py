"""Models that take long to hash, are broken or away: no save waits for others' models."""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from picowatch.catalog import Catalog, hashes
from picowatch.catalog.encoders import ENCODERS
from picowatch.daemon import accept, worker
from picowatch.daemon.model_hashes import ModelHashes
from picowatch.errors import ModelRefused, RenderFailed
from picowatch.families import DEMO_WIDTH
from picowatch.settings.settings import Settings
from tests.catalog.files import Shapes, checkpoint_shapes, kohya_lora_shapes, write_model
from tests.catalog.shapes import FLUX1_VAE, controlnet, flux
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import Batch
from tests.fault_points import preceded_by, wrap
from tests.house import PATIENCE, House, wait_for

SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\n"
DIGEST = "picowatch.catalog.hashes:_digest"
MINE = "checkpoints/mine.safetensors"
WITH_NEW = f"{SMALL}loras: {{new: 1}}\ncheckpoint: demo\n"


@pytest.fixture
def new(house: House) -> Path:
    return write_model(house.models / "loras/new.safetensors", kohya_lora_shapes())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counter = Counter[str]()
    count = preceded_by(lambda name, *_: counter.update([name]))
    wrap("picowatch.recipe.reading:read_recipes", count, monkeypatch.setattr)
    return counter


@pytest.mark.parametrize("end", ["read", "deleted", "broken"])
def test_a_model_that_takes_long_to_hash_holds_up_no_other_save(
    house: House, new: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The ledger is free meanwhile, and other models are hashed. A deleted model has no hash."""
    write_model(house.models / "loras/small.safetensors", kohya_lora_shapes())
    its = new.stat()
    reading, go_on = threading.Event(), threading.Event()

    def slow(file: Any, _: object) -> None:
        if os.path.samestat(os.fstat(file.fileno()), its):
            reading.set()
            assert go_on.wait(PATIENCE)
            if end == "broken":
                raise RuntimeError("out of luck")

    wrap(DIGEST, preceded_by(slow), monkeypatch.setattr)
    monkeypatch.setattr("picowatch.daemon.model_hashes.PROGRESS_SECONDS", 0.0)
    with house.running(batch_size=1):
        house.save("new.yaml", WITH_NEW)
        wait_for(reading.is_set, "the hashing")
        house.save("a.yaml", f"{SMALL}count: 3\n")
        house.save("b.yaml", f"{SMALL}loras: {{small: 1}}\ncheckpoint: demo\n")
        wait_for(lambda: len(house.listed()) == 4, "pictures meanwhile")
        if end == "deleted":
            new.unlink()
        go_on.set()
        if end == "read":
            wait_for(lambda: house.pictures("new"), "the picture of the new one")
        else:
            wait_for(lambda: house.error("new.yaml"), "the refusal")
    assert ("out of luck" in (house.error("new.yaml") or "")) == (end == "broken")
    assert "small: new, reading it for its hash: 0.0 of 0.0 GB" in house.log()


@pytest.mark.usefixtures("new")
def test_saves_are_read_again_whose_model_could_not_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk may fail, or the file go away, while its hash is computed."""
    first = threading.Event()

    def fail_once(*_: object) -> None:
        if not first.is_set():
            first.set()
            raise ModelRefused("cannot be read (Input/output error)")

    wrap(DIGEST, preceded_by(fail_once), monkeypatch.setattr)
    house.save("a.yaml", WITH_NEW)
    with house.running():
        wait_for(lambda: "Input/output" in house.log(), "the refusal")
        wait_for(lambda: house.pictures("a"), "the picture")


@pytest.mark.usefixtures("new")
def test_saves_that_wait_for_a_model_are_not_read_again_and_again(
    house: House, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else forty of them would take all the time that there is for others."""
    go_on = threading.Event()
    wrap(DIGEST, preceded_by(lambda *_: wait_for(go_on.is_set)), monkeypatch.setattr)
    for number in range(40):
        house.save(f"{number}.yaml", WITH_NEW)
    with house.running():
        wait_for(lambda: len(reads) == 40, "their first reading")
        house.wait_for_rounds(5)
        assert max(reads.values()) == 1
        go_on.set()
        wait_for(lambda: len(house.pictures()) == 40, "all pictures")


def test_saves_of_one_look_ask_the_folder_of_models_once_for_each_model(tmp_path: Path) -> None:
    """To find a checkpoint takes a look at all, which thousands of saves would repeat."""
    write_model(tmp_path / MINE, checkpoint_shapes())
    catalog = Mock(wraps=Catalog(tmp_path))
    mine = catalog.find("checkpoint", "mine")
    known = {catalog.sha256(mine)}
    looked_up = ModelHashes(catalog, None, 0.0, threading.Event())
    for looks in (1, 2):
        looked_up.look_again()
        catalog.find.reset_mock()
        assert {looked_up.hash_of("checkpoint", "mine") for _ in range(3)} == known
        assert catalog.find.call_count == 1, looks


@pytest.mark.parametrize("change", [os.utime, Path.unlink])
def test_all_that_wait_for_a_model_get_it_though_it_changes_while_it_is_read(
    house: House,
    new: Path,
    reads: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    """It is read again, or waited for if it is gone, whichever of them asked first."""
    its, real, changed = new.stat(), hashes._digest, threading.Event()

    def slow(file: Any, on_block: Any) -> str:
        digest = real(file, on_block)
        if os.path.samestat(os.fstat(file.fileno()), its) and not changed.is_set():
            wait_for(lambda: len(reads) == 2, "both saves")
            change(new)
            changed.set()
        return digest

    monkeypatch.setattr(hashes, "_digest", slow)
    for name in "ab":
        house.save(f"{name}.yaml", WITH_NEW)
    with house.running():
        wait_for(changed.is_set, "the change")
        if change is Path.unlink:
            wait_for(lambda: house.error("a.yaml") and house.error("b.yaml"), "the refusals")
            write_model(new, kohya_lora_shapes())
        wait_for(lambda: house.pictures("a") and house.pictures("b"), "both pictures")


@pytest.mark.parametrize(
    ("folder", "recipe"),
    [
        ("loras", WITH_NEW),
        ("loras", "prompt: a <lora:new:1>\nsize: 64x64\ncheckpoint: demo\n"),
        ("checkpoints", f"{SMALL}checkpoint: new\n"),
    ],
)
def test_a_missing_model_that_comes_is_noticed(house: House, folder: str, recipe: str) -> None:
    house.save("new.yaml", recipe)
    with house.running():
        wait_for(lambda: "'new" in (house.error("new.yaml") or ""), "the refusal")
        shapes = kohya_lora_shapes() if folder == "loras" else checkpoint_shapes()
        write_model(house.models / folder / "new.safetensors", shapes)
        wait_for(lambda: house.pictures("new"), "the picture")
    assert house.error("new.yaml") is None


def test_another_checkpoint_than_a_pictures_is_told_though_just_hashed(house: House) -> None:
    """A file that was replaced has a hash that nobody has read yet."""
    path = write_model(house.models / "checkpoints/a.safetensors", checkpoint_shapes())
    house.save("old.yaml", f"{SMALL}checkpoint: a\n")
    assert house.once()
    path.write_bytes(path.read_bytes()[:-1] + b"1")
    house.save("new.yaml", f"from: outbox/{house.pictures()[0]}\nseed: 9\n")
    assert house.once(settle_seconds=0.5)  # the models were looked at less than this before
    assert "the checkpoint 'a' is another file than the picture's" in house.log()


def test_a_save_of_high_priority_overtakes_saves_that_are_being_accepted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many were saved at once, with one save into live/, and another one after it."""
    read: list[str] = []

    def slow(name: str, *_: object) -> None:
        if not read:
            house.save("live/later.yaml", SMALL)
        read.append(name)
        threading.Event().wait(0.02)

    monkeypatch.setattr(accept, "SLICE_SECONDS", 0.0)
    wrap("picowatch.recipe.reading:read_recipes", preceded_by(slow), monkeypatch.setattr)
    house.save("live/_defaults.yaml", "priority: 10\n")
    for number in range(40):
        os.utime(house.save(f"crowd/{number:03}.yaml", SMALL), (1e9, 1e9))
    house.save("live/now.yaml", SMALL)
    with house.running():
        wait_for(lambda: len(set(read)) == 42, "all saves")
    assert read[0] == "live/now.yaml"
    assert read.index("live/later.yaml") < 39


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("", "mine.safetensors is cut off"),
        (".", "models is a link that leads nowhere"),
        ("..", "models does not exist"),
        ("checkpoints", "models/checkpoints is a link that leads nowhere"),
        ("checkpoints/disk", "disk cannot be read: its link leads nowhere"),
    ],
)
def test_the_demo_never_stands_in_for_a_bad_checkpoint(house: House, link: str, said: str) -> None:
    if not link:
        write_model(house.models / MINE, checkpoint_shapes(), missing_bytes=1000)
    else:
        house.models.rmdir()
    if link and link != "..":
        (house.models / link).parent.mkdir(parents=True, exist_ok=True)
        (house.models / link).symlink_to("nowhere")
    path = house.save("a.yaml", SMALL)
    house.save("b.yaml", f"{SMALL}checkpoint: demo\n")
    assert not house.once()
    error = house.error("a.yaml") or ""
    assert "no checkpoint is named, and none that is installed can be used" in error
    assert said in error
    assert "write 'checkpoint: demo'" in error
    is_trouble = said in house.status()["troubles"].get("models", "")
    assert is_trouble is said.startswith("models"), "others may be drawn with what is there"
    assert said in picowatch_here(house.folder, "check", "--models", house.models, path).stderr
    assert [house.chunk(file).request.checkpoint for file in house.pictures()] == ["demo"]
    if not link:
        write_model(house.models / MINE, checkpoint_shapes())
        path.touch()
        assert house.once()
        (picture,) = house.pictures("a")
        assert house.chunk(picture).request.checkpoint == "mine"


@pytest.mark.parametrize(
    ("restarts", "left", "said"),
    [
        (False, lambda models: None, "models does not exist"),
        (True, lambda models: None, "models does not exist"),
        (True, Path.mkdir, "models is empty, and had models before"),
        (True, lambda models: models.symlink_to("disk"), "models is a link that leads nowhere"),
        (False, lambda models: models.mkdir(0), "models cannot be read"),
    ],
)
def test_a_models_folder_that_was_there_is_missed_though_nobody_named_it(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    restarts: bool,
    left: Callable[[Path], object],
    said: str,
) -> None:
    """As one that picowatch.yaml names: saves without a checkpoint wait until it is back."""
    monkeypatch.setattr(Settings, "names_models", False)
    allows = os.access

    def may(path: str | Path, how: int) -> bool:  # root may read everything
        return allows(path, how) and bool(Path(path).stat().st_mode & 0o700)

    monkeypatch.setattr(os, "access", may)
    write_model(house.models / "checkpoints/mine.safetensors", checkpoint_shapes())
    house.save("a.yaml", SMALL)
    with ExitStack() as daemon:
        daemon.enter_context(house.running())
        wait_for(lambda: house.pictures("a"), "a picture before")
        if restarts:
            daemon.close()
        away = house.models.rename(house.folder / "away")
        left(house.models)
        if restarts:
            daemon.enter_context(house.running())
        house.save("b.yaml", SMALL)
        wait_for(lambda: house.error("b.yaml") or house.pictures("b"), "the answer")
        asked = "Is it mounted, and may picowatch read it? If it is no more, make an empty"
        assert f"{said}. {asked} {house.models}/checkpoints." in (house.error("b.yaml") or "")
        wait_for(lambda: said in house.status()["troubles"].get("models", ""), "its trouble")
        if house.models.is_symlink():
            house.models.unlink()
        away.rename(house.models)
        wait_for(lambda: house.pictures("b"), "its picture")
    assert {request.checkpoint for request in house.requests()} == {"mine"}


ENCODER_FILES = {known.file: {known.tensor: known.shape} for known in ENCODERS.values()}
STYLED = "checkpoint: demo\nloras: {mine: 1}\n"
SKETCH = "checkpoint: demo\ncontrol: {image: lines.png, model: mine}\n"


@pytest.mark.parametrize(
    ("folder", "linked", "files", "named", "kind"),
    [
        ("checkpoints", "", {"mine": checkpoint_shapes()}, "checkpoint: mine\n", "checkpoint"),
        ("text_encoders", "", ENCODER_FILES, "checkpoint: it\n", "checkpoint"),
        ("loras", "", {"mine": kohya_lora_shapes()}, STYLED, "LoRA"),
        ("loras", "mine.safetensors", {"mine": kohya_lora_shapes()}, STYLED, "LoRA"),
        ("controlnet", "", {"mine": controlnet(DEMO_WIDTH)}, SKETCH, "ControlNet"),
    ],
)
def test_images_wait_while_models_that_they_need_are_not_mounted(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    linked: str,
    files: dict[str, Shapes],
    named: str,
    kind: str,
) -> None:
    """A link to a folder or file leads nowhere then. Failures of the embedded models count."""
    monkeypatch.setattr(worker, "START_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(hashes, "_digest", lambda file, _: f"{os.fstat(file.fileno()).st_ino:064}")
    mounted, away, calls = house.folder / "nas", house.folder / "away", count(1)
    for name, shapes in files.items():
        write_model(mounted / f"{name}.safetensors", shapes)
    write_model(house.models / "checkpoints/it.safetensors", flux())
    write_model(house.models / "vae/ae.safetensors", FLUX1_VAE)
    (house.models / folder).mkdir(exist_ok=True)
    (house.models / folder / (linked or "nas")).symlink_to(mounted / linked)
    house.draw("lines.png")

    def load(batch: Batch) -> None:
        call = next(calls)
        if call == 1:
            mounted.rename(away)
        if call == 4:
            wait_for(lambda: f"No {kind} in" in str(house.status()["trouble"]))
            assert not house.status()["images"]["failed"]
            away.rename(mounted)
        if call <= 4 or batch[0].seed == 2:
            raise RenderFailed("There is no 'mine'.")

    house.engine.before_batch = load
    house.save("a.yaml", SMALL + named)
    with house.running(batch_size=1):
        wait_for(lambda: house.seeds() == [1])
        assert house.log().count("Trying again every minute") == 1
        mounted.rename(away)
        house.save("b.yaml", "prompt: a corgi\nseed: 2\nsize: 64x64\ncheckpoint: demo\n")
        wait_for(lambda: house.status()["images"]["failed"] == 1)


def test_an_image_fails_whose_last_model_of_a_kind_was_deleted(house: House) -> None:
    """Its folder is there on its disk, so nobody waits for a share, and others are drawn."""
    lora = house.models / "loras/style/mine.safetensors"
    write_model(lora, kohya_lora_shapes())

    def load(batch: Batch) -> None:
        if lora.parent.exists() or batch[0].loras:
            shutil.rmtree(lora.parent, ignore_errors=True)
            raise RenderFailed("There is no 'mine'.")

    house.engine.before_batch = load
    house.save("a.yaml", f"{SMALL}{STYLED}priority: 1\n")
    house.save("b.yaml", "prompt: a corgi\nseed: 2\nsize: 64x64\ncheckpoint: demo\n")
    assert not house.once(batch_size=1)
    assert "There is no 'mine'." in (house.error("a.yaml") or "")
    assert house.seeds() == [2]


def test_a_picture_that_needs_no_installed_model_fails_as_ever(house: House) -> None:
    """Enlarging with the embedded upscaler waits for no models folder, which may be empty."""
    house.engine.before_batch = Mock(side_effect=RenderFailed("Out of luck."))
    house.draw("photo.png")
    house.save("a.yaml", "image: photo.png\nupscale: true\ncutout: true\n")
    assert not house.once()
    assert "Out of luck." in (house.error("a.yaml") or "")
