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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package as it would be published."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT)
    (built,) = folder.glob("*.whl")
    return built


def call(*arguments: str | Path, **variables: str) -> str:
    """Run a program; return what it prints, which is also the text of a failure."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        arguments, env=environment | variables, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_the_wheel_holds_every_asset(wheel: Path) -> None:
    """All files below picowatch/ in the repository are in it, and systemd's unit."""
    listed = subprocess.run(
        ["git", "ls-files", "picowatch"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(listed.stdout.splitlines()) <= names
    shared = {name.partition(".data/data/")[2] for name in names}
    for unit in (PROJECT / "contrib").glob("*.service"):
        assert f"share/picowatch/{unit.name}" in shared


def test_its_version_is_written_in_one_place(wheel: Path) -> None:
    """It is in picowatch/__init__.py; the wheel has it, and the changelog begins with it."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    assert (metadata["Name"], metadata["Version"]) == ("picowatch-diffusion", __version__)
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d.+?)\]", changelog, re.MULTILINE)
    assert versions[0] == __version__


def test_shellcheck_says_nothing_of_the_release() -> None:
    """The script of `make release` has no warnings."""
    call(Path(sys.executable).with_name("shellcheck"), PROJECT / "contrib/release.sh")


@pytest.mark.heavy
@pytest.mark.timeout(900)  # it installs torch
def test_a_release_is_built_and_tried_in_a_clean_environment(tmp_path: Path) -> None:
    """`make release`: installed with its declared dependencies, without this checkout."""
    said = call(PROJECT / "contrib/release.sh", tmp_path / "dist", PYTHON=sys.executable)
    built = sorted(path.name for path in (tmp_path / "dist").iterdir())
    stem = f"picowatch_diffusion-{__version__}"
    assert built == [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    assert said.splitlines()[-2:] == [f"{tmp_path / 'dist'}/{name}" for name in built]
