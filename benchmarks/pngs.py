"""How fast PNGs are written, and how large they are, beside other options of Pillow's encoder.

    python -m benchmarks.pngs [--rounds 5] [--others compress_level=4 …]

Pictures are a photo of 12 megapixels and a part of it, opaque and cut out; with the pictures of
the demo model that docs/images/ shows, and a screenshot.
"""

import argparse
import time
from collections.abc import Mapping
from io import BytesIO

from PIL import Image, ImageDraw

from benchmarks import photos
from benchmarks.folders import PROJECT
from benchmarks.measuring import compared, machine, number
from picowatch.files.decoding import Original
from picowatch.outbox.encoding import encode_png

SIDE = 1024
SHOWN = ("demo", "hires", "upscale", "sweep", "gallery")


def pictures() -> Mapping[str, Image.Image]:
    """The pictures by what they are."""
    photo = photos.drawn()
    part = photo.crop((0, 0, SIDE, SIDE))
    cut_out = part.copy()
    mask = Image.new("L", part.size)
    ImageDraw.Draw(mask).ellipse((SIDE // 8, SIDE // 8, SIDE * 7 // 8, SIDE * 7 // 8), fill=255)
    cut_out.putalpha(mask)
    shown = {f"{name}.png": _shown(name) for name in SHOWN}
    return {"photo": photo, "part of it": part, "part of it, cut out": cut_out, **shown}


def _shown(name: str) -> Image.Image:
    with Image.open(PROJECT / f"docs/images/{name}.png") as picture:
        return picture.convert("RGB")


def timed(picture: Image.Image, other: Mapping[str, int] | None = None) -> tuple[float, int]:
    """Seconds of processor time, and bytes; in picowatch's way or with other options."""
    began = time.process_time()
    if other is None:
        size = len(encode_png(Original(picture), {}))
    else:
        file = BytesIO()
        picture.save(file, "PNG", **other)
        size = len(file.getvalue())
    return time.process_time() - began, size


def _option(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    return name, int(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", nargs="+", type=_option, default=[("compress_level", 4)])
    arguments = parser.parse_args()
    others = dict(arguments.others)
    print(machine())
    print(f"| picture | picowatch | {others} | times as much | bytes, of the others' |")
    print("|---|---|---|---|---|")
    for what, picture in pictures().items():
        rounds = [(timed(picture), timed(picture, others)) for _ in range(arguments.rounds)]
        ours, theirs = ([pair[way][0] for pair in rounds] for way in (0, 1))
        share = rounds[0][0][1] / rounds[0][1][1]
        width, height = picture.size
        row = compared(f"{what}, {width}x{height}", ours, theirs)
        print(f"{row} {number(share * 100)} % |", flush=True)


if __name__ == "__main__":
    main()
