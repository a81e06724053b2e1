"""The memory ladder. Does not import torch.

Each rung of the ladder draws in less memory than the last. A rung is chosen before a run of the
sampler and never changed during it: when memory runs out, the run begins again on the next rung. So
a picture records how it was drawn, and the noise of its seed is the same on every rung.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, NamedTuple

from picowatch.engine.protocol import Memory
from picowatch.errors import RenderFailed
from picowatch.families.row import References
from picowatch.recipe.passes import samplings
from picowatch.recipe.request import ImageRequest

SMALLEST_SIDE = 384
_SHRINK = 0.75
_SIDE_MULTIPLE = 32  # of the sides of smaller pictures: every family of models takes it

# Where weights are: all on the device; text encoders in main memory; all there, from where models
# or layers come to the device (as by diffusers' enable_model_cpu_offload, enable_group_offload).
# "turns": text encoders and denoiser in turn, read from their files.
WeightLocation = Literal["device", "encoders", "models", "turns", "layers"]


@dataclass(frozen=True, slots=True)
class Rung:
    """How a batch is rendered: `tiled`, image by image with the VAE in tiles; `shrunk` so often."""

    name: str = "full"
    tiled: bool = False
    place: WeightLocation = "device"
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

_CARD_SLACK = 2**29  # what libraries need besides tensors, and what is lost between these
# The main memory that a batch needs besides its numbers. There is no error when it runs out: the
# kernel kills the process.
WORKING_BYTES = 2 * 2**30
TILE_SIDE = 512  # of a VAE's tile: in the configs of many it is that of a whole picture
NATIVE_PIXELS = 512 * 512  # of Stable Diffusion
_MOST_AT_ONCE = 64
_CLIMB_AFTER = 32  # batches on a rung before that above is tried again: memory may be free


class Room(NamedTuple):
    """Bytes of memory that this process could use, with those that it holds."""

    main: int
    card: int | None = None  # None where the device computes in main memory, …
    physical: int = 0  # … of which this is all


@dataclass(frozen=True, slots=True)
class Sizes:
    """The bytes of a checkpoint's parts in memory, and of what computing takes for each pixel."""

    encoders: tuple[int, ...] = ()
    denoiser: int = 0
    vae: int = 0
    drawing: int = 0
    decoding: int = 0
    # Text encoders may make room for the denoiser. A UNet's are small, and a pipeline without a row
    # encodes prompts itself.
    takes_turns: bool = False
    references: References | None = None  # in how many pixels it edits
    multiple: int = 8  # of the sides of pictures

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


