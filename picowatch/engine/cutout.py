"""Figures cut out of finished pictures, as the field `cutout` says.

A network looks at the picture in the size that it was trained for, squeezed to a square, and says
how much of each pixel is figure. catalog/cutouts.py has the names of its layers.
"""

from collections.abc import Iterable
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter, ImageStat
from torch import nn
from torch.nn import functional

from picowatch.catalog import Catalog
from picowatch.catalog.cutouts import (
    DEPTHS,
    IS_FLAT,
    ISNET,
    LEVELS,
    U2NET,
    Layout,
    layers_of,
    layout_of,
)
from picowatch.catalog.headers import Header, read_header
from picowatch.engine.draw import Drawn
from picowatch.engine.load import read_tensors
from picowatch.engine.part_files import filled
from picowatch.engine.verify import find_model, unchanged
from picowatch.files.pictures import on_white

_KEPT = 2
_MOST_DIGITS = 4
# What their authors trained with: sides, and what is taken from the colours and divides the rest.
_SIDES = {U2NET: 320, ISNET: 1024}
_MEANS = {U2NET: (0.485, 0.456, 0.406), ISNET: (0.5, 0.5, 0.5)}
_SPREADS = {U2NET: (0.229, 0.224, 0.225), ISNET: (1.0, 1.0, 1.0)}
# A pixel has the figure's colour alone from the second level on, and below the first that of the
# figure beside it.
_UNSURE, _SURE = 192, 250
_EDGE = 2  # pixels of what the network sees: as far as an edge is soft
_FOUND = 0.002  # the share of a picture that is some figure, at least
NOTHING_FOUND = "No figure stood out from the background, so hardly anything of it was left."


