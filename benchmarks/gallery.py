"""The gallery with ten thousand pictures: adding one, opening, scrolling, searching.

    python -m benchmarks.gallery [--pictures 10000]

Makes an outbox with so many pictures in a temporary folder, and opens it in headless Chromium.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.measuring import machine, spread
from picowatch.files.essential import Writing
from picowatch.outbox.gallery import Gallery
from picowatch.outbox.listing import Listing
from picowatch.outbox.pages import thumbnail_of
from picowatch.recipe.request import ImageRequest
from tests.browser.conftest import start_chromium

FEW = 10
KINDS = 100  # different pictures; the others look like them
WORDS = ["a", "corgi", "castle in", "the misty", "forest", "at dawn,", "oil painting,", "red"]
SIZES = [(512, 512), (512, 768), (768, 512), (640, 640)]
TYPED = ["c", "co", "cor", "corg", "corgi", "corgi c", "corgi castle", "corgi castle red"]

# Milliseconds from the start of opening until all pictures in the window are drawn.
OPENING = """
globalThis.opened = 0;
const look = () => {
  const seen = [...document.querySelectorAll("#grid img")].filter(picture => {
    const rect = picture.getBoundingClientRect();
    return rect.width && rect.top < innerHeight && rect.bottom > 0;
  });
  if (seen.length && seen.every(picture => picture.complete && picture.naturalWidth)) {
    opened = performance.now();
  } else requestAnimationFrame(look);
};
document.addEventListener("DOMContentLoaded", look);
"""
# Milliseconds of each frame while it scrolls so many pixels a frame.
SCROLL = """
const [step, frames, done] = arguments, times = [];
let last = null, count = 0;
const next = now => {
  if (last !== null) times.push(now - last);
  last = now;
  scrollBy(0, step);
  if (++count < frames) requestAnimationFrame(next); else done(times);
};
requestAnimationFrame(next);
"""
# Milliseconds from each typed query to the frame after it.
SEARCH = """
const [typed, done] = arguments, times = [], box = document.getElementById("search");
const next = () => {
  if (times.length === typed.length) return done(times);
  box.value = typed[times.length];
  const before = performance.now();
  box.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => {
    times.push(performance.now() - before);
    next();
  }));
};
next();
"""


def line(number: int) -> dict[str, Any]:
    """A line of images.jsonl like those of a real checkpoint."""
    draw = random.Random(number)
    width, height = SIZES[number % KINDS % len(SIZES)]
    request = ImageRequest(
        prompt=" ".join(draw.choices(WORDS, k=40)), negative_prompt="blurry, low quality, text",
        checkpoint="dreamshaper_8", checkpoint_hash="a" * 64, vae="baked", vae_hash="",
        sampler="DPM++ 2M", schedule_type="karras", steps=24, cfg_scale=7.5,
        width=width, height=height, seed=number, clip_skip=1, exact=False,
    )  # fmt: skip
    recipe = f"day-{number // 200:02}/study-{number // 20 % 10}"
    return {
        "file": f"{recipe}/{number:05}-{number}.png",
        "recipe": f"{recipe}.yaml",
        **request.as_dict(),
        "digest": request.digest,
        "save_digest": "b" * 64,
        "entry_index": 0,
        "image_index": number % 20,
    }


def drawn(number: int) -> Image.Image:
    """A picture that is as hard to compress as a photograph that is a little out of focus."""
    width, height = SIZES[number % len(SIZES)]
    noise = random.Random(number).randbytes(width // 16 * (height // 16) * 3)
    small = Image.frombytes("RGB", (width // 16, height // 16), noise)
    return small.resize((width, height), Image.Resampling.BICUBIC)


class Outbox:
    """An outbox as picowatch leaves it, filled without picowatch's waiting for the disk."""

    def __init__(self, root: Path, pictures: int) -> None:
        self._root = root
        self._number = 0
        png = BytesIO()
        drawn(0).save(png, "PNG")
        self._png = png.getvalue()
        root.mkdir()
        with (root / "images.jsonl").open("w") as listing:
            for number in range(pictures):
                listing.write(json.dumps(line(number)) + "\n")
                self._place(number)
        began = time.perf_counter()
        self.gallery = Gallery(root, Listing(root / "images.jsonl"), Writing(Event(), root))
        self.gallery.catch_up()
        self.made_anew = time.perf_counter() - began
        for number in range(min(pictures, KINDS)):
            self.gallery.add_thumbnail(line(number)["file"], drawn(number))
        self._copy_thumbnails(pictures)
        self._number = pictures

    def _place(self, number: int) -> None:
        """All PNGs are one file, for they are opened only in the large view."""
        path = self._root / line(number)["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        first = self._root / line(number // 20 * 20)["file"]
        if path == first:
            path.write_bytes(self._png)
        else:
            os.link(first, path)

    def _copy_thumbnails(self, pictures: int) -> None:
        folder = self._root / ".picowatch/gallery/thumbs"
        kinds = [(folder / thumbnail_of(line(number)["file"])).read_bytes()
                 for number in range(min(pictures, KINDS))]  # fmt: skip
        for number in range(len(kinds), pictures):
            path = folder / thumbnail_of(line(number)["file"])
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(kinds[number % KINDS])

    def add(self, picture: Image.Image) -> float:
        """Publish one more in the gallery; gives the seconds that it took."""
        added = line(self._number)
        self._place(self._number)
        self._number += 1
        began = time.perf_counter()
        self.gallery.add_thumbnail(added["file"], picture)
        self.gallery.add(added)
        return time.perf_counter() - began


def print_adding(few: Outbox, many: Outbox, count: int) -> None:
    """Add pictures by turns, so that whatever else the machine does counts for both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(count):
        picture = drawn(number)
        for outbox, found in zip((few, many), times, strict=True):
            found.append(1000 * outbox.add(picture.copy()))
    median, other = map(statistics.median, times)
    print(f"adding a picture to {FEW}, to all: {median:.1f} ms, {other:.1f} ms (medians)")


def print_opening(driver: webdriver.Chrome, page: str, rounds: int) -> None:
    opened = []
    for _ in range(rounds):
        driver.get("about:blank")
        driver.get(page)
        opened.append(wait_until_open(driver))
    print(f"opening, until the window is full of pictures: {spread(opened)} ms")


def wait_until_open(driver: webdriver.Chrome) -> float:
    """Wait for the window's pictures; return the milliseconds that opening took."""
    opened: float = WebDriverWait(driver, 120).until(
        lambda driver: driver.execute_script("return opened")
    )
    return opened


def print_scrolling(driver: webdriver.Chrome, page: str, frames: int) -> None:
    for step, how in ((40, "like a finger"), (400, "fast")):
        driver.get(page)
        wait_until_open(driver)
        times = driver.execute_async_script(SCROLL, step, frames)
        print(f"scrolling {how}, a frame: {spread(times)} ms")


def print_searching(driver: webdriver.Chrome) -> None:
    first, *others = driver.execute_async_script(SEARCH, TYPED)
    print(f"searching as it is typed: the first letter {first:.0f} ms; {spread(others)} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description="The gallery with many pictures.")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--add", type=int, default=100, help="pictures added to each")
    parser.add_argument("--rounds", type=int, default=5, help="of opening; 0: without a browser")
    parser.add_argument("--frames", type=int, default=300, help="of each scrolling")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="picowatch-gallery-") as folder:
        many = Outbox(Path(folder, "many"), options.pictures)
        print(f"making {options.pictures} anew from images.jsonl: {many.made_anew:.1f} s")
        print_adding(Outbox(Path(folder, "few"), FEW), many, options.add)
        if options.rounds:
            show(Path(folder, "many/index.html").as_uri(), options.rounds, options.frames)


def show(page: str, rounds: int, frames: int) -> None:
    """Open, scroll and search the gallery in a browser."""
    driver = start_chromium()
    try:
        driver.set_script_timeout(300)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OPENING})
        print_opening(driver, page, rounds)
        print_scrolling(driver, page, frames)
        print_searching(driver)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
