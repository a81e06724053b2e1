"""`make`: recipes in, the paths of their pictures out, with a daemon or without."""

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from picowatch.commands.requests import make
from picowatch.engine.protocol import EngineCannotStart
from picowatch.errors import PicowatchError
from picowatch.inbox.files import FileUnreadable
from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.outbox.lock import OutboxLock
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import DIGESTS, PROJECT, clean_environment, command, picowatch, start
from tests.house import PATIENCE, House, wait_for

Captured = pytest.CaptureFixture[str]


def elsewhere(house: House, name: str, text: str) -> Path:
    """A recipe that does not lie in the inbox."""
    path = house.folder / name
    path.write_text(text)
    return path


def made_here(house: House, *files: Path) -> int:
    """`picowatch make` in this process, on the digest engine."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    code = make(house.settings(), files, house.make_engine)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return code


def commands(house: House) -> list[Path]:
    """Commands and answers that lie about."""
    return list((house.outbox / ".picowatch/commands").iterdir())


def test_make_with_a_daemon_prints_the_pictures(house: House) -> None:
    """In the order of the recipes and their images, and leaves the recipe in the inbox."""
    b = elsewhere(house, "b.yaml", "prompt: two\nseed: 7\ncount: 2\n")
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    with house.running():
        answer = picowatch(house.folder, "make", b, a)
        wait_for(lambda: commands(house) == [], "the end of the commands that were answered")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "outbox/b/0001-7.png",
        "outbox/b/0002-8.png",
        "outbox/a/0001-5.png",
    ]
    assert (house.inbox / "b.yaml").read_bytes() == b.read_bytes()


def test_make_without_a_daemon_prints_only_these_recipes(house: House, capsys: Captured) -> None:
    """Others in the inbox are handled, too, but not waited for."""
    house.save("mine.txt", "not now\n")
    a = elsewhere(house, "a.txt", "red --seed 5\nblue --seed 6\n")
    assert made_here(house, a) == 0
    shown = capsys.readouterr()
    folder = house.outbox / "a"
    assert shown.out.splitlines() == [str(folder / "0001-5.png"), str(folder / "0002-6.png")]
    assert shown.err == ""
    assert commands(house) == []
    assert house.once()
    assert sorted(house.prompts()) == ["blue", "not now", "red"]


def test_make_twice_with_a_fixed_seed_renders_one_picture(house: House, capsys: Captured) -> None:
    """The same bytes are the same recipe, saved again: its picture is there."""
    a = elsewhere(house, "a.yaml", "prompt: one\nseed: 5\n")
    assert made_here(house, a) == 0
    first = capsys.readouterr().out
    assert made_here(house, a) == 0
    assert capsys.readouterr().out == first
    assert len(house.pictures()) == 1


def test_make_twice_with_a_random_seed_renders_two_and_prints_the_new_one(
    house: House, capsys: Captured
) -> None:
    """As saving the recipe again does."""
    a = elsewhere(house, "a.txt", "one\n")
    with house.running():
        for number in (1, 2):
            answer = picowatch(house.folder, "make", a)
            assert answer.returncode == 0, answer.stderr
            (line,) = answer.stdout.splitlines()
            assert line.startswith(f"outbox/a/000{number}-")
    assert len(list(house.inbox.iterdir())) == 1


def test_make_overwrites_no_recipe(house: House, capsys: Captured) -> None:
    """Another one of that name gets a number."""
    house.save("a.txt", "other\n")
    assert made_here(house, elsewhere(house, "a.txt", "one --seed 5\n")) == 0
    assert capsys.readouterr().out == f"{house.outbox / 'a-2/0001-5.png'}\n"
    assert (house.inbox / "a.txt").read_text() == "other\n"


def test_make_saves_a_recipe_of_the_inbox_again(house: House, capsys: Captured) -> None:
    """Where it lies; no copy is made."""
    path = house.save("pets/a.txt", "one\n")
    assert house.once()
    assert made_here(house, path) == 0
    assert len(house.pictures("pets/a")) == 2
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert [file for file in house.inbox.rglob("*") if file.is_file()] == [path]


def test_make_of_an_invalid_recipe_prints_its_error(house: House, capsys: Captured) -> None:
    """All of it; the good recipes' pictures are printed all the same."""
    good = elsewhere(house, "good.txt", "one --seed 5\n")
    bad = elsewhere(house, "bad.yaml", "prompt: one\nstesp: 3\n")
    assert made_here(house, bad, good) == 1
    shown = capsys.readouterr()
    assert shown.out.endswith("good/0001-5.png\n")
    assert "inbox/bad.yaml, line 2" in shown.err
    assert "Did you mean 'steps'?" in shown.err
    assert shown.err.count("stesp") == 2, "the line and the message, once"


