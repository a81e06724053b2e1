"""Makes docs/images/ with picowatch itself: `python -m docs.pictures` (after a new demo model)."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).parent / "images"
SIDE = 128
GAP = 8
PAPER, INK, GREY = (250, 250, 250), (30, 30, 34), (120, 120, 128)

SHEET = """\
a corgi wearing a red hat on a blue background --seed 7
a corgi wearing sunglasses on a pink background --seed 11
a corgi wearing a yellow hat and a red bow tie on a green background --seed 4
a puppy with a blue bow tie on a yellow background --seed 2
a cute corgi, orange background --seed 3
a corgi wearing a green hat and sunglasses on a purple background --seed 9
a large red circle on a blue background --seed 2
a yellow star on a purple background --seed 1
a green heart on a white background --seed 3
an orange triangle on a black background --seed 4
a purple ring on a yellow background --seed 5
a white star on a red background --seed 6
"""
LOOP = """\
a red circle on a blue background --seed 9
a green circle on a blue background --seed 9
a green heart on a blue background --seed 9
"""


def made(recipe: str) -> list[Image.Image]:
    """The pictures of a TXT recipe, by `picowatch run --once` in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        (folder / "inbox/sheet.txt").write_text(recipe)
        subprocess.run(
            [sys.executable, "-m", "picowatch", "run", "--once"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = {}
        for path in (folder / "outbox/sheet").glob("*.png"):
            with Image.open(path) as image:
                found[image.info["parameters"].splitlines()[0]] = image.copy()
    return [found[line.split(" --")[0]] for line in recipe.splitlines()]


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """The pictures in rows."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), PAPER)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        whole.paste(picture, (column * (SIDE + GAP), row * (SIDE + GAP)))
    return whole


def loop(pictures: list[Image.Image], lines: list[str]) -> Image.Image:
    """Each version of the recipe beside the picture it became."""
    font = ImageFont.load_default(18)
    small = ImageFont.load_default(14)
    whole = Image.new("RGB", (600, 3 * (SIDE + GAP) - GAP), PAPER)
    draw = ImageDraw.Draw(whole)
    for number, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        top = number * (SIDE + GAP)
        draw.text((20, top + 30), "inbox/hello.txt", GREY, small)
        draw.text((20, top + 54), line.split(" --")[0], INK, font)
        draw.line((416, top + 64, 436, top + 64), GREY, 2)
        draw.polygon(((436, top + 59), (445, top + 64), (436, top + 69)), GREY)
        whole.paste(picture, (600 - SIDE - 8, top))
    return whole


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    sheet(made(SHEET), 6).save(IMAGES / "demo.png")
    loop(made(LOOP), LOOP.splitlines()).save(IMAGES / "loop.png")


if __name__ == "__main__":
    main()
