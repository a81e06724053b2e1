"""Where things lie in the outbox: it mirrors the inbox, one folder a recipe.

`inbox/pets/corgi.yaml` answers in `outbox/pets/corgi/`, its errors stand in
`outbox/pets/corgi.yaml.error.txt`. No name leaves the outbox or takes the place of one of
picowatch's own.
"""

import hashlib
import re
from os.path import lexists
from pathlib import Path, PurePosixPath

from picowatch.recipe.request import ImageRequest

OWN_NAMES = {
    "latest.png", "preview.png", "now.txt", "index.html", "picowatch.log", "images.jsonl",
    ".picowatch",
}  # fmt: skip
ERROR_ENDING = ".error.txt"
WARNING_ENDING = ".warning.txt"
NUMBER = re.compile(r"^(\d+)")
# Most file systems take 255 bytes a name; the temporary of an atomic write is shorter.
MAX_NAME_BYTES = 255
# What some file system or shell takes for more than a character of a name.
UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')


class OutboxNames:
    """Gives recipes their folders and pictures their files, all as paths below the outbox."""

    def __init__(self, outbox: Path, template: str) -> None:
        """`template` is the setting `file_name`."""
        self._outbox = outbox
        self._template = template

    def folder(self, recipe: str) -> str:
        """The folder of a recipe's pictures: its path without ending.

        A first part that is one of picowatch's own names (compared case-folded), and a part at
        which a file lies already, gets `_` behind it.
        """
        parts = list(PurePosixPath(recipe).with_suffix("").parts)
        parts = [_fitting(part) for part in parts]
        for depth in range(len(parts)):
            while self._is_taken(parts[: depth + 1]):
                parts[depth] += "_"
        return "/".join(parts)

    def _is_taken(self, parts: list[str]) -> bool:
        name = parts[-1].casefold()
        if len(parts) == 1 and (name in OWN_NAMES or name.startswith("picowatch.log.")):
            return True
        return (
            name.endswith((ERROR_ENDING, WARNING_ENDING))
            or (self._outbox / "/".join(parts)).is_file()
        )

    def error_file(self, recipe: str) -> str:
        """The place of a recipe's error file."""
        return _beside(recipe, ERROR_ENDING)

    def warning_file(self, recipe: str) -> str:
        """The place of the file that says what of a recipe could not be honoured."""
        return _beside(recipe, WARNING_ENDING)

    def highest_number(self, folder: str) -> int:
        """The highest number in front of a picture's name there, 0 if there is none."""
        try:
            names = [child.name for child in (self._outbox / folder).iterdir()]
        except OSError:
            return 0
        numbers = (NUMBER.match(name) for name in names if name.endswith(".png"))
        return max((int(number[1]) for number in numbers if number), default=0)

    def file(self, recipe: str, number: int, request: ImageRequest) -> str | None:
        """A picture's path, or None if anything lies there already."""
        fields = {
            "number": number,
            "recipe": _plain(PurePosixPath(recipe).stem),
            "checkpoint": _plain(request.checkpoint),
            "sampler": _plain(request.sampler),
            "seed": request.seed,
            "steps": request.steps,
            "cfg_scale": request.cfg_scale,
            "width": request.width,
            "height": request.height,
        }
        name = _fitting(_plain(self._template.format_map(fields)), room=len(".png")) + ".png"
        return self._free(f"{self.folder(recipe)}/{name}")

    def sheet(self, recipe: str, number: int) -> str | None:
        """A contact sheet's path, or None if anything lies there already."""
        return self._free(f"{self.folder(recipe)}/{number:04}-sheet.png")

    def _free(self, path: str) -> str | None:
        return None if lexists(self._outbox / path) else path


def _beside(recipe: str, ending: str) -> str:
    path = PurePosixPath(recipe)
    return str(path.with_name(_fitting(path.name, room=len(ending)) + ending))


def _plain(text: str) -> str:
    return UNSAFE.sub("-", text)


def _fitting(name: str, room: int = 0) -> str:
    """The name, shortened to what a file system takes, with a hash so that it stays its own."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) + room <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: MAX_NAME_BYTES - room - 9].decode("utf-8", "ignore")
    return f"{kept}-{digest}"
