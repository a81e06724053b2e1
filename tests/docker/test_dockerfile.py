"""The Dockerfile fits the package."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from picowatch.cli import parsers
from picowatch.engine.protocol import cache_folder
from picowatch.settings import PREFIX, Settings
from tests.docker.files import COMPOSE, DOCKERFILE, PAGE, PROJECT, SCRIPT, pairs, texts, the

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
RELEASE = PROJECT / "contrib/release.sh"
RUNS = "\n".join(texts("RUN"))


LINTED = {DOCKERFILE: "hadolint", SCRIPT: "shellcheck", RELEASE: "shellcheck"}


@pytest.mark.parametrize("file", LINTED, ids=lambda file: file.name)
def test_a_linter_says_nothing(file: Path) -> None:
    """With its default rules; exceptions have their reason beside them."""
    program = Path(sys.executable).parent / LINTED[file]
    said = subprocess.run([program, file], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_it_fits_the_package() -> None:
    """The base's Python is one that it takes; `.dockerignore` lets through what COPY names.

    That is all that hatchling puts into the package. Its torch is that of the constraints.
    """
    found = re.fullmatch(r"python:3\.(\d+)-slim-\w+@sha256:[0-9a-f]{64}", pairs("ARG")["BASE"])
    least = re.fullmatch(r">=3\.(\d+)", PYPROJECT["requires-python"])
    assert found and least and int(found[1]) >= int(least[1])
    copied = {word for text in texts("COPY") for word in text.split()[:-1]}
    assert all((PROJECT / name).exists() for name in copied)
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    constraints = (PROJECT / "constraints.txt").read_text().splitlines()
    assert f"torch=={pairs('ARG')['TORCH_VERSION']}" in constraints
    wanted = {"pyproject.toml", PYPROJECT["readme"], *PYPROJECT["license-files"]}
    assert {name.split("/")[0] for name in wanted} <= copied


def test_the_commands_exist() -> None:
    """With all their flags; the image takes another command as its arguments."""
    entry, usual, health = (
        json.loads(text[text.index("[") :])
        for text in map(the, ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    )
    assert entry == ["picowatch"]
    for program, command, *flags in (entry + usual, health):
        assert program in PYPROJECT["scripts"]
        parsers()[1][command].parse_args(flags)
    assert the("STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("file", [DOCKERFILE, COMPOSE, SCRIPT, PAGE], ids=lambda file: file.name)
def test_every_variable_of_picowatch_is_a_setting(file: Path) -> None:
    """Elsewhere a misspelt one would be ignored without a word."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}\w+", file.read_text())) <= known


def test_what_is_compiled_goes_into_a_cache_that_any_user_may_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Below it picowatch makes its own folder, for itself alone. Nothing uses the network."""
    given = pairs("ENV")
    assert f"mkdir --mode 1777 {given['XDG_CACHE_HOME']}" in RUNS
    monkeypatch.setenv("XDG_CACHE_HOME", given["XDG_CACHE_HOME"])
    folder = cache_folder()
    assert folder is not None and folder.is_relative_to(given["HOME"])
    assert given["HF_HUB_OFFLINE"] == "1"
