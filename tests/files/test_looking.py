"""Photos of cameras' sizes are checked without the daemon's memory."""

import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files import looking, pictures
from picowatch.files.looking import look
from picowatch.files.pictures import USUAL_PIXELS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the questions that processes are asked; all pictures are large."""
    monkeypatch.setattr(pictures, "SMALL_PIXELS", dict.fromkeys(pictures.SMALL_PIXELS, 0))
    found: list[str] = []
    ask = looking._asked

    def noted(question: looking.Question, file: IO[bytes]) -> object:
        found.append(question)
        return ask(question, file)

    monkeypatch.setattr(looking, "_asked", noted)
    return found


def test_a_process_answers_as_the_daemon_does(tmp_path: Path, asked: list[str]) -> None:
    """A photo that was checked is not checked again until it is saved again."""
    path = tmp_path / "a.png"
    picture = Image.new("RGBA", (20, 10), (255, 255, 255, 128))
    picture.paste((0, 0, 0, 255), (0, 0, 5, 10))
    picture.save(path)
    for _ in range(2):
        with path.open("rb") as file:
            assert look("check", file, USUAL_PIXELS) is None
            assert look("is_transparent", file, USUAL_PIXELS) is True
            assert look("greys_of_alpha", file, USUAL_PIXELS)[0] == 50
            assert sum(look("greys_of_mask", file, USUAL_PIXELS)) == 200
    others = ["is_transparent", "greys_of_alpha", "greys_of_mask"]
    assert asked == ["check", *others, *others]
    os.utime(path, (1, 1))
    with path.open("rb") as file:
        look("check", file, USUAL_PIXELS)
    assert asked[-1] == "check"


def test_damage_and_too_many_pixels_are_told_in_the_same_words(
    tmp_path: Path, asked: list[str]
) -> None:
    """The limit is the setting's; a picture beyond it is not decoded."""
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match="It is damaged: "):
        look("check", file, USUAL_PIXELS)
    words = r"It has 1 million pixels; the limit is 0.004 million\. .*, or raise max_photo_megap"
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match=words):
        look("check", file, 4000)
    assert asked == ["check"]


def test_a_process_without_memory_is_an_answer(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_BYTES_BESIDE", 1000)
    path = tmp_path / "a.png"
    Image.new("RGB", (900, 900)).save(path)
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match="too much memory"):
        look("check", file, USUAL_PIXELS)
