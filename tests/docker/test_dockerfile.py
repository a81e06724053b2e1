"""The Dockerfile fits the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from picowatch.cli import parsers
from picowatch.commands.status import CHECK_SECONDS
from picowatch.engine.protocol import cache_folder
from picowatch.settings import FOLDERS, PREFIX, Settings
from tests.docker.files import (
    COMPOSE,
    DOCKERFILE,
    PAGE,
    PROJECT,
    SCRIPT,
    copied,
    pairs,
    texts,
    the,
)

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
RUNS = "\n".join(texts("RUN"))


def test_hadolint_says_nothing() -> None:
    """With its default rules; exceptions have their reason beside them."""
    hadolint = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_torch_is_the_one_of_the_constraints() -> None:
    """It has an argument of its own, so that other versions leave its layer alone."""
    constraints = (PROJECT / "constraints.txt").read_text().splitlines()
    assert f"torch=={pairs('ARG')['TORCH_VERSION']}" in constraints


def test_torch_comes_before_anything_that_changes_more_often() -> None:
    """Nothing of the project; then the other packages; then picowatch."""
    steps = ['install "torch==', "COPY constraints.txt", "install --constraint", "COPY picowatch"]
    places = [DOCKERFILE.read_text().index(step) for step in steps]
    assert places == sorted(places)
    assert DOCKERFILE.read_text().index("\nCOPY ") + 1 == places[1]


def test_an_older_python_is_not_chosen() -> None:
    """The base's Python is one that the package takes."""
    found = re.fullmatch(r"python:3\.(\d+)-slim-\w+@sha256:[0-9a-f]{64}", pairs("ARG")["BASE"])
    least = re.fullmatch(r">=3\.(\d+)", PYPROJECT["requires-python"])
    assert found and least and int(found[1]) >= int(least[1])


def test_all_that_is_copied_exists_and_nothing_else_is_sent() -> None:
    """`.dockerignore` lets through what COPY names: all that hatchling puts into the package."""
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert all((PROJECT / name).exists() for name in copied())
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied()
    wanted = {"pyproject.toml", PYPROJECT["readme"], *PYPROJECT["license-files"]}
    assert {name.split("/")[0] for name in wanted} <= copied()


def test_the_commands_exist() -> None:
    """With all their flags; the image takes another command as its arguments."""
    for words in (the("ENTRYPOINT").command + the("CMD").command, the("HEALTHCHECK").command):
        program, command, *flags = words
        assert program in PYPROJECT["scripts"]
        parsers()[1][command].parse_args(flags)
    assert the("ENTRYPOINT").command == ["picowatch"]
    assert the("STOPSIGNAL").text == "SIGTERM"
    timeout = re.search(r"--timeout=(\d+)s", the("HEALTHCHECK").text)
    assert timeout and int(timeout[1]) > CHECK_SECONDS, "it must have time to say what is wrong"


def test_the_labels_say_what_it_is() -> None:
    """By the names of the Open Container Initiative."""
    label = the("LABEL").text
    for name, words in (
        ("title", ""),
        ("version", ""),
        ("description", PYPROJECT["description"]),
        ("licenses", PYPROJECT["license"]),
    ):
        assert f'org.opencontainers.image.{name}="{words}' in label


def test_it_runs_as_a_user_who_is_not_root() -> None:
    """By number, since Kubernetes cannot tell from a name."""
    user, group = the("USER").text.split(":")
    assert user == group != "0"
    assert f"useradd --uid {user} " in RUNS


def test_its_folders_are_those_of_the_settings() -> None:
    """Found from the working directory; without others mounted there its user may write them."""
    root = the("WORKDIR").text
    folders = {f"{root}/{Settings.model_fields[name].default}" for name in FOLDERS}
    made = re.search(r"install --directory --owner (\w+) (.*)", RUNS)
    assert made and set(made[2].split()) == folders
    assert f"--home-dir {root} {made[1]}" in RUNS


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