class Network(nn.Module):
    """A U²-Net or an IS-Net. Takes colours, gives the logits of a mask of that size."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        if layout.stem:
            self.conv_in = nn.Conv2d(3, layout.stem, 3, stride=2, padding=1)
        for name, widths in layout.stages.items():
            self.add_module(name, _Stage(name, layers_of(name, widths)))
        self._sides = layout.sides[:1] if layout.stem else layout.sides  # the rest is for training
        for number, name in enumerate(self._sides, 1):
            self.add_module(f"side{number}", nn.Conv2d(layout.stages[name].gives, 1, 3, padding=1))
        if not layout.stem:
            self.outconv = nn.Conv2d(LEVELS, 1, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the mask alone."""
        masks = self.masks(pixels)
        mask: torch.Tensor = masks[0] if self.layout.stem else self.outconv(torch.cat(masks, 1))
        return mask

    def masks(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """What the stages up say each, the finest first."""
        down: list[torch.Tensor] = []
        features = self.conv_in(pixels) if self.layout.stem else pixels
        for number in range(1, LEVELS + 1):
            features = self.get_submodule(f"stage{number}")(_halved(features) if down else features)
            down.append(features)
        up = [features]
        for number in range(LEVELS - 1, 0, -1):
            beside = down[number - 1]
            both = torch.cat([_as_large(up[0], beside), beside], 1)
            up.insert(0, self.get_submodule(f"stage{number}d")(both))
        sides = enumerate(up[: len(self._sides)], 1)
        return [_as_large(self.get_submodule(f"side{n}")(each), pixels) for n, each in sides]


class _Stage(nn.Module):
    """A small U-Net, whose result is added to its first features."""

    def __init__(self, name: str, layers: Iterable[tuple[str, int, int, int]]) -> None:
        super().__init__()
        for layer, *kind in layers:
            self.add_module(layer, _Layer(*kind))
        self._depth, self._flat = DEPTHS[name], name in IS_FLAT

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        first = features = self.get_submodule("rebnconvin")(features)
        down: list[torch.Tensor] = []
        for number in range(1, self._depth + 1):
            if 1 < number < self._depth and not self._flat:
                features = _halved(features)
            features = self.get_submodule(f"rebnconv{number}")(features)
            down.append(features)
        for number in range(self._depth - 1, 0, -1):
            beside = down[number - 1]
            both = torch.cat([_as_large(features, beside), beside], 1)
            features = self.get_submodule(f"rebnconv{number}d")(both)
        added: torch.Tensor = features + first
        return added


class _Layer(nn.Module):
    """A convolution, its features brought to one scale, and those below 0 cut off."""

    def __init__(self, takes: int, gives: int, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(takes, gives, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = _Scale(gives)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn_s1(self.conv_s1(features)))


class _Scale(nn.Module):
    """Batch normalisation, without torch's count of batches, which not every file has."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )


def _halved(features: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(features, 2, ceil_mode=True)


def _as_large(features: torch.Tensor, as_this: torch.Tensor) -> torch.Tensor:
    size = as_this.shape[2:]
    if features.shape[2:] == size:
        return features
    return functional.interpolate(features, size=size, mode="bilinear")


def as_seen(picture: Image.Image, layout: Layout, side: int) -> torch.Tensor:
    """An RGB picture as a network sees it; U²-Net's brightest pixel is always white."""
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    if layout.architecture == U2NET:
        pixels = pixels / pixels.max().clamp(min=1e-6)
    mean, spread = (
        torch.tensor(of[layout.architecture]).view(3, 1, 1) for of in (_MEANS, _SPREADS)
    )
    return (pixels - mean) / spread


class Cutouts:
    """The last used networks by their hashes. They compute in float32, as upscalers do."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        self._catalog = catalog
        self._device = device
        self._kept = lru_cache(_KEPT)(self._read)

    @torch.inference_mode()
    def cut_out(self, drawn: Drawn, name: str, hash_: str) -> Drawn:
        """The picture without its background; what was transparent stays so."""
        network, side = self._kept(name, hash_)
        picture = Image.frombytes("RGB", (drawn.width, drawn.height), drawn.pixels)
        seen, before = picture, None
        if drawn.alpha:
            before = Image.frombytes("L", picture.size, drawn.alpha)
            seen = picture.copy()
            seen.putalpha(before)
            seen = on_white(seen)
        pixels = as_seen(seen, network.layout, side).to(self._device)
        mask = torch.sigmoid(network(pixels))[0, 0].cpu()
        least, most = mask.min(), mask.max()
        mask = (mask - least) / (most - least).clamp(min=1e-6)  # as both authors do
        levels = Image.fromarray((mask * 255).round().to(torch.uint8).numpy())
        alpha = levels.resize(picture.size, Image.Resampling.BICUBIC)
        warnings = drawn.warnings
        if ImageStat.Stat(alpha).mean[0] < 255 * _FOUND:
            warnings = (*warnings, NOTHING_FOUND)
        cut = _with_own_colours(picture, alpha, side)
        cut.putalpha(ImageChops.multiply(alpha, before) if before else alpha)
        return Drawn.of(cut)._replace(
            control_maps=drawn.control_maps,
            chunks=drawn.chunks,
            batch_size=drawn.batch_size,
            warnings=warnings,
        )

    def _read(self, name: str, hash_: str) -> tuple[Network, int]:
        """A network, and the side of the square that it looks at."""
        with unchanged(partial(find_model, self._catalog), "cutout", name, hash_) as model:
            header = read_header(model.path)
            layout = layout_of(header.shapes)
            assert layout  # the catalog has seen to it
            tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
            with torch.device("meta"):
                network = Network(layout)
            loaded: Network = filled(network, tensors, f"cutout model {name!r}")
            return loaded.to(self._device), side_of(header, layout)


def side_of(header: Header, layout: Layout) -> int:
    """What a file says that it was trained for, by Stability's ModelSpec; else as published."""
    said = header.metadata.get("modelspec.resolution", "").partition("x")[0]
    side = int(said) if said.isdecimal() and len(said) <= _MOST_DIGITS else 0
    return side or _SIDES[layout.architecture]


def _with_own_colours(picture: Image.Image, alpha: Image.Image, side: int) -> Image.Image:
    """The picture whose edges have the colour of the figure beside them, not of the ground behind.

    What is not seen at all is black: nobody can uncover it, and it takes no room in a file.
    """
    sure = picture.copy()
    sure.putalpha(alpha.point(lambda level: 255 if level >= _SURE else 0))
    radius = -(-_EDGE * max(picture.size) // side)
    near = sure.convert("RGBa").filter(ImageFilter.BoxBlur(radius)).convert("RGBA")
    known = near.getchannel("A").point(lambda level: 255 if level else 0)
    near = Image.composite(near.convert("RGB"), picture, known)
    scale = 255 / (_SURE - _UNSURE)
    own = alpha.point(lambda level: min(255, max(0, round((level - _UNSURE) * scale))))
    coloured = Image.composite(picture, near, own)
    black = Image.new("RGB", picture.size)
    return Image.composite(coloured, black, alpha.point(lambda level: 255 if level else 0))
