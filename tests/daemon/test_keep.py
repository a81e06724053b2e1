"""`picowatch keep`: pictures are moved or copied into a folder, and nothing is drawn again."""

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from picowatch.commands.control import LATE, control
from picowatch.outbox.commands import Command, send
from picowatch.outbox.outbox import Outbox
from tests.commands.picowatch import picowatch_here
from tests.daemon.test_commands import FILES, rendered
from tests.fault_points import preceded_by, refusing, wrap
from tests.house import PATIENCE, House, shown, wait_for


def test_kept_pictures_move_with_their_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sidecar, control maps and thumbnail go along; the gallery shows them there; latest stays."""
    rendered(house, sidecar="txt")
    (house.outbox / "a/0002-2.control.png").write_bytes(b"a map")
    (house.outbox / "a/0003-3.txt").write_text("a note of mine")
    thumbnails = sorted(path.read_bytes() for path in house.outbox.rglob("*.webp"))
    latest = (house.outbox / "latest.png").read_bytes()
    leave = Outbox.leave

    def leave_and_look(outbox: Outbox, files: Iterable[str]) -> None:
        leave(outbox, files)
        outbox.gallery._compared()  # as its thread may at any time

    monkeypatch.setattr(Outbox, "leave", leave_and_look)
    with house.running(sidecar="txt"):
        answer = picowatch_here(house.folder, "keep", "best", f"outbox/{FILES[1]}", FILES[2])
        assert (answer.returncode, answer.stdout) == (0, "2 pictures moved to best.\n")
        again = picowatch_here(house.folder, "keep", "best", FILES[1])
        assert again.stderr == (
            "0 pictures moved to best. There is no 'a/0002-2.png' in the gallery. "
            "Did you mean 'best/0002-2.png'?\n"
        )
    assert house.pictures() == [
        "a/0001-1.png", "best/0002-2.control.png", "best/0002-2.png", "best/0003-3.png"
    ]  # fmt: skip
    texts = sorted(
        path.relative_to(house.outbox).as_posix() for path in house.outbox.rglob("*.txt")
    )
    assert texts == ["a/0001-1.txt", "a/0003-3.txt", "best/0002-2.txt", "now.txt", "summary.txt"]
    assert sorted(path.read_bytes() for path in house.outbox.rglob("*.webp")) == thumbnails
    assert house.once(sidecar="txt")
    assert (house.outbox / "latest.png").read_bytes() == latest
    assert sorted(shown(house.outbox)) == ["a/0001-1.png", "best/0002-2.png", "best/0003-3.png"]


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_was_moved_is_not_drawn_again(house: House, is_lost: bool) -> None:
    """Neither by a save nor with a new ledger; it can be shown, deleted and moved again."""
    house.save("a.yaml", "prompt: a corgi\nseed: 5\nsweep: {cfg_scale: [5, 8]}\n")
    assert house.once()
    pictures = house.pictures("a")
    assert house.answer("keep", "best/of", *pictures).done
    assert house.answer("keep", "best", "best/of").text == "3 pictures moved to best."
    moved = [file.replace("a/", "best/") for file in pictures]
    if is_lost:
        house.ledger.unlink()
    else:  # a new ledger cannot know of sheets
        (house.inbox / "a.yaml").touch()
    assert house.once()
    assert house.pictures() == (moved if not is_lost else sorted(house.pictures()))
    assert len(house.engine.batches) == 1 or house.started() == ["a corgi"] * 2
    lines = [line for line in house.listed() if "file" in line]
    assert lines[-1]["moved"].startswith("best/of/")
    found = picowatch_here(house.folder, "show", "--why", moved[0])
    assert found.stdout.startswith(f"{moved[0]}: entry 1, image 1 of inbox/a.yaml")
    assert house.answer("delete", None, *moved).text == "3 pictures deleted."


def test_copies_are_shown_beside_the_originals(house: House) -> None:
    """A repetition makes no others; names that are taken get a number."""
    rendered(house)
    house.save("b.yaml", "prompt: a cat\nseed: 1\n")
    assert house.once()
    (house.outbox / "a/0003-3.png").chmod(0o444)
    for _ in range(2):
        assert house.answer("keep copies", "best", "a", "b/0001-1.png").text == (
            "4 pictures copied to best."
        )
    kept = ["best/0001-1-2.png", *(file.replace("a/", "best/") for file in FILES)]
    assert sorted(house.pictures("best")) == sorted(kept)
    assert sorted(shown(house.outbox)) == sorted([*FILES, "b/0001-1.png", *kept])
    assert house.prompts("best") == ["a cat", "a corgi", "a corgi", "a corgi"]
    assert (house.outbox / FILES[0]).stat().st_mtime_ns == (
        house.outbox / "best/0001-1.png"
    ).stat().st_mtime_ns
    house.engine.batches.clear()
    (house.inbox / "a.yaml").touch()
    assert house.once() and house.engine.batches == []


def test_pictures_are_kept_in_slices(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves do not wait for thousands; a folder may be within the one that is named."""
    monkeypatch.setattr("picowatch.daemon.commands.SLICE_SECONDS", 0.001)
    monkeypatch.setattr("picowatch.daemon.picture_commands.AT_ONCE", 1)
    rendered(house)
    keep = Command("keep", "a/best", files=("a", *FILES))
    later = Command("delete", files=(FILES[1],))
    sent = [send(house.outbox, command) for command in (keep, later)]
    with house.running():
        moved, deleted = (house.answer_to(path) for path in sent)
    assert moved.text == "3 pictures moved to a/best."
    assert house.pictures() == [file.replace("a/", "a/best/") for file in FILES]
    assert deleted.text.startswith("0 pictures deleted."), deleted


