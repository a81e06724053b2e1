"""The whole job as a user sees it, with the real model: recipes in, pictures out."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sd_parsers import ParserManager

from tests.colours import background_of, colour_at, main_colours
from tests.commands.picowatch import PROJECT, picowatch, start
from tests.files.test_pictures import adobe_rgb
from tests.house import wait_for, within

RECIPES = {
    "circle.txt": "a large red circle on a blue background --seed 2\n",
    "pets/corgi.yaml": (
        "prompt: a corgi wearing a red hat on a blue background\nseed: 7\ncount: 2\n"
    ),
    "rich.yaml": (
        "prompt: a (green:1.2) heart on a white background, [näch]\n"
        "negative_prompt: 'blurry, \"dim\": x'\n"
        "sampler: Euler a\nsteps: 12\ncfg_scale: 5\nsize: 136x128\nseed: 3\nclip_skip: 2\n"
        "exact: true\n"
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


def test_a_second_run_renders_nothing_again(finished: Finished) -> None:
    """And is quick: no engine is started."""
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("0*.png")}
    result = picowatch(finished.folder, "run", "--once")
    assert result.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("0*.png")} == before


def test_sd_parsers_reads_every_value(finished: Finished) -> None:
    """A1111's text, as other tools read it."""
    parsed = ParserManager().parse(finished.picture("rich/0001-3.png"))
    assert parsed is not None
    (sampler,) = parsed.samplers
    assert sampler.name == "Euler a"
    assert sampler.parameters == {
        "steps": "12",
        "cfg_scale": "5",
        "seed": "3",
        "scheduler": "Uniform",
    }
    assert [prompt.value for prompt in sampler.prompts] == [
        "a (green:1.2) heart on a white background, [näch]"
    ]
    assert [prompt.value for prompt in sampler.negative_prompts] == ['blurry, "dim": x']
    assert sampler.model is not None
    assert sampler.model.name == "demo"
    assert len(sampler.model.hash or "") == 10
    assert parsed.metadata["Size"] == "136x128"
    assert parsed.metadata["Clip skip"] == "2"


def test_show_prints_a_recipe_that_gives_the_same_pixels(finished: Finished) -> None:
    """Dropped into an inbox it gives the picture again."""
    names = ("rich/0001-3.png", "circle/0001-2.png")
    result = picowatch(finished.folder, "show", *(finished.picture(name) for name in names))
    assert result.returncode == 0
    again = finished.folder / "again"
    (again / "inbox").mkdir(parents=True)
    (again / "inbox/both.yaml").write_text(result.stdout)
    assert picowatch(again, "run", "--once").returncode == 0
    remade = sorted((again / "outbox/both").glob("*.png"))
    for name, picture in zip(names, remade, strict=True):
        # The first is exact: the same pixels always. The other was made in another batch size.
        allowed = 0 if name.startswith("rich") else 2
        assert difference(finished.picture(name), picture) <= allowed, name


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


