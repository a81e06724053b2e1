"""Attacks by somebody who can write to the inbox, and checks whether they worked."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.house import House

SECRET = "the secret outside"

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


def secret_recipe(path: Path) -> Path:
    """A readable text outside of all folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{SECRET}\n")
    return path


def secret_picture(path: Path) -> Path:
    """A picture outside of all folders, with settings in its metadata."""
    return plain_picture(path, SECRET, "red")


def plain_picture(path: Path, prompt: str = "a corgi", colour: str = "blue") -> Path:
    """A picture like it that may be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler a, Seed: 1")
    Image.new("RGB", (64, 64), colour).save(path, pnginfo=chunks)
    return path


def leaked(house: House, secret: Path) -> list[str]:
    """Return every file in the outbox, and every prompt in progress, with part of the secret."""
    content = secret.read_bytes()
    found = [
        str(file)
        for file in house.outbox.rglob("*")
        if file.is_file()
        and not file.is_symlink()
        and (SECRET.encode() in (held := file.read_bytes()) or held == content)
    ]
    return found + [prompt for prompt in house.started() if SECRET in prompt]


def before_opening(
    monkeypatch: pytest.MonkeyPatch, folder: Path, opening: int, strike: Callable[[], None]
) -> list[str]:
    """Strikes right before the `opening`-th part of a path in `folder` is opened.

    By whatever way it is opened: by its whole path, or part by part. The list that it gives
    holds what was opened at the strike: empty if it never came to that.
    """
    struck: list[str] = []
    seen = [0]
    really_open = os.open
    inside = {folder.name, *(path.name for path in folder.rglob("*"))}

    def watched(target: str | Path, flags: int, mode: int = 0o777, **options: int) -> int:
        whole = Path(target).is_absolute() and Path(target).is_relative_to(folder.parent)
        if not struck and (whole or ("dir_fd" in options and Path(target).name in inside)):
            if seen[0] == opening:
                struck.append(str(target))
                strike()
            seen[0] += 1
        return really_open(target, flags, mode, **options)

    monkeypatch.setattr(os, "open", watched)
    return struck


def swap(path: Path, elsewhere: Path) -> None:
    """Put a link to `elsewhere` in the place of a file or folder."""
    path.rename(path.with_name(f".{path.name}.aside"))
    path.symlink_to(elsewhere)
