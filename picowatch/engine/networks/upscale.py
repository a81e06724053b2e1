"""Enlarges pictures by upscalers: between the passes of hires, and for the field `upscale`.

Pictures are enlarged in tiles, and results that are too large are reduced in bands, which limits
the memory for any size to that of the picture and of the result. Each tile includes some pixels
beyond its edges, whose results are cut off. If the network sees no further than that, the result
equals that of the whole picture. ESRGAN sees some hundred pixels, so its seams differ slightly
(benchmarks/RESULTS.md).

The networks are for their authors' weights; catalog/upscalers.py has the names. Each takes RGB from
0 to 1 and returns it `scale` times as large.
"""

from collections.abc import Callable, Iterator
from math import ceil

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from picowatch.catalog.headers import Header
from picowatch.catalog.upscalers import COMPACT, ESRGAN, SPAN, SPAN_BLOCKS, Layout, layout_of
from picowatch.engine.colours import LANCZOS_REACH, Colours, joined, parted, resampled
from picowatch.engine.model.part_files import Tensors
from picowatch.files.decoding import Original

# Sides of a tile: A1111's on a CPU, larger to fill a GPU. ESRGAN needs 1.5 GB for 256.
_TILE = {"cuda": 256}
_USUAL_TILE = 192
MOST_OVERLAP = 36
# An upscaler of a smaller scale enlarges several times, as A1111's do (modules/upscaler.py).
_MOST_TIMES = 3
_MOST_BETWEEN = 100_000_000  # pixels that are made of those that an upscaler made

Size = tuple[int, int]
OnTile = Callable[[], None]

_DENSE, _PARTS = 5, 3  # layers and blocks of ESRGAN
_SLOPE, _RESIDUAL = 0.2, 0.2


class Network(nn.Module):
    reach: int  # how many pixels around it influence a pixel: the overlap without seams
    # In memory at once for each pixel of the input (tests/engine/test_upscale.py counts them).
    numbers: int
    multiple = 1  # the sides of its input must be multiples of it

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.scale = layout, layout.scale

    def weights_of(self, tensors: Tensors) -> Tensors:
        """Return a file's tensors by the names of the network here."""
        return {ours: tensors[theirs] for ours, theirs in self.layout.names.items()}

    def computing_bytes(self, device: str) -> int:
        """Return what a tile takes on a kind of device, with the overlap around it."""
        side = int(_TILE.get(device, _USUAL_TILE)) + 2 * min(self.reach, MOST_OVERLAP)
        return self.numbers * side**2 * 4


class Esrgan(Network):
    """RRDBNet: dense blocks within residual blocks (https://arxiv.org/abs/1809.00219, 3.1)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        channels, fold = layout.channels, layout.unshuffle
        self.multiple = fold
        self.conv_first = _conv(3 * fold**2, channels)
        self.body = nn.Sequential(
            *(_ResidualDense(channels, layout.growth) for _ in range(layout.blocks))
        )
        self.conv_body = _conv(channels, channels)
        self._doublings = [f"conv_up{number + 1}" for number in range(layout.doublings)]
        for name in self._doublings:
            self.add_module(name, _conv(channels, channels))
        self.conv_hr = _conv(channels, channels)
        self.conv_last = _conv(channels, 3)
        large = channels * 4 ** (layout.doublings + 1) // fold**2
        dense = 2 * (channels + (_DENSE - 1) * layout.growth) // fold**2
        self.numbers = max(large, dense) + channels + 3
        # Convolutions of enlarged pixels reach less far: two pixels are enough for all of them.
        self.reach = fold * (2 + layout.blocks * _PARTS * _DENSE + 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.multiple > 1:
            pixels = functional.pixel_unshuffle(pixels, self.multiple)
        first = self.conv_first(pixels)
        features = first + self.conv_body(self.body(first))
        for name in self._doublings:
            larger = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = _leaky(self.get_submodule(name)(larger))
        found: torch.Tensor = self.conv_last(_leaky(self.conv_hr(features)))
        return found


class _ResidualDense(nn.Module):
    """Three dense blocks in a row, a fifth of whose result is added."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(_PARTS):
            self.add_module(f"rdb{number + 1}", _Dense(channels, growth))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        changed = features
        for part in self.children():
            changed = part(changed)
        return features + changed * _RESIDUAL


