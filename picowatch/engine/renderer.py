"""Renders pictures in this process: the story of a batch, from requests to pixels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any, NamedTuple

import torch
from torch.utils import deterministic

from picowatch.catalog import Catalog
from picowatch.engine.control.depth import DepthModels
from picowatch.engine.devices import (
    choose_target,
    compute_float32_in_full,
    compute_on,
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
from picowatch.engine.memory.usage import (
    forget_peak,
    free_bytes,
    main_memory,
    peak_bytes,
    total_bytes,
    working_bytes,
)
from picowatch.engine.models.checkpoints import Checkpoints
from picowatch.engine.models.loaded import Loaded, apply_rung, undo_rung
from picowatch.engine.options import EngineOptions
from picowatch.engine.picture_warnings import picture_warnings
from picowatch.engine.pipelines.loaded import LoadedPipeline
from picowatch.engine.previewer import Previewer
from picowatch.engine.process.failures import SMALLER, out_of_memory
from picowatch.engine.process.wire import Render
from picowatch.engine.protocol import OnPreview, OnStep, RenderedImage, unseen
from picowatch.engine.unet.batch import BatchDecoding, draw_batch
from picowatch.engine.unet.latents import LATENT_FACTOR
from picowatch.engine.upscaling.finished import TileSteps, enlarged_given, enlarged_pictures
from picowatch.engine.upscaling.upscalers import Upscalers
from picowatch.engine.versions import versions
from picowatch.errors import RenderFailed
from picowatch.recipe.passes import evaluations
from picowatch.recipe.request import ImageRequest

# Of all memory, for a checkpoint and the copies of its weights for LoRAs: pictures get the rest.
_FOR_WEIGHTS_AND_COPIES = 0.5


class OnTheirWay:
    """A batch whose pictures a GPU may still be decoding, by what `loaded` has."""

    def __init__(
        self, loaded: Any, has_come: Callable[[], bool], images: Callable[[], list[RenderedImage]]
    ) -> None:
        self.loaded = loaded
        self._has_come = has_come
        self._images: Callable[[], list[RenderedImage]] | None = images
        self._outcome: list[RenderedImage] | Exception = []

    def has_come(self) -> bool:
        """Whether `images` would not wait."""
        return self._images is None or self._has_come()

    @torch.inference_mode()
    def settle(self) -> None:
        """Wait for them; `images` raises what goes wrong."""
        images, self._images = self._images, None
        if images is not None:
            self.loaded, self._has_come = None, lambda: True
            try:
                self._outcome = images()
            except Exception as error:
                clear_frames(error.__traceback__)  # they hold what filled the memory
                self._outcome = error

    def images(self) -> list[RenderedImage]:
        """They; raises what went wrong, lack of memory, too."""
        self.settle()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class _Attempt(NamedTuple):
    """A batch on one rung: as it was requested and as it is rendered there, and its times."""

    rung: Rung
    requested: Sequence[ImageRequest]
    batch: Sequence[ImageRequest]
    timings: dict[str, float]


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
        self._depth_models = DepthModels(self._checkpoints.file, self._target)
        self._upscalers = Upscalers(catalog, self._target)
        self._previewer = Previewer(on_preview)
        device = self._target.device
        gpu_bytes = total_bytes(device) if device.type == "cuda" else None
        self._ladder = MemoryLadder(options.memory, LADDERS[device.type], gpu_bytes)
        self._on_their_way: OnTheirWay | None = None
        self._stream: Any = None
        self._working: dict[tuple[object, ...], int] = {}  # bytes, by kind of batch

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
        waiting: int = 0,
        preview_seconds: float = 0,
    ) -> list[RenderedImage]:
        """The pictures of a batch, in its order. Its images agree in their `batch_key`."""
        work = Render(0, tuple(batch), waiting, preview_seconds)
        begun = self.begin(work, on_step, interrupted)
        return begun if isinstance(begun, list) else begun.images()

    @torch.inference_mode()
    def begin(
        self, work: Render, on_step: OnStep, interrupted: Interrupted
    ) -> "list[RenderedImage] | OnTheirWay":
        """See `render`; a GPU may still be decoding the pictures while the next batch begins."""
        batch, self._previewer.seconds = work.batch, work.preview_seconds
        if not self._goes_beside(batch[0]):
            self._settle()
        if not batch[0].draws:
            return self._render_without_drawing(batch, on_step, interrupted)

        def count_step(done: int, total: int) -> None:
            on_step(done, total)
            if done == total:  # the VAE is needed now
                self._settle()

        failure = ""
        for rung in self._rungs(batch):
            try:
                images = self._render_on(rung, batch, count_step, interrupted, work.waiting)
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

    def _goes_beside(self, request: ImageRequest) -> bool:
        """Whether its steps leave alone what decodes the pictures that are on their way.

        A VAE that encodes may change its type, one of pictures that repeat has other edges, and
        other checkpoints take its place.
        """
        if self._on_their_way is None or not request.draws:
            return False
        uses_vae = request.image or request.hires or request.upscale or request.control
        loaded = self._on_their_way.loaded
        return (
            not (uses_vae or request.exact or request.tiling)
            and self._checkpoints.held(request) is loaded
        )

    def _settle(self) -> bool:
        """Wait for the pictures that are on their way; whether there were any."""
        on_their_way, self._on_their_way = self._on_their_way, None
        if on_their_way is not None:
            on_their_way.settle()
        return on_their_way is not None

    def _rungs(self, batch: Sequence[ImageRequest]) -> Iterator[Rung]:
        """The ladder's rungs, each once more where there is room now that other work is done.

        That is pictures of the batch before, which were on their way, and other checkpoints.

        Memory is given back here, not where it ran out: the traceback holds what filled it.
        """
        weights = self._checkpoints.weights(batch[0])
        for rung in self._ladder.rungs(batch, weights, main_memory()):
            yield rung
            if self._settle():
                self._checkpoints.give_memory_back()
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
    ) -> "list[RenderedImage] | OnTheirWay":
        """The batch, rendered on one rung from the first step to the last."""
        if rung != FULL:
            self._settle()  # weights may move
        batch = [shrunken(request, rung.shrunk) for request in requested]
        attempt = _Attempt(rung, requested, batch, {})
        forget_peak(self._target.device)
        loaded = self._loaded(batch[0], rung, attempt.timings)
        if isinstance(loaded, Loaded):
            self._merge_loras(loaded, batch[0], rung)
        steps = TileSteps(self._upscalers, batch, on_step, interrupted)
        job = self._job(attempt, loaded, steps, interrupted, waiting)
        drawn = self._drawn(loaded, batch, job, rung)
        warnings = loaded.loras.warnings  # those of the next batch may act when pictures come

        def images() -> list[RenderedImage]:
            pictures = drawn if isinstance(drawn, list) else drawn.pictures()
            with timed(attempt.timings, "upscale"), self._algorithms(exact=batch[0].exact):
                pictures = enlarged_pictures(self._upscalers, batch, pictures, steps)
            return self._rendered(attempt, pictures, loaded.dtype, warnings)

        if isinstance(drawn, list) or job.beside is None:
            found = images()
            self._working[_kind(batch[0], len(batch))] = working_bytes(self._target.device)
            return found
        self._on_their_way = OnTheirWay(loaded, drawn.has_come, images)
        return self._on_their_way

    def _job(
        self,
        attempt: _Attempt,
        loaded: Any,
        steps: TileSteps,
        interrupted: Interrupted,
        waiting: int,
    ) -> Job:
        """How its batch is drawn."""
        first, rung = attempt.batch[0], attempt.rung
        return Job(
            self._target.device,
            self._start_images,
            steps.drawn,
            steps.before_tile,
            interrupted,
            attempt.timings,
            self._previewer,
            self._depth_models.guess,
            self._upscalers,
            alone=rung.alone or first.exact,
            waiting=waiting,
            beside=self._stream_beside(first, len(attempt.batch), loaded, rung, waiting),
        )

    def _rendered(
        self,
        attempt: _Attempt,
        pictures: Sequence[Drawn],
        dtype: torch.dtype,
        warnings: Sequence[str],
    ) -> list[RenderedImage]:
        """Its pictures, with how they were rendered; `warnings` are those of all of them."""
        rung, requested, batch, timings = attempt
        peak = peak_bytes(self._target.device)  # of the whole batch, in each of its pictures
        return [
            RenderedImage(
                width=drawn.picture.width,
                height=drawn.picture.height,
                pixels=drawn.picture.pixels,
                alpha=drawn.picture.alpha,
                device=self._target.name,
                precision=precision_name(dtype),
                batch_size=drawn.batch_size,
                compiled=drawn.compiled,
                memory_rung=rung.name,
                chunks=drawn.chunks,
                timings={phase: seconds / len(batch) for phase, seconds in timings.items()},
                versions=versions(),
                warnings=(
                    *warnings,
                    *drawn.warnings,
                    *picture_warnings(self._start_images, request),
                    *shrink_warning(request, smaller),
                ),
                steps=smaller.steps if smaller.steps != request.steps else None,
                peak_bytes=peak,
                control_maps=drawn.picture.control_maps,
            )
            for drawn, request, smaller in zip(pictures, requested, batch, strict=True)
        ]

    def _stream_beside(
        self, request: ImageRequest, images: int, loaded: Any, rung: Rung, waiting: int
    ) -> Any:
        """The GPU's stream to decode in while the next batch begins, None for there and then.

        There must be room for all that such a batch takes, which an earlier one has shown: what is
        decoded stays in memory beside the next one's steps.
        """
        device = self._target.device
        if device.type != "cuda" or not waiting or rung != FULL:
            return None
        if isinstance(loaded, LoadedPipeline) or request.exact or request.tiling or request.upscale:
            return None
        working = self._working.get(_kind(request, images))
        if working is None or free_bytes(device) < working:
            return None
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._stream

    def _render_without_drawing(
        self, batch: Sequence[ImageRequest], on_step: OnStep, interrupted: Interrupted
    ) -> list[RenderedImage]:
        """Given pictures, enlarged. No checkpoint is needed."""
        attempt = _Attempt(FULL, batch, batch, {})
        forget_peak(self._target.device)
        steps = TileSteps(self._upscalers, batch, on_step, interrupted)
        with timed(attempt.timings, "upscale"), self._algorithms(exact=batch[0].exact):
            drawn = [
                enlarged_given(self._upscalers, request, self._start_images, steps)
                for request in batch
            ]
        return self._rendered(attempt, drawn, self._upscalers.dtype, ())

    def _drawn(
        self, loaded: Any, batch: Sequence[ImageRequest], job: Job, rung: Rung
    ) -> list[Drawn] | BatchDecoding:
        """The pictures by the checkpoint's own means; a batch that is cut off leaves no trace."""
        try:
            with self._algorithms(exact=batch[0].exact):
                if isinstance(loaded, LoadedPipeline):
                    return loaded.draw_batch(batch, job)
                return draw_batch(loaded, batch, job)
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
        if rung != FULL:
            loaded.loras.unmerge()  # copies take what pictures need
        apply_rung(loaded, rung, self._target.device)
        if loaded.loras.apply(request.loras):
            loaded.encode_anew()
        return loaded

    def _merge_loras(self, loaded: Loaded, request: ImageRequest, rung: Rung) -> None:
        """Copies of weights with the LoRAs in them where that is less work than hooks, or hooks.

        Both round differently. So what decides is the request, the checkpoint and the machine, and
        the rung, which pictures name: not a batch's other images, nor what is free just now. Memory
        that is too short for copies after all is the ladder's. bfloat16 has too few bits for the
        small changes of a LoRA; weights of flow families may have even fewer.
        """
        loras, device = loaded.loras, self._target.device
        if not loras.applied:
            return
        taken = self._checkpoints.weights(request).on_card(FULL) + loras.merged_bytes()
        worth = (
            rung == FULL
            and not request.exact
            and loaded.dtype in (torch.float32, torch.float16)
            and taken <= _FOR_WEIGHTS_AND_COPIES * total_bytes(device)
            and loras.is_worth_merging(
                evaluations(request) * (1 if request.cfg_scale == 1 else 2),
                request.width * request.height // LATENT_FACTOR**2,
            )
        )
        (loras.merge if worth else loras.unmerge)()

    @contextmanager
    def _algorithms(self, *, exact: bool) -> Iterator[None]:
        """Deterministic algorithms, and float32 in full, while an exact image is rendered."""
        _use_deterministic_algorithms(exact)
        # Everything here writes its results before it reads them; to fill them first takes time.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        compute_float32_in_full(full=exact or self._all_bits)
        try:
            yield
        finally:
            _use_deterministic_algorithms(False)


def _use_deterministic_algorithms(exact: bool) -> None:
    """To set what is set already would import torch's compiler, which takes over a second."""
    if exact != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(exact)


def _kind(request: ImageRequest, images: int) -> tuple[object, ...]:
    """Equal for batches that take as much memory."""
    hires = request.hires.scale if request.hires else 1
    controls = len(request.control)
    return (request.checkpoint_hash, request.width, request.height, hires, controls, images)
