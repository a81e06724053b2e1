"""Scenes: the words for them, the tokenizer made of these, and the drawn pictures."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPTokenizer

from tests.colours import shares
from training.captions import caption, known_words
from training.cutout import drawn_pair
from training.drawing import draw
from training.scenes import (
    ANIMALS,
    COLOURS,
    NATURAL_COLOURS,
    POSITIONS,
    SHAPES,
    THINGS,
    AnimalScene,
    PairScene,
    Scene,
    ShapeScene,
    Subject,
    random_scene,
)
from training.tokenizer import build_tokenizer

CAPTIONS_READ = 1000
ONE_NAME = {"sun", "tree", "balloon", "star", "heart", "triangle"}  # others have synonyms


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """The tokenizer as the training builds it, which reads more captions for its merges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.tokenizer.CAPTIONS_READ", CAPTIONS_READ)
        return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def sharp_captions(count: int) -> list[tuple[Scene, str]]:
    """Random scenes without blur, and a caption of each."""
    rng = random.Random(1)
    scenes = [replace(random_scene(rng), blurry=False) for _ in range(count)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def colours_in(text: str) -> set[str]:
    return {
        word for word in re.findall("[a-z]+", text.replace("violet", "purple")) if word in COLOURS
    }


def test_captions_name_exactly_what_is_drawn() -> None:
    """What is worn, places and blur are said only when drawn, and always; no colour is invented."""
    for scene, text in sharp_captions(1000):
        may = {scene.background}
        if isinstance(scene, AnimalScene):
            must = {colour for colour in (scene.hat, scene.bow_tie) if colour}
            said = ("hat" in text, "glasses" in text, "bow" in text)
            assert said == (bool(scene.hat), scene.sunglasses, bool(scene.bow_tie)), (scene, text)
        else:
            subjects = (
                [(scene.shape, scene.colour)]
                if isinstance(scene, ShapeScene)
                else [(subject.kind, subject.colour) for subject in (scene.first, scene.second)]
            )
            may |= {colour for _, colour in subjects if colour}
            must = {
                colour
                for kind, colour in subjects
                if kind in NATURAL_COLOURS and colour != NATURAL_COLOURS[kind]
            }
        assert must <= colours_in(text) <= must | may, (scene, text)
        if isinstance(scene, PairScene):
            kinds = [scene.first.kind, scene.second.kind]
            assert not ONE_NAME.issuperset(kinds) or text.index(kinds[0]) < text.index(kinds[1])
        else:
            words = re.findall("[a-z]+", re.sub("cent(er|re)", "middle", text))
            position = scene.position if isinstance(scene, ShapeScene) else ""
            named = {word for word in POSITIONS[1:] if word in words}
            assert named == ({position} if position else set()), (scene, text)
        assert "blur" not in text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_the_known_words_are_those_of_the_captions(tokenizer: CLIPTokenizer) -> None:
    """Each is one token; a word that no caption has is not known."""
    known = known_words()
    assert {word for word in known["words"] if len(tokenizer.tokenize(word)) != 1} == set()
    said = {word for scene, text in sharp_captions(2000) for word in re.findall("[a-z]+", text)}
    assert said <= set(known["words"])
    assert {"corgi", "cat", "house", "blurry", "beneath"} <= set(known["words"])
    assert not {"dragon", "w", "comma"} & set(known["words"])
    assert set(known["subjects"]) == {*SHAPES, *THINGS, *ANIMALS}


def test_the_tokenizer_takes_any_text_and_is_the_same_each_time(
    tokenizer: CLIPTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte has a token, whose number must not change between training and use."""
    monkeypatch.setattr("training.tokenizer.CAPTIONS_READ", CAPTIONS_READ)
    text = "".join(chr(i) for i in range(33, 1024)) + "東京 🐕"
    tokens = tokenizer.tokenize(text)
    assert len(tokens) > 1024
    assert tokenizer.unk_token not in tokens
    expected = tokenizer(text).input_ids
    assert build_tokenizer(tmp_path)(text).input_ids == expected
    assert CLIPTokenizer.from_pretrained(tmp_path)(text).input_ids == expected
    assert {"vocab.json", "merges.txt"} <= {file.name for file in tmp_path.iterdir()}


# -- the drawn pictures, by their pixels


def pixels_of(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.convert("RGB"), dtype=np.float64)


@pytest.mark.parametrize("colour", ["red", "green", "purple"])
def test_colours_are_those_of_the_scene(colour: str) -> None:
    """Of the background, and of every shape."""
    for shape in SHAPES:
        found = shares(draw(ShapeScene("white", colour, shape), random.Random(3)))
        assert list(found)[:2] == ["white", colour]


@pytest.mark.parametrize("relation", ["above", "under", "left of", "right of"])
def test_two_subjects_stand_as_their_relation_says(relation: str) -> None:
    """The first one's colour lies on its side of the second's."""
    scene = PairScene("white", Subject("heart", "red"), relation, Subject("square", "green"))
    pixels = pixels_of(draw(scene, random.Random(5)))
    places = [
        np.argwhere(np.abs(pixels - COLOURS[colour]).sum(axis=2) < 120).mean(axis=0)
        for colour in ("red", "green")
    ]
    down, right = places[0] - places[1]
    assert {"above": -down, "under": down, "left of": -right, "right of": right}[relation] > 15


@pytest.mark.parametrize("position", POSITIONS[1:])
@pytest.mark.parametrize("size", [(128, 128), (192, 128), (256, 256)])
def test_a_shape_stands_where_its_scene_says(position: str, size: tuple[int, int]) -> None:
    """Position words mean the same in every picture size."""
    for shape in SHAPES[::2]:
        scene = ShapeScene("white", "red", shape, position=position)
        pixels = pixels_of(draw(scene, random.Random(7), *size))
        subject = np.abs(pixels - pixels[1, 1]).sum(axis=2) > 100
        x, y = (
            places.mean() / side for places, side in zip(subject.nonzero()[::-1], size, strict=True)
        )
        sides = {"left": 0.5 - x, "right": x - 0.5, "top": 0.5 - y, "bottom": y - 0.5}
        if position in sides:
            assert sides[position] > 0.08, (x, y)
        else:
            assert abs(x - 0.5) < 0.12 and abs(y - 0.5) < 0.12, (x, y)


@pytest.mark.parametrize("size", [(128, 128), (192, 128)])
def test_a_drawing_knows_what_is_figure(size: tuple[int, int]) -> None:
    """Nothing in its mask is ground, and outside of it each row has one colour."""
    picture, mask = drawn_pair(random.Random(1), size)
    assert picture.size == mask.size == size
    pixels, figure = np.asarray(picture).astype(int), np.asarray(mask)
    assert 0.02 < (figure == 255).mean() < 0.95
    ground = [row[~shown] for row, shown in zip(pixels, figure > 0, strict=True)]
    assert all(np.ptp(row, 0).max() <= 1 for row in ground if len(row))
