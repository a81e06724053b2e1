"""Failures while rendering are reported, and the queue continues."""

from dataclasses import replace
from itertools import chain, repeat
from unittest.mock import Mock

import pytest

from picowatch.engine.protocol import EngineCannotStart, RenderedImage
from picowatch.errors import PAUSED, EngineDied, RenderFailed
from picowatch.observers.console import rows
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import Batch, digest_picture, fail_on_bad
from tests.house import HeldEngine, House, wait_for


@pytest.mark.parametrize(
    ("error", "times", "said"),
    [
        (RenderFailed("The model is sick.", "Heal it."), 9, "The model is sick. Heal it."),
        (ZeroDivisionError("by zero"), 9, "Unexpected error: ZeroDivisionError: by zero."),
        (EngineDied("It was killed (SIGSEGV)."), 9, "(SIGSEGV). That was attempt 2."),
        (EngineDied("It was killed."), 1, ""),
    ],
)
def test_an_image_that_fails_takes_no_other_along(
    house: House, error: Exception, times: int, said: str
) -> None:
    """One death of the engine is harmless, and logged once for the whole batch."""
    left = [error] * times

    def fail(batch: Batch) -> None:
        if left and any(request.prompt == "bad" for request in batch):
            raise left.pop()

    house.engine.before_batch = fail
    path = house.save("a.txt", "one\nbad --seed 5\nthree\n")
    assert house.once() is not bool(said)
    assert sorted(house.prompts()) == sorted(["one", "three", *([] if said else ["bad"])])
    assert house.log().count("It will be tried again.") == isinstance(error, EngineDied)
    told = house.error("a.txt") or ""
    assert said in told
    assert ("entry 2, image 1, seed 5" in told) == bool(said)
    house.engine.before_batch = lambda batch: None
    path.touch()
    assert house.once()
    assert house.error("a.txt") is None
    assert house.seeds().count(5) == 1, "failed images are tried again, with the seeds they had"


def test_a_picture_that_is_only_finished_fails_without_a_seed(house: House) -> None:
    """In the log, its error file and the status: nothing was drawn from one."""

    def fail(batch: Batch) -> None:
        raise RenderFailed("It is too large.")

    house.engine.before_batch = fail
    house.save("large/_pictures.yaml", "upscale: 2\n")
    house.draw("large/a.png")
    assert not house.once()
    said = picowatch_here(house.folder, "status", "large").stdout
    assert "large/a.png: entry 1, image 1: It is too large." in said
    assert "entry 1, image 1:\nIt is too large." in (house.error("large/a.png") or "")
    assert "large/a.png: failed: It is too large." in house.log()
    assert "seed" not in house.log()


def test_the_engine_starts_for_a_batch_and_ends_when_it_is_idle(house: House) -> None:
    with house.running(unload_after_minutes=0.001):
        for name in ("a.txt", "b.txt"):
            house.save(name, "two\n")
            wait_for(lambda: house.pictures(name[0]), "the picture")  # noqa: B023
            wait_for(lambda: not house.engine._started, "the engine's end")
    assert house.engine.starts == 2


@pytest.mark.parametrize("paused", [False, True])
def test_trouble_with_the_engine_ends_once_no_image_waits_for_it(
    house: House, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """Whatever the cause was, such as models on a share, it may be gone by the next recipe."""
    monkeypatch.setattr("picowatch.daemon.worker.START_AGAIN_SECONDS", 0.1)

    def health() -> int:
        return picowatch_here(house.folder, "status", "--check").returncode

    house.engine.before_batch = Mock(side_effect=EngineCannotStart("It is broken."))
    path = house.save("a.yaml", "prompt: a corgi\n")
    with house.running():
        wait_for(lambda: house.status().get("troubles") == {"engine": "It is broken."})
        assert health() == 1
        if paused:
            assert picowatch_here(house.folder, "pause").returncode == 0
            wait_for(lambda: not house.status()["images"]["running"], "the end of the attempt")
            house.wait_for_rounds(1)
            assert health() == 1, "it will still be tried with this image"
        path.unlink()
        wait_for(lambda: health() == (PAUSED if paused else 0), "the end of the trouble")
    assert house.log().count("It is broken. Trying again every minute.") == 1


def test_the_status_waits_for_no_engine_that_has_begun_to_draw(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step shows that it could start."""
    monkeypatch.setattr("picowatch.daemon.worker.START_AGAIN_SECONDS", 0.01)
    failures = [EngineCannotStart("The engine was killed.")] * 2
    house.engine.before_batch = Mock(side_effect=chain(failures, repeat(None)))
    with house.held("a.txt", "one\ntwo\n", after=2, batch_size=1) as hold:
        wait_for(lambda: house.status()["images"]["running"], "the report")
        wait_for(lambda: not house.status()["troubles"], "the end of the trouble")
        now = house.outbox / "now.txt"  # which is written after status.json
        wait_for(lambda: "a.txt: 1 of 2" in now.read_text(), "the line")
        hold.release()
    assert "The engine was killed. Trying again every minute." in house.log()


def test_a_warning_of_the_engine_stands_beside_the_pictures_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of a LoRA's parts without a layer; the next save ends it."""

    def picture(request: ImageRequest, batch_size: int) -> RenderedImage:
        warnings = ("The LoRA 'x' has parts that do nothing.",) if "x" in request.prompt else ()
        return replace(digest_picture(request, batch_size), warnings=warnings)

    monkeypatch.setattr("tests.digest_engine.digest_picture", picture)
    house.save("a.txt", "x --seed 1 --count 3\n")
    assert house.once()
    warning = house.outbox / "a.txt.warning.txt"
    assert warning.read_text() == "inbox/a.txt\n\nThe LoRA 'x' has parts that do nothing.\n"
    house.save("a.txt", "a corgi --seed 1\n")
    assert house.once() and not warning.exists()


def test_an_error_is_in_the_status_until_it_is_fixed(house: House) -> None:
    """Even after a restart: corrected, deleted, renamed to something else, or retried."""

    def wrong() -> set[str]:
        lines = house.status()["errors"]
        return {line.partition(",")[0].partition(":")[0].removeprefix("inbox/") for line in lines}

    house.engine.before_batch = fail_on_bad
    recipes = {f"{name}.yaml" for name in ("one", "two", "three", "four")}
    for name in recipes - {"four.yaml"}:
        house.save(name, "stesp: 3\n")
    house.save("four.yaml", "prompt: bad\n")
    with house.running():
        wait_for(lambda: wrong() == recipes, "four errors")
    with house.running():
        wait_for(lambda: wrong() == recipes, "the same errors")
        assert house.status()["error_count"] == 4
        (house.inbox / "two.yaml").unlink()
        wait_for(lambda: wrong() == recipes - {"two.yaml"}, "the deletion")
        assert house.error("two.yaml") is None
        (house.inbox / "three.yaml").rename(house.inbox / "_three.yaml")
        wait_for(lambda: wrong() == {"one.yaml", "four.yaml"}, "the renaming")
        house.engine.before_batch = lambda batch: None
        house.tell("retry")
        wait_for(lambda: wrong() == {"one.yaml"}, "the retry")
        wait_for(lambda: house.prompts() == ["bad"], "its picture")
        hold = HeldEngine(house, after=len(house.engine.batches))
        house.save("one.yaml", "prompt: a corgi\n")
        hold.wait_until_held()
        wait_for(lambda: not wrong(), "the correction, while its picture is in progress")
        assert house.error("one.yaml") is None
        wait_for(lambda: "error" not in [row.label for row in rows(house.console.shown[-1])])
        hold.release()
