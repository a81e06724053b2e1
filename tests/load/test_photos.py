"""How much memory photos of cameras' sizes take."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.folders import Folders, peak_of
from tests.house import wait_for

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

BESIDE = 300  # MB of the daemon, at most, beside the pixels of the result
LARGE, USUAL = (9504, 6336), (6000, 4000)


def photo(path: Path, kind: str, size: tuple[int, int], bits: int = 8, **options: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (100, 150, 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    if bits == 16:
        picture = picture.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    picture.save(path, kind, **options)


def peak_of_a_run(folder: Path, template: str, make_photos: Callable[[Path], None]) -> float:
    """Return the most MB that the daemon of `run --once` had at once."""
    folders, peak = Folders(folder), 0
    (photos := folders.inbox / "p").mkdir()
    (photos / "_pictures.yaml").write_text(template)
    make_photos(photos)
    process = folders.command("run", "--once")

    def has_ended() -> bool:
        nonlocal peak
        with suppress(OSError, StopIteration):  # it has ended
            peak = max(peak, peak_of(process.pid))
        return process.poll() is not None

    wait_for(has_ended, "the run's end")
    assert process.returncode == 0, folders.said()
    return peak / 1e6


@pytest.mark.parametrize(
    ("kind", "size", "options", "template", "result"),
    [
        ("JPEG", LARGE, {}, "resize_to: 1600\nformat: jpeg\n", (1600, 1067)),
        ("JPEG", LARGE, {"progressive": True}, "format: webp\n", LARGE),
        ("JPEG", LARGE, {}, "format: same\ncolour: same\n", LARGE),
        ("PNG", USUAL, {"compress_level": 1}, "format: png\n", USUAL),
        ("TIFF", USUAL, {"compression": "tiff_lzw"}, "format: same\ncolour: same\n", USUAL),
        ("PNG", USUAL, {"bits": 16, "compress_level": 1}, "format: tiff\ncolour: same\n", USUAL),
    ],
)
def test_the_daemon_holds_the_pixels_and_little_else(
    tmp_path: Path,
    kind: str,
    size: tuple[int, int],
    options: dict[str, Any],
    template: str,
    result: tuple[int, int],
) -> None:
    """Whatever decodes, computes or encodes is a process of its own."""

    def make(folder: Path) -> None:
        photo(folder / f"a.{kind.lower()}", kind, size, **options)

    peak = peak_of_a_run(tmp_path, template, make)
    (made,) = (tmp_path / "outbox/p").glob("a.*")
    with Image.open(made) as picture:
        assert picture.size == result
    deep = 2 if options.get("bits") == 16 else 1
    assert peak <= BESIDE + result[0] * result[1] * 3 * deep / 1e6


def test_copies_of_many_photos_do_not_add_up(tmp_path: Path) -> None:
    """Few of them wait for being written, however many are requested."""

    def make(folder: Path) -> None:
        photo(folder / "000.jpg", "JPEG", (1800, 1200))
        for number in range(1, 100):
            shutil.copy(folder / "000.jpg", folder / f"{number:03}.jpg")

    assert peak_of_a_run(tmp_path, "resize_to: 1600\nformat: jpeg\n", make) <= BESIDE
    assert len([*(tmp_path / "outbox/p").iterdir()]) == 100
