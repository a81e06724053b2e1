"""What the Dockerfile and the compose file say, in pieces."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "Dockerfile"
COMPOSE = PROJECT / "compose.yaml"
SCRIPT = PROJECT / "contrib/docker.sh"
PAGE = PROJECT / "docs/docker.md"


@dataclass(frozen=True)
class Instruction:
    """One of the Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def command(self) -> list[str]:
        """The words of the form that needs no shell, behind any options."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


@cache
def dockerfile() -> tuple[Instruction, ...]:
    """All its instructions."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = re.findall(r"^([A-Z]+) (.*)$", joined, re.MULTILINE)
    return tuple(Instruction(name, " ".join(text.split())) for name, text in found)


def texts(name: str) -> list[str]:
    """What stands behind every instruction of that name."""
    return [step.text for step in dockerfile() if step.name == name]


def the(name: str) -> Instruction:
    """The only instruction of that name, or the last, which is the one that counts."""
    return [step for step in dockerfile() if step.name == name][-1]


def pairs(name: str) -> dict[str, str]:
    """NAME=VALUE of all ARG or ENV instructions."""
    words = [word for text in texts(name) for word in text.split()]
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def copied() -> set[str]:
    """What of the project COPY takes into the image."""
    return {word for text in texts("COPY") for word in text.split()[:-1]}


@dataclass(frozen=True)
class Mount:
    """One line of a service's volumes."""

    source: str
    target: str
    mode: str


def services() -> dict[str, dict[str, Any]]:
    """The compose file's services, as they are without any variable set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def mounts(service: dict[str, Any]) -> list[Mount]:
    """Its volumes."""
    return [_mount(volume) for volume in service["volumes"]]


def _mount(volume: str | dict[str, Any]) -> Mount:
    if isinstance(volume, dict):
        return Mount(volume["source"], volume["target"], "ro" if volume["read_only"] else "rw")
    source, target, *mode = volume.split(":")
    return Mount(source, target, *(mode or ["rw"]))
