"""Texts and pictures of somebody who can write to the inbox."""

import os
from pathlib import Path
from typing import Any

from tests.pictures import picture_with

# Everything that steers a terminal, breaks a line or turns text around.
STEERING = {
    "line break": "\n",
    "carriage return": "\r",
    "colours": "\x1b[31m",
    "title of the window": "\x1b]0;pwned\x07",
    "link": "\x1b]8;;mailto:evil\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "C1 control": "\x9b31m",
    "delete": "\x7f",
    "right to left": "\u202egnp.igroc\u202c",
    "line separator": "\u2028",
}


def steers(text: str, *, lines: bool = True) -> set[str]:
    """Return a text's control characters; line breaks count unless it may have `lines`."""
    allowed = "\n" if lines else ""
    return {c for c in text if not c.isprintable() and c not in f"{allowed}\N{ZERO WIDTH JOINER}"}


def plain_picture(path: Path, prompt: str = "a corgi", colour: str = "blue") -> Path:
    """Save a picture with settings in its metadata."""
    settings = f"{prompt}\nSteps: 20, Sampler: Euler a, Seed: 1"
    return picture_with(path, "parameters", settings, colour)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._marker),)
