"""The wheel alone gives a working command, with the demo model and all assets."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def call(*arguments: str | Path, cwd: Path = PROJECT, **variables: str) -> str:
    """Run a program; return what it prints, which is also the text of a failure."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        arguments, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def commit_all(folder: Path) -> str:
    """Commit everything in a folder, a repository from now on; return its short hash."""
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    call("git", "init", "--quiet", cwd=folder)
    call("git", "add", "--all", cwd=folder)
    call(*git, "commit", "--quiet", "--allow-empty", "--message=A change", cwd=folder)
    return call("git", "rev-parse", "--short=9", "HEAD", cwd=folder).strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the files of this checkout: a build writes into its folder."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in call("git", "ls-files", "-z", "--deduplicate").split("\0"):
        if (source := PROJECT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, clone / name)
    return clone


def build(clone: Path, *more: str) -> Path:
    """Build a wheel as `pip wheel` does; return it."""
    dist = clone.parent / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    call(sys.executable, "-m", "build", "--no-isolation", *more, "-o", dist, clone)
    (wheel,) = dist.glob("*.whl")
    return wheel


def check_contents(wheel: Path, version: str) -> None:
    """It holds every asset, systemd's unit and its version."""
    listed = call("git", "-C", PROJECT, "ls-files", "picowatch", "contrib/*.service")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (name for name in names if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
        module = archive.read("picowatch/_version.py").decode()
    held = {re.sub(r"^.*\.data/data/share/picowatch/", "contrib/", name) for name in names}
    assert set(listed.splitlines()) <= held
    assert (metadata["Name"], metadata["Version"]) == ("picowatch-diffusion", version)
    assert module == f'__version__ = "{version}"\n'


@pytest.mark.heavy
def test_a_folder_without_git_is_built_too(clone: Path) -> None:
    """Its sdist, of which a wheel is built, keeps the version."""
    assert build(clone).name == "picowatch_diffusion-0.3.0.dev0-py3-none-any.whl"


@pytest.mark.heavy
def test_the_documented_upgrade_installs_the_new_build(clone: Path) -> None:
    """It is whole. pip leaves a version alone that is installed, so each commit has its own."""
    environment = clone.parent / "env"
    call(sys.executable, "-m", "venv", environment)
    page = (PROJECT / "docs/administration.md").read_text()
    (line,) = re.findall(r"^sudo /opt/picowatch(/bin/pip install --upgrade .*)", page, re.MULTILINE)
    for number in (1, 2):
        version = f"0.3.0.dev{number}+g{commit_all(clone)}"
        wheel = build(clone, "--wheel")
        check_contents(wheel, version)
        command = f"{environment}{line}"
        call("sh", "-c", command, cwd=wheel.parent, PIP_NO_DEPS="1", PIP_NO_INDEX="1")
        shown = "from picowatch import __version__ as it; print(it)"
        assert call(environment / "bin/python", "-c", shown, cwd=environment) == f"{version}\n"


@pytest.mark.heavy
@pytest.mark.timeout(900)  # it installs torch
def test_a_release_is_built_and_tried_in_a_clean_environment(clone: Path, tmp_path: Path) -> None:
    """`make release`: installed with its declared dependencies, without this checkout."""
    changes = clone / "CHANGELOG.md"
    changes.write_text(changes.read_text().replace("## [0.2.0]", "## [0.3.0]\n\n## [0.2.0]"))
    commit_all(clone)
    call("git", "tag", "v0.3.0", cwd=clone)
    said = call(clone / "contrib/release.sh", tmp_path / "dist", PYTHON=sys.executable)
    built = sorted(path.name for path in (tmp_path / "dist").iterdir())
    stem = "picowatch_diffusion-0.3.0"
    assert built == [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    assert said.splitlines()[-2:] == [f"{tmp_path / 'dist'}/{name}" for name in built]
