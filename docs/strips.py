"""Makes the strips of docs/images/ with picowatch itself: `make strips`.

Each `docs/strips/NAME.yaml` is a recipe for the embedded demo model and becomes
`docs/images/NAME.png`. Comments at its top say what stands beneath the pictures:

    # labels: 2 steps | 4 steps           one for each picture, in the recipe's order; or none
    # before: sketch.png = start image    files that stand before the pictures
    # columns: 6                          pictures in a row; all of them without it
    # sheet: …                            picowatch's own contact sheet is the strip
    # enlarged: Lanczos                   smaller pictures are enlarged to the size of the largest
    # repeated: …                         each picture stands twice beside and below itself

A strip whose recipe has not changed since is left alone; `--all` makes every one anew.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.outbox.sheets import chequered
from picowatch.recipe.chunk import read_chunk

DOCS = Path(__file__).parent
STRIPS = DOCS / "strips"
IMAGES = DOCS / "images"
STYLES = DOCS.parent / "tests/styles"
ADAPTERS = {"loras": "pixel-art.safetensors", "embeddings": "mascot.safetensors"}
MADE_FROM = "made from"  # the PNG text that holds the digest of a strip's recipe
GAP, LABEL, FONT_SIZE = 8, 20, 13
PAPER, INK = (250, 250, 250), (60, 60, 66)


@dataclass(frozen=True)
class Strip:
    """A recipe of docs/strips/ and what its comments say."""

    recipe: Path
    labels: tuple[str, ...]
    before: tuple[tuple[str, str], ...]
    columns: int | None
    is_sheet: bool
    is_repeated: bool = False
    is_enlarged: bool = False

    @property
    def image(self) -> Path:
        """Where the strip is shown from."""
        return IMAGES / f"{self.recipe.stem}.png"

    @property
    def digest(self) -> str:
        """Of everything a strip is made from, but the model."""
        files = [self.recipe, *(STRIPS / name for name, _ in self.before)]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    @property
    def current(self) -> bool:
        """The image is there, and was made from this recipe."""
        if not self.image.exists():
            return False
        with Image.open(self.image) as image:
            return image.info.get(MADE_FROM) == self.digest


def strip_of(recipe: Path) -> Strip:
    """A recipe with its comments."""
    said = dict(_COMMENT.findall(recipe.read_text()))
    before = [_parts(pair, "=") for pair in _parts(said.get("before", ""))]
    return Strip(
        recipe,
        labels=_parts(said.get("labels", "")),
        before=tuple((name, label) for name, label in before),
        columns=int(said["columns"]) if "columns" in said else None,
        is_sheet="sheet" in said,
        is_enlarged="enlarged" in said,
        is_repeated="repeated" in said,
    )


def strips() -> list[Strip]:
    """All of them, by name."""
    return [strip_of(recipe) for recipe in sorted(STRIPS.glob("*.yaml"))]


_COMMENT = re.compile(r"^# (labels|before|columns|sheet|repeated|enlarged): (.+)$", re.MULTILINE)


def _parts(text: str, divider: str = "|") -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(divider) if part.strip())


def made(wanted: Sequence[Strip]) -> dict[str, list[Image.Image]]:
    """The pictures of each recipe, by one `picowatch run --once` in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        for kind, adapter in ADAPTERS.items():
            (folder / "models" / kind).mkdir(parents=True)
            shutil.copy(STYLES / adapter, folder / "models" / kind)
        for file in [*STRIPS.glob("*.png"), *(strip.recipe for strip in wanted)]:
            shutil.copy(file, folder / "inbox")
        command = [sys.executable, "-m", "picowatch", "run", "--once"]
        subprocess.run(command, cwd=folder, check=True)
        return {strip.recipe.stem: _pictures(strip, folder / "outbox") for strip in wanted}


def _pictures(strip: Strip, outbox: Path) -> list[Image.Image]:
    """A recipe's pictures in the recipe's order, whatever the order they were made in."""
    folder = outbox / strip.recipe.stem
    if strip.is_sheet:
        return [_opened(next(folder.glob("*-sheet.png")))]
    found = []
    for path in folder.glob("*.png"):
        if path.stem.endswith("-sheet"):
            continue
        chunk = read_chunk(read_texts(path)[PICOWATCH])
        found.append((chunk.entry_index, chunk.image_index, path))
    pictures = [_opened(path) for *_, path in sorted(found)]
    return [_repeated(picture) for picture in pictures] if strip.is_repeated else pictures


def _repeated(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        whole.paste(picture, corner)
    return whole


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if not image.has_transparency_data:
            return image.convert("RGB")
        ground, seen = chequered(image.size), image.convert("RGBA")
        ground.paste(seen, (0, 0), seen)
        return ground


def pasted(strip: Strip, pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows, each with its label beneath."""
    cells = [*(_opened(STRIPS / name) for name, _ in strip.before), *pictures]
    if strip.is_enlarged:
        largest = max(cell.size for cell in cells)
        cells = [cell.resize(largest, Image.Resampling.LANCZOS) for cell in cells]
    labels = [label for _, label in strip.before] + list(strip.labels)
    if labels and len(cells) != len(labels):
        raise SystemExit(f"{strip.recipe}: {len(labels)} labels for {len(cells)} pictures")
    beneath = LABEL if labels else 0
    columns = strip.columns or len(cells)
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    width = max(sum(cell.width + GAP for cell in row) - GAP for row in rows)
    height = sum(max(cell.height for cell in row) + beneath + GAP for row in rows) - GAP
    whole = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(FONT_SIZE)
    top, remaining = 0, iter(labels)
    for row in rows:
        left, bottom = 0, top + max(cell.height for cell in row)
        for cell in row:
            whole.paste(cell, (left, bottom - cell.height))
            middle = (left + cell.width / 2, bottom + 3)
            draw.text(middle, next(remaining, ""), INK, font, "ma")
            left += cell.width + GAP
        top = bottom + beneath + GAP
    return whole


def save(strip: Strip, image: Image.Image) -> None:
    """With 256 colours, which suffice for plain pictures if they are chosen well, and small."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(MADE_FROM, strip.digest)
    small = image.quantize(256, kmeans=5, dither=Image.Dither.NONE)
    small.save(strip.image, pnginfo=texts, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the strips of docs/images/ anew.")
    parser.add_argument("--all", action="store_true", help="those that are current, too")
    chosen = parser.parse_args(arguments)
    wanted = [strip for strip in strips() if chosen.all or not strip.current]
    if not wanted:
        print("Every strip is made from its recipe as it stands.")
        return
    pictures = made(wanted)
    for strip in wanted:
        save(strip, pasted(strip, pictures[strip.recipe.stem]))
        print(f"{strip.image.relative_to(DOCS.parent)}: {strip.image.stat().st_size} bytes")


if __name__ == "__main__":
    main()
