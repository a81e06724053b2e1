"""Finds places in a picture by words: by SAM 3, by Grounding DINO with or without SAM, by CLIPSeg.

Depth Anything, which is read in the same way, tells the depth of a picture.

The networks and what they make of pictures and words are transformers' own. A phrase names several
things with commas. SAM 3 and Grounding DINO find each thing by itself; CLIPSeg tells how much each
pixel belongs to a thing, and its areas are the things.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.catalog.finders import DINO, FolderRow, network_in, pixels_config
from picowatch.catalog.models import Model
from picowatch.engine.model.devices import Target
from picowatch.engine.model.part_files import about_weights, transformers_model
from picowatch.engine.model.tensors import bytes_in, read_tensors
from picowatch.engine.networks.preprocess import connected
from picowatch.errors import RenderFailed
from picowatch.files.decoding import on_white
from picowatch.recipe.messages.problems import shown

_SAME = 0.8  # the share of what two boxes or areas cover that makes them nearly the same
_SPECK = 0.001  # areas of a smaller share of the picture are specks
_SOFT = 0.4  # a mask rises from 0 to 1 around the cut, from 60 to 140 % of it
_CUT = 0.5
_LONGEST = 2048  # side of a picture that is searched; networks see fewer pixels
_MOST_NUMBERS = 2**28  # in all masks of a picture

Box = tuple[int, int, int, int]


class Found(NamedTuple):
    """A thing: score, box (left, top, right, bottom), and a mask in the picture's size, 0 to 1."""

    score: float
    box: Box
    mask: NDArray[np.float32]


class FoundBox(NamedTuple):
    """A thing without a mask: score, box, and each pixel's share, 1 at the edge, seen smaller."""

    score: float
    box: torch.Tensor
    shares: torch.Tensor | None = None


class _Folder:
    """A network of transformers with its tokenizer and its processor of pictures, if any."""

    def __init__(self, folder: Path, target: Target, what: str) -> None:
        row, config = network_in(folder)
        kind, dtype = getattr(transformers, row.class_name), _type(row, target)
        tensors = read_tensors(folder, lambda _: dtype, target.device, row.prefix)
        made = kind.config_class.from_dict(about_weights(config))
        self.model = transformers_model(kind, made, tensors, what, dtype).to(target.device)
        self.name, self.device, self.dtype = row.name, target.device, dtype
        if row.pixels:
            self.processor = getattr(transformers, row.pixels)(**pixels_config(folder))
        if row.words:
            self._words = getattr(transformers, row.words).from_pretrained(
                folder, local_files_only=True
            )

    def seen(self, picture: Image.Image) -> dict[str, torch.Tensor]:
        found = self.processor(picture, return_tensors="pt", input_data_format="channels_last")
        return {name: self.on_device(values) for name, values in found.items()}

    def read(self, text: str, most: int, **how: Any) -> dict[str, torch.Tensor]:
        """Return a text's tokens, at most so many. RenderFailed if the network cannot read it."""
        found = self._words(text, return_tensors="pt", verbose=False, **how)
        tokens = found["input_ids"][0].tolist()
        where = f"{self.name} cannot read '{shown(text.rstrip('.'))}'"
        if len(tokens) > most:
            raise RenderFailed(
                f"{where}: it has {len(tokens)} tokens, and the limit is {most}.",
                "Write fewer words after find.",
            )
        if not {*tokens} - {*self._words.all_special_ids, self._words.convert_tokens_to_ids(".")}:
            raise RenderFailed(f"{where}: it knows none of these signs.", "Write words after find.")
        return {name: tensor.to(self.device) for name, tensor in found.items()}

    def on_device(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.device, self.dtype if values.is_floating_point() else None)


