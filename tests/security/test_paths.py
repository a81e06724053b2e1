"""No path that a recipe names, and no recipe's own, leads out of its folder."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count, product
from pathlib import Path

import pytest

from picowatch.commands.make import make
from picowatch.errors import PicowatchError
from tests.catalog.files import checkpoint_shapes, kohya_lora_shapes, write_model
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import Batch
from tests.fault_points import preceded_by, wrap
from tests.house import House, wait_for
from tests.security.attacks import plain_picture

SECRET = "the secret outside"
Captured = pytest.CaptureFixture[str]

FIELDS = {
    "image": "prompt: a corgi\nseed: 1\nimage: {}\n",
    "mask": "prompt: a corgi\nseed: 1\nimage: mine.png\nmask: {}\n",
    "from": "from: {}\nseed: 1\n",
}


def secret_recipe(path: Path) -> Path:
    """A readable text outside of all folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{SECRET}\n")
    return path


def leaked(house: House, secret: Path) -> list[str]:
    """Return every file in the outbox, and every prompt in progress, with part of the secret."""
    content = secret.read_bytes()
    found = [
        str(file)
        for file in house.outbox.rglob("*")
        if file.is_file()
        and not file.is_symlink()
        and (SECRET.encode() in (held := file.read_bytes()) or held == content)
    ]
    return found + [prompt for prompt in house.started() if SECRET in prompt]


def swap_before_opening(
    monkeypatch: pytest.MonkeyPatch, opening: int, folder: Path, place: Path, target: Path
) -> list[str]:
    """Put a link in a place right before the `opening`-th part of a path in `folder` is opened.

    By whatever way it is opened: by its whole path, or part by part. The list that it gives
    holds what was opened at the strike: empty if it never came to that.
    """
    struck: list[str] = []
    seen = count()
    inside = {folder.name, *(path.name for path in folder.rglob("*"))}

    def strike(path: str | Path, *_: int, **options: int) -> None:
        whole = Path(path).is_absolute() and Path(path).is_relative_to(folder.parent)
        is_part = whole or ("dir_fd" in options and Path(path).name in inside)
        if is_part and not struck and next(seen) == opening:
            struck.append(str(path))
            place.rename(place.with_name(f".{place.name}.aside"))
            place.symlink_to(target)

    wrap("os:open", preceded_by(strike), monkeypatch.setattr)
    return struck


# Ways to write a picture's path, and what the error says of all of them.
NO_PICTURE = "There is no picture"
WAYS = {
    **dict.fromkeys(("../secret.png", "pets/../../secret.png", "{}/secret.png"), ", line "),
    **dict.fromkeys(("//{}/secret.png", "~/secret.png", "inbox/../secret.png"), ", line "),
    **dict.fromkeys(("..\\secret.png", "file://{}/secret.png", "link.png"), ", line "),
    **dict.fromkeys(("chain.png", "folder/secret.png", "outbox/link.png"), ", line "),
    **dict.fromkeys(("．．/secret.png", ". ./secret.png", "/proc/self/cwd/secret.png"), ", line "),
    # A FIFO would block the daemon for ever, /dev/zero would fill its memory.
    **dict.fromkeys(("fifo.png", "folder.png", "zero.png", "stdin.png", "environ.png"), NO_PICTURE),
    **dict.fromkeys(("passwd.png", "loop.png", "loop/x.png", "good.txt/x.png", "."), NO_PICTURE),
    **dict.fromkeys(("a" * 300, "a/" * 240), NO_PICTURE),
}
DEVICES = ("/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd")


@pytest.mark.parametrize("field", FIELDS)
def test_no_way_of_writing_a_picture_leads_out_or_blocks_anything(house: House, field: str) -> None:
    """A link to a picture inside is followed, also in a linked folder."""
    secret = plain_picture(house.folder / "secret.png", SECRET, "red")
    plain_picture(house.inbox / "mine.png")
    house.outbox.mkdir()
    (house.outbox / "link.png").symlink_to("../secret.png")
    os.mkfifo(house.inbox / "fifo.png")
    (house.inbox / "folder.png").mkdir()
    (house.inbox / "link.png").symlink_to(secret)
    (house.inbox / "chain.png").symlink_to("link.png")
    (house.inbox / "folder").symlink_to(house.folder)
    for name in ("loop.png", "loop.yaml", "loop"):
        (house.inbox / name).symlink_to(f"../inbox/{name}")
    for device in DEVICES:
        (house.inbox / f"{Path(device).name}.png").symlink_to(device)
    for number, way in enumerate(WAYS):
        house.save(f"{number}.yaml", FIELDS[field].format(f"'{way.format(house.folder)}'"))
    house.save("good.txt", "a star\n")
    plain_picture(house.inbox / "photos/blue.png")
    (house.inbox / "within").symlink_to("photos")
    (house.inbox / "photos/other.png").symlink_to("../within/blue.png")
    house.save("followed.yaml", FIELDS[field].format("within/other.png"))
    assert not house.once()
    errors = [house.error(f"{number}.yaml") or "" for number in range(len(WAYS))]
    assert [
        w for (w, said), error in zip(WAYS.items(), errors, strict=True) if said not in error
    ] == []
    assert house.prompts() == ["a corgi", "a star"]
    assert leaked(house, secret) == []


