"""`make`: recipes in, the paths of their pictures out, with a daemon or without."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from picowatch.commands.make import make
from picowatch.engine.protocol import EngineCannotStart
from picowatch.errors import PicowatchError
from picowatch.outbox.commands import Command, send
from picowatch.outbox.lock import OutboxLock
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import DIGESTS, PROJECT, picowatch_here, started
from tests.daemon.processes import ends
from tests.digest_engine import fail_on_bad
from tests.house import PATIENCE, HeldEngine, House, wait_for


def elsewhere(house: House, name: str, text: str) -> Path:
    path = house.folder / name
    path.write_text(text)
    return path


def made(house: House, *files: Path, code: int = 0, **flags: Any) -> tuple[list[str], str]:
    """`picowatch make` in this process, on the digest engine: lines printed, and the errors."""
    out, err = io.StringIO(), io.StringIO()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with redirect_stdout(out), redirect_stderr(err):
        assert make(house.settings(), files, house.make_engine, **flags) == code
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return out.getvalue().splitlines(), err.getvalue()


def commands(house: House) -> list[Path]:
    return list((house.outbox / ".picowatch/commands").iterdir())


def test_make_with_a_daemon_prints_the_pictures(house: House) -> None:
    """In the order of recipes and images. Two equal files are one recipe."""
    b = elsewhere(house, "b.yaml", "prompt: two\nseed: 7\ncount: 2\n")
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    (house.folder / "x").mkdir()
    twin = elsewhere(house, "x/a.txt", "one --seed 5\n")
    pictures = [f"{house.outbox}/{name}.png" for name in ("b/0001-7", "b/0002-8", "a/0001-5")]
    with house.running():
        assert made(house, b, a)[0] == pictures
        wait_for(lambda: commands(house) == [], "the end of the commands that were answered")
        assert (house.inbox / "b.yaml").read_bytes() == b.read_bytes()
        (house.inbox / "a.txt").unlink()
        assert made(house, a, twin, remove=True)[0] == pictures[2:] * 2
    assert house.engine.starts == 1
    assert not (house.inbox / "a.txt").exists()


def test_make_without_a_daemon_prints_only_these_recipes(house: House) -> None:
    """Whoever could read the file may read the recipe and enter its folder; nobody else."""
    for number in range(10):
        house.save(f"mine{number}.txt", "not now\n")
    recipes = elsewhere(house, "a.txt", "red --seed 5\n"), elsewhere(house, "b.txt", "blue\n")
    for recipe, mode in zip(recipes, (0o664, 0o600), strict=True):
        recipe.chmod(mode)
    umask = os.umask(0o077)
    try:
        printed, errors = made(house, *recipes)
        made(house, recipes[0], name="ads/may")
    finally:
        os.umask(umask)
    names = ("a.txt", "b.txt", "ads", "ads/may.txt")
    modes = [(house.inbox / name).stat().st_mode & 0o777 for name in names]
    assert modes == [0o644, 0o600, 0o755, 0o644]
    assert [Path(line).parent for line in printed] == [house.outbox / "a", house.outbox / "b"]
    assert (errors, commands(house)) == ("", [])
    accepted = re.findall(r" (\S+): saved, ", house.log())
    assert accepted[:2] == ["a.txt", "b.txt"], "before what waited in the inbox"
    assert sorted(house.prompts()) == ["blue", "red", "red"]
    assert house.once()
    assert len(house.prompts()) == 13


def test_make_reads_standard_input(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that begins with a field is YAML, what is JSON is JSON, anything else is prompts."""

    def typed(text: str, name: str = "") -> tuple[list[str], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return made(house, Path("-"), name=name)

    for number, (text, ending) in enumerate(
        (
            ("one --seed 5\n", ".txt"),
            ("# a comment\nprompt: one\nseed: 5\n", ".yaml"),
            ("- prompt: one\n  seed: 5\n", ".yaml"),
            ('{"prompt": "one", "seed": 5}', ".json"),
            ("portrait: one --seed 5\n", ".txt"),
            ("\ufeffprompt: one\nseed: 5\n", ".yaml"),
            ("_id: 17\nprompt: one\nseed: 5\n", ".yaml"),
            ("{prompt: one, seed: 5}\n", ".yaml"),
            ("---\nsteps: 3\nseed: 5\n---\n# tonight\none\n", ".txt"),
        )
    ):
        assert typed(text, f"a{number}")[0] == [f"{house.outbox}/a{number}/0001-5.png"]
        assert (house.inbox / f"a{number}{ending}").exists()
    typed("one\n")
    assert (house.inbox / "stdin.txt").exists()
    with pytest.raises(PicowatchError, match="Standard input is empty"):
        typed("")
    assert typed("# nothing yet\n", "later")[1].endswith(": It requests no image.\n")


REFUSED: dict[str, tuple[list[str], dict[str, Any]]] = {
    r"is never run: recipes are \.yaml, ": (["a.txt", "a.md"], {}),
    "is never run: it is a conflict copy of a": (["a.txt", "a (conflicted copy).txt"], {}),
    r"long\.txt is too long: a recipe may have up to 1,048,576": (["a.txt", "long.txt"], {}),
    "is empty": (["a.txt", "empty.txt"], {}),
    r"Cannot read .*none\.txt: No such file": (["a.txt", "none.txt"], {}),
    "--name is for one recipe": (["a.txt", "a.txt"], {"name": "x"}),
    "in the inbox already, and keeps its name": (["inbox/there.txt"], {"name": "x"}),
    r"--name \.\./x is not a recipe's name": (["a.txt"], {"name": "../x"}),
    "--name x//y is not": (["a.txt"], {"name": "x//y"}),
    "--name _defaults is not": (["a.txt"], {"name": "_defaults"}),
    "File name too long. Use a shorter name.": (["a.txt"], {"name": "x" * 300}),
    "removes only what it puts there": (["a.txt", "inbox/there.txt"], {"remove": True}),
    "Recipes in frames/ are not read: frames/_pictures.yaml": (["a.txt", "inbox/frames/b.txt"], {}),
    "Put it into another folder.": (["a.txt"], {"name": "frames/deep/a"}),
    "is made with its folder: `picowatch make '.*/my frames/b'`": (["inbox/my frames/b/a.png"], {}),
    r"_pictures\.yaml is a template, not a recipe\. .* folder: `picowatch make '.*/my frames'`": (
        ["inbox/my frames/_pictures.yaml"],
        {},
    ),
    r"_defaults\.yaml is a template, not a recipe\. Name a recipe": (["inbox/_defaults.yaml"], {}),
    "is a picture, not a recipe. Name it in a recipe, or drop it": (["inbox/a.png"], {}),
    "picture, not a recipe. Name it": (["a.png"], {}),
    r"~a\.png is never run: its name begins with ~; rename it\.": (["inbox/~a.png"], {}),
}


def test_make_refuses_before_anything_is_put_into_the_inbox(house: House) -> None:
    """What is no recipe, a name that none can have, and where nobody would answer it."""
    for name in ("a.txt", "a.md", "a (conflicted copy).txt"):
        elsewhere(house, name, "one\n")
    elsewhere(house, "empty.txt", "\n")
    elsewhere(house, "long.txt", "one\n" * 300_000)
    for name in ("there.txt", "frames/_pictures.yaml", "frames/b.txt", "_defaults.yaml"):
        house.save(name, "prompt: one\n")
    house.save("my frames/_pictures.yaml", "prompt: one\n")
    for name in ("my frames/b/a.png", "a.png", "~a.png", "../a.png"):
        house.draw(name)
    before = sorted(house.inbox.rglob("*"))
    for said, (names, flags) in REFUSED.items():
        with pytest.raises(PicowatchError) as refused:
            make(house.settings(), [house.folder / name for name in names], **flags)
        assert re.search(said, refused.value.with_remedy)
        assert sorted(house.inbox.rglob("*")) == before, said


def test_make_says_what_a_daemon_is_waiting_for_and_a_signal_ends_it(house: House) -> None:
    """In a pipe, too: an engine that cannot start, and a pause meanwhile. The recipe stays."""
    house.engine.before_batch = Mock(side_effect=EngineCannotStart("There is no CUDA device."))
    recipe = elsewhere(house, "a.txt", "one --seed 5\n")
    with (
        house.running(),
        started(house.folder, "make", "--json", recipe, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr
        assert process.stderr.readline() == "picowatch is waiting: There is no CUDA device.\n"
        house.tell("pause")
        assert process.stderr.readline().startswith("picowatch is paused. Continue with")
        process.send_signal(signal.SIGINT)
        found = json.loads(process.communicate(timeout=PATIENCE)[0])
        wait_for(lambda: {path.suffix for path in commands(house)} <= {".answer"}, "its end")
    assert (process.returncode, found["done"], found["recipes"][0]["in_inbox"]) == (
        130,
        False,
        True,
    )
    assert "The recipes stay in the inbox" in found["errors"][0]


@pytest.mark.parametrize("beside_a_daemon", [True, False])
def test_what_an_ended_make_rm_wanted_is_not_rendered(house: House, beside_a_daemon: bool) -> None:
    """It takes over what a daemon leaves; or none has ever looked at the whole inbox."""
    recipe = elsewhere(house, "a.yaml", "prompt: one\nseed: 1\ncount: 2\n")
    elsewhere(house, "hold", "")  # the engine of its own waits
    with ExitStack() as programs:
        with ExitStack() as daemon:
            if beside_a_daemon:
                held = HeldEngine(house)
                daemon.enter_context(house.running())
            its = started(house.folder, "make", "--rm", recipe, program=DIGESTS)
            process = programs.enter_context(its)
            if beside_a_daemon:
                held.wait_until_held()
        wait_for(lambda: house.status().get("pid") == process.pid, "its own daemon")
        wait_for(lambda: house.status()["images"]["running"], "the image in progress")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert house.once()
    assert "a.yaml: deleted, 2 images cancelled" in house.log()
    assert house.pictures() == []
    assert len(made(house, recipe, remove=True)[0]) == 2


def test_a_daemon_waits_for_a_make_that_took_its_place(house: House) -> None:
    """As after a crash, when a service manager starts the daemon again; another one is refused."""
    lock = OutboxLock(house.outbox, by_make=True)
    single = picowatch_here(house.folder, "run", "--once")
    assert (single.returncode, single.stdout) == (3, "")
    assert "Wait for it" in single.stderr
    with started(house.folder, "run") as daemon:
        assert daemon.stdout is not None
        assert "waiting: `picowatch make` (process" in daemon.stdout.readline()
        lock.release()
        wait_for(lambda: house.status()["images"] is not None, "the daemon's start")
        ends(daemon)


def test_commands_for_what_is_never_read_keep_no_single_run_from_ending(house: House) -> None:
    """The sender of one was killed; where pictures are dropped, the other would wait for ever."""
    house.save("empty.txt", "\n")
    house.save("a.txt", "one\n")
    house.save("frames/_pictures.yaml", "prompt: a corgi\n")
    house.save("frames/beside.yaml", "prompt: one\n")
    send(house.outbox, Command("make", "empty.txt", "0" * 64))
    command = send(house.outbox, Command("make", "frames/beside.yaml", "0" * 64))
    assert house.once()
    answer = house.answer_to(command)
    assert not answer.done
    assert "Save it in another folder." in answer.text
    assert house.prompts() == ["one"]


@pytest.mark.parametrize("call", ["commands.make_files.put", "outbox.commands.send"])
def test_make_on_a_full_disk_says_what_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The system names no file for what fails on one that is open."""
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr(f"picowatch.{call}", full)
    recipe, is_sent = elsewhere(house, "a.txt", "a corgi\n"), call.endswith("send")
    where = house.outbox if is_sent else house.inbox
    with pytest.raises(PicowatchError, match=f"^{where} cannot be written: No space left") as said:
        make(house.settings(), [recipe])
    assert (house.inbox / "a.txt").exists() == is_sent
    assert ("stay in the inbox" in said.value.with_remedy) == is_sent


@pytest.mark.parametrize("as_json", [True, False])
def test_make_rm_leaves_nothing_but_pictures(house: House, as_json: bool) -> None:
    house.engine.before_batch = fail_on_bad
    files = good, _, _ = [
        elsewhere(
            house, "good.yaml", "prompt: one\nseed: 5\nsize: 64x128\nsweep: {steps: [1, 2]}\n"
        ),
        elsewhere(house, "bad.yaml", "prompt: one\nstesp: 3\n"),
        elsewhere(house, "fails.txt", "bad\n"),
    ]
    printed, errors = made(house, *files, code=1, remove=True, as_json=as_json)
    assert list(house.inbox.iterdir()) == []
    assert not list(house.outbox.glob("*.error.txt"))
    names = [str(house.outbox / name) for name in house.pictures()]
    assert len(names) == 3, "two pictures and their sheet"
    if not as_json:
        assert printed == names
        assert "Did you mean 'steps'?" in errors and "entry 1, image 1" in errors
        return
    assert errors == ""
    found = json.loads("".join(printed))
    assert (found["done"], found["errors"]) == (False, [])
    one, two, three = found["recipes"]
    of_each = {"seed": 5, "width": 64, "height": 128, "checkpoint": "demo", "prompt": "one"}
    assert one == {
        "file": str(good), "recipe": "good.yaml", "in_inbox": False, "done": True,
        "pictures": [{"path": path, **of_each, "negative_prompt": ""} for path in names[:2]],
        "contact_sheets": names[2:], "errors": [], "warnings": [],
    }  # fmt: skip
    assert "Did you mean 'steps'?" in two["errors"][0]
    assert "entry 1, image 1, seed" in three["errors"][0]
    assert "requests no image" not in str(three["warnings"])
    assert not (two["done"] or three["done"])
    documented = (PROJECT / "docs/scripts.md").read_text().partition("<!-- make --json -->")[2]
    promised = json.loads(documented.partition("```json")[2].partition("```")[0])
    assert [*promised] == [*found]
    assert [*promised["recipes"][0]] == [*two]


def test_make_rm_keeps_what_was_there_or_was_changed(house: House) -> None:
    """Only its own recipe is removed, and only as it was put there, in a folder that it names."""
    house.save("a.txt", "one --seed 5\n")
    made(house, elsewhere(house, "a.txt", "one --seed 5\n"), remove=True)
    assert (house.inbox / "a.txt").exists()
    b = elsewhere(house, "b.txt", "two --seed 5\n")

    def change(batch: Sequence[ImageRequest]) -> None:
        assert (house.inbox / "ads/may.txt").read_text() == "two --seed 5\n"
        house.save("ads/may.txt", "mine\n")

    house.engine.before_batch = change
    make(house.settings(), [b], house.make_engine, name="ads/may", remove=True)
    assert (house.inbox / "ads/may.txt").read_text() == "mine\n"
    house.engine.before_batch = lambda batch: None
    (house.inbox / "kept").mkdir()
    for name in ("kept/c", "new/deep/c", "ads/june"):
        made(house, b, name=name, remove=True)
    there = {path.relative_to(house.inbox).as_posix() for path in house.inbox.rglob("*")}
    assert there == {"a.txt", "ads", "ads/may.txt", "kept"}


def test_make_prints_no_picture_that_was_deleted(house: House) -> None:
    """An entry with a random seed that says what it said is not repeated, and that is told."""
    recipe = house.save("a.txt", "one\ntwo\n")
    (first, second), _ = made(house, recipe)
    Path(first).unlink()
    recipe.write_text("one\ntwo\nthree --seed 5\n")
    printed, said = made(house, recipe)
    assert printed == [second, str(house.outbox / "a/0003-5.png")]
    assert "/a.txt: 1 of its 3 pictures was deleted. " in said


def test_make_puts_a_recipe_beside_another_and_saves_its_own_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes are the same recipe, saved again: fixed seeds give the pictures there are.

    Another user's recipe cannot be saved again.
    """
    house.save("a.txt", "other\n")
    fixed, drawn = elsewhere(house, "a.txt", "one --seed 5\n"), house.save("pets/b.txt", "two\n")
    shown = [made(house, fixed, drawn)[0] for _ in range(2)]
    assert shown[0][0] == shown[1][0] == str(house.outbox / "a-2/0001-5.png")
    assert len(house.pictures("pets/b")) == 2 and shown[1][1] != shown[0][1]
    assert sorted(path.name for path in house.inbox.rglob("*.txt")) == ["a-2.txt", "a.txt", "b.txt"]
    assert (house.inbox / "a.txt").read_text() == "other\n"
    others = Mock(side_effect=[PermissionError(errno.EACCES, "Permission denied")])
    monkeypatch.setattr("picowatch.commands.make_files.save_again", others)
    assert made(house, fixed)[0] == [str(house.outbox / "a-3/0001-5.png")]


@pytest.mark.parametrize(("when_done", "remove"), [("keep", False), ("delete", True)])
def test_make_names_pictures_and_sheets_in_the_order_of_the_recipe_as_it_is_now(
    house: House, when_done: str, remove: bool
) -> None:
    """Those that were there already, too, wherever the recipe is by then: a script counts them."""
    sweep = "prompt: a cat\nseed: 5\nsweep: {steps: [1, 2]}\n"
    grid = "prompt: a star\nseed: 7\ncount: 2\ngrid: true\n"
    found = []
    with house.running(when_done=when_done):
        for text in (sweep, sweep, f"{grid}---\n{sweep}"):
            recipe = elsewhere(house, "a.yaml", text)
            found.append([Path(path).name for path in made(house, recipe, remove=remove)[0]])
            if when_done == "keep":
                (house.inbox / "a.yaml").unlink()
        assert house.engine.starts == 1
    first, again, both = found
    assert first == again == ["0001-5.png", "0002-5.png", "0003-sheet.png"]
    assert both[:4] == ["0004-7.png", "0005-8.png", "0001-5.png", "0002-5.png"]
    assert len(both) == 6
    assert list(house.inbox.iterdir()) == []


def test_make_as_json_has_one_object_for_every_end(house: House) -> None:
    """Also where nothing could be requested, or the settings are wrong."""
    none = house.folder / "none.txt"
    found = json.loads("".join(made(house, none, code=1, as_json=True)[0]))
    assert (found["done"], found["recipes"]) == (False, [])
    assert "Cannot read" in found["errors"][0]
    a = elsewhere(house, "a.txt", "one\n")
    (house.folder / "picowatch.yaml").write_text("stesp: 3\n")
    ended = picowatch_here(house.folder, "make", "--json", a)
    found = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr) == (2, "")
    assert "picowatch.yaml, line 1, column 1: unknown setting 'stesp'" in found["errors"][0]
    said = picowatch_here(house.folder, "make", a).stderr
    assert said.startswith("picowatch: picowatch.yaml, line 1")