class Finder(ABC):
    def __init__(self, network: _Folder, sam: _Folder | None = None) -> None:
        self._network, self._sam = network, sam

    @torch.inference_mode()
    def find(
        self, picture: Image.Image, phrase: str, confidence: float, halvings: int = 0
    ) -> list[Found]:
        """Return the things of which the network is at least so sure, the surest first.

        A thing that is found twice counts once. Each thing has a mask of its own. A large picture
        is made smaller first, and masks have its size then; `halvings` make it smaller still.
        RenderFailed if the network cannot read the phrase.
        """
        small = picture.copy()
        small.thumbnail((_LONGEST >> halvings, _LONGEST >> halvings))
        small, scale = on_white(small), picture.width / small.width
        things = [words for part in phrase.split(",") if (words := " ".join(part.split()))]
        places = (box for box in self._places(small, things) if box.score >= confidence)
        apart = _apart(sorted(places, key=lambda box: -box.score))
        kept = apart[: max(1, _MOST_NUMBERS // (small.width * small.height))]
        found = [
            Found(thing.score, _whole_pixels(thing.box * scale, picture.size), mask)
            for thing, mask in zip(kept, self._masks(small, kept), strict=True)
        ]
        return [thing for thing in found if thing.mask.any()]

    def search(
        self, picture: Image.Image, phrase: str, confidence: float, halvings: int = 0
    ) -> tuple[list[tuple[float, Box]], NDArray[np.float32]]:
        """Return scores and boxes of what `find` finds, and a mask of all."""
        found = self.find(picture, phrase, confidence, halvings)
        masks = [thing.mask for thing in found] or [np.zeros((1, 1), np.float32)]
        return [(thing.score, thing.box) for thing in found], np.maximum.reduce(masks)

    @abstractmethod
    def _places(self, picture: Image.Image, things: Sequence[str]) -> Iterator[FoundBox]:
        """Yield everything that the network proposes."""

    def _masks(self, picture: Image.Image, places: Sequence[FoundBox]) -> Iterator[NDArray[Any]]:
        for place in places:
            assert place.shares is not None
            size = (picture.height, picture.width)
            shares = functional.interpolate(place.shares[None, None], size, mode="bilinear")
            yield _mask(shares[0, 0])


class Sam3(Finder):
    """Finds each thing with its outline."""

    def _places(self, picture: Image.Image, things: Sequence[str]) -> Iterator[FoundBox]:
        network, most = self._network.model, self._network.model.config.text_config
        views = network.get_vision_features(**self._network.seen(picture))
        limit = most.max_position_embeddings
        for thing in things:
            tokens = self._network.read(thing, limit, padding="max_length", max_length=limit)
            made = network(vision_embeds=views, **tokens)
            scores = made.pred_logits.sigmoid() * made.presence_logits.sigmoid()
            boxes = made.pred_boxes[0].float() * _sides(picture, scores.device)
            for score, box, shares in zip(scores[0], boxes, made.pred_masks[0], strict=True):
                yield FoundBox(float(score), box, shares.float().sigmoid() / _CUT)


class GroundingDino(Finder):
    """Finds each thing in a box, which SAM outlines if it is there."""

    def _places(self, picture: Image.Image, things: Sequence[str]) -> Iterator[FoundBox]:
        network = self._network
        text = "".join(f"{thing.lower().replace('.', ' ')}. " for thing in things).strip()
        tokens = network.read(text, network.model.config.max_text_len)
        made = network.model(**network.seen(picture), **tokens)
        boxes = network.processor.post_process_object_detection(
            made, threshold=0, target_sizes=[(picture.height, picture.width)]
        )[0]
        for score, box in zip(boxes["scores"], boxes["boxes"], strict=True):
            yield FoundBox(float(score), box.float())

    def _masks(self, picture: Image.Image, places: Sequence[FoundBox]) -> Iterator[NDArray[Any]]:
        if (sam := self._sam) is None or not places:
            for place in places:
                mask = np.zeros((picture.height, picture.width), np.float32)
                left, top, right, bottom = _whole_pixels(place.box, picture.size)
                mask[top:bottom, left:right] = 1
                yield mask
            return
        seen = sam.seen(picture)
        height, width = seen["reshaped_input_sizes"][0].tolist()
        scale = torch.tensor([width / picture.width, height / picture.height] * 2)
        view = sam.model.get_image_embeddings(seen["pixel_values"])
        for place in places:
            box = sam.on_device((place.box * scale.to(place.box.device))[None, None])
            made = sam.model(image_embeddings=view, input_boxes=box, multimask_output=False)
            (levels,) = sam.processor.post_process_masks(
                made.pred_masks.float(),
                seen["original_sizes"],
                seen["reshaped_input_sizes"],
                binarize=False,
            )
            yield _mask(levels[0, 0].sigmoid() / _CUT)


class ClipSeg(Finder):
    """Finds areas: a thing is connected pixels above half of the surest pixel's share."""

    def _places(self, picture: Image.Image, things: Sequence[str]) -> Iterator[FoundBox]:
        seen, network = self._network.seen(picture), self._network.model
        most = network.config.text_config.max_position_embeddings
        for thing in things:
            made = network(**seen, **self._network.read(thing, most))
            shares = made.logits.float().sigmoid().squeeze()
            cut = float(shares.max()) / 2
            scale = _sides(picture, shares.device) / shares.shape[0]
            for area in _areas(shares > cut):
                rows, columns = (area.any(side).nonzero() for side in (1, 0))
                box = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])[:, 0]
                near = functional.max_pool2d(area[None].float(), 3, 1, 1)[0] > 0
                yield FoundBox(float(shares[area].max()), box * scale, shares * near / cut)