def test_a_picture_is_kept_after_its_batch_is_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger learns of a batch at once, later than the gallery; else it was drawn again."""
    house.save("b.txt", "one --seed 4\n")
    assert house.once()
    may_end = threading.Event()

    def hold(_: object, file: str, __: bytes) -> None:
        assert file != FILES[2] or may_end.wait(PATIENCE)

    wrap("picowatch.outbox.outbox:Outbox.publish", preceded_by(hold), monkeypatch.setattr)
    with house.running(batch_size=3):
        house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
        wait_for(lambda: len(house.listed()) == 3, "the second picture")
        asked: list[Path] = []

        def not_in_time(path: Path, seconds: float) -> None:
            asked.append(path)
            wait_for(lambda: house.pictures("best"), "the other picture")
            house.wait_for_rounds()

        monkeypatch.setattr("picowatch.commands.control.wait_for_answer", not_in_time)
        assert control(house.outbox, [Command("keep", "best", files=(FILES[0], "b"))]) == 1
        assert capsys.readouterr().err == f"{LATE}\n"
        may_end.set()
        answer = house.answer_to(asked[0])
    assert answer.text == "2 pictures moved to best."
    (house.inbox / "a.yaml").touch()
    assert house.once()
    assert house.pictures() == [*FILES[1:], "best/0001-1.png", "best/0001-4.png"]


def test_links_within_the_outbox_lose_no_picture(house: House) -> None:
    """A link to a picture has taken its name; where a link leads to its folder, it is already."""
    rendered(house)
    for folder, link, to in (("fav", "0001-1.png", f"../{FILES[0]}"), ("fav", "other", "../a")):
        (house.outbox / folder).mkdir(exist_ok=True)
        (house.outbox / folder / link).symlink_to(to)
    (house.outbox / "same").symlink_to("a")
    assert house.answer("keep", "fav", FILES[0]).text == "1 picture moved to fav."
    for folder in ("same", "fav/other"):
        assert house.answer("keep", folder, FILES[1]).text.startswith("0 pictures moved")
    assert house.answer("keep copies", "fav", FILES[1]).text == "1 picture copied to fav."
    assert {path.name: path.is_symlink() for path in (house.outbox / "fav").glob("*.png")} == {
        "0001-1.png": True,
        "0001-1-2.png": False,
        "0002-2.png": False,
    }
    assert [(house.outbox / file).is_file() for file in FILES] == [False, True, True]


def test_nothing_is_kept_elsewhere(house: House) -> None:
    """No folder outside, none of picowatch's own, none behind a link; no link is followed."""
    rendered(house)
    elsewhere = house.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.png").write_bytes(b"secret")
    (house.outbox / "linked").symlink_to(elsewhere)
    (house.outbox / FILES[0]).unlink()
    (house.outbox / FILES[0]).symlink_to(elsewhere / "secret.png")
    (house.outbox / "file").write_text("mine")
    outside, called = "It must be in the outbox", "A folder's name must not begin with a dot"
    for wrong, why, usable in (
        ("../elsewhere", outside, "elsewhere"), ("/tmp", outside, "tmp"), ("", outside, "best"),
        (".", outside, "best"), ("a/../..", outside, "a"), (".picowatch/x", called, "picowatch/x"),
        (".hidden", called, "hidden"), ("latest.png", called, "latest.png_"),
        ("a.yaml", called, "a.yaml_"), ("index.html", called, "index.html_"),
        ("images.jsonl", called, "images.jsonl_"), ("file", called, "file_"),
        ("con", called, "con_"), ("x\0y", called, "x-y"), (" sp ", called, "sp"),
        ('-best "q" !', called, "-best -q- !"), ("a:b", called, "a-b"),
    ):  # fmt: skip
        for name in ("keep", "keep copies"):
            answer = house.answer(name, wrong, FILES[1])
            assert not answer.done and f"cannot be kept in '{wrong}'. {why}" in answer.text
            assert answer.text.endswith(f". Write '{usable}', for example.")
        if wrong and "\0" not in wrong:  # which no shell passes on
            told = picowatch_here(house.folder, "keep", "--", wrong, FILES[1])
            assert (told.returncode, told.stderr) == (1, f"picowatch: {answer.text}\n")
    assert not [*house.outbox.glob(".picowatch/commands/*.json")]
    assert f"command 'keep copies': Pictures cannot be kept in 'a:b'. {called}" in house.log()
    answer = house.answer("keep", "linked", FILES[1])
    assert not answer.done and "leads out of the outbox: a/0002-2.png" in answer.text
    for name in ("keep", "keep copies"):
        answer = house.answer(name, "best", FILES[0], "linked/secret.png")
        assert not answer.done and "It is a link: a/0001-1.png" in answer.text
    assert [path.name for path in elsewhere.iterdir()] == ["secret.png"]
    assert house.pictures("best") == []


