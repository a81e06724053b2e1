"""Checks that apply to every outbox, whatever was requested."""

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.files.atomic import TEMPORARY_PREFIX
from picowatch.outbox.names import picture_files


def rendered(outbox: Path, folder: str = "") -> list[str]:
    found = [file for file in picture_files(outbox) if "/originals/" not in file]
    return sorted(file for file in found if file.startswith(f"{folder}/" if folder else ""))


def is_sheet(file: str) -> bool:
    return bool(re.search(r"-sheet(-\d+)?\.", file))


def entries(outbox: Path) -> Iterator[dict[str, Any]]:
    """Yield the gallery's entries, oldest first. Raises ValueError for a line that is not a call.

    A page that is being written is left out.
    """
    for page in sorted((outbox / ".picowatch/gallery").glob("page-*.js")):
        with suppress(FileNotFoundError):
            for line in page.read_text().splitlines():
                yield json.loads(line.removeprefix("picture(").removesuffix(");"))


def shown(outbox: Path) -> Iterator[str]:
    return (entry["file"] for entry in entries(outbox))


def listed(outbox: Path) -> list[dict[str, Any]]:
    """Return the pictures' complete lines of images.jsonl; the last one may be being written."""
    try:
        text = (outbox / "images.jsonl").read_text()
    except FileNotFoundError:
        return []
    lines = map(json.loads, text.split("\n")[:-1])
    return [line for line in lines if "file" in line]


def is_whole(picture: Path) -> bool:
    try:
        with Image.open(picture) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def error_files(outbox: Path) -> set[str]:
    found = (path.relative_to(outbox).as_posix() for path in outbox.rglob("*.error.txt"))
    return {file.removesuffix(".error.txt") for file in found}


def faults(
    outbox: Path, spared: Container[str] = (), unlisted: Container[str] = ()
) -> Iterator[str]:
    """Return pictures that are damaged or not listed and shown exactly once, and leftovers.

    `spared` are files that somebody else touched, `unlisted` need not be in images.jsonl.
    """
    there = [file for file in rendered(outbox) if file not in spared]
    yield from (f"{file} is damaged" for file in there if not is_whole(outbox / file))
    pictures = [file for file in there if not (is_sheet(file) or file in unlisted)]
    in_list = (line["file"] for line in listed(outbox) if line["file"] not in unlisted)
    yield from _differ("images.jsonl", in_list, pictures, spared)
    yield from _differ("the gallery", shown(outbox), there, spared)
    for left in outbox.rglob(f"{TEMPORARY_PREFIX}*"):
        yield f"left over: {left.relative_to(outbox)}"


def _differ(
    name: str, told: Iterable[str], there: list[str], spared: Container[str]
) -> Iterator[str]:
    try:
        found = Counter(file for file in told if file not in spared)
    except ValueError as error:
        yield f"{name} has a line that is damaged: {error}"
        return
    for file in there:
        if file not in found:
            yield f"{name} lacks {file}"
    for file in found - Counter(there):
        yield f"{name} has {file} {found[file]} times, and it is there {there.count(file)} times"
