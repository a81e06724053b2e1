"""What takes long holds up nobody else, and ends with picowatch."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, hashes
from picowatch.catalog.hashes import HashCache
from picowatch.catalog.models import Model
from picowatch.daemon import accept
from picowatch.observers.console import rows
from picowatch.recipe import read_recipes
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.house import HeldEngine
from tests.house import House, wait_for

SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\n"


def test_pictures_are_rendered_while_a_model_is_hashed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is free meanwhile: workers claim, publishers note what they published."""
    write_model(house.models / "loras/new.safetensors", kohya_lora_shapes())
    reading, read = threading.Event(), threading.Event()
    real = HashCache.sha256

    def slow(cache: HashCache, path: Path, *arguments: Any, **more: Any) -> str:
        if path.name == "new.safetensors":
            reading.set()
            assert read.wait(60)
        return real(cache, path, *arguments, **more)

    monkeypatch.setattr(HashCache, "sha256", slow)
    house.engine.before_batch = lambda batch: wait_for(reading.is_set, "the hashing")
    with house.running(batch_size=1):
        house.save("demo.yaml", f"{SMALL}count: 5\n")
        wait_for(lambda: house.engine.batches, "the first batch")
        house.save("new.yaml", f"{SMALL}loras: {{new: 1}}\n")
        try:
            wait_for(lambda: house.status()["images"]["done"] == 5, "pictures meanwhile")
            assert house.pictures("new") == []
        finally:
            read.set()
        wait_for(lambda: len(house.pictures("new")) == 1, "the picture of the new one")


def test_a_model_that_is_deleted_while_it_is_hashed_holds_up_no_other_save(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress in the log names its size, which nobody can look up any more."""
    path = write_model(house.models / "loras/new.safetensors", kohya_lora_shapes())
    monkeypatch.setattr("picowatch.daemon.model_hashes.PROGRESS_SECONDS", 0.0)
    real, size = hashes._digest, Catalog.size
    logged = threading.Event()

    def slow(file: Any, on_block: Any) -> str:
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            path.unlink()
            wait_for(logged.is_set, "a look at the progress")
        return real(file, on_block)

    def log_it(catalog: Catalog, model: Model) -> int:
        logged.set()
        return size(catalog, model)

    monkeypatch.setattr(hashes, "_digest", slow)
    monkeypatch.setattr(Catalog, "size", log_it)
    house.save("a.yaml", f"{SMALL}loras: {{new: 1}}\ncheckpoint: demo\n")
    house.save("b.yaml", SMALL)
    assert not house.once()
    assert house.error("a.yaml")
    assert house.pictures("b")
    assert not house.pictures("a")


def test_an_unexpected_error_while_a_model_is_hashed_is_no_hash(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe is refused with it, and nothing is rendered."""
    write_model(house.models / "loras/new.safetensors", kohya_lora_shapes())
    real = hashes._digest

    def broken(file: Any, on_block: Any) -> str:
        if "new" in Path(f"/proc/self/fd/{file.fileno()}").readlink().name:
            raise RuntimeError("out of luck")
        return real(file, on_block)

    monkeypatch.setattr(hashes, "_digest", broken)
    house.save("a.yaml", f"{SMALL}loras: {{new: 1}}\ncheckpoint: demo\n")
    assert not house.once()
    assert "out of luck" in (house.error("a.yaml") or "")
    assert house.pictures() == []


def test_a_folder_of_high_priority_is_accepted_before_older_saves(house: House) -> None:
    """A crowd was dropped at once, and one save into live/ after it."""
    for number in range(250):
        os.utime(house.save(f"crowd/{number:03}.yaml", SMALL), (1e9, 1e9))
    house.save("live/_defaults.yaml", "priority: 10\n")
    house.save("live/now.yaml", SMALL)
    assert house.once()
    saved = [line for line in house.log().splitlines() if ": saved" in line]
    assert len(saved) == 251
    assert "live/now.yaml" in saved[0]


def test_a_save_of_high_priority_overtakes_saves_that_are_being_accepted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two slices the inbox is looked at."""
    read: list[str] = []

    def slow(name: str, *arguments: Any) -> Any:
        if not read:
            house.save("live/now.yaml", SMALL)
        read.append(name)
        threading.Event().wait(0.02)
        return read_recipes(name, *arguments)

    monkeypatch.setattr(accept, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(accept, "read_recipes", slow)
    house.save("live/_defaults.yaml", "priority: 10\n")
    for number in range(150):
        house.save(f"crowd/{number:03}.yaml", SMALL)
    with house.running():
        wait_for(lambda: len(set(read)) == 151, "all saves")
    assert read.index("live/now.yaml") < 149


@pytest.mark.parametrize("end", ["fixed", "deleted"])
def test_an_error_is_shown_until_it_is_no_more(house: House, end: str) -> None:
    """In the status, and so in the view of `run`."""
    with house.running():
        recipe = house.save("a.yaml", "promt: a typo\n")
        house.save("b.yaml", "promt: a typo\n")
        wait_for(lambda: len(house.status()["errors"]) == 2, "the errors")
        ends: dict[str, Callable[[], object]] = {
            "fixed": lambda: house.save("a.yaml", SMALL),
            "deleted": recipe.unlink,
        }
        ends[end]()
        wait_for(lambda: len(house.status()["errors"]) == 1, "the error to go")
        assert house.status()["errors"][0].startswith("inbox/b.yaml")


def shown(house: House) -> list[str]:
    """What the rows of the view are called."""
    return [row.label for row in rows(house.console.shown[-1])]


def test_an_error_is_gone_as_soon_as_the_corrected_recipe_is_accepted(house: House) -> None:
    """From the status and the view, while the first of its images is still being rendered."""
    hold = HeldEngine(house)
    with house.running():
        house.save("a.yaml", "promt: a typo\n")
        wait_for(lambda: house.status()["errors"], "the error")
        house.save("a.yaml", SMALL)
        hold.wait_until_held()
        wait_for(lambda: not house.status()["errors"], "the error to go from the status")
        wait_for(lambda: "error" not in shown(house), "the error to go from the view")
        assert not house.pictures()
        hold.release()
        wait_for(house.pictures, "the picture")