PARTS = ("album", "album/inner", "album/inner/p.png")


@pytest.mark.parametrize(
    ("field", "what", "opening"),
    [*product(["image"], PARTS, range(4)), *product(["mask", "from"], PARTS[1:2], [1])],
)
def test_a_link_swapped_in_before_a_picture_is_opened_leads_nowhere(
    house: House, monkeypatch: pytest.MonkeyPatch, field: str, what: str, opening: int
) -> None:
    """Any part of the path may be swapped, between any two steps of opening it."""
    plain_picture(house.inbox / "mine.png")
    plain_picture(house.inbox / "album/inner/p.png")
    house.save("a.yaml", FIELDS[field].format("album/inner/p.png"))
    secret = plain_picture(house.folder / "out/inner/p.png", SECRET, "red")
    assert run_swapped(house, monkeypatch, what, opening) or opening == 3
    assert leaked(house, secret) == []


READERS: dict[str, Callable[[House], object]] = {
    "run": House.once,
    "make": lambda its: make(its.settings(), [its.inbox / "album/a.txt"], its.make_engine),
    "check": lambda its: sys.stdout.write(
        str(picowatch_here(its.folder, "check", "inbox/album/a.txt"))
    ),
}


@pytest.mark.parametrize("opening", range(3))
@pytest.mark.parametrize("what", ["album", "album/a.txt", "album/_defaults.yaml"])
@pytest.mark.parametrize("reads", READERS)
def test_a_link_swapped_in_before_a_recipe_is_opened_leads_nowhere(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    reads: str,
    what: str,
    opening: int,
) -> None:
    """Otherwise the error would show lines of the link's target; so would defaults."""
    house.save("album/a.txt", "a corgi\n")
    house.save("album/_defaults.yaml", "steps: 5\n")
    secret = secret_recipe(house.folder / "out/a.txt")
    (house.folder / "out/_defaults.yaml").write_text(f"negative_prompt: {SECRET}\n")
    assert run_swapped(house, monkeypatch, what, opening, READERS[reads])
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert leaked(house, secret) == []


def run_swapped(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    opening: int,
    read: Callable[[House], object] = House.once,
) -> bool:
    """Read; put a link out in the place of something just before this opening. Was it reached?"""
    target = house.folder / what.replace("album", "out")
    album = house.inbox / "album"
    struck = swap_before_opening(monkeypatch, opening, album, house.inbox / what, target)
    with suppress(PicowatchError):
        read(house)
    return bool(struck)


def test_a_recipe_in_a_linked_folder_is_not_looked_for(house: House) -> None:
    """Folders are entered, links to folders are not: not even those inside."""
    secret = secret_recipe(house.folder / "out/a.txt")
    (house.inbox / "link").symlink_to(house.folder / "out")
    with house.running():
        house.save("b.txt", "a corgi\n")
        (house.inbox / "later").symlink_to(house.folder / "out")
        wait_for(lambda: len(house.pictures()) == 1)
        wait_for(lambda: "later is not run: it is a link out of the inbox" in house.log())
    assert house.prompts() == ["a corgi"]
    assert leaked(house, secret) == []


def test_a_recipe_that_is_a_link_out_is_never_opened(house: House) -> None:
    (house.inbox / "a.txt").symlink_to("/proc/self/environ")
    (house.inbox / "_defaults.yaml").symlink_to("/dev/zero")
    house.save("b.txt", "a corgi\n")
    assert not house.once()
    assert house.started() == []
    assert "in its path leads out of the inbox" in (house.error("b.txt") or "")
    assert house.error("a.txt") is None


MODEL_NAMES = [
    *("../evil", "../../evil", "models/checkpoints/../../../evil", "{}/evil.safetensors"),
    *("．．/evil", "..\\evil", "*", "linked", "{}/disk/linked", "../../disk/linked"),
]
MODEL_FIELDS = [
    *("checkpoint: '{}'", "vae: '{}'", "loras: {{'{}': 1}}"),
    *("prompt: 'a <lora:{}:1>'", "prompt: 'a __{}__'", "prompt: 'a {}'"),
]