def test_a_picture_without_hard_links_is_copied_and_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT, or if the daemon does not own the file."""
    rendered(house)
    before = [(house.outbox / file).read_bytes() for file in FILES]
    monkeypatch.setattr("os.link", refusing(errno.EPERM))
    assert house.answer("keep", "best", *FILES).text == "3 pictures moved to best."
    assert [(house.outbox / file).read_bytes() for file in house.pictures()] == before


def test_a_move_that_was_interrupted_reads_no_picture(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred large photos, which are linked at once, that takes longer than systemd waits."""
    rendered(house)
    (house.outbox / "best").mkdir()
    for file in FILES:
        (house.outbox / "best" / Path(file).name).hardlink_to(house.outbox / file)
    read: list[object] = []
    place = "picowatch.daemon.picture_commands:sha256_of"
    wrap(place, preceded_by(read.append), monkeypatch.setattr)
    assert house.answer("keep", "best", *FILES).text == "3 pictures moved to best."
    assert house.pictures() == [file.replace("a/", "best/") for file in FILES]
    assert not read


def test_names_come_from_a_list(house: House) -> None:
    """One a line, any as a JSON string; also recipes to retry."""
    rendered(house)
    names = house.folder / "names.txt"
    names.write_text(f'{FILES[0]}\r\n"a/0002\\u002d2.png"\n\n')
    with house.running():
        answer = picowatch_here(house.folder, "delete", "--from", "names.txt", FILES[2])
        assert (answer.returncode, answer.stdout) == (0, "3 pictures deleted.\n"), answer.stderr
        for encoding in ("utf-8-sig", "utf-16"):  # as Windows saves them
            names.write_text("a.yaml\r\n", encoding)
            answer = picowatch_here(house.folder, "retry", "--all", "--from", "names.txt")
            assert answer.returncode == 0, answer.stderr
        wait_for(lambda: len(house.pictures("a")) == 3, "the pictures again")
        names.write_text("old.yaml\na.yaml\nnotes\n")  # of recipes that are gone, say
        answer = picowatch_here(house.folder, "retry", "--all", "--from", "names.txt")
        assert answer.returncode == 1 and answer.stderr.startswith("a.yaml read again")
        said = "There is no 'old.yaml' in the inbox. Did you mean 'a.yaml'?"
        assert answer.stderr.endswith(f" are kept. {said} There is no 'notes' in the inbox.\n")
        for text, said in (
            ('"a', "no list of names"), ('""', "no list of names"), ("", "given no pictures"),
            (r'"\ud800"', "no list of names"),
        ):  # fmt: skip
            names.write_text(text)
            answer = picowatch_here(house.folder, "delete", "--from", "names.txt")
            assert answer.returncode == 1 and said in answer.stderr
        answer = picowatch_here(house.folder, "keep", "best", "--from", "missing.txt")
        assert answer.returncode == 1 and "cannot be read" in answer.stderr


def test_a_picture_takes_no_name_of_one_that_is_being_rendered(house: House) -> None:
    house.save("b.yaml", "prompt: a cat\nseed: 1\n")
    assert house.once()
    with house.held("a.yaml", "prompt: a corgi\nseed: 1\n", after=1) as held:
        asked = house.tell("keep", "a", "b/0001-1.png")
        answer = house.answer_to(asked)
        held.release()
        wait_for(lambda: len(house.listed()) == 3, "the other picture")
    assert answer.done
    assert house.pictures() == ["a/0001-1-2.png", "a/0001-1.png"]
    assert sorted(house.prompts("a")) == ["a cat", "a corgi"]


def test_a_picture_of_a_deleted_recipe_is_kept_with_its_line(house: House) -> None:
    """Another recipe has its name now, and made the same picture."""
    house.save("a.txt", "one --seed 1\n")
    assert house.once()
    (house.inbox / "a.txt").unlink()
    house.save("b.txt", "one --seed 1\n")
    assert house.once()
    (house.inbox / "b.txt").rename(house.inbox / "a.txt")
    assert house.once()
    assert house.answer("keep", "best", "a", "b").done
    moved = {line.get("moved") for line in house.listed()}
    assert moved == {None, "a/0001-1.png", "b/0001-1.png"}
