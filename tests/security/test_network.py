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

FLOW = "FLUX.1-schnell"
RECIPES = {
    "_defaults.yaml": "checkpoint: demo\nseed: 1\nsteps: 2\n",
    "a.txt": "a corgi\n",
    "b.yaml": "prompt: a star\nhires: {scale: 2, steps: 1}\n",
    "c.yaml": "prompt: a heart\nimage: p.png\n",
    "flow.yaml": f"prompt: a corgi\nsize: 64x64\ncheckpoint: {FLOW}\n",
    "d.yaml": "prompt: x\ncheckpoint: runwayml/stable-diffusion-v1-5\n",
    "e.yaml": "prompt: x\nimage: https://example.com/p.png\n",
    "f.yaml": "prompt: x\ncheckpoint: https://example.com/x.safetensors\n",
}
MADE = ["a/0001-1.png", "b/0001-1.png", "c/0001-1.png", "flow/0001-1.png"]
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


@pytest.mark.heavy
def test_pictures_are_made_without_a_network_and_nobody_is_called(tmp_path: Path) -> None:
    """By audit hooks; where unshare(1) works, there is not even loopback."""
    user, hooks, hooked = tmp_path / "user", tmp_path / "hooks", tmp_path / "hooked"
    plain_picture(user / "inbox/p.png")
    for name, text in RECIPES.items():
        (user / "inbox" / name).write_text(text)
    shutil.copytree(tiny_flow(FLOW), user / "models/checkpoints" / FLOW)
    hooks.mkdir()
    hooked.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    path = f"{hooks}{os.pathsep}{clean_environment()['PYTHONPATH']}"
    environment = clean_environment(PYTHONPATH=path, HOOKED=str(hooked))
    call = [sys.executable, "-c", CALL]
    prefix = without_a_network()
    if prefix:
        assert subprocess.run([*prefix, *call], capture_output=True).returncode != 0
    assert subprocess.run(call, env=environment, capture_output=True).returncode != 0
    (caught,) = hooked.glob("called-*")
    caught.unlink()
    before = len(list(hooked.glob("hooked-*")))
    run = subprocess.run(
        [*prefix, *command("run", "--once")], cwd=user, env=environment, timeout=240
    )
    assert run.returncode == 1
    found = (user / "outbox").glob("*/*.png")
    assert sorted(path.relative_to(user / "outbox").as_posix() for path in found) == MADE
    for refused in ("d", "e", "f"):
        error = (user / f"outbox/{refused}.yaml.error.txt").read_text()
        assert "picowatch never downloads" in error
    assert len(list(hooked.glob("hooked-*"))) >= before + 2, "daemon and engine"
    assert [path.read_text() for path in hooked.glob("called-*")] == []


def without_a_network() -> list[str]:
    """Return what starts a command in a namespace without a network, if anything does here."""
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode:
            return prefix
    return []