class _Dense(nn.Module):
    """Five convolutions, each of which takes the results of all before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(_DENSE):
            gives = channels if number == _DENSE - 1 else growth
            self.add_module(f"conv{number + 1}", _conv(channels + number * growth, gives))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        seen = features
        *convolutions, last = self.children()
        for convolution in convolutions:
            seen = torch.cat([seen, _leaky(convolution(seen))], 1)
        changed: torch.Tensor = last(seen)
        return features + changed * _RESIDUAL


class Compact(Network):
    """SRVGGNetCompact: a row of convolutions, whose result is added to the enlarged picture.

    https://github.com/xinntao/Real-ESRGAN, realesrgan/archs/srvgg_arch.py.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        channels = layout.channels
        layers: list[nn.Module] = [_conv(3, channels), nn.PReLU(channels)]
        for _ in range(layout.blocks):
            layers += [_conv(channels, channels), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, _conv(channels, 3 * layout.scale**2))
        self.reach = layout.blocks + 2
        self.numbers = 2 * channels + layout.scale**2 + 3

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        details = functional.pixel_shuffle(self.body(pixels), self.scale)
        return details + functional.interpolate(pixels, scale_factor=float(self.scale))


class Span(Network):
    """SPAN: attention without parameters (https://arxiv.org/abs/2311.12770).

    Its convolutions were trained as three in a row beside a fourth; `weights_of` merges them.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        channels = layout.channels
        self.conv_1 = _conv(3, channels)
        for number in range(SPAN_BLOCKS):
            self.add_module(f"block_{number + 1}", _Attentive(channels))
        self.conv_2 = _conv(channels, channels)
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(_conv(channels, 3 * layout.scale**2))
        self._normalised = layout.normalised
        self.reach = 1 + 3 * SPAN_BLOCKS + 2
        self.numbers = 13 * channels + 3 * layout.scale**2 + 3

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._normalised:
            # The average colour of DIV2K, and numbers up to 255.
            mean = pixels.new_tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
            pixels = (pixels - mean) * 255
        first = self.conv_1(pixels)
        features, firsts, inner = first, [], first
        for number in range(SPAN_BLOCKS):
            features, inner = self.get_submodule(f"block_{number + 1}")(features)
            firsts.append(features)
        joined = torch.cat([first, self.conv_2(features), firsts[0], inner], 1)
        return functional.pixel_shuffle(self.upsampler(self.conv_cat(joined)), self.scale)

    def weights_of(self, tensors: Tensors) -> Tensors:
        found = super().weights_of(tensors)
        rows = [name.removesuffix(".sk.weight") for name in found if name.endswith(".sk.weight")]
        for name in rows:  # of 1x1, 3x3 and 1x1, beside another 1x1: they become one of 3x3
            first, second, third, beside = (
                tuple(found.pop(f"{name}.{part}.{kind}").double() for kind in ("weight", "bias"))
                for part in ("conv.0", "conv.1", "conv.2", "sk")
            )
            narrow, wide = first[0][:, :, 0, 0], third[0][:, :, 0, 0]
            weight = torch.einsum("om,mnhw,ni->oihw", wide, second[0], narrow)
            weight = weight + functional.pad(beside[0], (1, 1, 1, 1))
            inner = torch.einsum("mnhw,n->m", second[0], first[1]) + second[1]
            found[f"{name}.weight"] = weight.to(torch.float32)
            found[f"{name}.bias"] = (wide @ inner + third[1] + beside[1]).to(torch.float32)
        return found


class _Attentive(nn.Module):
    """Three convolutions; the last result weights itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("c1_r", "c2_r", "c3_r"):
            self.add_module(name, _conv(channels, channels))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second, third = self.children()
        inner = functional.silu(first(features))
        last = third(functional.silu(second(inner)))
        return (last + features) * (torch.sigmoid(last) - 0.5), inner


def network_in(header: Header) -> Network:
    """Return the upscaler that a file's header describes, without weights."""
    layout = layout_of(header.shapes)
    assert layout  # the catalog has checked it
    return {ESRGAN: Esrgan, COMPACT: Compact, SPAN: Span}[layout.architecture](layout)


def _conv(takes: int, gives: int) -> nn.Conv2d:
    return nn.Conv2d(takes, gives, 3, padding=1)


