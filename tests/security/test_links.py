"""`make` and `check` open a file of the inbox as the daemon does: through no link out of it."""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from picowatch.commands.check import check
from picowatch.commands.make import make
from picowatch.errors import PicowatchError
from tests.digest_engine import Batch
from tests.house import House
from tests.security.test_paths import SECRET, leaked, secret_recipe, swap_before_opening

Captured = pytest.CaptureFixture[str]

LEADS_OUT = "a symbolic link in its path leads out of the inbox"
REFUSED = {
    **dict.fromkeys(("inbox/a.txt", "inbox/ada/a.txt", "inbox/above/out/a.txt"), LEADS_OUT),
    **dict.fromkeys(("inbox/chain.txt", "inbox/ada/../a.txt", "mine.txt"), LEADS_OUT),
    **dict.fromkeys(("inbox/ada", "inbox/zero.txt", "inbox/gone.txt"), LEADS_OUT),
    **dict.fromkeys(("inbox/fifo.txt", "inbox/to fifo.txt"), "it is not a regular file"),
    "inbox/loop.txt": "Too many levels of symbolic links",
}


def link(house: House, name: str, target: str) -> Path:
    """Make a link below the user's folder, and what is above it."""
    path = house.folder / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("file", REFUSED)
def test_make_and_check_refuse_a_link_out_of_the_inbox(
    house: House, capsys: Captured, file: str
) -> None:
    """Whoever may write to the inbox cannot have somebody else's file read or published."""
    secret = secret_recipe(house.folder / "out/a.txt")
    secret_recipe(house.folder / "a.txt")
    link(house, "inbox/a.txt", "../out/a.txt")
    link(house, "inbox/ada", f"{house.folder}/out")
    link(house, "inbox/above", "..")
    link(house, "inbox/chain.txt", "a.txt")
    link(house, "mine.txt", "inbox/chain.txt")
    link(house, "inbox/loop.txt", "loop.txt")
    link(house, "inbox/zero.txt", "/dev/zero")
    link(house, "inbox/gone.txt", "../out/none.txt")
    link(house, "inbox/to fifo.txt", "fifo.txt")
    os.mkfifo(house.inbox / "fifo.txt")
    before, said = sorted(house.inbox.rglob("*")), REFUSED[file]
    with pytest.raises(PicowatchError) as refused:
        make(house.settings(), [house.folder / file], house.make_engine)
    assert str(refused.value).startswith(f"Cannot read {house.folder / file}: {said}")
    assert check(house.settings(), [house.folder / file], as_json=False) == 1
    shown = capsys.readouterr()
    assert f"{file}: {said}" in shown.err
    assert SECRET not in shown.out + shown.err
    assert sorted(house.inbox.rglob("*")) == before
    assert leaked(house, secret) == []


def test_make_and_check_follow_the_links_that_stay_inside(house: House, capsys: Captured) -> None:
    """The inbox itself may be a link, too, and a path may only pass it."""
    house.inbox.rename(house.folder / "disk")
    link(house, "inbox", "disk")
    house.save("pets/a.txt", "one --seed 5\n")
    link(house, "inbox/b.txt", "pets/a.txt")
    link(house, "inbox/linked", "../inbox/pets")
    house.folder.joinpath("c.txt").write_text("two --seed 5\n")
    files = ["disk/pets/a.txt", "inbox/b.txt", "inbox/linked/a.txt", "inbox/../c.txt"]
    for file in [*files, "inbox/linked"]:
        assert make(house.settings(), [house.folder / file], house.make_engine) == 0
        folder = "c" if file == files[-1] else "pets/a"
        assert capsys.readouterr().out == f"{house.outbox}/{folder}/0001-5.png\n"
    assert check(house.settings(), [house.folder / file for file in files], as_json=False) == 0
    assert capsys.readouterr().out.count(": 1 image\n") == len(files)


def test_make_puts_nothing_through_a_link_and_in_the_place_of_none(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Nor into linked folders; files outside with the same bytes are not touched."""
    house.save("pets/b.txt", "one --seed 5\n")
    link(house, "inbox/linked", "pets")
    link(house, "inbox/ada", "../out")
    mine = house.folder / "mine.txt"
    mine.write_text("one --seed 5\n")
    for folder in ("ada", "ada/new", "linked"):
        with pytest.raises(PicowatchError, match="linked folders are not searched"):
            make(house.settings(), [mine], name=f"{folder}/mine")
    theirs = house.folder / "out/mine.txt"
    theirs.parent.mkdir()
    theirs.write_text("one --seed 5\n")
    os.utime(theirs, (0, 0))
    for name in ("mine.txt", "stdin.txt"):
        link(house, f"inbox/{name}", "../out/mine.txt")
    assert make(house.settings(), [mine], house.make_engine) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one --seed 5\n")))
    assert make(house.settings(), [Path("-")], house.make_engine) == 0
    names = ("mine-2", "stdin-2")
    assert capsys.readouterr().out.split() == [f"{house.outbox}/{n}/0001-5.png" for n in names]

    def swap(batch: Batch) -> None:
        (house.inbox / "new").rename(house.folder / "aside")
        link(house, "inbox/new", "../out")

    house.engine.before_batch = swap
    make(house.settings(), [mine], house.make_engine, name="new/mine", remove=True)
    assert (house.inbox / "new").is_symlink()
    assert [path.name for path in theirs.parent.iterdir()] == ["mine.txt"]
    assert theirs.stat().st_mtime == 0


@pytest.mark.parametrize("opening", range(3))
@pytest.mark.parametrize("what", ["album", "album/a.txt", "album/_defaults.yaml"])
@pytest.mark.parametrize("reads", ["make", "check"])
def test_a_link_swapped_in_before_a_command_opens_a_recipe_leads_nowhere(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    reads: str,
    what: str,
    opening: int,
) -> None:
    """Between any two steps of opening it."""
    house.save("album/_defaults.yaml", "steps: 5\n")
    recipe = house.save("album/a.txt", "a corgi\n")
    secret = secret_recipe(house.folder / "out/a.txt")
    (house.folder / "out/_defaults.yaml").write_text(f"negative_prompt: {SECRET}\n")
    target = house.folder / what.replace("album", "out")
    album = house.inbox / "album"
    struck = swap_before_opening(monkeypatch, opening, album, house.inbox / what, target)
    with suppress(PicowatchError):
        if reads == "make":
            make(house.settings(), [recipe], house.make_engine)
        else:
            check(house.settings(), [recipe], as_json=False)
    assert struck
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert leaked(house, secret) == []
