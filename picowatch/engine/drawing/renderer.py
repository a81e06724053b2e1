"""Renders pictures in this process: walks the passes of a batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch

from picowatch.catalog import Catalog
from picowatch.engine.drawing.callbacks import need_cache_dit
from picowatch.engine.drawing.canvas import picture_warnings
from picowatch.engine.drawing.copies import given_picture, in_own_colours, resize
from picowatch.engine.drawing.draw import Denoising, Drawing, Job
from picowatch.engine.drawing.finishing import cut_out, enlarge, enlarged_for_hires
from picowatch.engine.drawing.flow import EditDenoising, FlowDenoising
from picowatch.engine.drawing.found import Details, Masks
from picowatch.engine.drawing.latents import Previewer
from picowatch.engine.drawing.models import Checkpoints, Networks, key_of
from picowatch.engine.drawing.unet import UnetDenoising, seamless
from picowatch.engine.drawing.work import Drawn, Interrupted, Work, timed
from picowatch.engine.failures import SMALLER, out_of_memory
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.compile import Compiled
from picowatch.engine.model.devices import (
    CARDS,
    choose_target,
    compute_exactly,
    empty_cache,
    free_bytes,
    held_memory,
    room_on,
)
from picowatch.engine.model.loaded import Loaded, compile_state
from picowatch.engine.model.memory import TILED, MemoryLadder, Rung, shrink_warning
from picowatch.engine.model.verify import verified
from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, RenderedImage, unseen
from picowatch.errors import RenderFailed
from picowatch.recipe.passes import DRAWING, PassKind, passes_of
from picowatch.recipe.request import ImageRequest


class _Batch(Work):
    """A batch with what its passes give to later ones."""

    drawing: Drawing | None = None  # what the sampler gave before it is decoded
    details: tuple[Details, ...] = ()  # what each entry of `detail` found so far


class Renderer:
    """Renders batches in turn; what was read stays in memory while it has room."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview = unseen) -> None:
        torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.engines))
        target = self._target = choose_target(options.device, options.precision, options.ordinal)
        self._algorithms = partial(compute_exactly, all_bits=options.precision == "float32")
        self._start_images = options.start_images
        catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        opened = partial(verified, catalog)
        self._kept = Cache(
            partial(free_bytes, target.device),
            self._give_back,
            is_shared=target.device.type not in CARDS,
        )
        self._checkpoints = Checkpoints(opened, target, self._kept)
        self._networks = Networks(opened, target, self._kept)
        self._masks = Masks(self._networks, self._start_images)
        self._previewer = Previewer(on_preview, options.preview_seconds)
        self._options = options
        self.uses_graphs = options.graphs and target.device.type == "cuda"
        self._ladder = MemoryLadder(options.memory, partial(room_on, target.device))
        # Those that give pictures one by one return their indices.
        self._passes: dict[PassKind, Callable[[_Batch], Iterable[int] | None]] = {
            "find": self._find,
            "draw": partial(self._sample, number=0),
            "enlarge": self._enlarge,
            "hires": partial(self._sample, number=1),
            "detail": self._draw_details,
            "upscale": partial(_each, "upscale", partial(enlarge, self._networks)),
            "cutout": partial(_each, "cutout", partial(cut_out, self._networks)),
            "resize": partial(_each, "resize", resize),
        }

    @torch.inference_mode()
    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Interrupted = lambda: False,
    ) -> Iterator[RenderedImage]:
        """Yield the pictures of a batch in its order; its images have the same `batch_key`.

        Each pass is tried again by itself when memory runs out: nothing that a pass gave is made
        again because a later pass failed. Raises EngineStopped once `interrupted` returns True,
        RenderFailed, or any other error.
        """
        work = _Batch(batch, on_progress, interrupted)
        self._begin(work)
        every: Iterable[int] = range(len(batch))
        done = every
        kinds = [part.kind for part in passes_of(batch[0])[:-1]]  # the daemon writes
        for number, kind in enumerate(kinds, 1):
            for _ in done:  # of the pass before
                pass
            done = self._passes[kind](work) or every
            if kind in DRAWING and not {*DRAWING}.intersection(kinds[number:]):
                for at, request in enumerate(batch):
                    work.pictures[at] = in_own_colours(
                        work.picture(at), request, self._start_images
                    )
        for at in done:
            yield (
                self._masks.told(batch[at], work.picture(at))
                .warned(*picture_warnings(self._start_images, batch[at]))
                .as_rendered(self._target.name, work.timings_of(at), held_memory())
            )
            work.pictures[at] = None

    def _begin(self, work: _Batch) -> None:
        """Take the start images of a batch that draws no whole pictures, and place its finders."""
        first = work.requests[0]
        if not first.draws or first.only_details:
            for at, request in enumerate(work.requests):
                given = given_picture(request, self._start_images)
                work.pictures[at] = given._replace(batch_size=0) if first.draws else given
        finders = {file for own in work.requests for file in own.files_of("segmentation").items()}
        taken = (sum(self._networks.bytes_of("segmentation", *finder)) for finder in finders)
        size = max(taken, default=0)
        if size and first.draws:
            sizes, images = self._checkpoints.sizes(first), len(work.requests)
            rung = next(self._ladder.rungs(first, sizes, images))
            self._networks.place_finders(self._ladder.leaves_room(rung, first, sizes, images, size))

    def _find(self, work: _Batch) -> None:
        """Find masks before the pictures are drawn, details afterwards."""
        with self._algorithms(exact=work.requests[0].exact):
            if work.requests[0].found_mask and not work.has_masks:
                self._masks.search(work)
            else:
                work.details = (*work.details, Details(len(work.details)))
                work.details[-1].find(self._networks, work)

    def _sample(self, work: _Batch, number: int) -> None:
        """Run the sampler for the pictures that are not there yet; after the last run decode."""
        left = [at for at, picture in enumerate(work.pictures) if picture is None]
        if left:
            drawing = work.drawing = work.drawing or Drawing([work.requests[at] for at in left])
            drawn = self._drawn(drawing, number, work)
            for at, picture, smaller in zip(left, drawn, drawing.requests, strict=False):
                work.pictures[at] = picture.warned(*shrink_warning(work.requests[at], smaller))

    def _enlarge(self, work: _Batch) -> None:
        """Enlarge what the first run of hires drew, if anything was drawn."""
        if drawing := work.drawing:
            first = drawing.requests[0]
            with self._algorithms(exact=first.exact), self._kept.pinned(key_of(first)):
                drawing.enlarge(partial(enlarged_for_hires, self._networks, first, work))

    def _draw_details(self, work: _Batch) -> None:
        """Draw what was found in the pictures again."""
        details = work.details[-1]
        if details.parts:
            drawing = Drawing([part.request for part in details.parts], details.canvas_of)
            details.paste(self._drawn(drawing, 0, work), work)

    def _drawn(self, drawing: Drawing, number: int, work: Work) -> list[Drawn]:
        """Run the sampler on the first rung that is enough; after the last run return pictures."""
        before, failure = drawing.requests, ""
        shrunk = drawing.rung.shrunk if drawing.rung else 0
        multiple = self._checkpoints.sizes(before[0]).multiple
        for rung in self._rungs(drawing):
            drawing.shrink(before, number, rung.shrunk - shrunk, multiple)
            try:
                return self._drawn_on(rung, drawing, number, work)
            except Exception as error:  # out-of-memory errors differ by device and torch's version
                failure = out_of_memory(error)
                if not failure:
                    raise
        remedy = SMALLER if before[0].shrink_to_fit else f"{SMALLER[:-1]}, or shrink_to_fit: true."
        raise RenderFailed(f"{failure} No memory-saving level was enough.", remedy)

    def _rungs(self, drawing: Drawing) -> Iterator[Rung]:
        """Yield the ladder's rungs, each again if releasing other models made room."""
        request, images = drawing.requested[0], 1 if drawing.are_details else len(drawing.requests)
        sizes = self._checkpoints.sizes(request)
        rungs = [*self._ladder.rungs(request, sizes, images)]
        if drawing.rung in rungs:  # on which the first run worked
            rungs = rungs[rungs.index(drawing.rung) :]
        for rung in rungs:
            self._checkpoints.make_room(request, self._ladder.peak(rung, request, sizes, images))
            yield rung
            # Where memory ran out, the traceback kept the tensors alive.
            if self._checkpoints.forget_others(request):
                self._kept.give_back()
                yield rung
            self._kept.give_back()

    def _drawn_on(self, rung: Rung, drawing: Drawing, number: int, work: Work) -> list[Drawn]:
        """Run the sampler on a rung; after the last run return the pictures."""
        first = drawing.requests[0]
        if first.step_cache:
            need_cache_dit()
        loaded = self._checkpoints.ready(first, rung, work.timings)
        self._previewer.follow(loaded.row, loaded.denoiser)
        accelerated = loaded.accelerated(first, rung, self._options, graphs=self.uses_graphs)
        job = Job(
            self._target.device,
            self._start_images,
            work,
            self._previewer,
            self._networks.depth_of,
            drawing.canvas_of or self._masks.canvas_of,
            alone=rung.tiled or first.exact or first.step_cache,
            accelerated=accelerated,
            # Layers that are moved one by one are expected in the order of the first step.
            cached=first.step_cache and rung.place != "layers",
        )
        sizes = self._checkpoints.sizes(first)
        most = self._ladder.at_once(rung, first, sizes) if drawing.are_details else 0
        # Networks that help to draw need room, too, but not that of this checkpoint.
        exact, in_use = self._algorithms(exact=first.exact), self._kept.pinned(key_of(first))
        with exact, in_use, _denoising_with(loaded, job, first) as denoising:
            drawing.run(denoising, number, most)
            is_last = number == drawing.last_run
            # A model enlarges the pictures of the first run for the second.
            is_shown = is_last or first.hires_upscaler_hash
            drawn = drawing.decoded(denoising, number) if is_shown else []
        drawing.rung = rung
        if not is_last:
            return []
        tiled = loaded.vae.use_tiling and not rung.tiled
        self._ladder.worked(drawing.requested[0], TILED if tiled else rung)
        warnings = loaded.warnings
        if first.step_cache and not job.cached:
            warnings += ("step_cache had no effect, because memory is short.",)
        return [
            picture._replace(
                precision=str(loaded.denoiser.dtype).removeprefix("torch."),
                compiled=compile_state(accelerated),
                memory_rung=TILED.name if tiled else rung.name,
                warnings=(*warnings, *picture.warnings),
            )
            for picture in drawn
        ]

    def _give_back(self) -> None:
        """Return the memory of graphs and of what was forgotten to the device."""
        for loaded in self._kept.values("checkpoint"):
            loaded.forget_graphs()
        empty_cache(self._target.device)


def _each(kind: PassKind, change: Callable[[Work, int], None], work: Work) -> Iterator[int]:
    """Change the pictures one by one, and yield the index of each that is done."""
    for at in range(len(work.requests)):
        with timed(work.own[at], kind):
            change(work, at)
        yield at


@contextmanager
def _denoising_with(loaded: Loaded, job: Job, first: ImageRequest) -> Iterator[Denoising]:
    """Give what draws with a checkpoint; an interrupted batch leaves no changes behind."""
    kind: type[Denoising] = UnetDenoising if loaded.row.kind == "unet" else FlowDenoising
    if first.references:
        kind = EditDenoising
    compiled = isinstance(job.accelerated, Compiled)
    eager = loaded.compiled.eager() if loaded.compiled and not compiled else nullcontext()
    # Compiled code cannot be watched.
    watched = nullcontext() if compiled else loaded.parts.watched(job.work.raise_if_interrupted)
    repeating = seamless(loaded.parts.modules if first.tiling else [])
    try:
        with eager, watched, repeating:
            yield kind(loaded, job)
    finally:
        loaded.parts.send_back()
