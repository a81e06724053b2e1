"""The hooks in contrib/ do what they say."""

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from picowatch.settings import load_settings
from tests.commands.picowatch import DIGESTS, PROJECT, clean_environment, picowatch
from tests.house import House

HOOKS = PROJECT / "contrib/hooks"


def test_shellcheck_finds_nothing() -> None:
    """There is no warning for any hook, and all are executable."""
    scripts = sorted(HOOKS.glob("*.sh"))
    assert len(scripts) >= 2
    for script in scripts:
        assert script.stat().st_mode & 0o111, script
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *scripts], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["picture", "{0}/a b.png"], "--icon={0}/a b.png|--transient|picowatch|a b.png|"),
        (["failed", "/in/x.yaml", "{0}/x.txt"], "--urgency=critical|picowatch: x.yaml|no steps|"),
        (["idle"], "picowatch|All pictures are done.|"),
    ],
)
def test_the_desktop_is_notified(tmp_path: Path, arguments: list[str], shown: str) -> None:
    """notify-send, which here writes down what it would show, is called."""
    program = tmp_path / "notify-send"
    program.write_text('#!/bin/sh\nprintf \'%s|\' "$@" > "${0%/*}/shown"\n')
    program.chmod(0o755)
    (tmp_path / "x.txt").write_text("no steps\n")
    path = f"{tmp_path}:{clean_environment()['PATH']}"
    filled = [argument.format(tmp_path) for argument in arguments]
    subprocess.run(
        [HOOKS / "notify-desktop.sh", *filled], env=clean_environment(PATH=path), check=True
    )
    assert (tmp_path / "shown").read_text() == shown.format(tmp_path)


def test_an_address_is_called(tmp_path: Path) -> None:
    """curl sends the JSON unchanged; an address that refuses is a failure."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    received: list[tuple[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(204 if self.path == "/good" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    told = {"event": "picture", "prompt": "a corgi \N{DOG}"}
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        codes = [
            subprocess.run(
                [HOOKS / "webhook.sh", f"http://127.0.0.1:{server.server_port}/{path}", "/a.png"],
                input=json.dumps(told).encode(),
                env=clean_environment(no_proxy="127.0.0.1"),
                capture_output=True,
            ).returncode
            for path in ("good", "bad")
        ]
        server.shutdown()
        thread.join()
    assert codes[0] == 0
    assert codes[1] != 0
    assert received[0] == ("application/json", told)


def test_the_shown_copy_keeps_folders(house: House) -> None:
    """Two pictures of one name stay two, each in its folder; picowatch's own files stay behind."""
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    page = (PROJECT / "docs/hooks.md").read_text()
    (shown,) = re.findall(r"```\n(hooks:\n  picture: .*rsync.*\n)```", page)
    (house.folder / "picowatch.yaml").write_text(shown.replace("/srv/photos", "copy"))
    for name, word in (("a/cat.txt", "red"), ("b/cat.txt", "blue")):
        house.save(name, f"a {word} cat --seed 1\n")
    assert picowatch(house.folder, "run", "--once", program=DIGESTS).returncode == 0
    for picture in ("a/cat/0001-1.png", "b/cat/0001-1.png"):
        copied = (house.folder / "copy" / picture).read_bytes()
        assert copied == (house.outbox / picture).read_bytes()
    assert not list((house.folder / "copy").rglob(".picowatch*"))


def test_the_shown_settings_are_good_ones(tmp_path: Path) -> None:
    """The settings in docs/hooks.md are valid, and their scripts exist."""
    page = (PROJECT / "docs/hooks.md").read_text()
    shown = [text for text in re.findall(r"```\n(.*?)```", page, re.DOTALL) if "hooks:" in text]
    assert len(shown) == 3
    for text in shown:
        (tmp_path / "picowatch.yaml").write_text(text)
        for command in load_settings({}, {}, tmp_path / "picowatch.yaml").hooks.values():
            found = shutil.which(command[0]) or (PROJECT / command[0]).exists()
            assert found or command[0] == "apprise", command
