"""The hooks in contrib/ do what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from picowatch.settings.loading import load_settings
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


CURL = "--fail|--silent|--show-error|--max-time|20|--header|Content-Type: application/json|"
TOLD = '{"event": "picture", "prompt": "a corgi \\ud83d\\udc36"}'


@pytest.mark.parametrize(
    ("hook", "program", "arguments", "given"),
    [
        ("notify-desktop", "notify-send", ["picture", "{0}/a b.png"],
         "--icon={0}/a b.png|--transient|picowatch|a b.png|"),
        ("notify-desktop", "notify-send", ["failed", "/in/x.yaml", "{0}/x.txt"],
         "--urgency=critical|picowatch: x.yaml|no steps|"),
        ("notify-desktop", "notify-send", ["idle"], "picowatch|All pictures are done.|"),
        ("webhook", "curl", ["https://a.example/b", "/a.png"],
         f"{CURL}--data-binary|@-|https://a.example/b|"),
    ],
)  # fmt: skip
def test_a_program_is_called(
    tmp_path: Path, hook: str, program: str, arguments: list[str], given: str
) -> None:
    """The program, which here writes down what it is given, gets the JSON as its input."""
    fake = tmp_path / program
    fake.write_text('#!/bin/sh\n{ printf \'%s|\' "$@"; cat; } > "${0%/*}/given"\n')
    fake.chmod(0o755)
    (tmp_path / "x.txt").write_text("no steps\n")
    filled = [argument.format(tmp_path) for argument in arguments]
    environment = clean_environment(PATH=f"{tmp_path}:{clean_environment()['PATH']}")
    command = [str(HOOKS / f"{hook}.sh"), *filled]
    subprocess.run(command, env=environment, check=True, input=TOLD, text=True)
    assert (tmp_path / "given").read_text() == given.format(tmp_path) + TOLD


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
