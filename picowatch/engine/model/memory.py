"""The memory ladder. Does not import torch.

Each rung of the ladder renders a batch in less memory than the last. A rung is chosen before a
batch and never changed during it: when memory runs out, the batch is rendered again from its first
step on the next rung. So a picture records exactly how it was rendered, and the noise of its seed
is the same on every rung.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, NamedTuple

from picowatch.engine.protocol import Memory
from picowatch.errors import RenderFailed
from picowatch.families import References
from picowatch.recipe.passes import passes_of
from picowatch.recipe.request import ImageRequest

SMALLEST_SIDE = 384
_SHRINK = 0.75
# Sides of smaller pictures are multiples of this, which every family of models takes.
_SIDE_MULTIPLE = 32

# Where weights are: all on the device; text encoders in main memory; all there, from where models
# or layers come to the device (diffusers' enable_model_cpu_offload and enable_group_offload).
# "turns": text encoders and denoiser in turn, read from their files.
Place = Literal["device", "encoders", "models", "turns", "layers"]


@dataclass(frozen=True, slots=True)
class Rung:
    """How a batch is rendered.

    `tiled`: the VAE works in tiles, and images are rendered one by one. `shrunk` counts reductions
    of the size.
    """

    name: str = "full"
    tiled: bool = False
    place: Place = "device"
    shrunk: int = 0


FULL = Rung()
TILED = Rung("VAE tiling", tiled=True)
ENCODERS = replace(TILED, name="text encoders by layers", place="encoders")
MODELS = replace(TILED, name="model offload", place="models")
TURNS = replace(TILED, name="text encoders in turn", place="turns")
LAYERS = replace(TILED, name="group offload", place="layers")
CARD_LADDER: tuple[Rung, ...] = (FULL, TILED, ENCODERS, MODELS, TURNS, LAYERS)
# A device that computes in main memory cannot offload weights to it.
SHARED_LADDER: tuple[Rung, ...] = (FULL, TILED, TURNS)

# What libraries need on a card besides tensors, and what is lost between these.
_CARD_SLACK = 2**29
# The main memory that a batch needs besides its numbers. There is no error when it runs out: the
# kernel kills the process.
WORKING_BYTES = 2 * 2**30
# The side of a VAE's tile: in the configs of many it is that of a whole picture.
TILE_SIDE = 512
# Ways to a smaller denoiser, and the bytes of a number in it.
_SMALLER = {"Write quantize: fp8": 1, "Get its transformer as a GGUF file (Q4_K_S)": 144 / 256}


class Room(NamedTuple):
    """Bytes of main memory and of a card that this process could use, with those that it holds.

    `card` is None where the device computes in main memory; `physical` is all that there is of it.
    """

    main: int
    card: int | None = None
    physical: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of a checkpoint's parts in memory, and of what computing takes for each pixel.

    `numbers` is the number of the denoiser's weights. `takes_turns`: its text encoders may make
    room for it. A UNet's are small, and a short family's pipeline encodes prompts itself.
    `references` say in how many pixels its pictures are edited.
    """

    encoders: tuple[int, ...] = ()
    denoiser: int = 0
    vae: int = 0
    numbers: int = 0
    drawing: int = 0
    decoding: int = 0
    takes_turns: bool = False
    references: References | None = None

    @property
    def total(self) -> int:
        return sum(self.encoders) + self.denoiser + self.vae

    def on_device(self, rung: Rung, pixels: int = 0, images: int = 1) -> int:
        """Return the most bytes at once on the device, with 0 pixels those of weights alone."""
        drawing = self.drawing * pixels * (1 if rung.tiled else images)
        decoding = self.decoding * min(pixels, TILE_SIDE**2 if rung.tiled else pixels)
        computing = max(drawing, decoding)
        match rung.place:
            case "device":
                return self.total + computing
            case "encoders":
                return self.denoiser + self.vae + computing
            case "models":
                return max(0, *self.encoders, self.denoiser + drawing, self.vae + decoding)
            case "turns":
                return self.vae + max(sum(self.encoders), self.denoiser + computing)
            case "layers":
                return computing

    def in_main(self, rung: Rung) -> int:
        """Return the bytes of weights that are in main memory for a card."""
        moved = {"encoders": sum(self.encoders), "models": self.total, "layers": self.total}
        return moved.get(rung.place, 0)


# After so many batches on a rung the one above it is tried again: another program may have freed
# memory.
_CLIMB_AFTER = 32


class MemoryLadder:
    """The rungs that a batch may try, and those that worked for similar batches.

    It begins with the rung that worked last for the checkpoint and size, and on a card now and then
    with the one above it. Otherwise the setting decides: "full" begins at the top, "low" where
    weights leave the device, "auto" with the first rung for which `room` has enough.
    """

    def __init__(self, setting: Memory, room: Callable[[], Room]) -> None:
        self._setting = setting
        self._room = room
        # The rung that worked last, and the number of batches on it since.
        self._worked: dict[tuple[object, ...], tuple[Rung, int]] = {}

    def rungs(self, request: ImageRequest, weights: Weights, images: int = 1) -> Iterator[Rung]:
        """Yield the rungs to try in turn; those of smaller pictures only with `shrink_to_fit`.

        RenderFailed if all are too small for the weights.
        """
        room, pixels = self._room(), _pixels(request)
        ladder = _possible(weights, room)
        fit = _fitting(weights, room, pixels, images)
        if self._setting == "full":
            ladder = [FULL, *(one for one in ladder if one != FULL)]
        elif not ladder or not (fit or room.card is None or LAYERS in ladder):
            raise _too_large(request, weights, room)
        rungs = [*ladder, *_shrinking(request, ladder[-1], weights.references)]
        first = ladder[0]
        if self._setting == "low":
            first = next((one for one in ladder if one.place not in _NEAR), ladder[-1])
        elif self._setting == "auto":
            least = min(ladder, key=lambda one: weights.on_device(one, pixels, images))
            first = next(iter(fit), least)
        highest = begin = rungs.index(first)
        if (known := self._worked.get(_key(request))) and known[0] in rungs:
            rung, batches = known
            begin = max(highest, rungs.index(rung))
            # Main memory is not tried out: the kernel kills the process that takes too much.
            if begin > highest and batches >= _CLIMB_AFTER and room.card is not None:
                begin -= 1
        yield from rungs[begin:]

    def leaves_room(
        self, rung: Rung, request: ImageRequest, weights: Weights, images: int, beside: int
    ) -> bool:
        """Return whether a card has room for so many bytes beside what a batch takes there."""
        room = self._room()
        taken = weights.on_device(rung, _pixels(request), images) + beside
        return room.card is None or taken <= room.card - _CARD_SLACK

    def worked(self, request: ImageRequest, rung: Rung) -> None:
        """Remember this rung for images of this checkpoint and size."""
        before, batches = self._worked.get(_key(request), (None, 0))
        again = before == rung and batches < _CLIMB_AFTER
        self._worked[_key(request)] = rung, batches + 1 if again else 0


