"""Makes the gallery's pictures in README and docs, with the demo model and headless Chromium.

python -m docs.screenshot
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Page, start_chromium

TARGETS = Path(__file__).parent / "images"
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white"]
THINGS = [
    "a corgi wearing a {} hat",
    "a corgi wearing a {} bow tie",
    "a puppy wearing a {} hat and sunglasses",
    "a cat wearing a {} bow tie",
    "a cat wearing a {} hat and sunglasses",
    "a {} balloon above a corgi",
    "a {} balloon",
    "a {} heart",
]
MADE = 60  # pictures when it is taken


def recipes(inbox: Path) -> None:
    draw = random.Random(3)

    def line(seed: int) -> str:
        colour, other = draw.sample(COLOURS, 2)
        size = draw.choice(["", "", "", " --size 192x128", " --size 128x192"])
        return f"{draw.choice(THINGS).format(colour)} on a {other} background --seed {seed}{size}\n"

    for name in ("night/corgis", "night/hearts and balloons", "pets/hats", "wallpapers"):
        path = inbox / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line(draw.randrange(10_000)) for _ in range(24)))
    (inbox / "studies").mkdir()
    (inbox / "studies/steps.yaml").write_text(
        "prompt: a corgi wearing sunglasses and a green bow tie on a yellow background\nseed: 3\n"
        "priority: 1\nsweep:\n  cfg_scale: [5, 8]\n  steps: [8, 12, 24]\n"
    )
    (inbox / "live").mkdir()
    (inbox / "live/corgi.yaml").write_text("prompt: a corgi\nstesp: 30\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        user = Path(folder)
        recipes(user / "inbox")
        daemon = subprocess.Popen(
            [sys.executable, "-m", "picowatch", "run"], cwd=user, stdout=subprocess.DEVNULL
        )
        driver = start_chromium()
        try:
            listing = user / "outbox/images.jsonl"
            while not listing.exists() or listing.read_text().count("\n") < MADE:
                time.sleep(1)
            page = Page(driver)
            page.resize(1280, 800)
            driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
            page.open(user / "outbox/index.html")
            time.sleep(2)  # until the thumbnails are drawn
            take(page, "gallery")
            study = "recipe:studies cfg:8 "
            page.search(f"{study} steps:>=24")
            page.tile(page.shown()[0]).click()
            page.find("#recipe summary").click()
            take(page, "gallery-large")
            page.press(Keys.ESCAPE)
            page.search(f"{study} steps:<20")
            for file in page.shown()[:2]:
                page.tile(file, ".pick").click()
            page.find("#compare").click()
            take(page, "gallery-compare")
        finally:
            driver.quit()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def take(page: Page, name: str) -> None:
    """What the page shows, with 256 colours: a third of the bytes."""
    time.sleep(1)  # until it is drawn
    target = TARGETS / f"{name}.png"
    page.driver.save_screenshot(str(target))
    whole = Image.open(BytesIO(target.read_bytes())).convert("RGB")
    whole.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


if __name__ == "__main__":
    main()
