"""Each file that is not taken is told with its reason, or silent by a rule."""

import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.files.names import is_mask_name, stem_of
from picowatch.inbox.folder import size_and_time_of
from picowatch.inbox.names import SIDECARS, SILENT, may_be_dropped, why_not_taken
from picowatch.inbox.reasons import why_not
from picowatch.inbox.scan import scan
from picowatch.ledger.rows import SizeAndTime
from tests.house import House, wait_for

CORGI = "prompt: a corgi\nseed: 7\n"
RECIPES_ARE = "recipes are .yaml, .yml, .json, .csv and .txt"
BELONGS_TO_NONE = "it belongs to no picture: what lies beside a picture has its name"
USED = "a picture here is used only if a recipe names it"
OTHERS = {
    "_Pictures.json": "to use it as _pictures.yaml, rename it; JSON is valid there, too",
    "pets/_Picture.yml": "to use it as _pictures.yaml, rename it",
    "pets/_pictures.yaml.txt": "to use it as _pictures.yaml, rename it",
    "_draft.yaml": "its name begins with _; rename it",
    "_mine.yaml": "its name begins with _; rename it",
    "notes.md": RECIPES_ARE,
    "_default.yaml": "to use it as _defaults.yaml",
    "corgi.tsv": "rename it to .csv, where tabs",
    "pets/make.PY": RECIPES_ARE,
    "torch.whl": RECIPES_ARE,
    "README": RECIPES_ARE,
    "photos.ZIP": "it is an archive; unpack it",
    "a.sync-conflict-20260101-120000-ABC.yaml": "it is a conflict copy of a sync tool",
    os.fsdecode(b"caf\xe9.txt"): "its name is not valid UTF-8",
    os.fsdecode(b"caf\xe9/a.txt"): "the folder's name is not valid UTF-8",
    "x.JPE": f"{USED}. To have it enlarged or edited, put it into a folder with a _pictures.yaml, "
    "such as inbox/frames/",
    "b.cr2": "files that end in .cr2 are not read. Develop it: darktable-cli",
    "photos/1.jpg": f"{USED} (1 more like it is beside it)",
    "frame/1.jpg": f"{USED}. Did you mean frames/, which has a _pictures.yaml?",
    "empty.yaml": "it is empty; nothing happens until it has content",
    "frames/a.json": "recipes belong in a folder without _pictures.yaml",
    "frames/alone.txt": BELONGS_TO_NONE,
    "frames/1.mask.jpg": BELONGS_TO_NONE,
    "frames/_2.TXT": "its ending must be in small letters: rename it to _2.txt",
    "frames/1.TXT": "its ending must be in small letters: rename it to 1.txt",
    "frames/1.mask.PNG": "its ending must be in small letters: rename it to 1.mask.png",
    "frames/b.docx": f"it is no picture, and {RECIPES_ARE}",
    "frames/~1.jpg": "its name begins with ~; rename it",
    "out.yaml": "it is a link out of the inbox",
    "dangling.txt": "it is a link to something that is not there",
    "pipe.txt": "it is not a regular file",
}
LINKS = {"out.yaml": "../models", "dangling.txt": "nothing.txt"}
SILENT_NAMES = (
    *(".vscode/settings.json", "node_modules/a.json", "_draft.tmp", "folder.yaml/a.jpg.tmp"),
    *("photos/2.jpg", "a.yaml~", ".a.yaml.swp", "4913", "IMG_1.jpg.crdownload", "frames/1.xmp"),
    *("frames/1.JPG_original", "a.mask.png", "frames/1.mask.png", "frames/1.txt", "_notes.md"),
)


