"""Renders pictures in this process: the story of a batch, from requests to pixels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import torch

from picowatch.catalog import Catalog
from picowatch.engine.batches import evaluations
from picowatch.engine.compiled.compiled import BatchUnets, CompiledUnets
from picowatch.engine.devices import LARGE_NATIVE_SIZE, choose_target, gpu_bytes, precision_name
from picowatch.engine.memory.ladder import (
    CPU_LADDER,
    LADDER,
    MemoryLadder,
    Rung,
    shrink_warning,
    shrunken,
)
from picowatch.engine.memory.usage import forget_peak, peak_bytes
from picowatch.engine.models.checkpoints import Checkpoints
from picowatch.engine.models.loaded import Loaded, apply_rung
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.failures import SMALLER, out_of_memory
from picowatch.engine.protocol import OnPreview, OnStep, RenderedImage, unseen
from picowatch.engine.unet.draw import Drawing, Interrupted, Picture, timed
from picowatch.engine.unet.parallel import draw_parts, equal_parts
from picowatch.engine.unet.previewer import Previewer
from picowatch.engine.versions import versions
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest


class Renderer:
    """Renders batches one after the other; the last checkpoint stays in memory."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview = unseen) -> None:
        torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.engines))
        self._target = choose_target(options.device, options.precision, options.ordinal)
        self._start_images = options.start_images
        catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        self._checkpoints = Checkpoints(catalog, self._target)
        self._previewer = Previewer(on_preview, options.preview_seconds)
        self._compiled = CompiledUnets(options.compiled)
        on_cpu = self._target.device.type == "cpu"
        self._ladder = MemoryLadder(
            options.memory, CPU_LADDER if on_cpu else LADDER, gpu_bytes(self._target.device)
        )

    @torch.inference_mode()
    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
        waiting: int = 0,
    ) -> list[RenderedImage]:
        """The pictures of a batch, in its order. Its images agree in their `batch_key`.

        Images whose prompts differ in their number of chunks are rendered group after group: to
        pad a prompt to its neighbour's length would change its picture.
        """
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
        for rung in self._ladder.rungs(batch):
            yield rung
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
        self._previewer.follow(loaded.vae, loaded.family)
        groups = _groups(batch, loaded, alone=rung.alone or first.exact)
        eager = first.exact or rung.sliced or not loaded.can_be_compiled
        unets = BatchUnets(self._compiled, loaded, eager=eager)
        drawing = Drawing(
            loaded,
            device,
            self._start_images,
            unets,
            _counted(on_step, len(groups) * evaluations(first)),
            interrupted,
            timings,
            self._previewer,
        )
        finished: dict[int, tuple[Picture, int, int]] = {}
        with _algorithms(exact=first.exact):
            for (chunks, _), indexes in groups.items():
                pictures = self._draw(drawing, [batch[index] for index in indexes], chunks)
                for index, picture in zip(indexes, pictures, strict=True):
                    finished[index] = picture, chunks, len(indexes)
        unets.consider(timings["denoise"], waiting / len(batch))
        peak = peak_bytes(device)  # of the whole batch, in each of its pictures
        return [
            RenderedImage(
                width=picture.width,
                height=picture.height,
                pixels=picture.pixels,
                device=self._target.name,
                precision=precision_name(loaded.unet.dtype),
                batch_size=size,
                compiled=unets.all_compiled,
                memory_rung=rung.name,
                chunks=chunks,
                timings={phase: seconds / len(batch) for phase, seconds in timings.items()},
                versions=versions(),
                warnings=loaded.loras.warnings + shrink_warning(requested[index], batch[index]),
                steps=first.steps if first.steps != requested[0].steps else None,
                peak_bytes=peak,
            )
            for index, (picture, chunks, size) in sorted(finished.items())
        ]

    def _draw(
        self, drawing: Drawing, requests: Sequence[ImageRequest], chunks: int
    ) -> list[Picture]:
        """The pictures of one group, in parts where that is faster."""
        with timed(drawing.timings, "encode"):
            conditions = drawing.loaded.prompts.conditions(requests, chunks)
        parts = equal_parts(len(requests), self._cores(drawing.loaded))
        if len(parts) > 1:
            return draw_parts(drawing, requests, conditions, parts)
        return drawing.draw(requests, conditions)

    def _cores(self, loaded: Loaded) -> int:
        """How many parts of a batch to render at a time."""
        small = loaded.native_size < LARGE_NATIVE_SIZE and loaded.unet.dtype == torch.float32
        return torch.get_num_threads() if small and self._target.device.type == "cpu" else 1

    def _loaded(self, request: ImageRequest, rung: Rung, timings: dict[str, float]) -> Loaded:
        """The checkpoint and VAE of this image, with its LoRAs and no others."""
        loaded = self._checkpoints.held(request)
        if loaded is None:
            with timed(timings, "load"):
                loaded = self._checkpoints.load(
                    request, torch.device("cpu") if rung.offload else None
                )
        apply_rung(loaded, rung, self._target.device)
        if loaded.loras.apply(request.loras):
            loaded.prompts.forget()
        return loaded


def _groups(
    batch: Sequence[ImageRequest], loaded: Loaded, *, alone: bool
) -> dict[tuple[int, int], list[int]]:
    """The indexes of images by their number of chunks; `alone`, each image by itself."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, request in enumerate(batch):
        key = (loaded.prompts.chunk_count(request), index if alone else 0)
        groups.setdefault(key, []).append(index)
    return groups


def _counted(on_step: OnStep, total: int) -> Callable[[], None]:
    """Counts the steps of all groups and passes together."""
    numbers = count(1)
    return lambda: on_step(next(numbers), total)


@contextmanager
def _algorithms(*, exact: bool) -> Iterator[None]:
    """Deterministic algorithms while an exact image is rendered."""
    torch.use_deterministic_algorithms(exact)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
