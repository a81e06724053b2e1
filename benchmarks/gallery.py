"""The gallery with many pictures: what adding one costs, opening, scrolling, searching.

Makes an outbox with so many pictures below a temporary folder, then opens it in headless Chromium:

    python -m benchmarks.gallery --pictures 10000
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from picowatch.outbox.gallery import Gallery
from picowatch.outbox.gallery.thumbnails import thumbnail_of
from picowatch.outbox.listing import Listing
from picowatch.recipe.request import ImageRequest
from tests.browser.conftest import start_chromium

FEW = 10
WORDS = ["a", "corgi", "castle in", "the misty", "forest", "at dawn,", "oil painting,", "red"]
SIZES = [(512, 512), (512, 768), (768, 512), (640, 640)]
# A page of the same length with nothing on it shows what this machine can do at all.
EMPTY = "<!doctype html><title>empty</title><body style='height:400000px'>"
KINDS = 100  # different pictures; the others look like them

# Frames of a scroll of so many pixels a frame, in milliseconds.
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
# From the start of opening until the window is full of pictures, and until all are known.
OPENING = """
globalThis.opening = {};
const look = () => {
  const tiles = [...document.querySelectorAll(".tile")].filter(tile => {
    const rect = tile.getBoundingClientRect();
    return rect.top < innerHeight && rect.bottom > 0;
  });
  if (!opening.shown && tiles.length && tiles.every(tile => tile.classList.contains("loaded"))) {
    opening.shown = performance.now();
  }
  if (!opening.known && typeof Pictures !== "undefined" && Pictures.loaded) {
    opening.known = performance.now();
  }
  if (opening.shown && opening.known) return;
  requestAnimationFrame(look);
};
document.addEventListener("DOMContentLoaded", look);
"""
SEARCH = """
const box = document.getElementById("search"), times = [];
for (const query of arguments[0]) {
  box.value = query;
  const before = performance.now();
  box.oninput();
  times.push(performance.now() - before);
}
box.value = ""; box.oninput();
return times;
"""
TYPED = ["c", "co", "cor", "corg", "corgi", "corgi c", "corgi castle", "corgi castle seed:7"]


def line(number: int) -> dict[str, Any]:
    """What images.jsonl says of a picture like those of a real checkpoint."""
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
        self.gallery = Gallery(root, Listing(root / "images.jsonl"))
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


def adding(few: Outbox, many: Outbox, count: int) -> None:
    """By turns, so that whatever else the machine does counts for both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(count):
        picture = drawn(number)
        for outbox, found in zip((few, many), times, strict=True):
            found.append(outbox.add(picture.copy()))
    one, other = map(statistics.median, times)
    print(f"adding a picture, thumbnail and fsync included: to {FEW} {one * 1000:.1f} ms,"
          f" to many {other * 1000:.1f} ms, ratio {other / one:.2f} (medians)")  # fmt: skip


def spread(times: Sequence[float]) -> str:
    ordered = sorted(times)
    return (f"median {statistics.median(ordered):.0f} ms, 95th percentile "
            f"{ordered[int(len(ordered) * 0.95)]:.0f} ms, worst {ordered[-1]:.0f} ms")  # fmt: skip


def until(driver: webdriver.Chrome, condition: str) -> None:
    WebDriverWait(driver, 120).until(lambda driver: driver.execute_script(condition))


def opening(driver: webdriver.Chrome, page: str, rounds: int) -> None:
    shown, known = [], []
    for _ in range(rounds):
        driver.get("about:blank")
        driver.get(page)
        until(driver, "return Boolean(opening.shown && opening.known)")
        told = driver.execute_script("return opening")
        shown.append(told["shown"])
        known.append(told["known"])
    print(f"opening, until the window is full of pictures: {spread(shown)}")
    print(f"opening, until all pictures are known and can be searched: {spread(known)}")


def scrolling(driver: webdriver.Chrome, page: str, empty: str, frames: int) -> None:
    for step, how in ((40, "like a finger"), (400, "fast")):
        for address, what in ((empty, "an empty page"), (page, "the gallery")):
            driver.get(address)
            if address == page:
                until(driver, "return Boolean(opening.shown && opening.known)")
            times = driver.execute_async_script(SCROLL, step, frames)
            late = sum(one > 34 for one in times)
            print(f"scrolling {how}, {what}: {spread(times)} a frame; "
                  f"{late} of {len(times)} frames took more than two refreshes")  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", type=int, default=10_000)
    arguments.add_argument("--add", type=int, default=100, help="pictures added to each")
    arguments.add_argument("--rounds", type=int, default=5, help="of opening")
    arguments.add_argument("--frames", type=int, default=300, help="of each scrolling")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="picowatch-gallery-") as folder:
        many = Outbox(Path(folder, "many"), asked.pictures)
        few = Outbox(Path(folder, "few"), FEW)
        print(f"{asked.pictures} pictures, load {os.getloadavg()[0]:.1f} "
              f"on {os.cpu_count()} cores")  # fmt: skip
        print(f"making the gallery anew from images.jsonl: {many.made_anew:.1f} s")
        began = time.perf_counter()
        Gallery(Path(folder, "many"), Listing(Path(folder, "many/images.jsonl")))
        print(f"taking it up at a start: {(time.perf_counter() - began) * 1000:.0f} ms")
        adding(few, many, asked.add)
        empty = Path(folder, "empty.html")
        empty.write_text(EMPTY)
        page = Path(folder, "many/index.html").as_uri()
        driver = start_chromium()
        try:
            driver.set_script_timeout(300)
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OPENING})
            opening(driver, page, asked.rounds)
            scrolling(driver, page, empty.as_uri(), asked.frames)
            first, *others = driver.execute_script(SEARCH, TYPED)
            print(f"searching as it is typed: the first letter {first:.0f} ms; {spread(others)}")
        finally:
            driver.quit()
        print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
