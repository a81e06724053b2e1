"""Everything works without a network, and no machine is ever contacted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.picowatch import clean_environment, command
from tests.engine.tiny_flows import tiny_flow
from tests.security.attacks import plain_picture

RECIPES = {
    "a.txt": "a corgi --seed 1 --steps 2\n",
    "b.yaml": "prompt: a star\nseed: 1\nsteps: 2\nhires: {scale: 2, steps: 1}\n",
    "c.yaml": "prompt: a heart\nseed: 1\nsteps: 2\nimage: p.png\n",
    "d.yaml": "prompt: x\ncheckpoint: runwayml/stable-diffusion-v1-5\n",
    "e.yaml": "prompt: x\nimage: https://example.com/p.png\n",
    "f.yaml": "prompt: x\ncheckpoint: https://example.com/x.safetensors\n",
}
MADE = ["a/0001-1.png", "b/0001-1.png", "c/0001-1.png"]
# A server and its client in one process: what works wherever there is a loopback.
CALL = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "socket.create_connection(s.getsockname(), 5)"
)
# Put into every Python process by its name: whoever calls anybody leaves a file, and fails.
HOOK = """
import os, socket, sys

def hook(event, args):
    calls = event in ("socket.connect", "socket.sendto", "socket.sendmsg")
    asks = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
    if asks or (calls and args[0].family != socket.AF_UNIX):
        leave(f"called-{os.getpid()}", repr((event, args[1:])))
        raise PermissionError("nobody is to be called")

def leave(name, text):
    with open(os.path.join(os.environ["HOOKED"], name), "a") as file:
        file.write(text)

leave(f"hooked-{os.getpid()}", "")
sys.addaudithook(hook)
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's folder with recipes of all kinds."""
    folder = tmp_path / "user"
    plain_picture(folder / "inbox/p.png")
    for name, text in RECIPES.items():
        (folder / "inbox" / name).write_text(text)
    return folder


def run(user: Path, *before: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*before, *command("run", "--once")],
        cwd=user,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=240,
    )


def pictures(user: Path) -> list[str]:
    found = (user / "outbox").glob("*/*.png")
    return sorted(path.relative_to(user / "outbox").as_posix() for path in found)


def without_a_network() -> list[str]:
    """Return a prefix that starts a command in a network namespace without even loopback."""
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode:
            return prefix
    pytest.skip("unshare(1) cannot make a network namespace here")


@pytest.mark.heavy
def test_pictures_are_made_in_a_namespace_without_even_loopback(user: Path) -> None:
    """The demo model works from start to end; downloads are refused with a message."""
    prefix = without_a_network()
    call = subprocess.run([*prefix, sys.executable, "-c", CALL], capture_output=True)
    assert call.returncode != 0, "this namespace has a network"
    result = run(user, *prefix)
    assert result.returncode == 1
    assert pictures(user) == MADE
    for refused in ("d", "e", "f"):
        error = (user / f"outbox/{refused}.yaml.error.txt").read_text()
        assert "picowatch never downloads" in error


@pytest.mark.heavy
def test_no_process_of_picowatch_calls_anybody(user: Path, tmp_path: Path) -> None:
    """Audit hooks in the daemon and in the engine check it, with a pipeline, too."""
    flow = user / "models/checkpoints/FLUX.1-schnell"
    shutil.copytree(tiny_flow(flow.name), flow)
    (user / "inbox/flow/a.yaml").parent.mkdir()
    (user / "inbox/_defaults.yaml").write_text("checkpoint: demo\n")
    (user / "inbox/flow/a.yaml").write_text(
        f"prompt: a corgi\nseed: 1\nsize: 64x64\ncheckpoint: {flow.name}\n"
    )
    hooks, hooked = tmp_path / "hooks", tmp_path / "hooked"
    hooks.mkdir()
    hooked.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    project = clean_environment()["PYTHONPATH"]
    environment = {"PYTHONPATH": f"{hooks}{os.pathsep}{project}", "HOOKED": str(hooked)}
    call = subprocess.run(
        [sys.executable, "-c", CALL], env=clean_environment(**environment), capture_output=True
    )
    assert call.returncode != 0
    (caught,) = hooked.glob("called-*")
    caught.unlink()
    before = len(list(hooked.glob("hooked-*")))
    run(user, **environment)
    assert pictures(user) == MADE
    assert (user / "outbox/flow/a/0001-1.png").exists()
    assert len(list(hooked.glob("hooked-*"))) >= before + 2, "daemon and engine"
    assert [path.read_text() for path in hooked.glob("called-*")] == []