def _leaky(features: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(features, _SLOPE)


def input_sizes(scale: int, before: Size, size: Size) -> list[Size]:
    """Return the sizes of the pictures that go through an upscaler of this scale in turn.

    Each but the first is the result of the pass before, reduced where its own would be far too
    large. The given picture is never reduced: its details would be lost.
    """
    passes = [before]
    while scale > 1 and len(passes) < _MOST_TIMES:
        before = before[0] * scale, before[1] * scale
        if before[0] >= size[0] and before[1] >= size[1]:
            break
        if before[0] * before[1] * scale**2 > _MOST_BETWEEN:
            before = min(before, (-(-size[0] // scale), -(-size[1] // scale)))
        passes.append(before)
    return passes


def spans(side: int, tile: int) -> list[tuple[int, int]]:
    """Divide a side into tiles of nearly equal length, each beginning at a multiple of 4."""
    count = -(-side // tile)
    length = -(-side // (count * 4)) * 4
    return [(begin, min(begin + length, side)) for begin in range(0, side, length)]


def enlarged(
    network: Network,
    given: Original,
    size: Size,
    before_tile: OnTile,
    after_tile: OnTile = lambda: None,
    begin: Callable[[int], None] = lambda _: None,
    halvings: int = 0,
) -> Original:
    """Return an RGB picture in another size, by as many passes of an upscaler as needed.

    A result that is too large is reduced by Lanczos, as in A1111. `begin` is told the number of
    tiles. It and `before_tile` may raise. The sides of tiles are halved so often.
    """
    device, scale = next(network.parameters()).device.type, network.scale
    tile = int(_TILE.get(device, _USUAL_TILE)) >> halvings
    sizes = input_sizes(scale, given.picture.size, size)
    begin(sum(len(spans(high, tile)) * len(spans(wide, tile)) for wide, high in sizes))
    for before in sizes:
        given = _in_size(given, before)
        larger = before[0] * scale, before[1] * scale
        is_last = larger[0] >= size[0] and larger[1] >= size[1]
        result = given.blank("RGB", size if is_last else larger)
        _put(_bands(network, joined(given), tile, before_tile, after_tile), larger, result)
        given = result
    return _in_size(given, size)


def _put(bands: Iterator[Colours], larger: Size, result: Original) -> None:
    """Put the picture of these bands of rows, `larger` together, into the result in its size.

    What is too large becomes less wide, then less high, by Lanczos' filter; only as many rows are
    held as that sees. The filter of each band sees the rows around it, so they join without a seam.
    """
    size = result.picture.size
    factor = larger[1] / size[1]
    around = ceil(LANCZOS_REACH * max(1, factor)) + 1 if larger[1] != size[1] else 0
    held: Colours = np.empty((0, size[0], 3), np.uint16 if result.low else np.uint8)
    first = done = 0
    for band in bands:
        held = np.concatenate([held, resampled(band, (size[0], len(band)))])
        end = first + len(held)
        rows = size[1] if end == larger[1] else max(done, int((end - around) / factor))
        if rows > done:
            box = 0, done * factor - first, size[0], min(rows * factor - first, len(held))
            result.paste(parted(resampled(held, (size[0], rows - done), box)), (0, done))
        done = rows
        needed = max(first, int(done * factor) - around)
        held, first = held[needed - first :], needed


def _bands(
    network: Network, picture: Colours, tile: int, before_tile: OnTile, after_tile: OnTile
) -> Iterator[Colours]:
    """Yield the rows of each row of tiles, `network.scale` times as large.

    Tiles overlap as far as the network sees, up to a limit. There is no margin at the picture's own
    edges, as in training.
    """
    height, width = picture.shape[:2]
    scale, overlap = network.scale, -(-min(network.reach, MOST_OVERLAP) // 4) * 4
    for top, bottom in spans(height, tile):
        larger: Colours = np.empty(((bottom - top) * scale, width * scale, 3), picture.dtype)
        for left, right in spans(width, tile):
            before_tile()
            above, before = max(0, top - overlap), max(0, left - overlap)
            made = _through(network, picture[above : bottom + overlap, before : right + overlap])
            made = made[(top - above) * scale :, (left - before) * scale :]
            place = larger[:, left * scale : right * scale]
            place[:] = made[: place.shape[0], : place.shape[1]]
            after_tile()
        yield larger


def _through(network: Network, seen: Colours) -> Colours:
    most = np.iinfo(seen.dtype).max
    device = next(network.parameters()).device
    # As float32, since hardly any of torch's devices knows numbers of 16 bits.
    pixels = torch.from_numpy(seen.astype(np.float32)).to(device).permute(2, 0, 1)[None] / most
    height, width = pixels.shape[2:]
    beyond = (0, -width % network.multiple, 0, -height % network.multiple)
    if any(beyond):
        pixels = functional.pad(pixels, beyond, mode="replicate")
    made = network(pixels)[0, :, : height * network.scale, : width * network.scale]
    numbers = (made * most).round().clamp(0, most).permute(1, 2, 0)
    larger: Colours = numbers.cpu().numpy().astype(seen.dtype)
    return larger


def _in_size(given: Original, size: Size) -> Original:
    if given.picture.size == size:
        return given
    return parted(resampled(joined(given), size), given.profile)
