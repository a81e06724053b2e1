"""Renders pictures in this process: a batch's way from requests to pixels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, lru_cache, partial

import torch

from picowatch.catalog import Catalog, Kind
from picowatch.engine.drawing.callbacks import raise_if
from picowatch.engine.drawing.canvas import Canvas, Size, picture_warnings
from picowatch.engine.drawing.checkpoints import Checkpoints
from picowatch.engine.drawing.detail import Part, canvases_of, redrawn
from picowatch.engine.drawing.draw import Drawn, Interrupted, Job, Passes, draw, timed
from picowatch.engine.drawing.edit import EditPasses
from picowatch.engine.drawing.finishing import (
    Finishing,
    bytes_of_finder,
    given_picture,
    read_network,
)
from picowatch.engine.drawing.flow import FlowPasses
from picowatch.engine.drawing.masks import Masks
from picowatch.engine.drawing.preview import Previewer
from picowatch.engine.drawing.step_cache import need_cache_dit
from picowatch.engine.drawing.unet import UnetPasses, seamless
from picowatch.engine.failures import SMALLER, out_of_memory
from picowatch.engine.model.compile import Compiled
from picowatch.engine.model.devices import (
    Target,
    choose_target,
    compute_exactly,
    precision_name,
)
from picowatch.engine.model.graphs import Graphed
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.model.measures import free_bytes, held_memory, room_on
from picowatch.engine.model.memory import (
    FULL,
    TILED,
    MemoryLadder,
    Rung,
    Weights,
    shrink_warning,
    shrunken,
)
from picowatch.engine.model.verify import verified
from picowatch.engine.networks.preprocess import Pixels, guess_depth
from picowatch.engine.protocol import (
    CompileState,
    EngineOptions,
    OnPreview,
    OnStep,
    RenderedImage,
    unseen,
)
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ControlUse, ImageRequest

_KEPT = 4  # networks that do not draw


class Renderer:
    """Renders batches one after the other; the last checkpoint stays in memory."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview = unseen) -> None:
        torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.engines))
        self._target = choose_target(options.device, options.precision, options.ordinal)
        all_bits = options.precision == "float32"
        self._algorithms = partial(compute_exactly, all_bits=all_bits)
        self._start_images = options.start_images
        catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        opened = partial(verified, catalog)
        self._checkpoints = Checkpoints(opened, self._target)
        self._network_of = lru_cache(_KEPT)(partial(read_network, opened, self._target_for))
        self._finder_bytes = cache(partial(bytes_of_finder, opened, self._target))
        self._finders_fit, self._beside = True, 0  # on the card, and the bytes of those there
        self._masks = Masks(self._network_of, self._start_images)
        self._previewer = Previewer(on_preview, options.preview_seconds)
        device = self._target.device
        self._compile, self._cache = options.compile, options.cache
        self._on_card = device.type == "cuda"
        self._graphs = options.graphs and self._on_card
        self._ladder = MemoryLadder(options.memory, partial(room_on, device))

    @torch.inference_mode()
    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
    ) -> list[RenderedImage]:
        """Return the pictures of a batch in its order; its images have one `batch_key`.

        Raises EngineStopped once `interrupted` returns True, RenderFailed, or any other error.
        """
        if not batch[0].draws:
            return self._render_on(FULL, batch, on_step, interrupted)
        failure = ""
        for rung in self._rungs(batch):
            try:
                images = self._render_on(rung, batch, on_step, interrupted)
            # The classes of out-of-memory errors differ by device and version of torch.
            except Exception as error:
                failure = out_of_memory(error)
                if not failure:
                    raise
            else:
                tiled = any(one.memory_rung == TILED.name for one in images)
                self._ladder.worked(batch[0], TILED if tiled else rung)
                return images
        remedy = SMALLER if batch[0].shrink_to_fit else f"{SMALLER[:-1]}, or shrink_to_fit: true."
        raise RenderFailed(f"{failure} No memory-saving level was enough.", remedy)

    def _rungs(self, batch: Sequence[ImageRequest]) -> Iterator[Rung]:
        """Yield the ladder's rungs, each again if releasing other models made room.

        Memory is released here, not where it ran out: the traceback keeps the tensors alive.
        """
        request = batch[0]
        weights = self._checkpoints.weights(request)
        for rung in self._ladder.rungs(request, weights, len(batch)):
            yield rung
            self._network_of.cache_clear()
            if self._checkpoints.forget_others(request):
                self._checkpoints.give_memory_back()
                yield rung
            self._checkpoints.give_memory_back()

    def _make_way(self, rung: Rung, batch: Sequence[ImageRequest]) -> None:
        """Keep finders on a card only where they leave a batch its room, else in main memory."""
        first = batch[0]
        sizes = [self._finder_bytes(*one) for request in batch for one in request.finders.items()]
        size = max(sizes, default=self._beside)
        if not size:
            return
        weights = self._checkpoints.weights(first) if first.draws else Weights()
        fits = self._ladder.leaves_room(rung, first, weights, len(batch), size)
        if not first.draws:  # a checkpoint may still be there
            fits = fits and (size <= self._beside or size <= free_bytes(self._target.device))
        if fits != self._finders_fit:
            self._network_of.cache_clear()
            self._checkpoints.give_memory_back()
        self._finders_fit, self._beside = fits, size if fits else 0

    def _target_for(self, kind: Kind) -> Target:
        """Return where a network that does not draw computes."""
        if kind != "segmentation" or self._finders_fit:
            return self._target
        return replace(self._target, device=torch.device("cpu"), flow_dtype=torch.float32)

    def _render_on(
        self,
        rung: Rung,
        requested: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
    ) -> list[RenderedImage]:
        """Render the batch on one rung, from the first step to the last.

        Given pictures that are only finished need no checkpoint.
        """
        batch = [shrunken(request, rung.shrunk) for request in requested]
        first = batch[0]
        self._make_way(rung, batch)
        finishing = Finishing(self._network_of, batch, on_step, interrupted)
        if first.draws:
            drawing = partial(self._drawn, rung, finishing=finishing)
            draw = self._given if first.only_details else drawing
            with self._algorithms(exact=first.exact):
                self._masks.search(batch, finishing)
            drawn = self._masks.around(batch, draw)
            drawn = self._with_details(rung, batch, drawn, finishing)
        else:
            drawn = self._given(batch)
        with self._algorithms(exact=first.exact):
            drawn = finishing.finished(drawn)
        timings = {phase: seconds / len(batch) for phase, seconds in finishing.timings.items()}
        device, memory = self._target.name, held_memory()
        finished = [
            one._replace(
                rung=one.rung or rung.name,
                warnings=(
                    *one.warnings,
                    *picture_warnings(self._start_images, request),
                    *shrink_warning(request, smaller),
                ),
            )
            for one, request, smaller in zip(drawn, requested, batch, strict=True)
        ]
        return [one.as_rendered(device, timings, memory) for one in finished]

    def _drawn(
        self,
        rung: Rung,
        batch: Sequence[ImageRequest],
        finishing: Finishing,
        canvas_of: Callable[[ImageRequest, Size], Canvas | None] | None = None,
    ) -> list[Drawn]:
        """Return the pictures before they are finished.

        `canvas_of` returns the canvases of parts of pictures that were made in this batch.
        """
        first = batch[0]
        if first.step_cache:
            need_cache_dit()
        loaded = self._loaded(first, rung, finishing.timings)
        job = Job(
            self._target.device,
            self._start_images,
            finishing.drawn,
            finishing.interrupted,
            finishing.timings,
            self._previewer,
            self._guess_depth,
            canvas_of or self._masks.canvas_of,
            finishing.for_hires,
            alone=rung.tiled or first.exact or first.step_cache,
            instead=self._instead(loaded, first, rung),
            # Layers that are moved one by one are expected in the order of the first step.
            cached=first.step_cache and rung.place != "layers",
        )
        drawn = self._draw(loaded, batch, job)
        unable = loaded.compiled.failure if loaded.compiled else ""
        compiled: CompileState = isinstance(job.instead, Compiled) and not unable
        if isinstance(job.instead, Graphed) and job.instead.replayed:
            compiled = "graph"
        warnings = (*loaded.lora_warnings, *([unable] if unable else []))
        if first.step_cache and not job.cached:
            warnings += ("step_cache had no effect, because memory is short.",)
        return [
            one._replace(
                precision=precision_name(loaded.denoiser.dtype),
                compiled=compiled,
                rung=TILED.name if loaded.vae.use_tiling and not rung.tiled else rung.name,
                warnings=(*warnings, *one.warnings),
            )
            for one in drawn
        ]

    def _given(self, batch: Sequence[ImageRequest]) -> list[Drawn]:
        """Return the start images as if they had been drawn."""
        given = [given_picture(request, self._start_images) for request in batch]
        return [one._replace(batch_size=0) for one in given] if batch[0].draws else given

    def _with_details(
        self,
        rung: Rung,
        batch: Sequence[ImageRequest],
        drawn: list[Drawn],
        finishing: Finishing,
    ) -> list[Drawn]:
        """Return the pictures, with the things in them drawn again that the requests name."""

        def draw(parts: Sequence[Part]) -> list[Drawn]:
            canvas_of = canvases_of(parts)
            requests, found = [part.request for part in parts], list[Drawn]()
            most = self._at_once(rung, requests)
            for at in range(0, len(parts), most):
                finishing.goes_on()
                found += self._drawn(rung, requests[at : at + most], finishing, canvas_of)
            return found

        with finishing.timed_as("detail"), self._algorithms(exact=batch[0].exact):
            return redrawn(batch, drawn, self._network_of, finishing, draw)

    def _at_once(self, rung: Rung, requests: Sequence[ImageRequest]) -> int:
        """Return how many parts are drawn in one call: all that a card has room for."""
        most, weights = len(requests), self._checkpoints.weights(requests[0])
        while most > 1 and not self._ladder.leaves_room(
            rung, requests[0], weights, most, self._beside
        ):
            most = -(-most // 2)
        return most

    def _guess_depth(self, picture: Pixels, use: ControlUse) -> Pixels:
        return guess_depth(self._network_of("depth", use.depth, use.depth_hash), picture)

    def _loaded(self, request: ImageRequest, rung: Rung, timings: dict[str, float]) -> Loaded:
        """Return the checkpoint with this image's VAE and ControlNets, and exactly its LoRAs."""
        loaded = self._checkpoints.held(request, rung.place)
        if loaded is None:
            with timed(timings, "load"):
                loaded = self._checkpoints.load(request, rung.place)
        loaded.use_loras(request.loras)
        loaded.vae.enable_slicing()  # sixteen large pictures at once fit no card
        # Tiles of a VAE cannot continue at the opposite edge.
        loaded.vae.seamless = request.tiling
        tiled = rung.tiled and not request.tiling
        (loaded.vae.enable_tiling if tiled else loaded.vae.disable_tiling)()
        self._previewer.follow(loaded.row, loaded.denoiser)
        return loaded

    def _instead(
        self, loaded: Loaded, request: ImageRequest, rung: Rung
    ) -> Compiled | Graphed | None:
        """Return what computes in the denoiser's place, None if nothing can."""
        if rung != FULL:
            loaded.forget_graphs()
        if rung != FULL or request.exact or request.tiling or request.step_cache:
            return None
        changed = request.loras or request.control or request.quantize
        # On a card, diffusers compiles a third of a UNet, which becomes slower.
        if self._compile and not changed and not (self._on_card and loaded.row.kind == "unet"):
            if loaded.compiled is None:
                key, device = request.checkpoint_hash, self._target.device
                loaded.compiled = Compiled(loaded.denoiser, key, device, self._cache)
            if not loaded.compiled.failure:
                return loaded.compiled
        if not self._graphs:
            return None
        loaded.graphed = loaded.graphed or Graphed(loaded.denoiser, self._target.device)
        loaded.graphed.replayed = False
        return loaded.graphed

    def _draw(self, loaded: Loaded, batch: Sequence[ImageRequest], job: Job) -> list[Drawn]:
        """Draw the pictures; an interrupted batch leaves no changes behind."""
        kind: type[Passes] = UnetPasses if loaded.row.kind == "unet" else FlowPasses
        if batch[0].references:
            kind = EditPasses
        compiled = isinstance(job.instead, Compiled)
        eager = loaded.compiled.eager() if loaded.compiled and not compiled else nullcontext()
        look = partial(raise_if, job.interrupted)
        # Compiled code cannot be watched.
        watched = nullcontext() if compiled else loaded.weights.watched(look)
        repeating = seamless(loaded.weights.modules if batch[0].tiling else [])
        try:
            with eager, watched, repeating, self._algorithms(exact=batch[0].exact):
                return draw(kind(loaded, job), batch)
        finally:
            loaded.weights.send_back()
