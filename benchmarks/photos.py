"""A folder of photos of 12 megapixels through a template, by the embedded models on the CPU.

    python -m benchmarks.photos [--photos 1000] [--template "cutout: demo-cutout"]

Makes the photos in a temporary folder (some 2.2 MB each): noise of several sizes, as detailed as a
photo, each moved a little, with a camera's EXIF.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.folders import Folders, peak_of, processor_seconds, running
from benchmarks.measuring import machine, number

SIZE = 4000, 3000
# Cells of noise by the pixels of their sides, and how much of the picture they are.
NOISE = {400: 0.6, 60: 0.25, 8: 0.12, 2: 0.05}
STRIDE = 50  # photos between two lines of progress
MB = 1e6


def drawn(size: tuple[int, int] = SIZE, seed: int = 3) -> Image.Image:
    """A picture that is as detailed as a photo."""
    rng, (width, height) = np.random.default_rng(seed), size
    pixels = np.zeros((height, width, 3), np.float32)
    for side, share in NOISE.items():
        cells = rng.integers(0, 256, (height // side, width // side, 3), np.uint8)
        large = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
        pixels += share * np.asarray(large, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_photos(folder: Path, count: int) -> None:
    photo = np.asarray(drawn())
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "EOS R5"
    for index in range(count):
        moved = Image.fromarray(np.roll(photo, 37 * index, axis=1))
        moved.save(folder / f"IMG_{index:04}.jpg", quality=92, exif=exif)


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.jpg")) / MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--template", default="upscale: {model: demo-compact, scale: 1}")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(Path(temporary))
        photos = folders.inbox / "photos"
        photos.mkdir()
        make_photos(photos, arguments.photos)
        (photos / "_pictures.yaml").write_text(f"{arguments.template}\nformat: same\n")
        began = time.monotonic()
        with running(folders) as daemon:
            for count in (*range(STRIDE, arguments.photos, STRIDE), arguments.photos):
                daemon.wait_for_pictures(count)
                print(f"{count} after {time.monotonic() - began:.0f} s", flush=True)
            for index, process in enumerate(daemon.processes()):
                who = "child" if index else "daemon"
                seconds, peak = processor_seconds(process), peak_of(process)
                each = number(seconds / arguments.photos)
                print(f"{who}: {each} s of processor time a photo, {peak / MB:.0f} MB at most")
        print(f"inbox {megabytes(photos):.0f} MB, outbox {megabytes(folders.outbox):.0f} MB")


if __name__ == "__main__":
    main()