def make_junk(house: House) -> None:
    for name in (*OTHERS, *SILENT_NAMES):
        if name in LINKS:
            (house.inbox / name).symlink_to(LINKS[name])
        elif name == "pipe.txt":
            os.mkfifo(house.inbox / name)
        else:
            house.save(name, "" if "empty" in name else "{}")
    house.save("frames/_pictures.yaml", CORGI)
    for name in ("frames/1.png", "frames/1.mask.png", "frames/_2.png"):
        house.draw(name)
    house.save("frames/1.txt", "a star")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of files soon, but not of one that is found between its creation and its content."""
    monkeypatch.setattr("picowatch.inbox.reasons.PATIENCE", 0.5)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("behind", [0.0, 3600.0])
def test_each_file_that_is_not_taken_is_told_once(
    house: House, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    """Hidden files, pipes and links out are not even opened. A server's clock may be ahead."""
    make_junk(house)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - behind)
    with house.running():
        wait_for(lambda: house.log().count(" is not run: ") == len(OTHERS), "a word about each")
        house.save("_default.yaml", "{} ")
        house.save("README", "more")
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.pictures("a"))
        wait_for(lambda: house.status()["ignored_count"] == len(OTHERS), "the status")
        status = house.status()
    for said in OTHERS.values():
        assert f" is not run: {said}" in house.log()
    assert [pair for pair in status["ignored"] if pair[0] == "README"] == [["README", RECIPES_ARE]]
    # With another clock, a file may be told of between its creation and its content, too.
    words = OTHERS["empty.yaml"] if behind else "nothing else"
    told = [line for line in house.log().splitlines() if " is not run: " in line]
    others = [line for line in told if words not in line]
    assert len(others) == len(OTHERS) - (words in OTHERS.values())


@pytest.mark.usefixtures("often")
def test_nothing_is_said_of_a_new_file(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs' temporary files have any name, and a photo may come after its text."""
    monkeypatch.setattr("picowatch.inbox.reasons.PATIENCE", 3600.0)
    make_junk(house)
    with house.running():
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.pictures("a"))
        house.wait_for_rounds()
        immediate = len((*LINKS, "pipe.txt", "a folder's name"))
        wait_for(lambda: house.status()["ignored_count"] == immediate, "the status")


