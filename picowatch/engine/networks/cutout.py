"""The field `cutout`: figures cut out of finished pictures.

The network sees the picture squeezed to a square of the size that it was trained for, and tells how
much of each pixel belongs to the figure. catalog/cutouts.py has the names of its layers.
"""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter, ImageStat
from torch import nn
from torch.nn import functional

from picowatch.catalog import cutouts
from picowatch.catalog.headers import Header
from picowatch.engine.colours import by_light, on_ground, over
from picowatch.engine.model.part_files import Tensors
from picowatch.engine.networks.find import Finder
from picowatch.engine.protocol import Place
from picowatch.errors import RenderFailed
from picowatch.files.decoding import Original, on_white
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.parts import Cutout

_MOST_DIGITS = 4
# Their authors' settings for training: sides, and the mean and spread of colours.
_SIDES = {cutouts.U2NET: 320, cutouts.ISNET: 1024}
_MEANS = {cutouts.U2NET: (0.485, 0.456, 0.406), cutouts.ISNET: (0.5, 0.5, 0.5)}
_SPREADS = {cutouts.U2NET: (0.229, 0.224, 0.225), cutouts.ISNET: (1.0, 1.0, 1.0)}
_NUMBERS = 544  # in memory at once for each pixel of the first stage
# From the second level on, a pixel keeps its colour; below the first, it takes the nearby figure's.
_UNSURE, _SURE = 192, 250
_FINDERS_SIDE = 256  # of the masks of most of them
_EDGE = 2  # the width of soft edges, in pixels that the network sees
_SEEN = 16  # of 255: fainter pixels do not count for where a figure is
_FOUND = 0.002  # the least share of a picture that counts as a figure
_DARKNESS = 0.4  # of a shadow
NOTHING_FOUND = "No figure stood out from the background, so hardly anything of it was left."


class Network(nn.Module):
    """A U²-Net or an IS-Net for squares of `side` pixels: from colours to the logits of a mask."""

    def __init__(self, layout: cutouts.Layout, side: int) -> None:
        super().__init__()
        self.layout, self.side = layout, side
        if layout.stem:
            self.conv_in = nn.Conv2d(3, layout.stem, 3, stride=2, padding=1)
        for name, widths in layout.stages.items():
            self.add_module(name, _Stage(name, cutouts.layers_of(name, widths)))
        self._sides = layout.sides[:1] if layout.stem else layout.sides  # the rest is for training
        for number, name in enumerate(self._sides, 1):
            self.add_module(f"side{number}", nn.Conv2d(layout.stages[name].gives, 1, 3, padding=1))
        if not layout.stem:
            self.outconv = nn.Conv2d(cutouts.LEVELS, 1, 1)

    def weights_of(self, tensors: Tensors) -> Tensors:
        """Return a file's tensors by the names of the network here."""
        return {name.removeprefix(cutouts.WRAPPED): tensor for name, tensor in tensors.items()}

    def computing_bytes(self, _: str) -> int:
        """Return what computing takes on any device (tests count it on torch's meta device)."""
        return _NUMBERS // (4 if self.layout.stem else 1) * self.side**2 * 4

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return only the final mask."""
        masks = self.masks(pixels)
        mask: torch.Tensor = masks[0] if self.layout.stem else self.outconv(torch.cat(masks, 1))
        return mask

    def masks(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the mask of each stage up, the finest first."""
        down: list[torch.Tensor] = []
        features = self.conv_in(pixels) if self.layout.stem else pixels
        for number in range(1, cutouts.LEVELS + 1):
            features = self.get_submodule(f"stage{number}")(_halved(features) if down else features)
            down.append(features)
        up = [features]
        for number in range(cutouts.LEVELS - 1, 0, -1):
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
        self._depth, self._flat = cutouts.DEPTHS[name], name in cutouts.IS_FLAT

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
    def __init__(self, takes: int, gives: int, dilation: int) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(takes, gives, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(gives)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn_s1(self.conv_s1(features)))


