"""What the Dockerfile and the compose file say, in pieces."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "Dockerfile"
COMPOSE = PROJECT / "compose.yaml"
SCRIPT = PROJECT / "contrib/docker.sh"
PAGE = PROJECT / "docs/docker.md"


@cache
def texts(name: str) -> list[str]:
    """What stands behind every instruction of that name in the Dockerfile, its lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(text.split()) for text in re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)]


def the(name: str) -> str:
    """The text of the only instruction of that name, or the last, which is the one that counts."""
    return texts(name)[-1]


def pairs(name: str) -> dict[str, str]:
    """NAME=VALUE of all ARG or ENV instructions."""
    words = [word for text in texts(name) for word in text.split()]
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def services() -> dict[str, dict[str, Any]]:
    """The compose file's services, as they are without any variable set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The source and the mode ("ro" or "rw") of each place in the container."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, dict):
            mode = "ro" if volume["read_only"] else "rw"
            found[volume["target"]] = volume["source"], mode
        else:
            source, target, *given = volume.split(":")
            found[target] = source, *(given or ["rw"])
    return found


def section(heading: str) -> str:
    """What stands under a heading of docs/docker.md."""
    return PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