# The places of a denoiser that stays on the device.
_NEAR = ("device", "encoders")


def _possible(weights: Weights, room: Room) -> list[Rung]:
    """Return the rungs on which the weights have room."""
    if room.card is None:  # what is not free may be swapped out
        card, main, ladder = max(room.main, room.physical), 0, SHARED_LADDER
    else:
        card, main, ladder = room.card, room.main, CARD_LADDER
    found = [
        one
        for one in ladder
        if weights.on_device(one) <= card
        and weights.in_main(one) <= main
        and (weights.takes_turns or one is not TURNS)
    ]
    # Reading files again and again is for those who lack main memory.
    return [one for one in found if one is not TURNS or MODELS not in found]


def _fitting(weights: Weights, room: Room, pixels: int, images: int) -> list[Rung]:
    """Return the rungs on which there is room for computing, too."""
    if room.card is None and weights.total <= WORKING_BYTES:  # nothing to save
        return [FULL]
    free = room.main - WORKING_BYTES if room.card is None else room.card - _CARD_SLACK
    return [
        one
        for one in _possible(weights, room)
        if weights.on_device(one, pixels, images) <= free
        and (not weights.in_main(one) or weights.in_main(one) + WORKING_BYTES <= room.main)
    ]


def _too_large(request: ImageRequest, weights: Weights, room: Room) -> RenderFailed:
    """Return the error for weights that fit nowhere; its remedy is a smaller form that does."""
    free = f"{_gigabytes(room.main)} of main memory"
    if room.card is not None:
        free = f"{_gigabytes(room.card)} of the card and {free}"
    remedy = "Use a smaller checkpoint, or a computer with more memory."
    for way, size in _SMALLER.items():
        smaller = replace(weights, denoiser=int(weights.numbers * size))
        if smaller.denoiser < weights.denoiser and _fitting(smaller, room, _pixels(request), 1):
            before, after = map(_gigabytes, (weights.denoiser, smaller.denoiser))
            remedy = f"{way}: it then takes {after} instead of {before}."
            break
    taken = _gigabytes(weights.total)
    return RenderFailed(
        f"The weights of {request.checkpoint} take {taken}, and {free} can be used.", remedy
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _pixels(request: ImageRequest) -> int:
    """Return the pixels of the largest pass; each reference is one more picture."""
    width, height = passes_of(request)[-1].size
    return width * height * (1 + len(request.references))


def _shrinking(request: ImageRequest, last: Rung, references: References | None) -> Iterator[Rung]:
    """Yield the rungs of smaller pictures down to the smallest, if the image allows any."""
    drawn = _drawn_pixels(request, references)
    for times in count(1):
        smaller = shrunken(request, times)
        if not request.shrink_to_fit or smaller == shrunken(request, times - 1):
            return
        if _drawn_pixels(smaller, references) < drawn:
            drawn = _drawn_pixels(smaller, references)
            yield replace(last, name="smaller picture", shrunk=times)


def _drawn_pixels(request: ImageRequest, references: References | None) -> int:
    """Return the pixels in which a picture is drawn: one that is edited has a size of its own."""
    pixels = request.width * request.height
    if not request.references or references is None:
        return pixels
    return references.area if references.stretched else min(references.area, pixels)


def _key(request: ImageRequest) -> tuple[object, ...]:
    hires = request.hires.scale if request.hires else 1
    # Photos have many sizes, but are edited in about the same number of pixels.
    size = ("editing",) if request.references else (request.width, request.height, hires)
    controls = tuple(use.model_hash for use in request.control)
    return (request.checkpoint_hash, request.quantize, *size, request.shrink_to_fit, *controls)


def shrunken(request: ImageRequest, times: int) -> ImageRequest:
    """Return the request with smaller sides: a quarter less each time, but at least 384."""
    shorter = min(request.width, request.height)
    scale = max(_SHRINK**times, min(1.0, SMALLEST_SIDE / shorter))
    if scale == 1:
        return request
    width, height = (
        int(side * scale) // _SIDE_MULTIPLE * _SIDE_MULTIPLE
        for side in (request.width, request.height)
    )
    return replace(request, width=width, height=height)


def shrink_warning(requested: ImageRequest, rendered: ImageRequest) -> tuple[str, ...]:
    """Return a warning if the picture is smaller than requested, otherwise ()."""
    if rendered == requested:
        return ()
    return (
        f"Memory ran out, so this picture was rendered at {rendered.width}x{rendered.height} "
        f"instead of {requested.width}x{requested.height}.",
    )
