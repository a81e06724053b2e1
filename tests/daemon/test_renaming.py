"""Renames that tests/meetings cannot simulate: a server's bin, a name that is reused at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from picowatch.files.inside import blocks_of
from picowatch.inbox.files import defaults_for, read_file
from picowatch.recipe import DefaultsFile
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
            ["- {prompt: low, priority: 1}\n- prompt: high\n"],
            ["in progress", "high", "a", "low"],
            id="the-folder's-is-that-of-entries-without-one",
        ),
        pytest.param(
            "priority: 10\nsteps: 5\n",
            ["prompt: high\nimage: start.png\n"],
            ["in progress", "high", "a"],
            id="other-defaults-and-start-images-hold-from-the-next-save-on",
        ),
        pytest.param(
            "{}\n",
            [
                "- prompt: gone\n- {prompt: urgent, priority: 6}\n",
                "- {prompt: urgent, priority: 6}\n- prompt: last\n",
            ],
            ["in progress", "urgent", "a", "last"],
            id="each-entry-keeps-its-own-wherever-it-stands",
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
    defaults = house.save("_defaults.yaml", "steps: 5\n")
    path = house.save("a.txt", "one\n")
    left, read_for, reads = [7, 6], [""], list[str]()

    def replaced_meanwhile(root: Any, name: str) -> Any:
        if name == "a.txt" and not reads:
            reads.append(name)
            path.unlink()
            house.save("a.txt", "two\n")
            raise FileNotFoundError
        return read_file(root, name)

    def written_meanwhile(file: IO[bytes], most: int) -> Iterator[bytes]:
        yield from blocks_of(file, most)
        named = Path(f"/dev/fd/{file.fileno()}").resolve()
        if named == defaults and read_for[-1] == "a.txt" and left:
            defaults.write_text(f"steps: {left.pop()}\n")

    def noted(root: Path, path: str) -> list[DefaultsFile]:
        read_for.append(path)  # the recipe, or its folder when its priority is looked up
        return defaults_for(root, path)

    monkeypatch.setattr("picowatch.inbox.reading.read_file", replaced_meanwhile)
    monkeypatch.setattr("picowatch.inbox.files.blocks_of", written_meanwhile)
    monkeypatch.setattr("picowatch.inbox.reading.defaults_for", noted)
    assert house.once()
    assert (house.prompts(), house.error("a.txt"), left) == (["two"], None, [])
    assert house.chunk(house.pictures()[0]).request.steps == 7
