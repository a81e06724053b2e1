"""Makes docs/images/loop.png with picowatch itself: `python -m docs.pictures`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).parent / "images"
SIDE = 128
GAP = 8
PAPER, INK, GREY = (250, 250, 250), (30, 30, 34), (120, 120, 128)

LOOP = """\
a red balloon on a blue background --seed 9
a green balloon on a blue background --seed 9
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
    loop(made(LOOP), LOOP.splitlines()).save(IMAGES / "loop.png")


if __name__ == "__main__":
    main()
