"""Renames that tests/meetings cannot simulate: a server's bin, a name that is reused at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from picowatch.files.inside import blocks_of
from tests.house import HeldEngine, House, wait_for


def test_a_recipe_that_takes_the_place_of_a_renamed_one_is_another(house: House) -> None:
    """After `mv a.yaml c.yaml` and a new a.yaml, seen at the same time, nothing is made twice."""
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("a.yaml", "prompt: a corgi\ncount: 3\n")
        hold.wait_until_held()
        with house.seen_at_once():
            (house.inbox / "a.yaml").rename(house.inbox / "c.yaml")
            house.save("a.yaml", "prompt: a star\ncount: 2\n")
        wait_for(lambda: "a.yaml: renamed to c.yaml" in house.log(), "the renaming")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 5, "all")
    assert house.once()
    assert sorted(house.started()) == ["a corgi"] * 3 + ["a star"] * 2
    assert house.prompts("a").count("a star") == 2
    assert house.prompts("c") == ["a corgi"] * 2


@pytest.mark.parametrize(
    ("defaults", "saves", "started"),
    [
        pytest.param(
            "priority: 10\n",
            [
                "- prompt: gone\n- {prompt: low, priority: 1}\n",
                "- {prompt: low, priority: 1}\n- prompt: high\n",
            ],
            ["in progress", "high", "a", "low"],
            id="the-folder's-is-that-of-entries-without-one-wherever-they-stand",
        ),
        pytest.param(
            "priority: 10\nsteps: 5\n",
            ["prompt: high\nimage: start.png\n"],
            ["in progress", "high", "a"],
            id="other-defaults-and-start-images-hold-from-the-next-save-on",
        ),
    ],
)
def test_a_moved_recipe_has_the_priority_of_its_new_folder(
    house: House, defaults: str, saves: list[str], started: list[str]
) -> None:
    """A recipe that is moved into live/ overtakes others; nothing else of it changes."""
    Image.new("RGB", (64, 64), "red").save(house.inbox / "start.png")
    house.save("live/_defaults.yaml", defaults)
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        texts = ["prompt: in progress\n", "prompt: a\npriority: 5\n", *saves]
        for number, text in enumerate(texts):
            house.save(("first.yaml", "a.yaml", "b.yaml", "b.yaml")[number], text)
            wait_for(lambda: house.log().count(": saved") > number, text)  # noqa: B023
        hold.wait_until_held()
        (house.inbox / "b.yaml").rename(house.inbox / "live/b.yaml")
        wait_for(lambda: "b.yaml: renamed to live/b.yaml" in house.log(), "the renaming")
        hold.release()
        wait_for(lambda: len(house.pictures()) == len(started), "all")
    assert house.started() == started
    assert {house.chunk(picture).request.steps for picture in house.pictures()} == {24}
    assert house.error("live/b.yaml") is None


def test_what_changes_while_it_is_read_is_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes are read when they are complete, with the defaults of that time."""
    meanwhile = {"a.txt": "two\n", "_defaults.yaml": "steps: 7\n"}
    for name in meanwhile:
        house.save(name, {"a.txt": "one\n"}.get(name, "steps: 5\n"))

    def written_meanwhile(file: IO[bytes], most: int) -> Iterator[bytes]:
        yield from blocks_of(file, most)
        name = Path(f"/dev/fd/{file.fileno()}").resolve().name
        if text := meanwhile.pop(name, ""):
            house.save(name, text)

    monkeypatch.setattr("picowatch.inbox.files.blocks_of", written_meanwhile)
    monkeypatch.setattr("picowatch.inbox.inbox.defaults_for", lambda *_: [])  # for the priority
    assert house.once()
    assert (house.prompts(), house.error("a.txt"), meanwhile) == (["two"], None, {})
    assert house.requests()[0].steps == 7
