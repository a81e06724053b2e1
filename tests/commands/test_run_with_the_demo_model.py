"""The whole job as a user sees it, with the real model: recipes in, pictures out."""

import re
import signal
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.colours import main_colours
from tests.commands.picowatch import DIGESTS, PROJECT, picowatch_here, started
from tests.daemon.processes import ends, engines_of
from tests.house import House, wait_for

RECIPES = {
    "circle.txt": "a large red circle on a blue background --seed 2\n",
    "rich.yaml": (
        "prompt: a (green:1.2) heart on a white background, [näch]\nsampler: Euler a\n"
        "steps: 12\nsize: 136x128\nseed: 3\nclip_skip: 2\nexact: true\n"
    ),
}


def test_a_session_with_one_daemon(house: House) -> None:
    """All it does for a user, from its start to Ctrl-C; its engine starts once."""
    with started(house.folder, "run") as daemon:
        wait_for((house.outbox / "now.txt").exists, "the daemon")
        check_that_it_is_small(daemon.pid)
        check_the_edit_save_look_loop(house)
        engines = engines_of(daemon.pid)
        check_that_shown_recipes_give_the_same_pixels(house)
        check_that_a_newer_save_stops_the_picture_in_progress(house)
        assert engines_of(daemon.pid) == engines
        said = check_that_ctrl_c_ends_it_within_two_seconds(house, daemon)
    assert not any(Path(f"/proc/{engine}").exists() for engine in engines)
    for line in ("both.yaml: saved, 2 images queued", "circle.txt: circle/0001-2.png"):
        assert line in said and line in house.log()


def rendered(house: House, recipe: str, count: int) -> list[Path]:
    wait_for(lambda: len(house.pictures(recipe)) == count, recipe)
    return [house.outbox / picture for picture in house.pictures(recipe)]


def wait_until_drawing(house: House, recipe: str) -> None:
    wait_for(lambda: (found := house.status())["recipe"] == recipe and found["step"], "a step")


def check_that_it_is_small(pid: int) -> None:
    """No torch in it, and no engine before the first image."""
    memory = Path(f"/proc/{pid}/status").read_text()
    resident = int(memory.split("VmRSS:")[1].split()[0]) / 1024
    assert resident < 90, f"{resident:.0f} MB"
    assert not engines_of(pid)
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def check_the_edit_save_look_loop(house: House) -> None:
    """The README's lines after `picowatch run`: save, look; edit, look; a mistake; fixed."""
    text = (PROJECT / "README.md").read_text()
    block = re.search(r"^```sh\npicowatch run .*\n((?:.*\n)*?)```$", text, re.MULTILINE)
    assert block
    circle, other_circle, mistake, fixed = block[1].splitlines()
    in_its_folder = partial(subprocess.run, shell=True, cwd=house.folder, check=True)
    in_its_folder(circle)
    assert main_colours(rendered(house, "hello", 1)[0]) == {"red", "blue"}
    in_its_folder(other_circle)
    assert main_colours(rendered(house, "hello", 2)[1]) == {"green", "blue"}
    latest = house.outbox / "latest.png"
    wait_for(lambda: main_colours(latest) == {"green", "blue"}, "latest.png")
    in_its_folder(mistake)
    wait_for(lambda: house.error("mistake.yaml"), "the error file")
    assert "Did you mean 'steps'?" in (house.error("mistake.yaml") or "")
    in_its_folder(fixed)
    wait_for(lambda: not house.error("mistake.yaml"), "the error file's end")


def check_that_shown_recipes_give_the_same_pixels(house: House) -> None:
    """What `show` prints of two pictures, called as the log calls them, in another recipe."""
    for name, text in RECIPES.items():
        house.save(name, text)
    originals = [*rendered(house, "rich", 1), *rendered(house, "circle", 1)]
    names = (path.relative_to(house.outbox) for path in originals)
    result = picowatch_here(house.folder, "show", *names)
    assert result.returncode == 0
    house.save("both.yaml", result.stdout)
    # The first is exact: the same pixels always. The other is made in another batch size.
    for original, again, most in zip(originals, rendered(house, "both", 2), (0, 2), strict=True):
        with Image.open(original) as one, Image.open(again) as two:
            pixels, same = (np.asarray(image.convert("RGB"), dtype=int) for image in (one, two))
        assert np.abs(pixels - same).max() <= most, original


def check_that_a_newer_save_stops_the_picture_in_progress(house: House) -> None:
    """At its next step."""
    house.save("newer.yaml", "prompt: a corgi\nsteps: 150\nseed: 1\nsize: 256x256\n")
    wait_until_drawing(house, "newer.yaml")
    house.save("newer.yaml", "prompt: a red circle\nsteps: 4\nseed: 2\n")
    assert [picture.stem for picture in rendered(house, "newer", 1)] == ["0002-2"]


def check_that_ctrl_c_ends_it_within_two_seconds(
    house: House, daemon: "subprocess.Popen[str]"
) -> str:
    """The image in progress goes back to the queue. Returns what it has printed."""
    house.save("long.yaml", "prompt: a corgi\nsteps: 150\ncount: 4\n")
    wait_until_drawing(house, "long.yaml")
    output = ends(daemon, signal.SIGINT)
    images = house.status()["images"]
    assert (images["running"], images["queued"]) == (0, 4)
    return output


def test_ctrl_c_in_a_single_run_gives_130(house: House) -> None:
    house.save("a.yaml", "prompt: a corgi\nsteps: 150\ncount: 50\n")
    with started(house.folder, "run", "--once", program=DIGESTS) as process:
        wait_for(lambda: engines_of(process.pid), "the engine")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
