"""Small pictures for the gallery's grid: a WebP each, written once."""

import hashlib
import os
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.files.atomic import write_atomically
from picowatch.files.inside import open_regular
from picowatch.outbox.formats import PILLOW_NAMES

SIDE = 384  # pixels of the longer side: sharp in a row of 190 on a dense display
QUALITY = 80
METHOD = 2  # of libwebp, 0 to 6: slower ones save a twentieth
MOST_PIXELS = 20_000_000  # decoded for a thumbnail later on; larger ones are shown themselves


class Thumbnails:
    """The thumbnails of one gallery. A missing one does no harm: the page shows the picture."""

    def __init__(self, root: Path, folder: Path) -> None:
        """`root` is where pictures lie, `folder` where the gallery's own files do."""
        self._root = root
        self._folder = folder / "thumbs"

    def write(self, file: str, picture: Image.Image) -> None:
        """Write the thumbnail of `file` from its pixels, which are changed by it."""
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        small = BytesIO()
        picture.save(small, "WEBP", quality=QUALITY, method=METHOD)
        write_atomically(self._path(file), small.getvalue(), durable=False)

    def remove(self, file: str) -> None:
        """The picture was deleted."""
        self._path(file).unlink(missing_ok=True)

    def has(self, file: str) -> bool:
        """Whether it exists; a power cut may have left an empty file in its place."""
        try:
            return self._path(file).stat().st_size > 0
        except OSError:
            return False

    def make(self, file: str) -> None:
        """Write the thumbnail of an existing picture; one that cannot be read gets none."""
        try:
            with (
                os.fdopen(open_regular(self._root / file), "rb") as opened,
                Image.open(opened, formats=PILLOW_NAMES) as picture,
            ):
                if picture.width * picture.height <= MOST_PIXELS:
                    mode = "RGBA" if picture.has_transparency_data else "RGB"
                    self.write(file, picture.convert(mode))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return

    def _path(self, file: str) -> Path:
        return self._folder / thumbnail_of(file)


def thumbnail_of(file: str) -> str:
    """The name of a picture's thumbnail: short and plain, whatever the picture is called."""
    digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{digest[:2]}/{digest[2:16]}.webp"