def test_make_of_a_recipe_that_cannot_be_read_prints_why(
    house: House, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that another user keeps to themselves: its bytes are not known."""

    def forbidden(root: Path, path: str) -> NoReturn:
        raise FileUnreadable("picowatch has no permission to read it")

    monkeypatch.setattr("picowatch.inbox.reading.read_file", forbidden)
    assert made_here(house, elsewhere(house, "a.txt", "one\n")) == 1
    said = capsys.readouterr().err
    assert said.startswith("inbox/a.txt\n\nThis recipe cannot be read: picowatch has no permission")


def test_make_lets_those_read_the_recipe_who_could_read_the_file(house: House) -> None:
    """As a daemon of another user, whatever the umask says; nobody else."""
    open_to_all = elsewhere(house, "open.txt", "one\n")
    private = elsewhere(house, "private.txt", "two\n")
    open_to_all.chmod(0o664)
    private.chmod(0o600)
    umask = os.umask(0o077)
    try:
        assert made_here(house, open_to_all, private) == 0
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in sorted(house.inbox.iterdir())]
    assert modes == [0o644, 0o600]


def test_make_prints_warnings(house: House, capsys: Captured) -> None:
    """They are all that is left of them with --rm."""
    a = elsewhere(house, "a.yaml", "prompt: red\nnegative_prompt: blue\ncfg_scale: 1\nseed: 5\n")
    assert make(house.settings(), [a], house.make_engine, remove=True) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{house.outbox / 'a/0001-5.png'}\n"
    assert shown.err.startswith("inbox/a.yaml\n\n")
    assert "The negative prompt was ignored" in shown.err


def test_make_reports_images_that_failed(house: House, capsys: Captured) -> None:
    """And prints those that were made."""

    def fail(batch: Sequence[ImageRequest]) -> None:
        if any(request.prompt == "black" for request in batch):
            raise RuntimeError("oh")

    house.engine.before_batch = fail
    assert made_here(house, elsewhere(house, "a.txt", "white --seed 5\nblack\n")) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{house.outbox / 'a/0003-5.png'}\n"
    assert shown.err == "a.txt: 1 image failed: see a.txt.error.txt in the outbox.\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("one --seed 5\n", "stdin.txt"),
        ("# a comment\nprompt: one\nseed: 5\n", "stdin.yaml"),
        ("---\nprompt: one\nseed: 5\n", "stdin.yaml"),
        ("- prompt: one\n  seed: 5\n", "stdin.yaml"),
        ("negative: two\nprompt: one\nseed: 5\n", "stdin.yaml"),
        ('{"prompt": "one", "seed": 5}', "stdin.json"),
        ("portrait: one --seed 5\n", "stdin.txt"),
        ("", None),
    ],
)
def test_make_reads_standard_input(house: House, text: str, name: str | None) -> None:
    """A text that begins with a field is YAML, what is JSON is JSON, anything else is prompts."""
    with house.running():
        answer = subprocess.run(
            command("make", "-"),
            cwd=house.folder,
            env=clean_environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )
    if name is None:
        assert (answer.returncode, answer.stderr) == (
            1,
            "picowatch: Standard input is empty. Write at least a prompt.\n",
        )
    else:
        assert answer.stdout == "outbox/stdin/0001-5.png\n", answer.stderr
        assert [file.name for file in house.inbox.iterdir()] == [name]


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_make_where_done_recipes_leave_the_inbox(
    house: House, capsys: Captured, when_done: str
) -> None:
    """Their pictures are known all the same."""
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    with house.running(when_done=when_done):
        answer = picowatch(house.folder, "make", a)
        assert (answer.returncode, answer.stdout) == (0, "outbox/a/0001-5.png\n"), answer.stderr
        wait_for(lambda: not list(house.inbox.iterdir()), "the retirement")


def test_make_refuses_what_is_no_recipe(house: House) -> None:
    """Before anything is put into the inbox."""
    good = elsewhere(house, "a.txt", "one\n")
    for name, text, said in (
        ("a.md", "one\n", "is never run: recipes are .yaml, .yml, .json, .csv and .txt"),
        ("a (conflicted copy).txt", "one\n", "is never run: it is a conflict copy of a sync tool"),
        ("b.txt", "\n", "is empty"),
    ):
        with pytest.raises(PicowatchError, match=said):
            make(house.settings(), [good, elsewhere(house, name, text)], house.make_engine)
    with pytest.raises(PicowatchError, match="File name too long") as caught:
        make(house.settings(), [good], house.make_engine, name="x" * 300)
    assert caught.value.remedy == "Use a shorter name."
    with pytest.raises(PicowatchError, match=r"Cannot read .*none\.txt: No such file"):
        make(house.settings(), [good, house.folder / "none.txt"], house.make_engine)
    assert list(house.inbox.iterdir()) == []


def test_make_says_what_a_daemon_is_waiting_for(house: House) -> None:
    """In a pipe, too: an engine that cannot start, and a pause meanwhile."""

    def fail(_: object) -> None:
        raise EngineCannotStart("There is no CUDA device.")

    house.engine.before_batch = fail
    with (
        house.running(),
        subprocess.Popen(
            command("make", elsewhere(house, "a.txt", "one\n")),
            cwd=house.folder,
            env=clean_environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr
        try:
            assert process.stderr.readline() == "picowatch is waiting: There is no CUDA device.\n"
            send(house.outbox, Command("pause"))
            assert process.stderr.readline().startswith("picowatch is paused. Continue with")
        finally:
            process.kill()


def test_make_while_paused_says_so(house: House, capsys: Captured) -> None:
    """Without a daemon it does not wait for ever."""
    house.save("a.txt", "one\n")
    assert house.once()
    send(house.outbox, Command("pause"))
    assert made_here(house, elsewhere(house, "b.txt", "two\n")) == 1
    assert "picowatch is paused. Continue with `picowatch resume`" in capsys.readouterr().err
    assert house.prompts() == ["one"]


def test_make_of_a_recipe_that_is_taken_away_ends(
    house: House, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for what cannot come."""

    def send_and_delete(*given: Any) -> Path:
        (house.inbox / "a.txt").unlink()
        return send(*given)

    monkeypatch.setattr("picowatch.commands.requests.send", send_and_delete)
    assert made_here(house, elsewhere(house, "a.txt", "one\n")) == 1
    assert capsys.readouterr().err == "a.txt: it is no longer in the inbox, or is empty.\n"


@pytest.mark.parametrize("flags", [(), ("--rm",)])
def test_make_of_a_recipe_that_is_renamed_prints_its_pictures(
    house: House, flags: tuple[str, ...]
) -> None:
    """Twice, while it is rendered: they are what was asked for. --rm keeps what has a new name."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: wait_for(go.is_set)
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    with house.running():
        process = subprocess.Popen(
            command("make", "--json", *flags, a),
            cwd=house.folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: house.status()["images"]["running"], "the image in progress")
        (house.inbox / "a.txt").rename(house.inbox / "b.txt")
        wait_for(lambda: "renamed to b.txt" in house.log(), "the rename")
        (house.inbox / "b.txt").rename(house.inbox / "c.txt")
        wait_for(lambda: "renamed to c.txt" in house.log(), "the second one")
        go.set()
        printed, _ = process.communicate(timeout=PATIENCE)
    found = json.loads(printed)
    assert process.returncode == 0 and found["done"], printed
    [recipe] = found["recipes"]
    assert [picture["seed"] for picture in recipe["pictures"]] == [5]
    assert (recipe["recipe"], recipe["in_inbox"]) == ("a.txt", False)
    assert (house.inbox / "c.txt").exists()
    assert "warning" not in house.log()


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (lambda file: file.unlink(), "a.txt: deleted, 2 images cancelled"),
        (lambda file: file.write_text("three\n"), "a.txt: saved, 1 image queued, 2 cancelled"),
    ],
    ids=["deleted", "saved again"],
)
def test_make_stops_when_nobody_requests_its_images(
    house: House, capsys: Captured, change: Callable[[Path], object], noticed: str
) -> None:
    """As the daemon does, also the one in progress."""

    def change_once(batch: Sequence[ImageRequest]) -> None:
        house.engine.before_batch = lambda batch: None
        change(house.inbox / "a.txt")
        wait_for(lambda: noticed in house.log(), "the change is noticed")

    house.engine.before_batch = change_once
    a = elsewhere(house, "a.txt", "one --seed 5\ntwo --seed 6 --size 72x64\n")
    assert made_here(house, a) == 1
    assert "2 images cancelled." in capsys.readouterr().err
    assert {"one", "two"}.isdisjoint(house.prompts())


def test_make_takes_over_when_the_daemon_ends(house: House, capsys: Captured) -> None:
    """What the daemon left is made in this process."""
    reached, go = threading.Event(), threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    house.engine.before_batch = hold
    codes: list[int] = []
    with house.running():
        caller = subprocess.Popen(
            [sys.executable, "-c", MAKE_ON_DIGESTS, house.folder],
            cwd=house.folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reached.wait(PATIENCE)
    go.set()
    printed, _ = caller.communicate(timeout=PATIENCE)
    codes.append(caller.returncode)
    assert codes == [0]
    assert printed.startswith("outbox/a/0002-5.png")


def test_a_daemon_waits_for_a_make_that_took_its_place(house: House) -> None:
    """As after a crash, when a service manager starts the daemon again; another one is refused."""
    lock = OutboxLock(house.outbox, by_make=True)
    daemon = start(house.folder, "run")
    assert daemon.stdout is not None
    assert "waiting: `picowatch make` (process" in daemon.stdout.readline()
    single = picowatch(house.folder, "run", "--once")
    assert (single.returncode, single.stdout) == (3, "")
    assert "Wait for it" in single.stderr
    lock.release()
    wait_for(lambda: house.status()["images"] is not None, "the daemon's start")
    daemon.terminate()
    daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0


def test_make_that_was_stopped_meanwhile_reads_its_answer_after_a_restart(house: House) -> None:
    """As by Ctrl-Z: the next start of the daemon leaves it the answer."""
    answers = house.outbox / ".picowatch/commands"
    with house.running():
        with house.seen_at_once():
            process = start(house.folder, "make", elsewhere(house, "a.txt", "one --seed 5\n"))
            wait_for(lambda: [*answers.glob("*.json")], "the command, no longer a temporary")
            process.send_signal(signal.SIGSTOP)
        wait_for(lambda: [*answers.glob("*.answer")], "the answer")
    with house.running():
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (0, "outbox/a/0001-5.png\n")


MAKE_ON_DIGESTS = """
import sys
from pathlib import Path
from picowatch.commands.requests import make
from tests.digest_engine import DigestEngine
from picowatch.settings import Settings

Path("a.txt").write_text("one --seed 5\\n")
settings = Settings(settle_seconds=0.05)
sys.exit(make(settings, [Path("a.txt")], lambda options: DigestEngine()))
"""


def test_ctrl_c_leaves_the_recipe_and_no_command(house: House) -> None:
    """Exit code 130; the daemon continues with it."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: wait_for(go.is_set)
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    with house.running():
        process = subprocess.Popen(
            command("make", a),
            cwd=house.folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: house.status()["images"]["running"], "the image in progress")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "The recipes stay in the inbox" in said
        wait_for(lambda: commands(house) == [], "the end of the command")
        go.set()
        wait_for(lambda: house.pictures() == ["a/0001-5.png"], "the picture")


@pytest.mark.parametrize("remove", [False, True])
def test_ctrl_c_before_anything_is_in_the_inbox_says_so(
    house: House, capsys: Captured, monkeypatch: pytest.MonkeyPatch, remove: bool
) -> None:
    """As while standard input is typed."""

    def interrupted(file: Path) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("picowatch.commands.requests._content", interrupted)
    assert make(house.settings(), [Path("-")], house.make_engine, remove=remove) == 130
    assert capsys.readouterr().err == "Nothing was put into the inbox.\n"


def test_ctrl_c_while_a_command_is_sent_leaves_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there, and nobody has been told its name."""

    def interrupted(*given: Any) -> Path:
        send(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr("picowatch.commands.requests.send", interrupted)
    assert made_here(house, elsewhere(house, "a.txt", "one\n")) == 130
    assert commands(house) == []
    assert (house.inbox / "a.txt").exists()


def test_a_command_whose_sender_was_killed_does_not_keep_a_single_run_from_ending(
    house: House,
) -> None:
    """It waits for a recipe that is never read."""
    house.save("empty.txt", "\n")
    house.save("a.txt", "one\n")
    send(house.outbox, Command("make", "empty.txt", "0" * 64))
    assert house.once()
    assert house.prompts() == ["one"]


def test_a_command_out_of_the_inbox_is_refused(house: House) -> None:
    """Whoever may write to the outbox may write anything there."""
    house.save("a.txt", "one\n")
    path = send(house.outbox, Command("make", "../secret.txt", "0" * 64))
    assert house.once()
    assert '"done": false' in path.with_suffix(".answer").read_text()


def test_names_differ_whoever_puts_first(house: House) -> None:
    """Many at once, each with another text: each recipe has its own name."""
    from picowatch.inbox.putting import put

    gate = threading.Barrier(8)
    names: list[str] = []

    def one(number: int) -> None:
        gate.wait()
        names.append(put(house.inbox, "a.txt", f"{number}\n".encode())[0])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    assert sorted(file.read_text() for file in house.inbox.iterdir()) == [
        f"{number}\n" for number in range(8)
    ]
    assert len(list(house.inbox.iterdir())) == 8, "no temporary files"


def test_makes_in_one_folder_do_not_take_it_away_from_each_other(house: House) -> None:
    """Each removes the folder in the end if it is empty: the others make it again."""
    from picowatch.inbox.putting import put

    folder, gate = house.inbox / "web", threading.Barrier(4)
    failed: list[OSError] = []

    def some(name: str) -> None:
        gate.wait()
        for _ in range(200):
            try:
                put(folder, name, name.encode())
            except OSError as error:
                failed.append(error)
            (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    threads = [threading.Thread(target=some, args=(name,)) for name in ("a.txt", "b.txt") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_folder_may_go_between_two_looks_at_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pathlib says that it exists already, if it is gone when it looks whether it is a folder."""
    from picowatch.inbox.putting import put

    folder = house.inbox / "web"
    folder.mkdir()
    mkdir = os.mkdir

    def made(path: Path, mode: int) -> None:
        monkeypatch.undo()
        folder.rmdir()
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(os, "mkdir", made)
    assert put(folder, "a.txt", b"a ball\n") == ("a.txt", True)
    assert mkdir is os.mkdir, "it was called"
    folder = house.inbox / "file"
    folder.write_text("")
    with pytest.raises(FileExistsError):
        put(folder, "a.txt", b"a ball\n")


@pytest.mark.parametrize("links", [True, False])
def test_make_overwrites_no_recipe_that_is_saved_in_the_same_moment(
    house: House, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Also on a file system without hard links."""
    from picowatch.inbox.putting import put

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", lambda handle: house.save("a.txt", "the user's\n"))
    assert put(house.inbox, "a.txt", b"made\n") == ("a-2.txt", True)
    found = {path.name: path.read_text() for path in house.inbox.iterdir()}
    assert found == {"a.txt": "the user's\n", "a-2.txt": "made\n"}


@pytest.mark.parametrize("call", ["put", "send"])
def test_make_on_a_full_disk_says_what_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The system names no file for what fails on one that is open."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"picowatch.commands.requests.{call}", fail)
    recipe = house.folder / "a.txt"
    recipe.write_text("a corgi\n")
    where = house.inbox if call == "put" else house.outbox
    with pytest.raises(PicowatchError, match=f"^{where} cannot be written: No space left") as said:
        make(house.settings(), [recipe])
    assert (house.inbox / "a.txt").exists() == (call == "send")
    assert ("stay in the inbox" in said.value.with_remedy) == (call == "send")


def test_make_as_json_says_what_a_script_needs(house: House, capsys: Captured) -> None:
    """Pictures with their seeds, and errors where they belong, on standard output alone."""

    def fail(batch: Sequence[ImageRequest]) -> None:
        if any(request.prompt == "fails" for request in batch):
            raise RuntimeError("oh")

    house.engine.before_batch = fail
    good = elsewhere(house, "good.yaml", "prompt: one\nseed: 5\ncount: 2\nsize: 64x128\n")
    bad = elsewhere(house, "bad.yaml", "prompt: one\nstesp: 3\n")
    fails = elsewhere(house, "fails.txt", "fails\n")
    code = make(house.settings(), [good, bad, fails], house.make_engine, as_json=True)
    shown = capsys.readouterr()
    assert (code, shown.err) == (1, "")
    found = json.loads(shown.out)
    assert (found["done"], found["errors"]) == (False, [])
    one, two, three = found["recipes"]
    assert [picture.pop("path") for picture in one["pictures"]] == [
        str(house.outbox / "good/0001-5.png"),
        str(house.outbox / "good/0002-6.png"),
    ]
    assert one.pop("pictures") == [
        {"seed": seed, "width": 64, "height": 128, "checkpoint": "demo", "prompt": "one",
         "negative_prompt": ""}
        for seed in (5, 6)
    ]  # fmt: skip
    assert one == {
        "file": str(good), "recipe": "good.yaml", "in_inbox": True, "done": True,
        "contact_sheets": [], "errors": [], "warnings": [],
    }  # fmt: skip
    assert "Did you mean 'steps'?" in two["errors"][0]
    assert "entry 1, image 1, seed" in three["errors"][0]
    assert not (two["done"] or three["done"])
    documented = (PROJECT / "docs/commands.md").read_text().partition("<!-- make --json -->")[2]
    promised = json.loads(documented.partition("```json")[2].partition("```")[0])
    assert [*promised] == [*found]
    assert [*promised["recipes"][0]] == [*two]


@pytest.mark.parametrize("remove", [False, True])
def test_make_as_json_names_contact_sheets(house: House, capsys: Captured, remove: bool) -> None:
    """Those of what the recipe says now, also where it does not stay in the inbox."""

    def sheets(text: str) -> tuple[list[str], list[int]]:
        study = (elsewhere if remove else House.save)(house, "study.yaml", text)
        assert not make(
            house.settings(), [study], house.make_engine, remove=remove, as_json=True
        )  # fmt: skip
        (found,) = json.loads(capsys.readouterr().out)["recipes"]
        return found["contact_sheets"], [picture["seed"] for picture in found["pictures"]]

    two = "prompt: one\nseed: 5\nsweep: {steps: [1, 2]}\n"
    grid = "prompt: two\nseed: 7\ncount: 2\ngrid: true\n"
    first, third = (str(house.outbox / f"study/000{number}-sheet.png") for number in (3, 6))
    assert sheets(two) == ([first], [5, 5])
    if not remove:
        assert sheets(two) == ([first], [5, 5])
        assert sheets(f"{two}---\n{grid}")[0] == [first, third]
        return
    assert sheets(grid)[0] == [third]


@pytest.mark.parametrize("flags", [[], ["--rm"]])
@pytest.mark.parametrize("when_done", ["archive", "delete"])
@pytest.mark.parametrize("runs", [True, False])
def test_make_as_json_names_the_contact_sheets_of_a_recipe_that_is_taken_out(
    house: House, capsys: Captured, runs: bool, when_done: str, flags: list[str]
) -> None:
    """Each time it is made, also where everything was there already."""

    def made(text: str) -> tuple[list[str], list[int], bool]:
        study = elsewhere(house, "study.yaml", text)
        if runs:
            answer = picowatch(house.folder, "make", "--json", *flags, study)
            assert answer.returncode == 0, answer.stdout
            shown = answer.stdout
        else:
            settings = house.settings(when_done=when_done)
            assert not make(settings, [study], house.make_engine, remove=bool(flags), as_json=True)
            shown = capsys.readouterr().out
        (found,) = json.loads(shown)["recipes"]
        assert found["errors"] == []
        pictures = [Path(one["path"]) for one in found["pictures"]]
        assert all((house.folder / path).exists() for path in pictures)
        sheets = [Path(sheet) for sheet in found["contact_sheets"]]
        assert all((house.folder / sheet).exists() for sheet in sheets)
        seeds = [picture["seed"] for picture in found["pictures"]]
        return [sheet.name for sheet in sheets], seeds, found["in_inbox"]

    sweep = "prompt: one\nseed: 5\nsweep: {steps: [1, 2]}\n"
    grid = "prompt: two\nseed: 7\ncount: 2\ngrid: true\n"
    with house.running(when_done=when_done) if runs else nullcontext():
        assert made(sweep) == (["0003-sheet.png"], [5, 5], False)
        assert made(sweep) == (["0003-sheet.png"], [5, 5], False)
        assert made(f"{sweep}---\n{grid}")[:2] == (
            ["0003-sheet.png", "0006-sheet.png"], [5, 5, 7, 8]
        )  # fmt: skip
    assert not (house.inbox / "study.yaml").exists()
    assert (house.outbox / "study/study.yaml").exists() is (when_done == "archive")


def test_make_as_json_has_one_object_for_every_end(house: House, capsys: Captured) -> None:
    """Also where nothing could be requested."""
    none = house.folder / "none.txt"
    assert make(house.settings(), [none], house.make_engine, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["done"], found["recipes"]) == (False, [])
    assert "Cannot read" in found["errors"][0]


def test_make_as_json_says_what_is_wrong_with_the_settings(house: House) -> None:
    """A script reads one object from standard output, however it ends."""
    a = elsewhere(house, "a.txt", "one\n")
    (house.folder / "picowatch.yaml").write_text("stesp: 3\n")
    ended = picowatch(house.folder, "make", "--json", a)
    found = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr) == (2, "")
    assert (found["done"], found["recipes"]) == (False, [])
    assert "picowatch.yaml, line 1, column 1: unknown setting 'stesp'" in found["errors"][0]
    assert picowatch(house.folder, "make", a).stderr.startswith("picowatch: picowatch.yaml, line 1")


def test_make_with_a_name(house: House, capsys: Captured) -> None:
    """The recipe and its pictures have it; its ending is the file's; folders are created."""
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    assert make(house.settings(), [a], house.make_engine, name="ads/may") == 0
    assert capsys.readouterr().out == f"{house.outbox / 'ads/may/0001-5.png'}\n"
    assert (house.inbox / "ads/may.txt").read_text() == "one --seed 5\n"
    there = house.save("b.txt", "two\n")
    for name, files, said in (
        ("x", [a, a], "--name is for one recipe"),
        ("x", [there], "in the inbox already"),
        ("../x", [a], "is not a recipe's name"),
        ("x//y", [a], "is not a recipe's name"),
        ("/x", [a], "is not a recipe's name"),
        (".x", [a], "is not a recipe's name"),
        ("_defaults", [a], "is not a recipe's name"),
    ):
        with pytest.raises(PicowatchError, match=said):
            make(house.settings(), files, house.make_engine, name=name)
    assert sorted(path.name for path in house.inbox.rglob("*.*")) == ["b.txt", "may.txt"]


def test_make_rm_leaves_nothing_but_pictures(house: House, capsys: Captured) -> None:
    """Whether they were rendered, failed, or the recipe was wrong; each error is shown whole."""

    def fail(batch: Sequence[ImageRequest]) -> None:
        if any(request.prompt == "fails" for request in batch):
            raise RuntimeError("oh")

    house.engine.before_batch = fail
    files = [
        elsewhere(house, "good.yaml", "prompt: one\nseed: 5\nsweep: {steps: [1, 2]}\n"),
        elsewhere(house, "bad.yaml", "prompt: one\nstesp: 3\n"),
        elsewhere(house, "fails.txt", "fails\n"),
    ]
    assert make(house.settings(), files, house.make_engine, remove=True) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "Did you mean 'steps'?" in shown.err
    assert "entry 1, image 1" in shown.err
    assert list(house.inbox.iterdir()) == []
    assert not list(house.outbox.glob("*.error.txt"))
    assert list(house.outbox.glob("good/*grid*")) or len(list(house.outbox.glob("good/*"))) == 3
    there = house.save("there.txt", "two\n")
    with pytest.raises(PicowatchError, match="removes only what it puts there"):
        make(house.settings(), [there], house.make_engine, remove=True)
    assert there.exists()


def test_make_rm_again_and_under_another_name(house: House, capsys: Captured) -> None:
    """What was removed is no recipe that moved: a random seed is drawn each time."""
    a = elsewhere(house, "a.txt", "one\n")
    for name, file in (("x", "x/0001-"), ("x", "x/0002-"), ("y", "y/0001-")):
        assert make(house.settings(), [a], house.make_engine, name=name, remove=True) == 0
        assert capsys.readouterr().out.startswith(str(house.outbox / file))
    assert make(house.settings(), [a], house.make_engine, name="ads/may/x", remove=True) == 0
    assert list(house.inbox.iterdir()) == [], "nor folders"


def test_make_rm_keeps_what_was_there_or_was_changed(house: House, capsys: Captured) -> None:
    """Only its own recipe is removed, and only as it was put there."""
    house.save("a.txt", "one --seed 5\n")
    a = elsewhere(house, "a.txt", "one --seed 5\n")
    assert make(house.settings(), [a], house.make_engine, remove=True) == 0
    assert (house.inbox / "a.txt").exists()
    b = elsewhere(house, "b.txt", "two --seed 5\n")

    def change(batch: Sequence[ImageRequest]) -> None:
        house.save("b.txt", "mine\n")

    house.engine.before_batch = change
    make(house.settings(), [b], house.make_engine, remove=True)
    assert (house.inbox / "b.txt").read_text() == "mine\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_removes_the_recipe_and_cancels(house: House, number: int) -> None:
    """With --rm; the image in progress is stopped, the queued ones are not rendered."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: wait_for(go.is_set)
    a = elsewhere(house, "a.txt", "one --seed 5\ntwo --seed 6 --size 72x64\n")
    with house.running(batch_size=1):
        process = subprocess.Popen(
            command("make", "--rm", "--json", a),
            cwd=house.folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: house.status()["images"]["running"], "the image in progress")
        process.send_signal(number)
        printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        found = json.loads(printed)
        assert not found["done"] and not found["recipes"][0]["in_inbox"]
        wait_for(lambda: commands(house) == [], "the end of the command")
        wait_for(lambda: house.status()["images"]["cancelled"] == 2, "the cancellation")
        go.set()
    assert house.pictures() == []


def test_what_an_interrupted_make_rm_requested_is_not_rendered_later(house: House) -> None:
    """Also where no picowatch has ever looked at the whole inbox."""
    recipe = elsewhere(house, "a.yaml", "prompt: one\nseed: 1\ncount: 2\nsteps: 150\n")
    process = start(house.folder, "make", "--rm", recipe, program=DIGESTS)
    wait_for(lambda: (house.status()["images"] or {}).get("running"), "the image in progress")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert house.once()
    assert house.pictures() == []
    assert "a.yaml: deleted, 2 images cancelled" in house.log()


def test_every_make_beside_a_daemon_uses_its_warm_engine(house: House) -> None:
    """The daemon renders the recipes: its engine starts once, and is not closed in between."""
    with house.running():
        for number in (1, 2):
            a = elsewhere(house, f"{number}.txt", f"one --seed {number}\n")
            assert picowatch(house.folder, "make", a).returncode == 0
        assert (house.engine.starts, len(house.engine.batches)) == (1, 2)


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_make_again_names_the_pictures_of_a_recipe_that_is_taken_out(
    house: House, when_done: str
) -> None:
    """Those that were there already, too: scripts rely on them."""
    recipe = elsewhere(house, "a.txt", "one --seed 5\ntwo --seed 6\n")
    with house.running(when_done=when_done):
        first = picowatch(house.folder, "make", recipe)
        again = picowatch(house.folder, "make", recipe)
        elsewhere(house, "a.txt", "three --seed 7\ntwo --seed 6\n")
        changed = picowatch(house.folder, "make", recipe)
    one, two, three = "outbox/a/0001-5.png", "outbox/a/0002-6.png", "outbox/a/0003-7.png"
    assert first.stdout.split() == again.stdout.split() == [one, two]
    assert changed.stdout.split() == [three, two]
    assert len(house.pictures()) == 3


def test_make_refuses_a_place_where_pictures_are_dropped(house: House) -> None:
    """Nobody answers a recipe there: it would wait without end."""
    house.save("frames/_pictures.yaml", "prompt: a corgi\n")
    house.save("frames/beside.yaml", "prompt: one\n")
    recipe = elsewhere(house, "a.txt", "one --seed 5\n")
    for arguments in (("--name", "frames/deep/a", recipe), (house.inbox / "frames/beside.yaml",)):
        answer = picowatch(house.folder, "make", *arguments)
        assert answer.returncode != 0
        assert "Recipes in frames/ are not read: frames/_pictures.yaml makes it" in answer.stderr
    answer = picowatch(house.folder, "make", recipe, house.inbox / "frames/beside.yaml")
    assert answer.returncode != 0
    assert not (house.inbox / "a.txt").exists(), "nothing is rendered for a call that is refused"
    assert not (house.inbox / "frames/deep").exists()
    with house.running():
        command = send(house.outbox, Command("make", "frames/beside.yaml", "0" * 64))
        answer_here = wait_for_answer(command, PATIENCE)
    assert answer_here and not answer_here.done
    assert "Save it in another folder." in answer_here.text


def test_make_with_rm_says_nothing_of_a_recipe_that_was_archived(house: House) -> None:
    """It is not in the inbox, as the user wants it."""
    recipe = elsewhere(house, "a.txt", "one --seed 5\n")
    with house.running(when_done="archive"):
        answer = picowatch(house.folder, "make", "--rm", recipe)
    assert answer.stdout.split() == ["outbox/a/0001-5.png"], answer.stderr
    assert "stays in the inbox" not in house.log()


def test_a_recipe_that_make_did_not_live_to_remove_is_not_rendered_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the daemon may not remove it, either; it is a recipe like any other then."""

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("picowatch.daemon.finish.unlink_below", refuse)
    house.save("a.txt", "one\n")
    digest = hashlib.sha256(b"one\n").hexdigest()
    with house.running():
        answer = wait_for_answer(
            send(house.outbox, Command("make once", "a.txt", digest)), PATIENCE
        )
    assert answer and answer.done
    house.save("b.txt", "two\n")
    assert house.once()
    assert sorted(house.prompts()) == ["one", "two"]


def test_make_rm_of_two_equal_files_names_their_pictures_for_both(house: House) -> None:
    """They are one recipe; the first answer takes it out of the inbox."""
    recipes = []
    for folder in ("x", "y"):
        (house.folder / folder).mkdir()
        recipes.append(elsewhere(house, f"{folder}/a.txt", "one --seed 5\n"))
    with house.running():
        first = picowatch(house.folder, "make", "--rm", *recipes)
        again = picowatch(house.folder, "make", "--rm", *recipes)
    assert first.stdout.split() == again.stdout.split() == ["outbox/a/0001-5.png"] * 2


@pytest.mark.parametrize("flags", [[], ["--rm"]])
def test_make_prints_pictures_in_the_order_of_the_recipe_as_it_is_now(
    house: House, flags: list[str]
) -> None:
    """Also those that were there already: a script counts them."""
    recipe = house.folder / "a.txt" if flags else house.inbox / "a.txt"
    with house.running():
        for text in (
            "one --seed 5\ntwo --seed 6\n",
            "three --seed 7\ntwo --seed 6\none --seed 5\n",
        ):
            recipe.write_text(text)
            answer = picowatch(house.folder, "make", *flags, recipe)
    assert answer.stdout.split() == [
        "outbox/a/0003-7.png", "outbox/a/0002-6.png", "outbox/a/0001-5.png"
    ]  # fmt: skip


def test_make_prints_no_picture_that_was_deleted(house: House, capsys: Captured) -> None:
    """An entry with a random seed that says what it said keeps its seed, and is not repeated."""
    recipe = house.save("a.txt", "one\ntwo\n")
    assert made_here(house, recipe) == 0
    first, second = map(Path, capsys.readouterr().out.split())
    first.unlink()
    recipe.write_text("one\ntwo\nthree --seed 5\n")
    assert made_here(house, recipe) == 0
    made = [str(second), str(house.outbox / "a/0003-5.png")]
    assert capsys.readouterr().out.splitlines() == made
