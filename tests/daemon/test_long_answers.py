"""What takes long holds up nobody else, ends with picowatch, and gives signs of life."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, hashes
from picowatch.catalog.hashes import HashCache
from picowatch.catalog.headers import Header, read_header
from picowatch.catalog.models import Model
from picowatch.daemon import intake
from picowatch.daemon.backlog import Backlog
from picowatch.daemon.build import build_daemon
from picowatch.files.retry import Ended
from picowatch.inbox.evidence import Deleted, Renamed, Saved
from picowatch.observers.view import rows
from picowatch.outbox import sheets
from picowatch.outbox.outbox import Outbox
from picowatch.recipe import DefaultsFile, read_recipes
from picowatch.recipe.recipe import Recipe
from picowatch.save import Stamp
from tests.catalog.files import kohya_lora_shapes, sd15_shapes, write_model
from tests.daemon.test_what_a_save_means import HeldEngine
from tests.house import House, wait_for, within

SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\n"


def pause(seconds: float) -> None:
    """What is slow on a slow machine."""
    threading.Event().wait(seconds)


def test_pictures_are_rendered_while_a_checkpoint_is_hashed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is free meanwhile: lanes claim, publishers note what they published."""
    write_model(house.models / "checkpoints/new.safetensors", sd15_shapes())
    reading, read = threading.Event(), threading.Event()
    real = HashCache.sha256

    def slow(cache: HashCache, path: Path, **more: Any) -> str:
        if path.name != "new.safetensors":
            return real(cache, path, **more)
        reading.set()
        assert read.wait(60)
        return "ab" * 32

    monkeypatch.setattr(HashCache, "sha256", slow)
    house.engine.before_batch = lambda batch: wait_for(reading.is_set, "the hashing")
    with house.running(batch_size=1):
        house.save("demo.yaml", f"{SMALL}checkpoint: demo\ncount: 5\n")
        wait_for(lambda: house.engine.batches, "the first batch")
        house.save("new.yaml", f"{SMALL}checkpoint: new\n")
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
    assert "new.safetensors cannot be read: No such file" in (house.error("a.yaml") or "")
    assert house.pictures("b")


