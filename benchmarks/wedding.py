"""A wedding as cameras name it, through three templates, while picowatch is killed three times.

    python -m benchmarks.wedding [--photos 600]

Makes the photos in a temporary folder: Adobe RGB under names that begin with an underscore, HEIC,
61 megapixels, TIFF in 16 bits, notes, a RAW, one that is cut off, subfolders with umlauts. Counts
what became of each, and compares the results' metadata by exiftool with the photos'.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from benchmarks.cameras import differences, tags_of
from benchmarks.folders import PATIENCE, Folders, peak_of, running
from benchmarks.measuring import machine, wait_until
from benchmarks.photos import MB, drawn

TEMPLATES = {
    "web": "resize_to: 1600\nformat: jpeg\nquality: 85\nkeep_exif: no_place\n",
    "prints": "upscale: {model: demo-compact, scale: 2}\nformat: same\n",
    "shop": "cutout: {model: demo-cutout, background: white, size: 800x800}\nformat: jpeg\n",
}
SUBFOLDERS = ("Trauung", "Gäste/Tisch 1", "Größe é", "")
ADOBE_RGB = Path("/usr/share/color/icc/ghostscript/a98.icc")  # of Debian's libgs-common
LARGE = 9504, 6336  # 61 megapixels
PROFILE = "ICC_Profile:ProfileDescription"


def camera_data(index: int) -> Image.Exif:
    """Return a camera's EXIF: a date, an artist, a place, and an orientation."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x013B] = "Canon", "EOS R5", "Anna"
    exif[0x0112] = (1, 6, 8, 3)[index % 4]
    exif.get_ifd(0x8769)[0x9003] = f"2026:05:02 14:{index // 60 % 60:02}:{index % 60:02}"
    place = exif.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (52.0, 31.0, 12.0), "E", (13.0, 24.0, 18.0)
    return exif


def make_photos(folder: Path, count: int) -> None:
    """Write the photos, with what lies beside them."""
    few = [drawn((1800, 1200), seed) for seed in range(12)]
    profile = ADOBE_RGB.read_bytes() if ADOBE_RGB.exists() else None
    for index in range(count):
        of_hundred = index * 37 % 100
        place = "prints" if of_hundred < 15 else "shop" if of_hundred < 30 else "web"
        parent = folder / place / SUBFOLDERS[index % len(SUBFOLDERS)]
        parent.mkdir(parents=True, exist_ok=True)
        photo = Image.fromarray(np.roll(np.asarray(few[index % 12]), 13 * index, axis=1))
        exif = camera_data(index)
        match index % 20:
            case 3 | 4 | 5 | 6 | 7:
                photo.save(
                    parent / f"_DSC{index:04}.JPG", quality=92, exif=exif, icc_profile=profile
                )
            case 8 | 9:
                exif[0x0112] = 1  # HEIC has a turn of its own
                heif = pillow_heif.from_pillow(photo)
                heif.save(parent / f"IMG_{index:04}.HEIC", quality=80, exif=exif.tobytes())
            case 10:
                photo.save(parent / f"scan {index:04}.tif", exif=exif)
            case 11:
                deep = Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257)
                deep.save(parent / f"deep {index:04}.tif")
            case _:
                photo.save(parent / f"IMG_{index:04}.jpg", quality=92, exif=exif)
        if index % 50 == 1:
            (parent / f"IMG_{index:04}.txt").write_text("for the album, cropped a little\n")
    large = drawn(LARGE, 99)
    for number in range(3):
        large.save(folder / f"web/A7R{number}.JPG", quality=90, exif=camera_data(number))
    whole = (folder / "web/A7R0.JPG").read_bytes()
    (folder / "web/cut off.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "web/IMG_9999.CR3").write_bytes(b"\0" * 1000)


def lost_metadata(folders: Folders) -> Iterator[str]:
    """Yield what results lack of their photos' metadata, or have though they should not."""
    lines = [json.loads(line) for line in (folders.outbox / "images.jsonl").open()]
    pairs = {line["file"]: line["recipe"] for line in lines if line.get("file")}
    photos, results = tags_of(folders.inbox, pairs.values()), tags_of(folders.outbox, pairs)
    for file, photo in pairs.items():
        has_place = not file.startswith("wedding/web/")
        yield from differences(photos[photo], results[file], has_place=has_place)
        if PROFILE in photos[photo].keys() - results[file].keys():
            yield "no profile"


def kill_three_times(folders: Folders, count: int) -> Iterator[float]:
    """Run picowatch until all is done, with three kills; yield the peaks of its memory, in MB."""
    for share in (0.2, 0.5, 0.8, None):
        with running(folders) as daemon:
            if share is None:
                wait_until(lambda: is_finished(folders), "the end", 2 * PATIENCE, 1.0)
            else:
                daemon.wait_for_pictures(round(share * count))
            yield max(peak_of(process) for process in daemon.processes()[:1]) / MB
            if share is not None:
                daemon.kill()


def account(folders: Folders) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, "-m", "picowatch", "status", "wedding", "--all", "--json"],
        cwd=folders.folder,
        capture_output=True,
        check=False,
    )
    told: dict[str, Any] = json.loads(said.stdout or "{}")
    return {**told.get("account", {}), "failures": told.get("failures", [])}


def is_finished(folders: Folders) -> bool:
    found = account(folders)
    return bool(found.get("requested")) and not (found["waiting"] or found["running"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=600)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(Path(temporary))
        wedding = folders.inbox / "wedding"
        for name, template in TEMPLATES.items():
            (wedding / name).mkdir(parents=True)
            (wedding / name / "_pictures.yaml").write_text(template)
        make_photos(wedding, arguments.photos)
        began = time.monotonic()
        peaks = [*kill_three_times(folders, arguments.photos)]
        found = account(folders)
        print(f"{time.monotonic() - began:.0f} s; the daemon had {max(peaks):.0f} MB at most")
        files = Counter(path.suffix.lower() for path in wedding.rglob("*") if path.is_file())
        print("files:", ", ".join(f"{count} {ending}" for ending, count in files.most_common()))
        print({name: value for name, value in found.items() if name not in ("failures", "ignored")})
        for failure in (*found.get("failures", ()), *found.get("ignored", ())):
            print(" ", failure)
        print("metadata:", Counter(lost_metadata(folders)) or "as it should be")


if __name__ == "__main__":
    main()