def test_no_name_of_a_model_or_wildcard_leads_out(house: House) -> None:
    """Names are never used as paths. Links in models/ are the owner's and are followed."""
    for folder in (house.folder, house.models):
        write_model(folder / "evil.safetensors", checkpoint_shapes())
        secret_recipe(folder / "evil.txt")
    for kind in ("checkpoints", "vae", "embeddings", "loras", "wildcards"):
        (house.models / kind).mkdir()
    linked = write_model(house.folder / "disk/linked.safetensors", kohya_lora_shapes())
    (house.models / "loras/one.safetensors").symlink_to(linked)
    (house.models / "wildcards/one.txt").write_text("one\n")
    for number, (field, name) in enumerate(product(MODEL_FIELDS, MODEL_NAMES)):
        other = {"prompt": "prompt: a corgi\n", "checkpoint": "checkpoint: demo\n"}
        other.pop(field.partition(":")[0], None)
        recipe = field.format(name.format(house.folder))
        house.save(f"{number}.yaml", "".join([*other.values(), recipe]))
    house.save("good.yaml", "prompt: one\ncheckpoint: demo\nloras: one\n")
    house.once()
    assert house.prompts("good") == ["one"]
    assert all(SECRET not in prompt for prompt in house.started())
    for batch in house.engine.batches:
        for request in batch:
            assert request.checkpoint == "demo"
            assert request.vae == "baked"
            assert {lora.name for lora in request.loras} <= {"one"}


@pytest.mark.parametrize(
    ("when_done", "opening"), [*product(["archive"], range(6)), *product(["delete"], range(3))]
)
def test_a_folder_swapped_for_a_link_has_nothing_deleted_behind_it(
    house: House, monkeypatch: pytest.MonkeyPatch, when_done: str, opening: int
) -> None:
    """Not even a file of the same name and bytes; the swap comes as late as possible."""
    house.save("pets/a.txt", "a corgi\n")
    elsewhere = house.folder / "out/a.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_text("a corgi\n")
    pets, out = house.inbox / "pets", house.folder / "out"
    struck: list[list[str]] = []

    def before_batch(batch: Batch) -> None:  # by now the recipe has been read
        house.engine.before_batch = lambda batch: None
        struck.append(swap_before_opening(monkeypatch, opening, pets, pets, out))

    house.engine.before_batch = before_batch
    house.once(when_done=when_done)
    assert elsewhere.exists()
    assert struck[0] or opening > 2
    if (when_done, opening) in (("delete", 1), ("archive", 4)):  # right before the deletion
        assert "done, but it stays in the inbox" in house.log()


def test_a_recipe_that_is_a_link_is_done_and_stays(house: House) -> None:
    (house.inbox / ".store").mkdir()
    house.save(".store/a.txt", "a corgi\n")
    (house.inbox / "link.txt").symlink_to(".store/a.txt")
    assert house.once(when_done="archive")
    assert "link.txt: done, but it stays in the inbox: it is a link" in house.log()


OWN_FILES = (
    *(".picowatch/ledger.sqlite", ".picowatch/status.json", "picowatch.log", "images.jsonl"),
    *("failures.jsonl", "summary.txt", "now.txt", "wrong.yaml.error.txt"),
    ".picowatch/gallery/thumbs/1.webp",
)


@pytest.mark.parametrize("field", FIELDS)
def test_a_recipe_that_names_picowatchs_own_files_is_refused_once(house: House, field: str) -> None:
    """Nor are they opened: who closes SQLite's file gives up its locks on it."""
    plain_picture(house.inbox / "mine.png")
    plain_picture(house.outbox / ".picowatch/gallery/thumbs/1.webp")
    (house.outbox / "link.png").symlink_to("picowatch.log")
    (house.inbox / "out").symlink_to("../outbox")
    (house.inbox / "link").symlink_to("out/failures.jsonl")
    own = [*(f"outbox/{file}" for file in OWN_FILES), "now.txt", "link.png"]
    named = [*own, "link", "out/picowatch.log", "out/link.png"]
    for number, file in enumerate(named):
        house.save(f"{number}.yaml", FIELDS[field].format(f"'{file}'"))
    house.save("wrong.yaml", "stesp: 3\n")
    assert not house.once()
    errors = [house.error(f"{number}.yaml") or "" for number in range(len(named))]
    said = [f"'{file}' is one of picowatch's own files, not a picture." for file in own]
    said += [NO_PICTURE] * 3
    assert [reason for reason, error in zip(said, errors, strict=True) if reason not in error] == []
    for _ in range(2):
        assert house.once(), "told once"


# -- `make` and `check` open a file of the inbox as the daemon does: through no link out of it

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


def test_make_and_check_refuse_a_link_out_of_the_inbox(house: House, capsys: Captured) -> None:
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
    before = sorted(house.inbox.rglob("*"))
    for file, said in REFUSED.items():
        with pytest.raises(PicowatchError) as refused:
            make(house.settings(), [house.folder / file], house.make_engine)
        assert str(refused.value).startswith(f"Cannot read {house.folder / file}: {said}")
        checked = picowatch_here(house.folder, "check", file)
        assert f"{file}: {said}" in checked.stderr
        shown = capsys.readouterr()
        assert SECRET not in checked.stdout + checked.stderr + shown.out + shown.err
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
    checked = picowatch_here(house.folder, "check", *files)
    assert (checked.returncode, checked.stdout.count(": 1 image\n")) == (0, len(files))


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
