"""Renders pictures in this process: the story of a batch, from requests to pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

from picowatch.catalog import Catalog
from picowatch.engine.compiled.compiled import CompiledUnets
from picowatch.engine.control.depth import DepthModels
from picowatch.engine.devices import (
    choose_target,
    compute_float32_in_full,
    compute_on,
    gpu_bytes,
    precision_name,
)
from picowatch.engine.drawn import Drawn, Interrupted, Job, timed
from picowatch.engine.memory.ladder import (
    FULL,
    LADDERS,
    MemoryLadder,
    Rung,
    shrink_warning,
    shrunken,
)
from picowatch.engine.memory.usage import forget_peak, main_memory, peak_bytes
from picowatch.engine.models.checkpoints import Checkpoints
from picowatch.engine.models.loaded import apply_rung, undo_rung
from picowatch.engine.options import EngineOptions
from picowatch.engine.pipelines.loaded import LoadedPipeline
from picowatch.engine.previewer import Previewer
from picowatch.engine.process.failures import SMALLER, out_of_memory
from picowatch.engine.protocol import OnPreview, OnStep, RenderedImage, unseen
from picowatch.engine.unet.batch import draw_batch
from picowatch.engine.upscaling.finished import TileSteps, enlarge_given, enlarged_pictures
from picowatch.engine.upscaling.upscalers import Upscalers
from picowatch.engine.versions import versions
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest


class Renderer:
    """Renders batches one after the other; the last checkpoint stays in memory."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview = unseen) -> None:
        torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.engines))
        self._target = choose_target(options.device, options.precision, options.ordinal)
        compute_on(self._target)
        self._all_bits = options.precision == "float32"
        self._start_images = options.start_images
        catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        self._checkpoints = Checkpoints(catalog, self._target)
        self._depth_models = DepthModels(self._checkpoints.depth_folder, self._target)
        self._upscalers = Upscalers(catalog, self._target)
        self._previewer = Previewer(on_preview, options.preview_seconds)
        self._compiled = CompiledUnets(options.compiled)
        device = self._target.device
        self._ladder = MemoryLadder(options.memory, LADDERS[device.type], gpu_bytes(device))

    @torch.inference_mode()
    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
        waiting: int = 0,
    ) -> list[RenderedImage]:
        """The pictures of a batch, in its order. Its images agree in their `batch_key`."""
        if not batch[0].draws:
            return self._render_without_drawing(batch, on_step, interrupted)
        failure = ""
        for rung in self._rungs(batch):
            try:
                images = self._render_on(rung, batch, on_step, interrupted, waiting)
            # Which classes mean that memory ran out differs by device and version of torch.
            except Exception as error:
                failure = out_of_memory(error)
                if not failure:
                    raise
            else:
                self._ladder.worked(batch, rung)
                return images
        remedy = SMALLER if batch[0].shrink_to_fit else f"{SMALLER[:-1]}, or shrink_to_fit: true."
        raise RenderFailed(f"{failure} No memory-saving level was enough.", remedy)

    def wait_for_compiling(self, timeout_seconds: float) -> None:
        """Until nothing is being compiled in the background; raises TimeoutError."""
        self._compiled.wait(timeout_seconds)

    def _rungs(self, batch: Sequence[ImageRequest]) -> Iterator[Rung]:
        """The ladder's rungs, each once more where releasing other checkpoints made room for it.

        Memory is given back here, not where it ran out: the traceback holds what filled it.
        """
        weights = self._checkpoints.weights(batch[0])
        for rung in self._ladder.rungs(batch, weights, main_memory()):
            yield rung
            self._depth_models.forget()
            if self._checkpoints.forget_others(batch[0]):
                self._checkpoints.give_memory_back()
                yield rung
            self._checkpoints.give_memory_back()

    def _render_on(
        self,
        rung: Rung,
        requested: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
        waiting: int,
    ) -> list[RenderedImage]:
        """The batch, rendered on one rung from the first step to the last."""
        batch = [shrunken(request, rung.shrunk) for request in requested]
        first, device = batch[0], self._target.device
        timings: dict[str, float] = {}
        forget_peak(device)
        loaded = self._loaded(first, rung, timings)
        steps = TileSteps(self._upscalers, batch, on_step, interrupted)
        job = Job(
            device,
            self._start_images,
            steps.drawn,
            steps.before_tile,
            interrupted,
            timings,
            self._previewer,
            self._depth_models.guess,
            self._upscalers,
            alone=rung.alone or first.exact,
            eager=rung != FULL or first.exact,
            waiting=waiting,
        )
        pictures = self._drawn(loaded, batch, job, rung)
        with timed(timings, "upscale"):
            pictures = enlarged_pictures(self._upscalers, batch, pictures, steps)
        peak = peak_bytes(device)  # of the whole batch, in each of its pictures
        return [
            RenderedImage(
                width=drawn.picture.width,
                height=drawn.picture.height,
                pixels=drawn.picture.pixels,
                device=self._target.name,
                precision=precision_name(loaded.dtype),
                batch_size=drawn.batch_size,
                compiled=drawn.compiled,
                memory_rung=rung.name,
                chunks=drawn.chunks,
                timings={phase: seconds / len(batch) for phase, seconds in timings.items()},
                versions=versions(),
                warnings=(
                    *loaded.loras.warnings,
                    *drawn.warnings,
                    *shrink_warning(request, smaller),
                ),
                steps=first.steps if first.steps != requested[0].steps else None,
                peak_bytes=peak,
                control_maps=drawn.picture.control_maps,
            )
            for drawn, request, smaller in zip(pictures, requested, batch, strict=True)
        ]

    def _render_without_drawing(
        self, batch: Sequence[ImageRequest], on_step: OnStep, interrupted: Interrupted
    ) -> list[RenderedImage]:
        """Given pictures, enlarged. No checkpoint is needed."""
        timings: dict[str, float] = {}
        device = self._target.device
        forget_peak(device)
        steps = TileSteps(self._upscalers, batch, on_step, interrupted)
        with timed(timings, "upscale"), self._algorithms(exact=batch[0].exact):
            pictures = enlarge_given(self._upscalers, batch, self._start_images, steps)
        peak = peak_bytes(device)
        return [
            RenderedImage(
                width=picture.width,
                height=picture.height,
                pixels=picture.pixels,
                alpha=picture.alpha,
                device=self._target.name,
                precision=precision_name(self._upscalers.dtype),
                batch_size=1,
                compiled=False,
                memory_rung=FULL.name,
                chunks=0,
                timings={phase: seconds / len(batch) for phase, seconds in timings.items()},
                versions=versions(),
                peak_bytes=peak,
            )
            for picture in pictures
        ]

    def _drawn(
        self, loaded: Any, batch: Sequence[ImageRequest], job: Job, rung: Rung
    ) -> list[Drawn]:
        """The pictures by the checkpoint's own means; a batch that is cut off leaves no trace."""
        try:
            with self._algorithms(exact=batch[0].exact):
                if isinstance(loaded, LoadedPipeline):
                    return loaded.draw_batch(batch, job)
                return draw_batch(loaded, batch, job, self._compiled)
        except BaseException:
            if rung.offload:
                undo_rung(loaded)  # weights may be half moved, in the middle of a step
            raise

    def _loaded(self, request: ImageRequest, rung: Rung, timings: dict[str, float]) -> Any:
        """The checkpoint and VAE of this image, with its LoRAs and no others."""
        loaded = self._checkpoints.held(request, rung)
        if loaded is None:
            with timed(timings, "load"):
                loaded = self._checkpoints.load(request, rung)
        if self._checkpoints.lacks_controlnets(loaded, request):
            with timed(timings, "load"):
                self._checkpoints.load_controlnets(loaded, request, rung)
        apply_rung(loaded, rung, self._target.device)
        if rung != FULL:
            loaded.forget_compiled()  # its copies of the weights take what pictures need
        if loaded.loras.apply(request.loras):
            loaded.encode_anew()
        return loaded

    @contextmanager
    def _algorithms(self, *, exact: bool) -> Iterator[None]:
        """Deterministic algorithms, and float32 in full, while an exact image is rendered."""
        torch.use_deterministic_algorithms(exact)
        # Everything here writes its results before it reads them; to fill them first takes time.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        compute_float32_in_full(full=exact or self._all_bits)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
