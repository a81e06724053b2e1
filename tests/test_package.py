"""The wheel alone gives a working command, with the demo model and all assets."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from picowatch import __version__

PROJECT = Path(__file__).parents[1]


def call(*arguments: str | Path, **variables: str) -> str:
    """Run a program; return what it prints, which is also the text of a failure."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        arguments, env=environment | variables, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_the_wheel_holds_every_asset_and_its_version(tmp_path: Path) -> None:
    """All files below picowatch/ in the repository are in it, and systemd's unit.

    The version is written in picowatch/__init__.py alone; the changelog begins with it.
    """
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, PROJECT)
    listed = call("git", "-C", PROJECT, "ls-files", "picowatch", "contrib/*.service")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (name for name in names if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    held = {re.sub(r"^.*\.data/data/share/picowatch/", "contrib/", name) for name in names}
    assert set(listed.splitlines()) <= held
    assert (metadata["Name"], metadata["Version"]) == ("picowatch-diffusion", __version__)
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(\d.+?)\]", changelog, re.MULTILINE)[0] == __version__


@pytest.mark.heavy
@pytest.mark.timeout(900)  # it installs torch
def test_a_release_is_built_and_tried_in_a_clean_environment(tmp_path: Path) -> None:
    """`make release`: installed with its declared dependencies, without this checkout."""
    said = call(PROJECT / "contrib/release.sh", tmp_path / "dist", PYTHON=sys.executable)
    built = sorted(path.name for path in (tmp_path / "dist").iterdir())
    stem = f"picowatch_diffusion-{__version__}"
    assert built == [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    assert said.splitlines()[-2:] == [f"{tmp_path / 'dist'}/{name}" for name in built]
