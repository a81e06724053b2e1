"""docs/docker.md names what there is."""

import re

from picowatch.cli import parsers
from tests.docker.files import COMPOSE, PAGE, PROJECT, pairs, services

TEXT = PAGE.read_text()


def test_its_variables_are_those_of_the_compose_file() -> None:
    """With the same defaults."""
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    rows = re.findall(r"^\| `([A-Z_]+)` \| .* \| ([^|]*) \|$", section("Options"), re.M)
    assert {name for name, _ in rows} == set(defaults)
    for name, default in rows:
        assert default.strip("`").endswith(defaults[name]), name


def test_its_arguments_are_those_of_the_dockerfile() -> None:
    """All of them."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|", section("Building the image"), re.MULTILINE)
    assert set(rows) == set(pairs("ARG"))


def test_its_commands_exist() -> None:
    """Targets of make, services, and what is run in the container."""
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    made = set(re.findall(r"(?:^|`)make (\S+?)(?:`|\s)", TEXT, re.MULTILINE))
    assert {"up", "down"} <= made <= set(targets)
    assert set(re.findall(r"--profile (\w+)", TEXT)) == set(services())
    name = services()["cpu"]["container_name"]
    run = set(re.findall(rf"docker exec {name} picowatch (\w+)", TEXT))
    assert {"status", "doctor"} <= run <= set(parsers()[1])
    assert set(re.findall(r"docker (?:logs|restart)[\w -]* (\w+)", TEXT)) == {name}


def section(heading: str) -> str:
    """What stands under a heading."""
    return TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
