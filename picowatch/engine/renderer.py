"""Makes pictures in this process: the story of a batch, from requests to pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from picowatch.catalog import Catalog
from picowatch.engine.compiled.compiled import CompiledUnets
from picowatch.engine.devices import (
    LARGE_NATIVE_SIZE,
    Target,
    choose_target,
    gpu_bytes,
    precision_name,
)
from picowatch.engine.memory.ladder import (
    CPU_LADDER,
    LADDER,
    MemoryLadder,
    Rung,
    shrink_warning,
    shrunken,
)
from picowatch.engine.memory.usage import forget_peak, peak_bytes
from picowatch.engine.models.loaded import Loaded, arrange
from picowatch.engine.models.loading import Checkpoints
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.failures import SMALLER, out_of_memory
from picowatch.engine.protocol import OnPreview, OnStep, RenderedImage, unseen
from picowatch.engine.unet.draw import (
    Drawing,
    Group,
    Interrupted,
    Picture,
    chunks_of,
    conditions_for,
    timed,
)
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
        self._unets = CompiledUnets(options.compiled)
        on_cpu = self._target.device.type == "cpu"
        self._ladder = MemoryLadder(
            options.memory, CPU_LADDER if on_cpu else LADDER, gpu_bytes(self._target.device)
        )

    @torch.inference_mode()
    def make(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
        waiting: int = 0,
    ) -> list[RenderedImage]:
        """The pictures of a batch, in its order. Its images agree in their `batch_key`.

        Images whose prompts differ in their number of chunks are made group after group: to pad
        a prompt to its neighbour's length would change its picture.
        """
        failure = ""
        for rung in self._rungs(batch):
            try:
                images = self._make(batch, rung, on_step, interrupted, waiting)
            # Which classes say so differs by device and version of torch.
            except Exception as error:
                failure = out_of_memory(error)
                if not failure:
                    raise
            else:
                self._ladder.worked(batch, rung)
                return images
        raise RenderFailed(f"{failure} No memory-saving level was enough.", _remedy(batch[0]))

    def wait_for_compiling(self, timeout_seconds: float) -> None:
        """Until nothing is compiled in the background any more; raises TimeoutError."""
        self._unets.wait(timeout_seconds)

    def _rungs(self, batch: Sequence[ImageRequest]) -> Iterator[Rung]:
        """The ladder's rungs, each once more where other checkpoints made room for it.

        Memory is given back here, not where it ran out: the traceback holds what filled it.
        """
        for rung in self._ladder.rungs(batch):
            yield rung
            if self._checkpoints.forget_others(batch[0]):
                self._checkpoints.give_memory_back()
                yield rung
            self._checkpoints.give_memory_back()

    def _make(
        self,
        asked: Sequence[ImageRequest],
        rung: Rung,
        on_step: OnStep,
        interrupted: Interrupted,
        waiting: int,
    ) -> list[RenderedImage]:
        """The batch, made on one rung from the first step to the last."""
        batch = [shrunken(request, rung.shrunk) for request in asked]
        timings: dict[str, float] = {}
        forget_peak(self._target.device)
        loaded = self._loaded(batch[0], rung, timings)
        self._previewer.follow(loaded.vae)
        groups = _groups(batch, loaded, alone=rung.alone or batch[0].exact)
        chosen = self._unets.chosen(loaded, eager=batch[0].exact or rung.sliced)
        drawn: list[list[Picture]] = []
        with _algorithms(exact=batch[0].exact):
            for number, group in enumerate(groups):
                report = _shifted(on_step, number, len(groups))
                drawing = Drawing(
                    loaded,
                    self._target.device,
                    self._start_images,
                    chosen,
                    report,
                    interrupted,
                    timings,
                    self._previewer,
                )
                drawn.append(self._draw(drawing, group))
        chosen.consider(timings["denoise"], waiting / len(batch))
        share = {phase: seconds / len(batch) for phase, seconds in timings.items()}
        peak = peak_bytes(self._target.device)  # of the whole batch, in each of its pictures
        images = {
            index: _rendered(
                one,
                asked[index],
                batch[index],
                group,
                loaded,
                self._target,
                rung,
                share,
                peak,
                compiled=chosen.all_compiled,
            )
            for group, pictures in zip(groups, drawn, strict=True)
            for index, one in zip(group.indexes, pictures, strict=True)
        }
        return [images[index] for index in range(len(batch))]

    def _draw(self, drawing: Drawing, group: Group) -> list[Picture]:
        """The group's pictures, in parts where that is faster."""
        with timed(drawing.timings, "encode"):
            conditions = conditions_for(drawing.loaded, group)
        parts = equal_parts(len(group.requests), self._cores(drawing.loaded))
        if len(parts) > 1:
            return draw_parts(drawing, group, conditions, parts)
        return drawing.draw(group, conditions)

    def _cores(self, loaded: Loaded) -> int:
        """How many parts of a batch to make at a time."""
        small = loaded.native_size < LARGE_NATIVE_SIZE and loaded.unet.dtype == torch.float32
        return torch.get_num_threads() if small and self._target.device.type == "cpu" else 1

    def _loaded(self, request: ImageRequest, rung: Rung, timings: dict[str, float]) -> Loaded:
        """The checkpoint and VAE of this image, with its LoRAs and no others."""
        loaded = self._checkpoints.held(request)
        if loaded is None:
            home = torch.device("cpu") if rung.offload else None
            with timed(timings, "load"):
                loaded = self._checkpoints.load(request, home)
        arrange(loaded, rung, self._target.device)
        if loaded.loras.apply(request.loras):
            loaded.prompts.forget()
        return loaded


def _groups(batch: Sequence[ImageRequest], loaded: Loaded, *, alone: bool) -> list[Group]:
    """The batch by number of chunks; `alone`, each image by itself."""
    groups: dict[tuple[int, int], Group] = {}
    for index, request in enumerate(batch):
        texts = (request.prompt, request.negative_prompt)
        chunks = max(len(chunks_of(loaded, request, text)) for text in texts)
        key = (chunks, index if alone else 0)
        group = groups.setdefault(key, Group(chunks, [], []))
        group.indexes.append(index)
        group.requests.append(request)
    return list(groups.values())


def _rendered(
    drawn: Picture,
    asked: ImageRequest,
    made: ImageRequest,
    group: Group,
    loaded: Loaded,
    target: Target,
    rung: Rung,
    timings: dict[str, float],
    peak: int,
    *,
    compiled: bool,
) -> RenderedImage:
    return RenderedImage(
        width=drawn.width,
        height=drawn.height,
        pixels=drawn.pixels,
        device=target.name,
        precision=precision_name(loaded.unet.dtype),
        batch_size=len(group.requests),
        compiled=compiled,
        memory_rung=rung.name,
        chunks=group.chunks,
        timings=dict(timings),
        versions=versions(),
        warnings=loaded.loras.warnings + shrink_warning(asked, made),
        steps=made.steps if made.steps != asked.steps else None,
        peak_bytes=peak,
    )


def _remedy(request: ImageRequest) -> str:
    if request.shrink_to_fit:
        return SMALLER
    return f"{SMALLER[:-1]}, or shrink_to_fit: true."


def _shifted(on_step: OnStep, group: int, groups: int) -> OnStep:
    """Counts the steps of one group as part of all groups' steps."""
    return lambda done, total: on_step(group * total + done, groups * total)


@contextmanager
def _algorithms(*, exact: bool) -> Iterator[None]:
    """Deterministic algorithms while an exact image is made."""
    torch.use_deterministic_algorithms(exact)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
