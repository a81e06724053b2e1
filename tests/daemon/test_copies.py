"""Copies of pictures without a model: resized, or written in another format."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from picowatch.engine.drawing.copies import CopyRenderer
from picowatch.engine.process.child import ChildEngine, CopyEngines
from picowatch.engine.protocol import EngineCannotStart, EngineOptions
from tests.house import House, wait_for


class DyingRenderer(CopyRenderer):
    """Dies of pictures called bad, as of one that breaks a decoder."""

    def render(self, batch: Any, *others: Any) -> Any:
        if any("bad" in request.image for request in batch):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().render(batch, *others)


WEB = "resize_to: 60\nformat: jpeg\nquality: 85\n"


pytestmark = pytest.mark.usefixtures("copies_here")


@pytest.fixture(autouse=True)
def no_engine(house: House) -> None:
    """Let everything fail that asks for the engine of models; tests that need it set it free."""
    house.engine.before_batch = _fail


def _fail(batch: Any) -> None:
    raise EngineCannotStart("There is no torch here.")


def opened(path: Path) -> Image.Image:
    """Return a picture that is decoded, with its file closed."""
    with Image.open(path) as picture:
        picture.load()
        return picture


def sizes(house: House) -> dict[str, tuple[int, int]]:
    return {path: opened(house.outbox / path).size for path in house.pictures()}


def shoot(house: House, name: str, turned: int = 1) -> Path:
    """Save a photo with what cameras write, 120x80 pixels before it is turned upright."""
    path = house.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = Image.linear_gradient("L").resize((120, 80)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon"
    exif[ExifTags.Base.Orientation] = turned
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    photo.save(path, exif=exif)
    return path


def test_a_folder_is_made_smaller_without_any_model(house: House) -> None:
    """Upright, with what the photos say, no mark, and no engine of models."""
    house.save("web/_pictures.yaml", f"{WEB}keep_exif: no_place\n")
    shoot(house, "web/wide.jpg")
    shoot(house, "web/a/high.jpg", turned=6)
    shoot(house, "web/small.png").rename(house.inbox / "web/_DSC1.JPE")
    house.draw("web/tiny.webp", size=(20, 10))
    assert house.once()
    assert sizes(house) == {
        "web/wide.jpg": (60, 40),
        "web/a/high.jpg": (40, 60),
        "web/_DSC1.jpg": (60, 40),
        "web/tiny.jpg": (20, 10),
    }
    copy = opened(house.outbox / "web/wide.jpg")
    assert copy.getexif()[ExifTags.Base.Make] == "Canon"
    assert not copy.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert "DigitalSourceType" not in str(copy.info.get("xmp"))
    chunk = house.chunk("web/wide.jpg")
    assert (chunk.rendered["device"], "torch" in chunk.rendered["versions"]) == ("cpu", False)
    assert not house.engine.batches
    assert house.once(), "and nothing is made twice"
    assert len(house.listed()) == 4


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_empty_text_beside_a_copy_goes_with_it(house: House, kind: str) -> None:
    house.save("web/_pictures.yaml", f"resize_to: 60\nformat: {kind}\n")
    shoot(house, "web/wide.jpg")
    assert house.once(sidecar="txt")
    assert house.answer("keep", "best", "web").done
    assert [path.parent.name for path in house.outbox.rglob("wide.txt")] == ["best"]
    assert house.answer("delete", None, "best").done
    assert not [*house.outbox.rglob("wide.*")]


def test_bits_that_are_lost_are_told_though_nothing_else_is_kept(house: House) -> None:
    house.save("web/_pictures.yaml", f"{WEB}keep_exif: none\n")
    Image.new("I;16", (120, 80), 40_000).save(house.inbox / "web/deep.png")
    assert house.once(ai_mark=False)
    told = (house.outbox / "web/_pictures.yaml.warning.txt").read_text()
    assert "The photo has more than 8 bits a channel; the picture has 8" in told


@pytest.mark.parametrize(
    ("folder", "template"), [("checkpoint: demo", "format: same"), ("", "steps: 9\nformat: same")]
)
def test_a_format_beside_words_about_drawing_waits_for_prompts(
    house: House, folder: str, template: str
) -> None:
    """As ever, wherever these words are; a text beside a picture is its prompt."""
    house.engine.before_batch = lambda batch: None
    house.save("in/_defaults.yaml", f"{folder}\nsize: 64x64\n")
    house.save("in/_pictures.yaml", template)
    shoot(house, "in/a.jpg")
    shoot(house, "in/b.jpg")
    house.save("in/a.txt", "a corgi")
    assert house.once() is False
    assert house.prompts() == ["a corgi"]
    error = house.error("in/_pictures.yaml") or ""
    assert "For smaller copies of the pictures, write resize_to: 1600." in error


def test_what_a_folder_says_of_formats_asks_for_no_copy(house: House) -> None:
    """And a folder's resize_to does."""
    house.save("_defaults.yaml", "format: jpeg\n")
    house.save("in/_pictures.yaml", "priority: 1\n")
    shoot(house, "in/a.jpg")
    assert house.once() is False
    assert "Pictures without a prompt" in (house.error("in/_pictures.yaml") or "")
    house.save("_defaults.yaml", "format: jpeg\nresize_to: 30\n")
    shoot(house, "in/b.jpg")
    assert house.once()
    assert sizes(house)["in/b.jpg"] == (30, 20)


def test_the_first_copy_waits_for_no_scan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("daemon.round.IDLE", "inbox.inbox.SCAN", "inbox.inbox.MOST_SCAN"):
        monkeypatch.setattr(f"picowatch.{name}_SECONDS", 600.0)
    house.save("web/_pictures.yaml", WEB)
    shoot(house, "web/a.jpg")
    with house.running():
        wait_for(lambda: house.pictures("web"), "the copy")


def test_copies_do_not_wait_for_a_model(house: House) -> None:
    """They are made while another picture is being drawn, and the status tells of both."""
    house.engine.before_batch = lambda batch: None
    with house.held("slow.yaml", "prompt: a\nseed: 1\nsize: 64x64\n") as held:
        house.save("web/_pictures.yaml", WEB)
        shoot(house, "web/a.jpg")
        wait_for(lambda: house.pictures("web"), "the copy")
        assert house.pictures() == ["web/a.jpg"]
        held.release()
        wait_for(lambda: len(house.listed()) == 2, "the drawing")


def test_a_pause_holds_copies_and_a_deleted_picture_is_not_copied(house: House) -> None:
    """As everything else that waits."""
    assert house.answer("pause").done
    house.save("web/_pictures.yaml", WEB)
    photo = shoot(house, "web/a.jpg")
    shoot(house, "web/b.jpg")
    assert not house.once(), "two wait"
    assert not house.pictures()
    photo.unlink()
    assert house.answer("resume").done
    house.once()
    assert house.pictures() == ["web/b.jpg"]


def test_a_picture_that_kills_its_process_fails_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picowatch.engine.process.child.ChildEngine", ChildEngine)
    monkeypatch.setattr("picowatch.engine.process.child_main.new_copy_renderer", DyingRenderer)
    house.save("web/_pictures.yaml", WEB)
    for name in ("a", "bad", "c"):
        shoot(house, f"web/{name}.jpg")
    assert house.once() is False
    assert house.pictures() == ["web/a.jpg", "web/c.jpg"]
    assert "That was attempt 2." in (house.error("web/bad.jpg") or "")


def test_there_is_a_process_a_core_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    copying = CopyEngines(EngineOptions(models=tmp_path))
    copying.wanted = 9
    assert len(copying.engines()) == 2
