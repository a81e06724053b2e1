"""The whole job as a user sees it, with the real model: recipes in, pictures out."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.colours import background_of, colour_at, main_colours
from tests.commands.picowatch import DIGESTS, PROJECT, picowatch, start
from tests.daemon.processes import engines_of
from tests.files.test_pictures import adobe_rgb
from tests.house import wait_for, within

RECIPES = {
    "circle.txt": "a large red circle on a blue background --seed 2\n",
    "pets/corgi.yaml": (
        "prompt: a corgi wearing a red hat on a blue background\nseed: 7\ncount: 2\n"
    ),
    "rich.yaml": (
        "prompt: a (green:1.2) heart on a white background, [näch]\nsampler: Euler a\n"
        "steps: 12\nsize: 136x128\nseed: 3\nclip_skip: 2\nexact: true\n"
    ),
    "bad.yaml": "stesp: 300\n",
    "masked.yaml": (
        "prompt: a star\nseed: 1\nsteps: 2\nimage: start.png\nsize: 64x64\nmask: mask.png\n"
    ),
    "larger.yaml": "image: start.png\nupscale: {model: demo-compact, scale: 2}\n",
}


class Finished(NamedTuple):
    """A folder after one run, and what the run said."""

    folder: Path
    result: subprocess.CompletedProcess[str]

    def picture(self, name: str) -> Path:
        return self.folder / "outbox" / name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One `run --once` over all recipes above."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in RECIPES.items():
        path = folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    strong = Image.new("RGB", (64, 64), (200, 100, 50))
    strong.save(folder / "inbox/start.png", icc_profile=adobe_rgb())
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 16, 64))
    mask.save(folder / "inbox/mask.png")
    return Finished(folder, picowatch(folder, "run", "--once"))


def test_the_picture_shows_what_the_recipe_says(finished: Finished) -> None:
    """A red circle on blue."""
    picture = finished.picture("circle/0001-2.png")
    assert colour_at(picture, 0.5, 0.5) == "red"
    assert background_of(picture) == "blue"
    assert background_of(finished.picture("pets/corgi/0001-7.png")) == "blue"


def test_a_failed_recipe_gives_exit_code_1_and_the_rest_is_rendered(finished: Finished) -> None:
    """With a readable error file; plain lines on the console and in the log tell the story."""
    assert finished.result.returncode == 1
    error = (finished.folder / "outbox/bad.yaml.error.txt").read_text()
    assert "unknown field 'stesp'. Did you mean 'steps'?" in error
    assert len(list((finished.folder / "outbox").rglob("0*.png"))) == 6
    for line in ("pets/corgi.yaml: saved, 2 images queued", "circle.txt: circle/0001-2.png"):
        assert line in finished.result.stdout
        assert line in (finished.folder / "outbox/picowatch.log").read_text()
    assert finished.result.stderr == ""


def difference(one: Path, other: Path) -> int:
    """The largest difference of any channel of any pixel."""
    with Image.open(one) as first, Image.open(other) as second:
        pixels = (np.asarray(image.convert("RGB"), dtype=int) for image in (first, second))
        return int(np.abs(next(pixels) - next(pixels)).max())


def test_show_gives_the_whole_chunk_as_json(finished: Finished) -> None:
    """Everything docs/metadata.md lists: request, hashes, recipe, save, place, device, timings."""
    result = picowatch(finished.folder, "show", "--json", finished.picture("rich/0001-3.png"))
    as_logged = picowatch(finished.folder, "show", "--json", "rich/0001-3.png")
    assert as_logged.stdout == result.stdout, as_logged.stderr
    chunk = json.loads(result.stdout)
    assert chunk["request"]["clip_skip"] == 2
    assert chunk["recipe"] == "rich.yaml"
    assert len(chunk["save_digest"]) == len(chunk["digest"]) == 64
    rendered = chunk["rendered"]
    assert rendered["batch_size"] == 1
    assert rendered["device"]
    assert rendered["precision"]
    assert {"picowatch", "torch", "diffusers", "transformers"} <= set(rendered["versions"])
    assert {"encode", "denoise", "decode"} <= set(rendered["timings"])


class Daemon:
    """`picowatch run` in a user's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self.inbox.mkdir()
        self.process = start(folder, "run")
        wait_for((self.outbox / "now.txt").exists, "the daemon")

    def pictures(self, recipe: str, count: int) -> list[Path]:
        """Its pictures, once there are so many."""
        wait_for(lambda: len(list(self.outbox.glob(f"{recipe}/*.png"))) == count, recipe)
        return sorted(self.outbox.glob(f"{recipe}/*.png"))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.outbox / ".picowatch/status.json").read_text())
        return found

    def wait_until_drawing(self, recipe: str) -> None:

        def is_drawing() -> bool:
            found = self.status()
            return bool(found["recipe"] == recipe and found["step"])

        wait_for(is_drawing, "a step")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.process.kill()
    daemon.process.communicate()


