"""Finishes the pictures of a batch, drawn or given: enlarges them and cuts them out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from picowatch.catalog import Kind, Model
from picowatch.catalog.headers import Header, read_header
from picowatch.engine.drawing.callbacks import raise_if
from picowatch.engine.drawing.canvas import decoded
from picowatch.engine.drawing.draw import Drawn, Interrupted, timed
from picowatch.engine.drawing.latents import Enlarge
from picowatch.engine.model.devices import Target
from picowatch.engine.model.part_files import Tensors, filled
from picowatch.engine.model.tensors import read_tensors
from picowatch.engine.model.verify import Verified
from picowatch.engine.networks import cutout
from picowatch.engine.networks.find import bytes_of, load_finder
from picowatch.engine.networks.preprocess import load_depth
from picowatch.engine.networks.upscale import MOST_OVERLAP, enlarged, network_in, weights_of
from picowatch.engine.protocol import OnStep
from picowatch.files.pictures import decode_with_alpha
from picowatch.recipe.request import ImageRequest

# A1111's names for resizing pixels for the second pass without an upscaler.
_RESAMPLING = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}


# The functions that create a network from a file's header, and its weights from the tensors.
_NETWORKS: dict[Kind, tuple[Callable[[Header], Any], Callable[[Any, Tensors], Tensors]]] = {
    "upscaler": (network_in, weights_of),
    "cutout": (cutout.network_in, cutout.with_counts),
}
_LOADERS: dict[Kind, Callable[[Model, Target], Any]] = {
    "depth": load_depth,
    "segmentation": load_finder,
}

# Returns a network that does not draw, by kind, name and hash.
NetworkOf = Callable[[Kind, str, str], Any]


def read_network(
    verified: Verified, target_for: Callable[[Kind], Target], kind: Kind, name: str, sha256: str
) -> Any:
    """Read a network that does not draw: those that finish in float32, since less is visible."""
    target = target_for(kind)
    with verified(kind, name, sha256) as model:
        if kind in _LOADERS:
            return _LOADERS[kind](model, target)
        made, renamed = _NETWORKS[kind]
        with torch.device("meta"):
            network = made(read_header(model.path))
        tensors = read_tensors(model.path, lambda _: torch.float32, torch.device("cpu"))
        weights = renamed(network, tensors)
        return filled(network, weights, f"{kind} {name!r}").to(target.device)


def bytes_of_finder(verified: Verified, target: Target, name: str, sha256: str) -> int:
    """Return what a finder takes in memory."""
    with verified("segmentation", name, sha256) as model:
        return bytes_of(model, target)


class Finishing:
    """Finishes the pictures of a batch; each counts as a step after those of drawing.

    Before each tile of a picture it checks whether the batch is to end. `timings` are the seconds
    of all phases.
    """

    def __init__(
        self,
        network_of: NetworkOf,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
    ) -> None:
        self._network_of = network_of
        self._batch = batch
        self._on_step = on_step
        self.interrupted = interrupted
        self.timings: dict[str, float] = {}
        self._steps = sum(bool(one.upscale) + bool(one.cutout) for one in batch)
        self._before = self._done = 0
        self._total = self._steps

    def drawn(self, done: int, total: int) -> None:
        """Report a step of drawing."""
        self._done, self._total = self._before + done, self._before + total + self._steps
        self._on_step(self._done, self._total)

    def goes_on(self) -> None:
        """Let the steps of what is drawn next count after those before."""
        self._before = self._done

    def for_hires(self, request: ImageRequest) -> Enlarge:
        """Return the function that enlarges a picture for the second pass."""
        assert request.hires is not None
        name, size = request.hires.upscaler, request.drawn_size
        if name in _RESAMPLING:
            return lambda picture: picture.resize(size, _RESAMPLING[name])
        model = partial(self._network_of, "upscaler", name, request.hires_upscaler_hash)
        return lambda picture: enlarged(model(), picture, size, self.look)

    def finished(self, pictures: Sequence[Drawn]) -> list[Drawn]:
        """Return what was drawn or given, enlarged and cut out where the requests say so."""
        found = list(pictures)
        for at, request in enumerate(self._batch):
            if request.upscale:
                with timed(self.timings, "upscale"):  # it looks before each tile
                    found[at] = self._enlarged(request, found[at])
            if request.cutout:
                with self.timed("cutout"):
                    found[at] = self._cut_out(request, found[at])
        return found

    def _cut_out(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        wanted = request.cutout
        assert wanted is not None
        network = self._network_of(*wanted.file, request.cutout_hash)
        if wanted.find:
            cut, places = cutout.cut_out_by(network, drawn.picture, wanted)
            drawn = drawn._replace(places=(*(drawn.places or ()), *places))
        else:
            cut, warnings = cutout.cut_out(network, drawn.picture)
            drawn = drawn._replace(warnings=(*drawn.warnings, *warnings))
        self._done += 1
        return drawn._replace(picture=cutout.framed(cut, wanted))

    def _enlarged(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        """Enlarge a picture, with `tiling` together with a margin from the opposite edges."""
        upscale, picture = request.upscale, drawn.picture
        assert upscale is not None
        margin = MOST_OVERLAP if request.tiling else 0
        edge = round(margin * (upscale.scale or 1))
        pixels = np.asarray(picture.convert("RGB"))
        image = Image.fromarray(np.pad(pixels, [(margin,) * 2, (margin,) * 2, (0, 0)], "wrap"))
        network = self._network_of("upscaler", upscale.model, request.upscaler_hash)
        large = enlarged(network, image, upscale.size_of(*image.size), self.look)
        size = upscale.size_of(*picture.size)
        large = large.crop((edge, edge, edge + size[0], edge + size[1]))
        if picture.mode == "RGBA":
            large.putalpha(picture.getchannel("A").resize(size, Image.Resampling.BICUBIC))
        self._done += 1
        return drawn._replace(picture=large)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Look, and add the seconds spent inside to a phase."""
        self.look()
        with timed(self.timings, phase):
            yield

    @contextmanager
    def timed_as(self, phase: str) -> Iterator[None]:
        """Add all seconds of drawing inside to one phase: batch sizes are learnt from the others.

        Loading and finding stay phases of their own.
        """
        before, self.timings = self.timings, dict[str, float]()
        try:
            yield
        finally:
            inside, self.timings = self.timings, before
            for name, seconds in inside.items():
                name = name if name in ("load", "find") else phase
                before[name] = before.get(name, 0.0) + seconds

    def look(self) -> None:
        """Report that the engine is alive, and raise EngineStopped if the batch is to end."""
        self._on_step(self._done, self._total)
        raise_if(self.interrupted)


def given_picture(request: ImageRequest, start_images: Path | None) -> Drawn:
    """Return a start image as if it had been drawn."""
    return Drawn(decoded(decode_with_alpha, start_images, request.image_hash, request.image))
