"""`pip install .` alone gives a working command, with the demo model and all assets inside."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT)
    (built,) = folder.glob("*.whl")
    return built


def call(*arguments: str | Path, cwd: Path | None = None) -> None:
    """Run a program; its output is the failure's text."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_wheel_holds_every_asset(wheel: Path) -> None:
    """Whatever lies in picowatch/ in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "picowatch"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        assert set(listed.stdout.splitlines()) <= set(archive.namelist())


@pytest.mark.heavy
def test_the_wheel_makes_a_picture_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed with what it declares to need, and nothing of this checkout."""
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean/bin/python"
    constraints = PROJECT / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line[:7] == "torch==")
    # Compiling all of torch takes longer than what one picture needs of it.
    install = (python, "-m", "pip", "install", "-q", "--no-compile")
    call(*install, torch)
    call(*install, "-c", constraints, wheel)
    user = tmp_path / "user"
    (user / "inbox").mkdir(parents=True)
    (user / "inbox/a.txt").write_text("a corgi --seed 1 --steps 4\n")
    call(tmp_path / "clean/bin/picowatch", "run", "--once", cwd=user)
    assert (user / "outbox/a/0001-1.png").stat().st_size > 1000