def test_a_session_with_one_daemon(daemon: Daemon, finished: Finished) -> None:
    """All it does for a user, from its start to Ctrl-C; its engine starts once."""
    check_that_it_is_small_and_alone(daemon)
    check_the_edit_save_look_loop(daemon)
    engines = engines_of(daemon.process.pid)
    check_that_shown_recipes_give_the_same_pixels(daemon, finished)
    check_that_a_newer_save_stops_the_picture_in_progress(daemon)
    assert engines_of(daemon.process.pid) == engines
    check_that_ctrl_c_ends_it_within_two_seconds(daemon)
    assert not any(Path(f"/proc/{engine}").exists() for engine in engines)


def check_that_it_is_small_and_alone(daemon: Daemon) -> None:
    """No torch in it, no engine before the first image; a second one names it: exit code 3."""
    result = picowatch(daemon.folder, "run")
    assert result.returncode == 3
    pid = daemon.process.pid
    assert f"using the outbox {daemon.outbox} (process {pid})." in result.stderr
    memory = Path(f"/proc/{pid}/status").read_text()
    resident = int(memory.split("VmRSS:")[1].split()[0]) / 1024
    assert resident < 90, f"{resident:.0f} MB"
    assert not engines_of(pid)
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def check_the_edit_save_look_loop(daemon: Daemon) -> None:
    """The README's lines after `picowatch run`: save, look; edit, look; a mistake; fixed."""
    block = re.search(
        r"^```sh\npicowatch run .*\n((?:.*\n)*?)```$",
        (PROJECT / "README.md").read_text(),
        re.MULTILINE,
    )
    assert block
    circle, other_circle, mistake, fixed = block[1].splitlines()
    in_its_folder = partial(subprocess.run, shell=True, cwd=daemon.folder, check=True)
    in_its_folder(circle)
    assert main_colours(daemon.pictures("hello", 1)[0]) == {"red", "blue"}
    in_its_folder(other_circle)
    assert main_colours(daemon.pictures("hello", 2)[1]) == {"green", "blue"}
    latest = daemon.outbox / "latest.png"
    wait_for(lambda: main_colours(latest) == {"green", "blue"}, "latest.png")
    error = daemon.outbox / "mistake.yaml.error.txt"
    in_its_folder(mistake)
    wait_for(error.exists, "the error file")
    assert "Did you mean 'steps'?" in error.read_text()
    in_its_folder(fixed)
    wait_for(lambda: not error.exists(), "the error file's end")


def check_that_shown_recipes_give_the_same_pixels(daemon: Daemon, finished: Finished) -> None:
    """What `show` prints of two pictures, saved in another inbox."""
    originals = [finished.picture(name) for name in ("rich/0001-3.png", "circle/0001-2.png")]
    result = picowatch(finished.folder, "show", *originals)
    assert result.returncode == 0
    (daemon.inbox / "both.yaml").write_text(result.stdout)
    # The first is exact: the same pixels always. The other was made in another batch size.
    allowed = [0, 2]
    for original, remade, most in zip(originals, daemon.pictures("both", 2), allowed, strict=True):
        assert difference(original, remade) <= most, original


def check_that_a_newer_save_stops_the_picture_in_progress(daemon: Daemon) -> None:
    """At its next step."""
    recipe = daemon.inbox / "newer.yaml"
    recipe.write_text("prompt: a corgi\nsteps: 150\nseed: 1\nsize: 512x512\n")
    daemon.wait_until_drawing("newer.yaml")
    recipe.write_text("prompt: a red circle\nsteps: 4\nseed: 2\n")
    assert [picture.stem for picture in daemon.pictures("newer", 1)] == ["0002-2"]


def check_that_ctrl_c_ends_it_within_two_seconds(daemon: Daemon) -> None:
    """The image in progress goes back to the queue."""
    (daemon.inbox / "long.yaml").write_text("prompt: a corgi\nsteps: 150\ncount: 4\n")
    daemon.wait_until_drawing("long.yaml")
    started = time.monotonic()
    daemon.process.send_signal(signal.SIGINT)
    output, _ = daemon.process.communicate(timeout=60)
    assert time.monotonic() - started < within(2)
    assert daemon.process.returncode == 0
    assert "Traceback" not in output
    images = daemon.status()["images"]
    assert (images["running"], images["queued"]) == (0, 4)


def test_ctrl_c_in_a_single_run_gives_130(tmp_path: Path) -> None:
    """As shells expect it."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 150\ncount: 50\n")
    process = start(tmp_path, "run", "--once", program=DIGESTS)
    wait_for(lambda: engines_of(process.pid), "the engine")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_start_image_with_a_colour_profile_keeps_its_colours(finished: Finished) -> None:
    """As cameras embed them: pictures are in sRGB, in which the same colour has other numbers."""
    for folder, most in (("masked", 2), ("larger", 12)):  # the upscaler draws what it has learnt
        (path,) = finished.picture(folder).glob("*.png")
        with Image.open(path) as picture:
            right = picture.getpixel((picture.width - 8, picture.height // 2))
            assert isinstance(right, tuple)
            assert all(abs(a - b) <= most for a, b in zip(right, (227, 100, 42), strict=True))
            assert "icc_profile" not in picture.info
            assert picture.info.get("srgb") == 0