Daemon = tuple[Path, "subprocess.Popen[str]"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A started daemon in a user's folder."""
    (tmp_path / "inbox").mkdir()
    process = start(tmp_path, "run")
    wait_for((tmp_path / "outbox/now.txt").exists, "the daemon")
    yield tmp_path, process
    process.kill()
    process.communicate()


def readme_loop() -> list[str]:
    """The README's lines after `picowatch run`."""
    text = (PROJECT / "README.md").read_text()
    block = re.search(r"^```sh\npicowatch run .*\n((?:.*\n)*?)```$", text, re.MULTILINE)
    assert block
    return block[1].splitlines()


def test_the_edit_save_look_loop(daemon: Daemon) -> None:
    """Save, look; edit, look; a mistake, an error file; fixed; killed; each picture once."""
    folder, process = daemon
    outbox = folder / "outbox"
    circle, other_circle, mistake, fixed = readme_loop()

    subprocess.run(circle, shell=True, cwd=folder, check=True)
    wait_for(lambda: len(list(outbox.glob("hello/*.png"))) == 1, "the first picture")
    assert main_colours(next(outbox.glob("hello/0001-*.png"))) == {"red", "blue"}

    subprocess.run(other_circle, shell=True, cwd=folder, check=True)
    wait_for(lambda: len(list(outbox.glob("hello/*.png"))) == 2, "the second picture")
    assert main_colours(next(outbox.glob("hello/0002-*.png"))) == {"green", "blue"}
    wait_for(lambda: main_colours(outbox / "latest.png") == {"green", "blue"}, "latest.png")

    error = outbox / "mistake.yaml.error.txt"
    subprocess.run(mistake, shell=True, cwd=folder, check=True)
    wait_for(error.exists, "the error file")
    assert "Did you mean 'steps'?" in error.read_text()
    subprocess.run(fixed, shell=True, cwd=folder, check=True)
    wait_for(lambda: not error.exists(), "the error file's end")

    (folder / "inbox/many.yaml").write_text("prompt: a corgi\ncount: 20\nsize: 64x64\n")
    wait_for(lambda: list(outbox.glob("many/*.png")), "some of the twenty")
    process.kill()
    process.wait()
    wait_for(lambda: not engines_in(folder), "the engine's end")
    assert len(list(outbox.glob("many/*.png"))) < 20
    assert picowatch(folder, "status").returncode == 1
    assert picowatch(folder, "run", "--once").returncode == 0
    seeds = sorted(int(path.stem.split("-")[1]) for path in outbox.glob("many/*.png"))
    assert seeds == list(range(seeds[0], seeds[0] + 20))


def engines_in(folder: Path) -> list[str]:
    """Processes of an engine whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
            if "--multiprocessing-fork" in words and (process / "cwd").resolve() == folder:
                found.append(process.name)
        except OSError:
            continue
    return found


def is_accepted(status: Path, images: int) -> bool:
    """The engine starts while a save settles, so before its images are in the queue."""
    counts = json.loads(status.read_text())["images"]
    return bool(counts["queued"] + counts["running"] == images)


def check_a_newer_save(folder: Path) -> None:
    """It stops the picture in progress at its next step, without restarting the engine."""
    status, recipe = folder / "outbox/.picowatch/status.json", folder / "inbox/b.yaml"
    recipe.write_text("prompt: a corgi\nsteps: 150\nseed: 1\nsize: 512x512\n")
    wait_for(lambda: json.loads(status.read_text())["step"] > 0, "a step")
    engines = engines_in(folder)
    recipe.write_text("prompt: a red circle\nsteps: 4\nseed: 2\n")
    wait_for(lambda: list(folder.glob("outbox/b/*.png")), "the other picture")
    assert [picture.stem for picture in folder.glob("outbox/b/*.png")] == ["0002-2"]
    assert engines_in(folder) == engines


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGTERM, "idle"),
        (signal.SIGINT, "idle"),
        (signal.SIGTERM, "engine start"),
        (signal.SIGINT, "rendering"),
        # Each of these starts torch once more.
        pytest.param(signal.SIGINT, "engine start", marks=pytest.mark.heavy),
        pytest.param(signal.SIGTERM, "rendering", marks=pytest.mark.heavy),
    ],
)
def test_a_signal_ends_it_within_two_seconds(
    daemon: Daemon, number: signal.Signals, phase: str
) -> None:
    """In every phase, the engine with it; the image in progress goes back to the queue."""
    folder, process = daemon
    status = folder / "outbox/.picowatch/status.json"
    if phase == "rendering":
        check_a_newer_save(folder)
    if phase != "idle":
        (folder / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 150\ncount: 4\n")
        wait_for(lambda: engines_in(folder), "the engine")
        wait_for(lambda: is_accepted(status, 4), "the images")
    if phase == "rendering":
        wait_for(lambda: json.loads(status.read_text())["step"] > 0, "a step")
    started = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < within(2)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert not engines_in(folder)
    images = json.loads(status.read_text())["images"]
    assert images["running"] == 0
    assert images["queued"] == (0 if phase == "idle" else 4)


def test_ctrl_c_in_a_single_run_gives_130(tmp_path: Path) -> None:
    """As shells expect it."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 150\ncount: 50\n")
    process = start(tmp_path, "run", "--once")
    wait_for(lambda: engines_in(tmp_path), "the engine")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_the_daemon_is_small_and_alone(daemon: Daemon) -> None:
    """No torch in it, no engine before the first image; a second one names it: exit code 3."""
    folder, process = daemon
    result = picowatch(folder, "run")
    assert result.returncode == 3
    assert f"using the outbox {folder}/outbox (process {process.pid})." in result.stderr
    assert process.poll() is None
    memory = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(memory.split("VmRSS:")[1].split()[0]) / 1024
    assert resident < 90, f"{resident:.0f} MB"
    assert not engines_in(folder)
    assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.heavy
def test_two_engines_render_the_same_pictures(tmp_path: Path) -> None:
    """Bit for bit, whichever engine made which; both of them worked."""
    for name in ("a", "b"):
        path = tmp_path / f"inbox/{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("prompt: a red circle\nseed: 1\ncount: 12\nsteps: 6\n")
    settings = {"PICOWATCH_EXECUTOR": "local:2", "PICOWATCH_BATCH_SIZE": "1"}
    assert picowatch(tmp_path, "run", "--once", **settings).returncode == 0
    outbox = tmp_path / "outbox"
    for number in range(1, 13):
        one, other = (
            np.asarray(Image.open(outbox / f"{recipe}/{number:04}-{number}.png"))
            for recipe in ("a", "b")
        )
        assert np.array_equal(one, other)
    status = json.loads((outbox / ".picowatch/status.json").read_text())
    made = [engine["images"] for engine in status["engines"]]
    assert sum(made) == 24
    assert all(made)


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
