"""Reading a recipe renders nothing; `touch` means "again" for random seeds."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors.desk import desk_of, recipe
from tests.editors.programs import Place, is_installed, run_script
from tests.editors.terminal import in_terminal
from tests.house import House, wait_for


def _in_terminal(*command: str, says: str, quit_keys: str) -> Callable[[Place], None]:
    def read(place: Place) -> None:
        with in_terminal(*command, place.recipe.name, cwd=place.recipe.parent) as terminal:
            terminal.wait_for(says)
            terminal.keys(quit_keys)

    return read


def _by_script(script: str) -> Callable[[Place], None]:
    return lambda place: run_script(script, place, ELSEWHERE=str(place.elsewhere))


# Named after the program that must be installed. The last ones change no byte and no time.
READERS: dict[str, Callable[[Place], None]] = {
    "cat": _by_script('cat "$RECIPE"'),
    "grep": _by_script("grep -r prompt ."),
    "find": _by_script("find . -type f -exec sha256sum {} +"),
    "less": _in_terminal("less", says="prompt", quit_keys="q"),
    "vim": _in_terminal("vim", "-N", "-u", "NONE", says="prompt", quit_keys=":q\r"),
    "vim -R": _in_terminal("vim", "-R", "-u", "NONE", says="prompt", quit_keys=":q\r"),
    "nano": _in_terminal("nano", "--ignorercfiles", says="prompt", quit_keys="\x18"),
    "emacs": _in_terminal("emacs", "-nw", "-Q", says="prompt", quit_keys="\x18\x03"),
    "cp": _by_script('cp -p "$RECIPE" "$ELSEWHERE/cp"'),
    "rsync": _by_script('rsync -a "$RECIPE" "$ELSEWHERE/rsync"'),
    "tar": _by_script('tar cf "$ELSEWHERE/tar" .'),
    "gio": _by_script('gio cat "$RECIPE"; gio copy "$RECIPE" "$ELSEWHERE/gio"'),
    "git": _by_script("git init -q; git add .; git status; git diff"),
    "chmod": _by_script('chmod 600 "$RECIPE"'),
    "ln": _by_script('ln "$RECIPE" "$ELSEWHERE/ln"'),
    "touch -a": _by_script('touch -a "$RECIPE"'),
    "sh": _by_script(': >> "$RECIPE"'),
}


def test_reading_a_recipe_makes_nothing(house: House) -> None:
    """Viewers, editors without a save, backups, and changes of the inode are not saves."""
    places = {
        name: Place(house.inbox / name / "a.yaml", house.folder)
        for name in READERS
        if is_installed(name)
    }
    with desk_of(house) as desk:
        for place in places.values():
            place.recipe.parent.mkdir()
            place.recipe.write_text(recipe("a red circle"))
        for name in places:
            desk.expect_run(f"{name}/a.yaml", "a red circle")
        for name, place in places.items():
            READERS[name](place)
        desk.expect_nothing_more()
    if missing := READERS.keys() - places.keys():
        pytest.skip(f"all others are right; not installed: {', '.join(sorted(missing))}")


def test_touch_draws_a_random_seed_anew(house: House) -> None:
    """Even with a time long ago."""
    with desk_of(house) as desk:
        path = house.save("a.yaml", recipe("a red circle"))
        desk.expect_run("a.yaml", "a red circle")
        for flags in ([], ["-d", "2001-02-03"]):
            subprocess.run(["touch", *flags, path], check=True)
            desk.expect_run("a.yaml", "a red circle")
        desk.expect_nothing_more()
    assert len(set(house.seeds("a"))) == 3


def test_touch_makes_nothing_of_a_fixed_seed_and_says_where_its_picture_is(house: House) -> None:
    """The log has one line, and latest.png shows the picture again."""
    with desk_of(house) as desk:
        path = house.save("a.yaml", f"{recipe('a red circle')}seed: 7\n")
        desk.expect_run("a.yaml", "a red circle")
        desk.make_another()
        subprocess.run(["touch", path], check=True)
        line = "a.yaml: saved, nothing new to render; its newest picture is a/0001-7.png"
        wait_for(lambda: line in house.log(), "the line")
        wait_for(lambda: _latest(house) == (house.outbox / "a/0001-7.png").read_bytes(), "latest")
        desk.make_another()
        assert house.log().count(" a.yaml: saved, ") == 2
        desk.expect_only_what_was_made()


def _latest(house: House) -> bytes:
    return Path(house.outbox / "latest.png").read_bytes()