@dataclass(eq=False)
class MemoryLadder:
    """The rungs that a batch may try, and those that worked for similar batches.

    It begins with the rung that worked last for the checkpoint and size, and on a card now and then
    with that above it. Otherwise the setting decides: "full" begins at the top, "low" where
    weights leave the device, "auto" with the first rung for which `room` has enough.
    """

    _setting: Memory
    _room: Callable[[], Room]
    # The rung that worked last, and the number of batches on it since.
    _worked: dict[tuple[object, ...], tuple[Rung, int]] = field(default_factory=dict)

    def rungs(self, request: ImageRequest, sizes: Sizes, images: int = 1) -> Iterator[Rung]:
        """Yield the rungs to try in turn. RenderFailed if all are too small for the weights."""
        room, pixels = self._room(), _drawn_pixels(request, sizes.references)
        ladder, fit = _possible(sizes, room, pixels, images)
        if self._setting == "full":
            ladder = [FULL, *(rung for rung in ladder if rung != FULL)]
        elif not ladder or not (fit or room.card is None or LAYERS in ladder):
            raise _too_large(request, sizes, room)
        rungs = [*ladder, *_shrinking(request, ladder[-1], sizes.references)]
        first = ladder[0]
        if self._setting == "low":
            far = (rung for rung in ladder if rung.place not in ("device", "encoders"))
            first = next(far, ladder[-1])
        elif self._setting == "auto":
            least = min(ladder, key=lambda rung: sizes.on_device(rung, pixels, images))
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
        self, rung: Rung, request: ImageRequest, sizes: Sizes, images: int, beside: int
    ) -> bool:
        """Return whether a card has room for so many bytes beside what a batch takes there."""
        card = self._room().card
        return card is None or self.peak(rung, request, sizes, images) + beside <= card

    def peak(self, rung: Rung, request: ImageRequest, sizes: Sizes, images: int) -> int:
        """Return the most bytes that a batch takes at once on the device."""
        return sizes.on_device(rung, _drawn_pixels(request, sizes.references), images) + _CARD_SLACK

    def at_once(self, rung: Rung, request: ImageRequest, sizes: Sizes) -> int:
        """Return how many images like this may share a call."""
        room, pixels = self._room(), request.width * request.height
        if room.card is None:  # a picture of Stable Diffusion's native size fills a CPU
            return max(1, NATIVE_PIXELS // pixels)
        most = _MOST_AT_ONCE
        while most > 1 and not self.leaves_room(rung, request, sizes, most, 0):
            most //= 2
        return most

    def worked(self, request: ImageRequest, rung: Rung) -> None:
        """Remember this rung for images of this checkpoint and size."""
        before, batches = self._worked.get(_key(request), (None, 0))
        again = before == rung and batches < _CLIMB_AFTER
        self._worked[_key(request)] = rung, batches + 1 if again else 0


def _possible(sizes: Sizes, room: Room, pixels: int, images: int) -> tuple[list[Rung], list[Rung]]:
    """Return the rungs on which the weights have room, and those with room for computing, too."""
    if room.card is None:  # what is not free may be swapped out
        card, main, ladder = max(room.main, room.physical), 0, SHARED_LADDER
        free = room.main - WORKING_BYTES
    else:
        card, main, ladder = room.card, room.main, CARD_LADDER
        free = room.card - _CARD_SLACK
    found = [
        rung
        for rung in ladder
        if sizes.on_device(rung) <= card
        and sizes.in_main(rung) <= main
        and (sizes.takes_turns or rung is not TURNS)
    ]
    # Reading files again and again is for those who lack main memory.
    found = [rung for rung in found if rung is not TURNS or MODELS not in found]
    if room.card is None and sizes.total <= WORKING_BYTES:  # nothing to save
        return found, [FULL] if FULL in found else []
    return found, [
        rung
        for rung in found
        if sizes.on_device(rung, pixels, images) <= free
        and (not sizes.in_main(rung) or sizes.in_main(rung) + WORKING_BYTES <= room.main)
    ]


def _too_large(request: ImageRequest, sizes: Sizes, room: Room) -> RenderFailed:
    """Return the error for weights that fit nowhere."""
    free = f"{room.main / 1e9:.1f} GB of main memory"
    if room.card is not None:
        free = f"{room.card / 1e9:.1f} GB of the card and {free}"
    return RenderFailed(
        f"The weights of {request.checkpoint} take {sizes.total / 1e9:.1f} GB, and {free} can be "
        "used.",
        f"{'Get' if request.quantize else 'Write quantize: fp8, get'} its transformer as a GGUF "
        "file (Q4_K_S), or use a smaller checkpoint or a computer with more memory.",
    )


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
    """Return the pixels of the largest run of the sampler; each reference counts as a picture."""
    width, height = samplings(request)[-1].size
    if not request.references or references is None:
        return width * height
    # What is edited is drawn in a size of its own.
    area = references.area if references.stretched else min(references.area, width * height)
    return area * (1 + len(request.references))


def _key(request: ImageRequest) -> tuple[object, ...]:
    hires = request.hires.scale if request.hires else 1
    # Photos have many sizes, but are edited in about the same number of pixels.
    size = ("editing",) if request.references else (request.width, request.height, hires)
    controls = tuple(use.model_hash for use in request.control)
    return (request.checkpoint_hash, request.quantize, *size, request.shrink_to_fit, *controls)


def shrunken(request: ImageRequest, times: int, multiple: int = 8) -> ImageRequest:
    """Return the request with smaller sides: a quarter less each time, but at least 384."""
    scale = max(_SHRINK**times, min(1.0, SMALLEST_SIDE / min(request.width, request.height)))
    if scale == 1:
        return request
    width, height = (
        int(side * scale) // _SIDE_MULTIPLE * _SIDE_MULTIPLE
        for side in (request.width, request.height)
    )
    return shrunken_hires(replace(request, width=width, height=height), 0, multiple)


def shrunken_hires(request: ImageRequest, times: int, multiple: int) -> ImageRequest:
    """Return the request with a second run that enlarges less: a quarter less each time.

    It is the largest up to that whose sides its family takes.
    """
    if (hires := request.hires) is None:
        return request
    sides, most = (request.width, request.height), max(1.0, hires.scale * _SHRINK**times)
    smaller = (wide / sides[0] for wide in range(int(sides[0] * most), sides[0] - 1, -1))
    tried = (replace(hires, scale=scale) for scale in (most, *smaller))
    fits = (each for each in tried if not any(side % multiple for side in each.size_of(*sides)))
    return replace(request, hires=next(fits))


def shrink_warning(requested: ImageRequest, rendered: ImageRequest) -> tuple[str, ...]:
    """Return a warning if what was drawn is smaller than requested, otherwise ()."""
    (width, height), (wide, high) = rendered.drawn_size, requested.drawn_size
    if (width, height) == (wide, high):
        return ()
    return (
        f"Memory ran out, so this picture was rendered at {width}x{height} instead of "
        f"{wide}x{high}.",
    )
