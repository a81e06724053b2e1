"""Finding places by words: as transformers' own classes find them in the same folders."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from picowatch.catalog import Catalog
from picowatch.engine.drawing.models import read_network
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.verify import verified
from picowatch.engine.networks.find import ClipSeg, Finder, load_finder
from picowatch.errors import RenderFailed
from tests.engine.tiny_find import make
from tests.engine.tiny_flows import folder_until_exit

_T: Any = transformers
THINGS, CONFIDENCE = ("a hat", "Two shoes"), 0.3
SIZES = ((96, 64), (90, 200))


class Plain(NamedTuple):
    """What a plain script finds: the score, the box, and each pixel's share in the thing.

    `by_box`: its box is what was found, and its shares are what is in that.
    """

    score: float
    box: NDArray[Any]
    shares: NDArray[Any] | None
    cut: float = 0.5
    by_box: bool = False

    def mask(self, picture: Image.Image) -> NDArray[Any]:
        """A slope around the cut; the whole box without an outline."""
        if self.shares is not None:
            shares = torch.from_numpy(self.shares)[None, None]
            large = interpolate(shares, size_of(picture), mode="bilinear")[0, 0].numpy()
            mask: NDArray[Any] = ((large / self.cut - 0.6) / 0.8).clip(0, 1)
            return mask
        left, top, right, bottom = self.pixels(picture)
        mask = np.zeros((picture.height, picture.width))
        mask[top:bottom, left:right] = 1
        return mask

    def pixels(self, picture: Image.Image) -> tuple[int, ...]:
        limits = np.array(picture.size)
        first = np.clip(self.box[:2].round(), 0, limits - 1).astype(int)
        last = np.clip(self.box[2:].round(), first + 1, limits).astype(int)
        return (*first.tolist(), *last.tolist())

    def same(self, other: "Plain") -> bool:
        if not self.by_box and self.shares is not None and other.shares is not None:
            inside, others = self.shares > self.cut, other.shares > other.cut
            if (inside & others).sum() < 0.8 * (inside | others).sum():
                return False
        both = (self.box[2:], other.box[2:]), (self.box[:2], other.box[:2])
        common = (np.minimum(*both[0]) - np.maximum(*both[1])).clip(0).prod()
        own, theirs = ((place.box[2:] - place.box[:2]).prod() for place in (self, other))
        return bool(common / (own + theirs - common) >= 0.8)

    def joined(self, other: "Plain") -> "Plain":
        if self.by_box or self.shares is None or other.shares is None:
            return self
        shares = np.maximum(self.shares / self.cut, other.shares / other.cut)
        return self._replace(shares=shares, cut=1)


@cache
def folder(name: str) -> Path:
    return make(folder_until_exit("finders-") / name, name)


def read(class_name: str, name: str) -> Any:
    return getattr(_T, class_name).from_pretrained(folder(name), local_files_only=True)


def size_of(picture: Image.Image) -> tuple[int, int]:
    return picture.height, picture.width


def by_sam3(picture: Image.Image) -> Iterator[Plain]:
    small = np.asarray(picture.resize((112, 112), Image.Resampling.BILINEAR), np.float32)
    values = torch.from_numpy((small / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
    tokens, model = read("CLIPTokenizer", "sam3"), read("Sam3Model", "sam3")
    for thing in THINGS:
        words = tokens(thing, return_tensors="pt", padding="max_length", max_length=32)
        made = model(pixel_values=values, **words)
        scores = made.pred_logits[0].sigmoid() * made.presence_logits[0].sigmoid()
        boxes = made.pred_boxes[0] * torch.tensor([*picture.size] * 2)
        for score, box, mask in zip(scores, boxes, made.pred_masks[0].sigmoid(), strict=True):
            yield Plain(float(score), box.numpy(), mask.numpy())


def by_dino(picture: Image.Image) -> Iterator[Plain]:
    name = "grounding-dino"
    pixels, tokens = read("GroundingDinoImageProcessorPil", name), read("BertTokenizer", name)
    processor = _T.GroundingDinoProcessor(pixels, tokens)
    given = processor(picture, "a hat. two shoes.", return_tensors="pt")
    made = read("GroundingDinoForObjectDetection", name)(**given)
    (found,) = processor.post_process_grounded_object_detection(
        made, given["input_ids"], CONFIDENCE, 0.25, [size_of(picture)]
    )
    for score, box in zip(found["scores"], found["boxes"], strict=True):
        yield Plain(float(score), box.numpy(), None)


def by_dino_with_sam(picture: Image.Image) -> Iterator[Plain]:
    places = [*by_dino(picture)]
    processor = _T.SamProcessor(read("SamImageProcessorPil", "sam"))
    boxes = [[thing.box.tolist() for thing in places]]
    given = processor(picture, input_boxes=boxes, return_tensors="pt").to(torch.float32)
    made = read("SamModel", "sam")(**given, multimask_output=False)
    (levels,) = processor.post_process_masks(
        made.pred_masks, given["original_sizes"], given["reshaped_input_sizes"], binarize=False
    )
    for place, mask in zip(places, levels[:, 0].sigmoid().numpy(), strict=True):
        yield place._replace(shares=mask, by_box=True)


def by_clipseg(picture: Image.Image) -> Iterator[Plain]:
    pixels, tokens = read("ViTImageProcessorPil", "clipseg"), read("CLIPTokenizer", "clipseg")
    processor = _T.CLIPSegProcessor(pixels, tokens)
    model = read("CLIPSegForImageSegmentation", "clipseg")
    for thing in THINGS:
        given = processor(text=[thing], images=[picture], return_tensors="pt")
        shares = model(**given).logits.sigmoid().squeeze().numpy()
        cut = shares.max() / 2
        for area in areas(shares > cut):
            near, around = np.zeros_like(shares), (-1, 0, 1)
            for row, column in {(r + i, c + j) for r, c in area for i in around for j in around}:
                if min(row, column) >= 0 and max(row, column) < len(near):
                    near[row, column] = shares[row, column]
            rows, columns = zip(*area, strict=True)
            box = np.array([min(columns), min(rows), max(columns) + 1, max(rows) + 1])
            yield Plain(
                float(max(shares[at] for at in area)),
                box * np.tile(picture.size, 2) / len(shares),
                near,
                cut,
            )


def areas(inside: NDArray[np.bool_]) -> Iterator[set[tuple[int, int]]]:
    left = set(zip(*(indices.tolist() for indices in np.nonzero(inside)), strict=True))
    while left:
        area, edge = set(), {left.pop()}
        while edge:
            area |= edge
            edge = left & {(r + i, c + j) for r, c in edge for i in (-1, 0, 1) for j in (-1, 0, 1)}
            left -= edge
        if len(area) >= inside.size / 1000:
            yield area


SCRIPTS: dict[str, Callable[[Image.Image], Iterator[Plain]]] = {
    "sam3": by_sam3,
    "grounding-dino": by_dino,
    "grounding-dino with sam": by_dino_with_sam,
    "clipseg": by_clipseg,
}


def finder_of(models: Path, kind: str) -> Finder:
    (models / "segmentation").mkdir(parents=True)
    for name in kind.split(" with "):
        (models / "segmentation" / name).symlink_to(folder(name))
    model = Catalog(models).find("segmentation", kind.split(" ")[0])
    return load_finder(model, choose_target("cpu", "float32"))


def photo(size: tuple[int, int]) -> Image.Image:
    small = np.random.default_rng(sum(size)).integers(0, 255, (9, 9, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@torch.no_grad()
@pytest.mark.parametrize("kind", SCRIPTS)
def test_it_finds_what_a_plain_script_finds(tmp_path: Path, kind: str) -> None:
    """In pictures of different sizes: the surest first, and nothing twice."""
    finder = finder_of(tmp_path, kind)
    for picture in map(photo, SIZES):
        kept: list[Plain] = []
        for place in sorted(SCRIPTS[kind](picture), key=lambda place: -place.score):
            if place.score >= CONFIDENCE:
                at = next((at for at, other in enumerate(kept) if place.same(other)), len(kept))
                kept[at : at + 1] = [kept[at].joined(place) if at < len(kept) else place]
        expected = [place for place in kept if place.mask(picture).any()]
        found = finder.find(picture, " a hat,Two  shoes ,", CONFIDENCE)
        assert expected
        for place, own in zip(expected, found, strict=True):
            assert own.score == pytest.approx(place.score, abs=1e-4)
            assert own.box == place.pixels(picture)
            assert np.abs(own.mask - place.mask(picture)).max() < 1e-4


def test_areas_in_the_same_box_are_all_found() -> None:
    """Two hooks, of which a second word finds one a little smaller: that counts once."""
    seen = [torch.full((100, 100), -9.0) for _ in range(2)]
    for logits, side in zip(seen, (100, 96), strict=True):
        logits[:side, :4] = logits[96:, :side] = 3
    seen[0][:4, 6:] = seen[0][:94, 96:] = 2
    network = Mock(seen=lambda _: {}, read=lambda *_: {})
    network.model.side_effect = [SimpleNamespace(logits=tensor) for tensor in seen]
    found = ClipSeg(network).find(photo((100, 100)), "hook, claw", CONFIDENCE)
    assert [place.box for place in found] == [(0, 0, 100, 100), (6, 0, 100, 94)]
    mask = np.maximum.reduce([place.mask for place in found]) >= 0.5
    assert (mask == (seen[0] > 0).numpy()).all()


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    finder = finder_of(tmp_path, "grounding-dino")
    for phrase, words in (
        ("🎩", "Grounding DINO cannot read '🎩': it knows none of these signs."),
        ("hat " * 2500, "it has 7503 tokens, and the limit is 256."),
    ):
        with pytest.raises(RenderFailed) as failed:
            finder.find(photo((64, 64)), phrase, CONFIDENCE)
        assert words in failed.value.message


def test_pictures_of_any_size_are_searched(tmp_path: Path) -> None:
    """Of one pixel, and of 50 megapixels: boxes in its own pixels, and a smaller mask."""
    finder = finder_of(tmp_path, "clipseg")
    (found, *_) = finder.find(photo((1, 1)), "hat", 0)
    assert (found.box, found.mask.shape) == ((0, 0, 1, 1), (1, 1))
    places, mask = finder.search(Image.new("RGB", (10_000, 5_000)), "hat", 0)
    assert mask.shape == (1024, 2048)
    assert all(0 <= box[0] < box[2] <= 10_000 and 0 <= box[1] < box[3] <= 5000 for _, box in places)


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    root = tmp_path / "segmentation/clipseg"
    shutil.copytree(folder("clipseg"), root)
    catalog = Catalog(tmp_path)

    def message() -> str:
        digest = catalog.sha256(catalog.find("segmentation", "clipseg"))
        target = choose_target("cpu", "float32")
        with pytest.raises(RenderFailed) as failed:
            read_network(partial(verified, catalog), target, "segmentation", "clipseg", digest)
        return failed.value.message

    (root / "tokenizer.json").write_text('{"model": 7}')
    assert "The segmentation model 'clipseg' is damaged" in message()
    weights = load_file(root / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: torch.zeros(3)}, root / "model.safetensors", {"format": "pt"})
    assert f"does not fit its kind of model: {name} is [3]" in message()
