"""Users who may drop and read, but not control: the layout of docs/administration.md."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from picowatch.outbox.commands import REQUESTS
from tests.commands.picowatch import DIGESTS, PROJECT, clean_environment
from tests.house import wait_for

DAEMON, ADA, BEN, ARTISTS = 54001, 54002, 54003, 54321
RECIPE = "prompt: a corgi\nseed: 1\nsteps: 2\nsize: 64x64\n"


def as_user(user: int, group: int, *words: str) -> list[str]:
    """Return a command that another user runs, who is one of the artists."""
    return ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={ARTISTS}", *words]


def python_of_all() -> str:
    """Return an interpreter like this one that other users can run, "" without one."""
    version = ".".join(map(str, sys.version_info[:2]))
    child = "[sys.executable, '-c', 'import pydantic']"
    test = f"import subprocess, sys; subprocess.run({child}, check=True)"
    for python in (sys.executable, f"/usr/bin/python{version}"):
        if Path(python).exists():
            words = as_user(ADA, ARTISTS, python, "-c", test)
            if not subprocess.run(words, env=environment(), capture_output=True).returncode:
                return python
    return ""


def environment(**values: str) -> dict[str, str]:
    """The usual one, with this interpreter's packages for another one."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    paths = os.pathsep.join([str(PROJECT), *packages])
    return clean_environment(**values) | {"PYTHONPATH": paths}


class Server:
    """Folders of several users, with a picowatch of a user of its own."""

    def __init__(self, root: Path, python: str) -> None:
        self.python = python
        self.root, self.inbox, self.outbox = root, root / "inbox", root / "outbox"
        root.chmod(0o755)
        (root / "models").mkdir()
        self.folder(self.inbox, 0, 0, 0o755)
        self.folder(self.inbox / "ada", ADA, ARTISTS, 0o2755)
        self.folder(self.inbox / "ben", BEN, ARTISTS, 0o2755)
        self.folder(self.outbox, DAEMON, DAEMON, 0o2775)
        self.folder(self.outbox / ".picowatch", DAEMON, DAEMON, 0o2775)
        self.folder(self.outbox / REQUESTS, DAEMON, ARTISTS, 0o1770)

    def folder(self, path: Path, user: int, group: int, mode: int) -> None:
        path.mkdir()
        os.chown(path, user, group)
        path.chmod(mode)

    def command(self, user: int, group: int, *words: str) -> list[str]:
        return as_user(user, group, self.python, "-m", DIGESTS, *words)

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command(DAEMON, DAEMON, "run"),
            cwd=self.root,
            env=environment(HOME=str(self.root)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o002,
        )

    def by(self, user: int, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command as a user."""
        name = {ADA: "ada", BEN: "ben"}[user]
        return subprocess.run(
            self.command(user, ARTISTS, *words),
            cwd=self.root,
            env=environment(HOME=str(self.root), LOGNAME=name),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            umask=0o022,
        )

    def request(self, user: int, **values: object) -> str:
        """Have a user write a request by hand; return the answer's text."""
        path = self.outbox / REQUESTS / f"{len(values)}-{user}.json"
        path.write_text(json.dumps(values))
        os.chown(path, user, ARTISTS)
        answer = path.with_suffix(".answer")
        wait_for(answer.exists, "the answer")
        return str(json.loads(answer.read_text())["text"])


@pytest.fixture
def server() -> Iterator[Server]:
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root can be several users, with setpriv")
    if not (python := python_of_all()):
        pytest.skip("other users cannot run this Python")
    root = Path(tempfile.mkdtemp())  # other users cannot reach pytest's folders
    try:
        yield Server(root, python)
    finally:
        shutil.rmtree(root)


def test_users_make_pictures_of_their_own_and_control_nothing(server: Server) -> None:
    """Their results have their group. Without a picowatch, nothing is put into the inbox."""
    early = server.by(ADA, "make", "-", stdin=RECIPE)
    assert (early.returncode, [*server.inbox.rglob("*.yaml")]) == (1, []), early.stderr
    assert "Ask an administrator to start it." in early.stderr
    process = server.start()
    try:
        wait_for((server.outbox / ".picowatch/status.json").exists, "the start")
        made = server.by(ADA, "make", "-", stdin=RECIPE)
        assert (made.returncode, made.stderr) == (0, "")
        assert made.stdout == "outbox/ada/stdin/0001-1.png\n"
        picture = server.root / made.stdout.strip()
        assert {path.stat().st_gid for path in (picture, picture.parent)} == {ARTISTS}
        gone = server.by(BEN, "make", "--rm", "-", stdin=RECIPE)
        assert (gone.returncode, [*(server.inbox / "ben").iterdir()]) == (0, [])
        assert server.by(BEN, "status", "ada").returncode == 0
        for words in (["pause"], ["cancel", "ada"], ["retry"], ["delete", str(picture)]):
            refused = server.by(BEN, *words)
            assert refused.returncode == 1
            assert "Only users who may write there can control picowatch." in refused.stderr
        no = "Only administrators may do this."
        assert server.request(BEN, command="pause") == no
        assert server.request(BEN, command="cancel", recipe="ada/stdin.yaml") == no
        sha = {"recipe": "ada/stdin.yaml", "digest": "0"}
        assert server.request(BEN, command="make once", **sha) == no
        assert server.request(BEN, command="make folder", recipe="ada", files=[], x=1) == no
        assert not json.loads((server.outbox / ".picowatch/status.json").read_text())["paused"]
        assert picture.exists()
    finally:
        process.terminate()
        process.wait(60)


def test_a_request_that_is_a_link_is_not_followed(server: Server) -> None:
    """What it leads to would be read by picowatch's user."""
    secret = server.root / "secret.json"
    secret.write_text(json.dumps({"command": "make", "recipe": "secret", "digest": "0"}))
    link = server.outbox / REQUESTS / "1-link.json"
    link.symlink_to(secret)
    process = server.start()
    try:
        assert server.request(ADA, command="pause") == "Only administrators may do this."
        assert not link.with_suffix(".answer").exists()
    finally:
        process.terminate()
        process.wait(60)
