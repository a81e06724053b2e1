"""What goes wrong while rendering is answered, and the queue continues."""

import errno
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.engine.protocol import RenderedImage
from picowatch.errors import EngineDied, RenderFailed
from picowatch.files.atomic import write_atomically
from picowatch.files.inside import open_below
from picowatch.inbox.files import read_file
from picowatch.ledger.ledger import Ledger
from picowatch.outbox.commands import Command, send
from picowatch.outbox.gallery.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.problems import ProblemFiles
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import digest_picture
from tests.house import PATIENCE, House, wait_for


def fail_on(prompt: str, error: Exception, times: int = 1000) -> Any:
    """An engine hook that raises while a batch holds the prompt, at most `times` times."""
    left = times

    def hook(batch: Sequence[ImageRequest]) -> None:
        nonlocal left
        if left and any(request.prompt == prompt for request in batch):
            left -= 1
            raise error

    return hook


def test_a_failed_image_is_answered_and_the_rest_is_rendered(house: House) -> None:
    """Its batch mates are not failed with it; the error file names seed and reason."""
    house.engine.before_batch = fail_on("bad", RenderFailed("The model is sick.", "Heal it."))
    house.save("a.txt", "one\nbad --seed 5\nthree\n")
    assert not house.once()
    assert sorted(house.prompts()) == ["one", "three"]
    error = house.error("a.txt") or ""
    assert "entry 2, image 1, seed 5" in error
    assert "The model is sick. Heal it." in error


def test_the_next_save_tries_failed_images_again(house: House) -> None:
    """With the seeds they had; then the error file is gone."""
    house.engine.before_batch = fail_on("bad", RenderFailed("Sick."), times=2)
    path = house.save("a.txt", "bad --seed 5\none --seed 6\n")
    assert not house.once()
    path.touch()
    assert house.once()
    assert house.error("a.txt") is None
    assert sorted(house.seeds()) == [5, 6]


def test_an_image_whose_engine_died_is_tried_once_more(house: House) -> None:
    """One death is nobody's failure."""
    house.engine.before_batch = fail_on("unlucky", EngineDied("It was killed."), times=1)
    house.save("a.txt", "one\nunlucky\n")
    assert house.once()
    assert sorted(house.prompts()) == ["one", "unlucky"]
    assert "It will be tried again" in house.log()


def test_an_image_that_kills_the_engine_twice_has_failed(house: House) -> None:
    """With the reason, and the queue continues; its batch mates are rendered."""
    house.engine.before_batch = fail_on("deadly", EngineDied("It was killed (SIGSEGV)."))
    house.save("a.txt", "one\ndeadly\nthree\n")
    assert not house.once()
    assert sorted(house.prompts()) == ["one", "three"]
    assert "SIGSEGV" in (house.error("a.txt") or "")


def test_a_bug_fails_the_image_and_not_picowatch(house: House) -> None:
    """An error nobody thought of reaches the user as a sentence."""
    house.engine.before_batch = fail_on("bad", ZeroDivisionError("division by zero"))
    house.save("a.txt", "bad\n")
    house.save("b.txt", "good\n")
    assert not house.once()
    assert house.prompts() == ["good"]
    assert "ZeroDivisionError" in (house.error("a.txt") or "")