def test_an_unexpected_error_while_a_model_is_hashed_is_no_hash(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe is answered with it, and nothing is rendered."""
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


def test_a_large_models_folder_is_left_when_picowatch_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of headers take minutes, without a sign of life a service manager ends that."""
    for number in range(9):
        write_model(house.models / f"loras/{number}.safetensors", kohya_lora_shapes())
    house.save("a.yaml", SMALL)
    read: list[Path] = []
    monkeypatch.setattr("picowatch.files.retry.GRACE_SECONDS", 0.0)
    with house._daemon(keeps_trying=True) as (daemon, stop, _):

        def header(path: Path) -> Header:
            read.append(path)
            if len(read) == 3:
                stop.set()
            return read_header(path)

        with monkeypatch.context() as patched:
            patched.setattr("picowatch.catalog.catalog.read_any_header", header)
            daemon.run()
    assert len(read) == 3
    assert house.once()
    assert len(house.pictures()) == 1


def test_a_huge_recipe_is_left_when_picowatch_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two of its requests; nothing of it is queued, the next start answers it."""
    real, computed = Recipe._request, 0
    house.save("huge.yaml", f"{SMALL}count: 1000\n")
    monkeypatch.setattr("picowatch.files.retry.GRACE_SECONDS", 0.0)
    with house._daemon(keeps_trying=True) as (daemon, stop, _):

        def request(*arguments: Any) -> Any:
            nonlocal computed
            computed += 1
            if computed == 3:
                stop.set()
            return real(*arguments)

        monkeypatch.setattr(Recipe, "_request", request)
        daemon.run()
    assert computed == 3
    assert house.status()["images"]["queued"] == 0
    with house.running(batch_size=1):
        wait_for(lambda: sum((house.status()["images"] or {}).values()) == 1000, "its images")


def test_a_contact_sheet_is_left_when_picowatch_ends_and_drawn_by_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its pictures takes long here."""
    drawing = threading.Event()

    def slow(path: Path, side: int) -> str:
        drawing.set()
        pause(0.1)
        return "unreadable"

    with monkeypatch.context() as patched:
        patched.setattr(sheets, "_small_picture", slow)
        with house.running():
            house.save("a.yaml", f"{SMALL}count: 60\ngrid: true\n")
            assert drawing.wait(60)
            left = time.monotonic()
        assert time.monotonic() - left < within(2)
    assert len(house.pictures()) == 60
    assert house.once()
    assert len(house.pictures()) == 61


def test_a_batch_that_is_published_slowly_is_put_back_when_picowatch_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written stays, the rest is rendered by the next start: each picture once."""
    publishing = threading.Event()
    real = Outbox.publish

    def slow(outbox: Outbox, *arguments: Any) -> None:
        publishing.set()
        pause(0.4)
        real(outbox, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "publish", slow)
        with house.running(batch_size=8):
            house.save("a.yaml", f"{SMALL}count: 32\n")
            assert publishing.wait(60)
            left = time.monotonic()
        assert time.monotonic() - left < within(2)
    assert house.once()
    assert sorted(house.seeds()) == list(range(1, 33))


def test_a_folder_of_high_priority_is_answered_before_older_saves(house: House) -> None:
    """A crowd was dropped at once, and one save into live/ after it."""
    for number in range(250):
        os.utime(house.save(f"crowd/{number:03}.yaml", SMALL), (1e9, 1e9))
    house.save("live/_defaults.yaml", "priority: 10\n")
    house.save("live/now.yaml", SMALL)
    assert house.once()
    saved = [line for line in house.log().splitlines() if ": saved" in line]
    assert len(saved) == 251
    assert "live/now.yaml" in saved[0]


def test_a_save_of_high_priority_overtakes_saves_that_are_being_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two slices the inbox is looked at."""
    read: list[str] = []

    def slow(name: str, *arguments: Any) -> Any:
        if not read:
            house.save("live/now.yaml", SMALL)
        read.append(name)
        pause(0.02)
        return read_recipes(name, *arguments)

    monkeypatch.setattr(intake, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(intake, "read_recipes", slow)
    house.save("live/_defaults.yaml", "priority: 10\n")
    for number in range(150):
        house.save(f"crowd/{number:03}.yaml", SMALL)
    with house.running():
        wait_for(lambda: len(read) == 151, "all saves")
    assert read.index("live/now.yaml") < 149


def saved(path: str, defaults: str = "") -> Saved:
    layers = (DefaultsFile("_defaults.yaml", defaults.encode()),) if defaults else ()
    return Saved(path, b"", "", Stamp(0, 0, 0), layers)


@pytest.mark.parametrize("before", [Deleted("x"), Renamed("x", saved("y")), saved("x")])
def test_nothing_overtakes_what_concerns_the_same_file(before: Deleted | Renamed | Saved) -> None:
    """Its folder got its priority in between."""
    urgent = saved("x", "priority: 5")
    backlog = Backlog()
    backlog.add([saved("a"), before])
    backlog.add([urgent, saved("b", "priority: 5")])
    assert [seen.path for seen in backlog.evidence] == ["b", "a", before.path, "x"]


def test_a_service_manager_is_notified_of_a_start_that_takes_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a new ledger is built from the pictures."""
    house.save("a.yaml", SMALL)
    assert house.once()
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    monkeypatch.setattr("picowatch.systemd.BEAT_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = os.fspath(house.folder / "notify")
        manager.bind(address)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert house.once()
        assert manager.recv(1000) == b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"


@pytest.mark.parametrize("part", ["daemon.build.OutboxLock", "daemon.recovery.Recovery._recover"])
def test_a_service_manager_is_notified_of_a_start_that_is_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It would end a start without a sign of life, and the next one as well."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = os.fspath(house.folder / "notify")
        manager.bind(address)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with monkeypatch.context() as patched:
            patched.setattr(f"picowatch.{part}", full)
            start = threading.Thread(target=begin, args=(house, stop := threading.Event()))
            start.start()
            told = [manager.recv(1000) for _ in range(2)]
            stop.set()
            start.join()
    assert told == [b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"] * 2


def begin(house: House, stop: threading.Event) -> None:
    """A daemon that is ended while its start is waiting."""
    with suppress(Ended), ExitStack() as stack:
        daemon = build_daemon(
            house.settings(),
            house.make_engine,
            house.console,
            stack,
            stop=stop,
            wake=threading.Event(),
            keeps_trying=True,
        )
        daemon.run()


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