@pytest.mark.usefixtures("often")
def test_a_file_that_never_rests_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a webcam's; it is read as soon as it is let alone."""
    monkeypatch.setattr("picowatch.inbox.settle.STILL_WRITTEN_SECONDS", 0.3)
    house.save("frames/_pictures.yaml", f"{CORGI}image: picture\n")
    why = "it is still being written, and is read once it has been the same for 0.4 s"

    def told() -> bool:
        house.draw("frames/1.png", size=(64, 64 + time.time_ns() // 10**7 % 100))
        return house.status().get("ignored") == [["frames/1.png", why]]

    with house.running(settle_seconds=0.2):
        wait_for(told, "the status")
        wait_for(lambda: house.pictures("frames"))
        wait_for(lambda: not house.status()["ignored"], "the status")
    assert f"frames/1.png is not run: {why}" in house.log()


def test_nothing_is_said_of_pictures_that_recipes_name(house: House) -> None:
    """Whether they are start images, masks, references or those of `from`, and after a restart."""
    for number in range(20):
        house.draw(f"set/{number}.png", size=(64, 64 + number))
        house.save(f"set/{number}.yaml", f"{CORGI}image: {number}.png\n")
    house.draw("style.png", "blue")
    house.save("set/other.yaml", f"{CORGI}image: inbox/style.png\nmask: m.png\n")
    house.draw("set/m.png", "white")
    house.draw("set/stray.png", "green")
    house.save("frames/_pictures.yaml", f"{CORGI}mask: all.mask.png\n")
    house.draw("frames/all.mask.png")
    for starts in (1, 2):
        house.once()
        assert house.log().count("is not run") == starts
        assert house.log().count(f"set/stray.png is not run: {USED}.") == starts


def test_what_is_dropped_into_the_outbox_is_told(house: House) -> None:
    """Results appear there; picowatch's own files, logrotate's and the results are not told."""
    house.save("bad.yaml", "stesp: 1\n")
    house.save("up/_pictures.yaml", CORGI)
    house.draw("up/1.png")
    assert not house.once()
    rotated = "picowatch.log.1.gz picowatch.log-20261201.gz"
    for name in f"a.yaml beach.jpg _pictures.yaml b.zip my.doc .hidden.txt {rotated}".split():
        (house.outbox / name).write_text("{}")
    house.once()
    told = dict(house.status()["ignored"])
    assert told.keys() == {
        f"outbox/{n}" for n in ("a.yaml", "beach.jpg", "_pictures.yaml", "b.zip")
    }
    assert told["outbox/a.yaml"] == "this is where results appear. Put it into inbox/"
    assert told["outbox/beach.jpg"].endswith("such as inbox/up/")


# -- every file

STEMS = ("a", "_a", "~a", "#a", ".a", "a.mask", "_a.mask", "a (conflicted copy)", "_pictures")
ENDINGS = (
    *("", ".yaml", ".yml", ".json", ".csv", ".txt", ".TXT", ".png", ".JPG", ".jpe", ".cr2", ".mp4"),
    *(".zip", ".sh", ".xmp", ".tmp", ".part", ".md", ".yaml~", ".yaml.txt", ".png.crdownload"),
)
FOLDERS = ("", "up/", "up/deep/", "plain/")
NAMES = st.builds("{}{}".format, st.sampled_from(STEMS), st.sampled_from(ENDINGS))
TARGETS = {"link in": "inbox/in.txt", "link out": "target.yaml", "dangling": "inbox/nothing"}
KINDS = st.sampled_from(["file", "file", "file", "empty", "fifo", *TARGETS])
FLAGS = re.IGNORECASE | re.DOTALL


def make(root: Path, name: str, kind: str) -> None:
    path = root / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind in TARGETS:
        path.symlink_to(root / TARGETS[kind])
    else:
        path.write_text("" if kind == "empty" else "a")


def belongs(root: Path, name: str, found: Collection[str]) -> bool:
    """Whether a file is read together with others: a default, or the text or mask of a picture."""
    if not size_and_time_of(root, name) or name.rpartition("/")[2] == "_defaults.yaml":
        return name.rpartition("/")[2] == "_defaults.yaml"
    stems = {stem_of(path) for path in found if may_be_dropped(path.rpartition("/")[2])}
    return any(name.endswith(end) and name.removesuffix(end) in stems for end in SIDECARS)


class NeverRead(dict[str, SizeAndTime]):
    """Single files may be looked up."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all files are read")

    items = keys = values = __iter__  # type: ignore[assignment]


@given(st.dictionaries(st.builds("{}{}".format, st.sampled_from(FOLDERS), NAMES), KINDS))
def test_each_file_is_taken_or_told_or_belongs_to_another_or_is_silent_by_a_rule(
    files: dict[str, str],
) -> None:
    """Exactly one of these, whatever its name, its place and its kind."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, "../target.yaml", "file")
        for name, kind in {**files, "in.txt": "file", "up/_pictures.yaml": "file"}.items():
            make(root, name, kind)
        inbox = root / "inbox"
        there = scan(inbox, ())
        for path in {**files, "in.txt": ""}:
            name, is_under = path.rpartition("/")[2], path.startswith("up/")
            told = why_not(root / "outbox", there, path)
            beside = belongs(inbox, path, there.found)
            rules = [whose for whose, names in SILENT.items() if re.fullmatch(names, name, FLAGS)]
            is_silent = bool(rules) and why_not_taken(name, is_under_template=is_under) == ""
            is_silent |= is_mask_name(name) and not is_under  # recipes name such pictures
            is_taken = path in there.found and there.found[path].size > 0
            outcomes = {"taken": is_taken, "told": told, "belongs": beside and not is_taken}
            outcomes["silent"] = is_silent and not beside and not told
            assert sum(map(bool, outcomes.values())) == 1, (path, outcomes)


def test_what_is_asked_of_one_file_takes_no_look_at_all_others(tmp_path: Path) -> None:
    """`check` and `status` ask of thousands of files, one by one."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_text("a corgi")
    (tmp_path / "inbox/empty.txt").touch()
    there = scan(tmp_path / "inbox", ())
    there.found = NeverRead(there.found)
    assert why_not(tmp_path / "outbox", there, "a.txt") == ""
    assert why_not(tmp_path / "outbox", there, "empty.txt").startswith("it is empty")