def test_a_bug_while_publishing_fails_the_image_and_not_picowatch(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a picture's metadata do to us."""
    really_publish = Outbox.publish

    def publish(outbox: Outbox, file: str, *arguments: Any) -> None:
        if file.startswith("a/"):
            raise ZeroDivisionError("division by zero")
        really_publish(outbox, file, *arguments)

    monkeypatch.setattr(Outbox, "publish", publish)
    house.save("a.txt", "bad\n")
    house.save("b.txt", "good\n")
    assert not house.once()
    assert house.prompts() == ["good"]
    assert "ZeroDivisionError" in (house.error("a.txt") or "")


def test_an_engine_that_hangs_is_ended(house: House) -> None:
    """No step for `stall_seconds`: it counts as a death."""
    hang = threading.Event()
    stuck = 2

    def hook(batch: Sequence[ImageRequest]) -> None:
        nonlocal stuck
        if batch[0].prompt == "stuck" and stuck:
            stuck -= 1
            hang.wait(PATIENCE)

    house.engine.before_batch = hook
    house.save("a.txt", "stuck\n")
    house.save("b.txt", "good --steps 9\n")
    try:
        assert not house.once(stall_seconds=1)
    finally:
        hang.set()
    assert house.prompts() == ["good"]
    assert "no step for 1 s" in (house.error("a.txt") or "")


def test_an_engine_did_not_hang_while_picowatch_itself_was_stopped(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z and `fg` an hour later, `docker pause`: the picture in progress is finished."""
    clock = StoppedClock()
    monkeypatch.setattr("picowatch.work.rendering.time", clock)

    def after_step(done: int) -> None:
        if done == 3:
            looks, clock.stopped = clock.looks, 3600.0
            wait_for(lambda: clock.looks > looks + 2)

    house.engine.after_step = after_step
    house.save("a.txt", "one --steps 9\n")
    assert house.once(stall_seconds=600)
    assert house.prompts() == ["one"]
    assert len(house.engine.batches) == 1


class StoppedClock:
    """Instead of the module `time`: its clock went on for `stopped` seconds, and nothing else."""

    def __init__(self) -> None:
        self.stopped = 0.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return time.monotonic() + self.stopped


def test_an_idle_engine_gives_its_memory_back(house: House) -> None:
    """And starts again for the next image."""
    with house.running(unload_after_minutes=0.001):
        house.save("a.txt", "one\n")
        wait_for(lambda: len(house.pictures()) == 1)
        wait_for(lambda: not house.engine._started, "the engine's end")
        house.save("b.txt", "two\n")
        wait_for(lambda: len(house.pictures()) == 2)
    assert house.engine.starts == 2


def test_the_engine_starts_while_a_save_settles(house: House) -> None:
    """And not for what an earlier picowatch has taken in."""
    with house.running():
        house.save("a.txt", "one\n")
        wait_for(lambda: len(house.pictures()) == 1)
    assert house.engine.prepared
    house.engine.prepared = 0
    with house.running():
        wait_for(lambda: house.console.shown and house.console.shown[-1].images["done"] == 1)
        assert not house.engine.prepared
        house.save("b.txt", "two\n")
        wait_for(lambda: len(house.pictures()) == 2)
    assert house.engine.prepared


def full_disk(monkeypatch: pytest.MonkeyPatch, room: threading.Event) -> None:
    """Pictures cannot be written until there is room."""
    really_publish = Outbox.publish

    def publish(outbox: Outbox, *arguments: Any) -> None:
        if not room.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        really_publish(outbox, *arguments)

    monkeypatch.setattr(Outbox, "publish", publish)


def test_a_full_disk_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged once, nothing is failed, and work continues when there is room."""
    room = threading.Event()
    full_disk(monkeypatch, room)
    with house.running():
        house.save("a.txt", "one\n")
        wait_for(lambda: "No space left on device; waiting" in house.log())
        room.set()
        wait_for(lambda: house.prompts() == ["one"])
    assert house.log().count("No space left") == 1
    assert house.error("a.txt") is None


@pytest.mark.parametrize("step", [(Listing, "append"), (Gallery, "add")])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError()])
def test_a_picture_that_exists_and_cannot_be_listed_is_not_rendered_again(
    house: House, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], error: Exception
) -> None:
    """It is rendered, whatever happens after that; the next start lists it."""

    def fail(*_: Any) -> None:
        raise error

    house.save("a.yaml", "prompt: a corgi\nseed: 1\ncount: 3\n")
    with monkeypatch.context() as patch:
        patch.setattr(*step, fail)
        with house.running(batch_size=3):
            wait_for(lambda: house.pictures(), "the first picture")
            wait_for(lambda: "cannot write" in house.log() or "ValueError" in house.log())
    assert house.error("a.yaml") is None
    assert house.once()
    assert house.seeds() == [1, 2, 3]
    assert sorted(line["seed"] for line in house.listed()) == [1, 2, 3]
    gallery = "".join(p.read_text() for p in house.outbox.glob(".picowatch/gallery/page-*.js"))
    assert [gallery.count(picture) > 0 for picture in house.pictures()] == [True] * 3


def test_a_ledger_that_cannot_be_written_ends_a_single_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason, and instead of waiting for an image that is done; then it is fixed."""

    def fail(*_: Any, **named: Any) -> None:
        raise ValueError("no reason that anybody thought of")

    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", fail)
        assert not house.once()
    assert "no reason that anybody thought of" in house.log()
    assert house.once()
    assert [line["file"] for line in house.listed()] == house.pictures() == ["a/0001-1.png"]


@pytest.mark.parametrize("missing", ["latest.png", "0001-1.txt"])
def test_a_picture_that_exists_is_not_rendered_again_because_of_what_follows_it(
    house: House, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """There was room for the picture, and for nothing after it."""

    def write(target: Path, content: bytes, *, durable: bool = True) -> None:
        if target.name == missing:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(target, content, durable=durable)

    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    with monkeypatch.context() as patch:
        patch.setattr("picowatch.outbox.outbox.write_atomically", write)
        assert not house.once(sidecar="txt")
    assert house.pictures() == ["a/0001-1.png"]
    assert house.once(sidecar="txt")
    assert house.pictures() == ["a/0001-1.png"]
    assert (house.outbox / "a/0001-1.txt").read_text().startswith("a corgi\nSteps: ")
    assert [line["file"] for line in house.listed()] == ["a/0001-1.png"]


def test_a_recipe_is_archived_although_the_disk_filled_up_after_its_picture(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the picture and latest.png, and picowatch was stopped then."""

    def write(target: Path, content: bytes, *, durable: bool = True) -> None:
        if target.name == "latest.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(target, content, durable=durable)

    path = house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    with monkeypatch.context() as patch:
        patch.setattr("picowatch.outbox.outbox.write_atomically", write)
        with house.running(when_done="archive"):
            wait_for(lambda: "No space left on device; waiting" in house.log())
    assert path.exists()
    assert house.once(when_done="archive")
    assert not path.exists()
    assert house.pictures() == ["a/0001-1.png"]
    assert (house.outbox / "a/a.yaml").exists()


