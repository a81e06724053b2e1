"""Makes the gallery's picture in the README, with the demo model and headless Chromium.

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

from tests.browser.conftest import Page, start_chromium

TARGET = Path(__file__).parent / "images/gallery.png"
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white"]
THINGS = [
    "a corgi wearing a {} hat",
    "a corgi wearing a {} bow tie",
    "a puppy wearing a {} hat and sunglasses",
    "a {} heart",
    "a {} star",
]
MADE = 60  # pictures when it is taken


def recipes(inbox: Path) -> None:
    draw = random.Random(3)

    def line(seed: int) -> str:
        one, other = draw.sample(COLOURS, 2)
        size = draw.choice(["", "", "", " --size 192x128", " --size 128x192"])
        return f"{draw.choice(THINGS).format(one)} on a {other} background --seed {seed}{size}\n"

    for name in ("night/corgis", "night/hearts and stars", "pets/hats", "wallpapers"):
        path = inbox / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line(draw.randrange(10_000)) for _ in range(24)))
    (inbox / "studies").mkdir()
    (inbox / "studies/steps.yaml").write_text(
        "prompt: a corgi wearing a red hat on a yellow background\nseed: 31\n"
        "sweep:\n  cfg_scale: [5, 8]\n  steps: [6, 12, 24]\n"
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
            page.screenshot(user / "gallery.png")
            content = (user / "gallery.png").read_bytes()
        finally:
            driver.quit()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
    whole = Image.open(BytesIO(content)).convert("RGB")
    whole.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