_KINDS: dict[str, type[Finder]] = {"SAM 3": Sam3, DINO: GroundingDino, "CLIPSeg": ClipSeg}


def load_finder(model: Model, target: Target) -> Finder:
    what = f"segmentation model {model.name!r}"
    sams = [_Folder(part.folder, target, f"SAM of the {what}") for part in model.parts]
    return _KINDS[model.variant](_Folder(model.path, target, what), *sams)


def bytes_of(model: Model, target: Target) -> int:
    """Return what the weights of a folder, and of a finder's SAM, take in memory."""
    folders = [model.path, *(part.folder for part in model.parts)]
    return sum(bytes_in(path, _type(network_in(path)[0], target)) for path in folders)


def _type(row: FolderRow, target: Target) -> torch.dtype:
    if row.kind == "depth":
        return target.dtype
    return target.flow_dtype if row.narrow else torch.float32


def _apart(places: Sequence[FoundBox]) -> list[FoundBox]:
    """Return the places in order, each joined with a surer place that is nearly the same."""
    if not places:
        return []
    boxes = torch.stack([place.box for place in places]).cpu()
    first, last = boxes[:, :2], boxes[:, 2:]
    sizes = (last - first).prod(1)
    sides = torch.minimum(last[:, None], last) - torch.maximum(first[:, None], first)
    common = sides.clamp(min=0).prod(2)
    same = common >= _SAME * (sizes[:, None] + sizes - common)
    kept: dict[int, FoundBox] = {}
    for number, place in enumerate(places):
        for at, surer in kept.items():
            if not same[number, at]:
                continue
            if place.shares is None or surer.shares is None:
                break
            inside, others = place.shares > 1, surer.shares > 1
            if (inside & others).sum() >= _SAME * (inside | others).sum():
                kept[at] = surer._replace(shares=torch.maximum(surer.shares, place.shares))
                break
        else:
            kept[number] = place
    return [*kept.values()]


def _areas(inside: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the connected areas, also those that touch at corners, without specks."""
    left = inside.cpu().numpy()
    while left.any():
        first = np.zeros_like(left)
        first.flat[left.argmax()] = True
        area = connected(left, first)
        left = left & ~area
        if area.sum() >= _SPECK * area.size:
            yield torch.from_numpy(area).to(inside.device)


def _sides(picture: Image.Image, device: torch.device) -> torch.Tensor:
    return torch.tensor([picture.width, picture.height] * 2, device=device)


def _mask(shares: torch.Tensor) -> NDArray[Any]:
    """Return a mask with soft edges: 0.5 where the share is 1."""
    return ((shares - 1) / (2 * _SOFT) + 0.5).clamp(0, 1).float().cpu().numpy()


def _whole_pixels(box: torch.Tensor, size: tuple[int, int]) -> Box:
    """Return a box in pixels, inside the picture and not empty."""
    left, top, right, bottom = box.round().int().tolist()
    left, top = (min(max(at, 0), side - 1) for at, side in zip((left, top), size, strict=True))
    right, bottom = min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])
    return left, top, right, bottom


def load_depth(model: Model, target: Target) -> Any:
    return _Folder(model.path, target, f"depth model {model.name!r}").model


def guess_depth(model: Any, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the depth of an RGB picture in its size: near is white, far is black.

    Pictures are prepared as by the authors of Depth Anything: the shorter side is scaled to 518
    pixels, both to multiples of 14 (preprocessor_config.json of Depth-Anything-V2-Small-hf).
    """
    height, width = picture.shape[:2]
    scale, patch = 518 / min(height, width), model.config.patch_size
    sides = [max(1, round(side * scale / patch)) * patch for side in (width, height)]
    small = Image.fromarray(picture).resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    # The mean and spread of ImageNet, with which its backbone was trained.
    values = np.asarray(small, np.float32) / 255 - (0.485, 0.456, 0.406)
    values = values / (0.229, 0.224, 0.225)
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None].to(model.device, model.dtype)
    found = model(pixels).predicted_depth.float()[:, None]
    found = functional.interpolate(found, (height, width), mode="bilinear", align_corners=False)
    found = found[0, 0] - found.min()
    grey = (found / found.max().clamp(min=1e-6) * 255).to(torch.uint8).cpu().numpy()
    return np.repeat(grey[:, :, None], 3, axis=2)