def test_saves_wait_for_a_ledger_that_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was noticed is forgotten."""
    really_accept = Ledger.accept
    full = threading.Event()
    full.set()

    def accept(*arguments: Any, **named: Any) -> Any:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_accept(*arguments, **named)

    monkeypatch.setattr(Ledger, "accept", accept)
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.05)
    with house.running():
        house.save("a.txt", "one\n")
        wait_for(lambda: "cannot write: [Errno 28]" in house.log())
        full.clear()
        wait_for(lambda: house.prompts() == ["one"])


def test_a_file_that_changes_while_it_is_read_is_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only whole files are answered."""
    path = house.save("a.txt", "one\n")
    reads: list[str] = []

    def read(root: Any, name: str) -> Any:
        if name == "a.txt" and not reads:
            reads.append(name)
            path.unlink()
            house.save("a.txt", "two\n")
            raise FileNotFoundError
        return read_file(root, name)

    monkeypatch.setattr("picowatch.inbox.reading.read_file", read)
    assert house.once()
    assert house.prompts() == ["two"]


def test_an_embedding_that_cannot_be_used_is_not_passed_over_in_silence(house: House) -> None:
    """Its name is a word, so the picture is made; the file beside it says what became of it."""
    folder = house.models / "embeddings"
    folder.mkdir(parents=True)
    (folder / "cute.safetensors").write_bytes(b"cut off")
    house.save("a.txt", "a CUTE corgi\n")
    house.save("b.txt", "a corgi\n")
    assert house.once()
    warning = (house.outbox / "a.txt.warning.txt").read_text()
    assert (
        "The prompt's 'cute' is used as plain words, because the embedding of that name cannot"
        in warning
    )
    assert not (house.outbox / "b.txt.warning.txt").exists()


def test_what_an_engine_warns_of_stands_beside_the_pictures_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As parts of a LoRA without a layer do; the next good save takes it away."""

    def picture(request: ImageRequest, batch_size: int) -> RenderedImage:
        warnings = ("The LoRA 'x' has parts that do nothing.",) if "x" in request.prompt else ()
        return replace(digest_picture(request, batch_size), warnings=warnings)

    monkeypatch.setattr("tests.digest_engine.digest_picture", picture)
    house.save("a.txt", "x --seed 1 --count 3\n")
    assert house.once()
    warning = house.outbox / "a.txt.warning.txt"
    assert warning.read_text() == "inbox/a.txt\n\nThe LoRA 'x' has parts that do nothing.\n"
    house.save("a.txt", "a corgi --seed 1\n")
    assert house.once()
    assert not warning.exists()


def test_a_recipe_that_cannot_be_read_keeps_no_engine_running(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each scan looks at it again; an engine for it would hold its memory for ever."""
    refused = []

    def refuse(root: Path, path: str) -> int:
        if path == "a.yaml":
            refused.append(house.engine.prepared)
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_below(root, path)

    monkeypatch.setattr("picowatch.inbox.files.open_below", refuse)
    house.save("a.yaml", "prompt: a star\n")
    with house.running(settle_seconds=0.3):
        wait_for(lambda: len(refused) > 1, "the second look")
        prepared = house.engine.prepared
        wait_for(lambda: len(refused) > 3, "more looks")
        assert house.engine.prepared == prepared
    assert house.log().count("cannot be read") == 1


