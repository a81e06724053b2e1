"""Owners, groups and modes of files, and users who may drop and read, but not control."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picowatch.outbox.commands import REQUESTS
from tests.commands.picowatch import DIGESTS_HERE, PROJECT, clean_environment
from tests.house import House, wait_for
from tests.security.attacks import plain_picture

DAEMON, ADA, BEN, ARTISTS = 54001, 54002, 54003, 54321
RECIPE = "prompt: a corgi\nseed: 1\nsteps: 2\nsize: 64x64\n"
# Runs commands one after the other; prints the exit code and the output of each.
RUN_EACH = """
import json, sys
from pathlib import Path
from tests.commands.picowatch import picowatch_here
done = [picowatch_here(Path.cwd(), *words) for words in json.loads(sys.argv[1])]
print(json.dumps([[one.returncode, one.stdout, one.stderr] for one in done]))
"""


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
        self._python = python
        self.root, self.inbox, self.outbox = root, root / "inbox", root / "outbox"
        root.chmod(0o755)
        (root / "models").mkdir()
        (root / "circle.yaml").write_text(RECIPE)
        for path, user, group, mode in (
            (self.inbox, 0, 0, 0o755),
            (self.inbox / "ada", ADA, ARTISTS, 0o2755),
            (self.inbox / "ben", BEN, ARTISTS, 0o2755),
            (self.outbox, DAEMON, DAEMON, 0o2775),
            (self.outbox / ".picowatch", DAEMON, DAEMON, 0o2775),
            (self.outbox / REQUESTS, DAEMON, ARTISTS, 0o1770),
        ):
            path.mkdir()
            os.chown(path, user, group)
            path.chmod(mode)

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(
            as_user(DAEMON, DAEMON, self._python, "-m", DIGESTS_HERE, "run"),
            cwd=self.root,
            env=environment(HOME=str(self.root)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o002,
        )
        try:
            wait_for((self.outbox / ".picowatch/status.json").exists, "the start")
            yield
        finally:
            process.terminate()
            process.wait(60)

    def by(self, user: int, *commands: list[str]) -> list[tuple[int, str, str]]:
        """Run commands as a user; return the exit code and the output of each."""
        done = subprocess.run(
            as_user(user, ARTISTS, self._python, "-c", RUN_EACH, json.dumps(commands)),
            cwd=self.root,
            env=environment(HOME=str(self.root), LOGNAME={ADA: "ada", BEN: "ben"}[user]),
            stdout=subprocess.PIPE,
            timeout=100,
            umask=0o022,
            check=True,
        )
        return [(code, out, err) for code, out, err in json.loads(done.stdout)]

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
    """Results have their group. What a link leads to would be read by picowatch's user."""
    ((code, _, said),) = server.by(ADA, ["make", "circle.yaml"])
    assert (code, [*server.inbox.rglob("*.yaml")]) == (1, []), said
    assert "Ask an administrator to start it." in said
    secret = server.root / "secret.json"
    secret.write_text(json.dumps({"command": "make", "recipe": "secret", "digest": "0"}))
    link = server.outbox / REQUESTS / "1-link.json"
    link.symlink_to(secret)
    with server.running():
        assert server.by(ADA, ["make", "circle.yaml"]) == [
            (0, "outbox/ada/circle/0001-1.png\n", "")
        ]
        picture = server.outbox / "ada/circle/0001-1.png"
        assert {path.stat().st_gid for path in (picture, picture.parent)} == {ARTISTS}
        control = (["pause"], ["cancel", "ada"], ["retry"], ["delete", str(picture)])
        own = (["make", "--rm", "circle.yaml"], ["status", "ada"])
        removed, status, *refused = server.by(BEN, *own, *control)
        assert (removed[0], status[0], [*(server.inbox / "ben").iterdir()]) == (0, 0, [])
        for code, _, said in refused:
            assert code == 1
            assert "Only users who may write there can control picowatch." in said
        no = "Only administrators may do this."
        assert server.request(BEN, command="pause") == no
        assert server.request(BEN, command="cancel", recipe="ada/circle.yaml") == no
        sha = {"recipe": "ada/circle.yaml", "digest": "0"}
        assert server.request(BEN, command="make once", **sha) == no
        assert server.request(BEN, command="make folder", recipe="ada", files=[], x=1) == no
        assert not json.loads((server.outbox / ".picowatch/status.json").read_text())["paused"]
        assert picture.exists()
        (server.outbox / REQUESTS).rename(server.outbox / ".picowatch/none")
        ((code, _, said),) = server.by(BEN, ["make", "circle.yaml"])
        assert (code, [*(server.inbox / "ben").iterdir()]) == (1, []), said
        assert "Only users who may write there can control picowatch." in said
        assert not link.with_suffix(".answer").exists()


GROUP = 54321
RECIPES = {
    "pets/a.yaml": "prompt: a corgi\nseed: 1\nsteps: 2\nsize: 64x64\ncount: 2\ngrid: true\n",
    "cats/a.yaml": "prompt: a cat\nseed: 1\nsteps: 2\n",
    "b.yaml": "prompt: a star\nseed: 1\nsteps: 2\nimage: p.png\n",
    "bad.yaml": "stesp: 1\n",
    "warned.txt": "a star\nSteps: 2, Sampler: Euler a, Size: 64x64, Hypernet: x\n",
}


def found_with(umask: int, house: House) -> dict[str, Path]:
    """Render some recipes; return what is in the outbox then."""
    plain_picture(house.inbox / "p.png")
    for name, text in RECIPES.items():
        house.save(name, text)
    before = os.umask(umask)
    try:
        assert not house.once()
    finally:
        os.umask(before)
    return {path.relative_to(house.outbox).as_posix(): path for path in house.outbox.rglob("*")}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_what_umask_leaves_of_0666_and_folders_of_0777(house: House, umask: int) -> None:
    """Temporary files are created like others, so that no picture ends up private."""
    found = found_with(umask, house)
    state = (f".picowatch/{name}" for name in ("status.json", "hashes.sqlite", "ledger.sqlite"))
    assert found.keys() >= {
        *("pets/a/0001-1.png", "pets/a/0003-sheet.png", "b/0001-1.png", "latest.png"),
        *("bad.yaml.error.txt", "warned.txt.warning.txt", "picowatch.log", *state),
    }
    for name, path in found.items():
        whole = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == whole & ~umask, name


def test_a_folder_with_the_setgid_bit_hands_its_group_on(house: House) -> None:
    """The usual way to share an outbox. If the recipes' folder has it, too, results get its."""
    for folder, group in {house.outbox: GROUP, house.inbox / "pets": GROUP + 1}.items():
        folder.mkdir(parents=True)
        try:
            os.chown(folder, -1, group)
        except PermissionError:
            pytest.skip("only root may give a folder to a group that it is not in")
        folder.chmod(0o2775)
    found = found_with(0o002, house)
    assert {"pets/a/0001-1.png", "cats/a/0001-1.png"} <= found.keys()
    for name, path in found.items():
        assert path.stat().st_gid == GROUP + (name.split("/")[0] == "pets"), name
        assert path.stat().st_mode & stat.S_ISGID or not path.is_dir(), name