def _halved(features: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(features, 2, ceil_mode=True)


def _as_large(features: torch.Tensor, as_this: torch.Tensor) -> torch.Tensor:
    size = as_this.shape[2:]
    if features.shape[2:] == size:
        return features
    return functional.interpolate(features, size=size, mode="bilinear")


def as_seen(picture: Image.Image, network: Network) -> torch.Tensor:
    """Return an RGB picture as a network sees it, whose brightest pixel is always white."""
    small = picture.resize((network.side, network.side), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float()
    kind = network.layout.architecture
    mean, spread = (torch.tensor(of[kind]).view(3, 1, 1) for of in (_MEANS, _SPREADS))
    return (pixels / pixels.max().clamp(min=1e-6) - mean) / spread


@torch.inference_mode()
def cut_out(network: Network, drawn: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the picture without its background, and warnings. Transparent parts stay so.

    The mask is that of rembg (https://github.com/danielgatis/rembg, rembg/sessions/).
    """
    seen = as_seen(on_white(drawn), network).to(next(network.parameters()).device)
    mask = torch.sigmoid(network(seen))[0, 0].cpu()
    least, most = mask.min(), mask.max()
    mask = (mask - least) / (most - least).clamp(min=1e-6)
    levels = Image.fromarray((mask * 255).to(torch.uint8).numpy())
    alpha = levels.resize(drawn.size, Image.Resampling.LANCZOS)
    found = ImageStat.Stat(alpha).mean[0] >= 255 * _FOUND
    return _cut(drawn, alpha, network.side), () if found else (NOTHING_FOUND,)


def cut_out_by(
    finder: Finder, drawn: Image.Image, wanted: Cutout, halvings: int = 0
) -> tuple[Image.Image, tuple[Place, ...]]:
    """Return what words find in a picture, cut out, and where. RenderFailed if nothing is found."""
    places, mask = finder.search(drawn, wanted.find, wanted.confidence, halvings)
    if not places:
        raise RenderFailed(
            f"Nothing was found for '{shown(wanted.find)}' with a confidence of "
            f"{wanted.confidence:g}, so nothing can be cut out.",
            "Try other words, or a lower confidence.",
        )
    levels = Image.fromarray((mask * 255).round().astype(np.uint8))
    alpha = levels.resize(drawn.size, Image.Resampling.BICUBIC)
    return _cut(drawn, alpha, _FINDERS_SIDE), tuple(Place("cutout", *place) for place in places)


def _cut(drawn: Image.Image, alpha: Image.Image, side: int) -> Image.Image:
    """Return a picture with an alpha, seen by a network in a square of this side."""
    cut = _with_own_colours(drawn.convert("RGB"), alpha, side)
    if drawn.mode == "RGBA":
        alpha = ImageChops.multiply(alpha, drawn.getchannel("A"))
    cut.putalpha(alpha)
    return cut


def framed(cut: Original, wanted: Cutout) -> Original:
    """Return what was cut out: centred if a size or a margin is wanted, over shadow and ground."""
    if wanted.size or wanted.margin is not None:
        cut = _centred(cut, wanted.sides or cut.picture.size, wanted.margin or 0)
    if wanted.shadow:
        cut = over(cut, _shadow(cut.picture))
    return on_ground(cut, wanted.background) if wanted.background else cut


def _shadow(cut: Image.Image) -> Image.Image:
    """Return the soft shadow of what was cut out, a little below it."""
    reach = max(1, max(cut.size) // 50)
    dark = cut.getchannel("A").filter(ImageFilter.GaussianBlur(reach))
    shadow = Image.new("RGBA", cut.size)
    shadow.paste("black", (0, reach), dark.point(lambda level: round(level * _DARKNESS)))
    return shadow


def _centred(cut: Original, size: tuple[int, int], margin: float) -> Original:
    """Return what is visible in the middle of a picture, as large as the margins allow."""
    visible = cut.picture.getchannel("A").point(lambda level: 255 if level >= _SEEN else 0)
    figure = cut.crop(visible.getbbox() or (0, 0, *cut.picture.size))
    whole = figure.picture.size
    room = 1 - 2 * margin / 100
    scale = min(room * side / own for side, own in zip(size, whole, strict=True))
    width, height = (max(1, round(side * scale)) for side in whole)
    if cut.low:
        figure = by_light(figure, (width, height), (0, 0, *whole))
    else:
        figure = Original(figure.picture.resize((width, height), Image.Resampling.LANCZOS))
    canvas = cut.blank("RGBA", size)
    canvas.paste(figure, ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def network_in(header: Header) -> Network:
    """Return the network that a file's header describes, without weights."""
    layout = cutouts.layout_of(header.shapes)
    assert layout  # the catalog has checked it
    # The side in Stability's ModelSpec, or the published network's.
    said = header.metadata.get("modelspec.resolution", "").partition("x")[0]
    side = int(said) if said.isdecimal() and len(said) <= _MOST_DIGITS else 0
    return Network(layout, side or _SIDES[layout.architecture])


def _with_own_colours(picture: Image.Image, alpha: Image.Image, side: int) -> Image.Image:
    """Return the picture with edges in the figure's colours instead of the background's."""
    sure = picture.copy()
    sure.putalpha(alpha.point(lambda level: 255 if level >= _SURE else 0))
    radius = -(-_EDGE * max(picture.size) // side)
    near = sure.convert("RGBa").filter(ImageFilter.BoxBlur(radius)).convert("RGBA")
    known = near.getchannel("A").point(lambda level: 255 if level else 0)
    near = Image.composite(near.convert("RGB"), picture, known)
    scale = 255 / (_SURE - _UNSURE)
    own = alpha.point(lambda level: min(255, max(0, round((level - _UNSURE) * scale))))
    coloured = Image.composite(picture, near, own)
    # Nobody can uncover invisible pixels that are black, and they take no space in a file.
    black = Image.new("RGB", picture.size)
    return Image.composite(coloured, black, alpha.point(lambda level: 255 if level else 0))