def test_a_recipe_is_answered_again_when_its_defaults_can_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share may answer with an error for a moment: as a recipe itself, nobody saves it again."""
    refused, can_be_read = [], threading.Event()

    def refuse(root: Path, path: str) -> int:
        if path == "_defaults.yaml" and not can_be_read.is_set():
            refused.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return open_below(root, path)

    monkeypatch.setattr("picowatch.inbox.files.open_below", refuse)
    house.save("_defaults.yaml", "steps: 3\n")
    house.save("a.yaml", "prompt: a star\n")
    with house.running():
        wait_for(lambda: house.error("a.yaml"), "the error file")
        why = "_defaults.yaml above it: Stale file handle"
        wait_for(lambda: why in house.log(), "the line of the log")
        looks = len(refused)
        wait_for(lambda: len(refused) > looks + 2, "more looks")
        can_be_read.set()
        wait_for(house.pictures, "the picture")
        wait_for(lambda: house.error("a.yaml") is None, "the end of the error")
    assert house.log().count("cannot be read") == 1
    assert [house.chunk(one).request.steps for one in house.pictures()] == [3]


def test_a_start_image_is_waited_for_while_no_more_files_can_be_opened(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no fault of the picture: refused, the recipe would have to be saved again."""
    refused, can_be_opened = [], threading.Event()

    def refuse(root: Path, path: str) -> int:
        if not can_be_opened.is_set():
            refused.append(path)
            raise OSError(errno.EMFILE, "Too many open files")
        return open_below(root, path)

    monkeypatch.setattr("picowatch.outbox.start_images.open_below", refuse)
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.05)
    Image.new("RGB", (64, 64), "red").save(house.inbox / "start.png")
    house.save("a.yaml", "prompt: a star\nimage: start.png\n")
    with house.running():
        wait_for(lambda: len(refused) > 2, "more looks")
        assert house.error("a.yaml") is None
        can_be_opened.set()
        wait_for(house.pictures, "the picture")
    assert house.error("a.yaml") is None
    assert house.log().count("cannot write: [Errno 24] Too many open files") == 1


def test_an_error_that_could_not_be_written_at_the_end_is_written_by_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when picowatch ended; the failed image has its error file all the same."""
    house.engine.before_batch = fail_on("bad", RenderFailed("Sick."))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    house.save("a.txt", "bad --seed 5\n")
    with monkeypatch.context() as patch:
        patch.setattr(ProblemFiles, "write_error", full)
        with house.running():
            wait_for(lambda: "; waiting" in house.log())
    assert house.error("a.txt") is None
    house.once()
    assert "Sick." in (house.error("a.txt") or "")


def test_a_fixed_error_is_gone_from_the_status_with_the_next_look(house: House) -> None:
    """Corrected, deleted, renamed to what is no recipe, or retried; status.json follows."""

    def shown() -> set[str]:
        return {line.partition(",")[0].partition(":")[0] for line in house.status()["errors"]}

    def is_gone_once_logged(words: str, recipe: str) -> None:
        wait_for(lambda: words in house.log(), words)
        looks = len(house.console.shown) + 1  # one may be under way
        wait_for(lambda: len(house.console.shown) > looks, "another look")
        after = [str(status.errors) for status in house.console.shown[looks:]]
        assert not any(recipe in errors for errors in after)
        wait_for(lambda: not any(recipe in error for error in shown()), "status.json")

    recipes = {f"{name}.yaml" for name in ("one", "two", "three", "four")}
    house.engine.before_batch = fail_on("bad", RenderFailed("Sick."), times=1)
    with house.running():
        for name in recipes - {"four.yaml"}:
            house.save(name, "stesp: 3\n")
        house.save("four.yaml", "prompt: bad\n")
        wait_for(lambda: len(shown()) == len(recipes), "four errors")
        house.save("one.yaml", "prompt: a corgi\n")
        is_gone_once_logged("one.yaml: saved, 1 image queued", "one.yaml")
        (house.inbox / "two.yaml").unlink()
        is_gone_once_logged("two.yaml: deleted", "two.yaml")
        (house.inbox / "three.yaml").rename(house.inbox / "_three.yaml")
        is_gone_once_logged("three.yaml: deleted", "three.yaml")
        send(house.outbox, Command("retry"))
        is_gone_once_logged("four.yaml: 1 image queued again", "four.yaml")
        wait_for(lambda: house.prompts() == ["bad", "a corgi"], "the pictures")


def test_errors_are_in_the_status_after_a_restart(house: House) -> None:
    """As before it, until they are fixed; so is what failed while rendering."""

    def fail(batch: Sequence[ImageRequest]) -> None:
        if batch[0].prompt == "bad":
            raise RenderFailed("out of ink")

    house.engine.before_batch = fail
    house.save("pets/a.yaml", "prompt: a\nstesp: 1\n")
    house.save("b.txt", "bad\n")
    house.save("c.txt", "good\n")
    with house.running():
        wait_for(lambda: len(house.status()["errors"]) == 2, "the errors")
        before = house.status()["errors"]
    with house.running():
        wait_for(lambda: sorted(house.status()["errors"]) == sorted(before), "the same errors")
        assert house.status()["error_count"] == 2
        house.save("pets/a.yaml", "prompt: a\n")
        wait_for(lambda: house.status()["errors"] == ["b.txt: out of ink"], "one is fixed")
        (house.inbox / "b.txt").unlink()
        wait_for(lambda: house.status()["errors"] == [], "the other is gone")
