"""Makes pictures in this process: the story of a batch, from requests to pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from picowatch.catalog import Catalog
from picowatch.engine.devices import Place, choose_place, precision_name
from picowatch.engine.draw import Drawn, Group, Interrupted, Setting, chunks_of, draw, timed
from picowatch.engine.loading import Checkpoints, Loaded
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import OnStep, RenderedImage
from picowatch.engine.versions import versions
from picowatch.recipe.request import ImageRequest


class LocalEngine:
    """Renders batches one after the other; the last checkpoint stays in memory."""

    def __init__(self, options: EngineOptions) -> None:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._place = choose_place(options.device, options.precision)
        self._start_images = options.start_images
        catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        self._checkpoints = Checkpoints(catalog, self._place)

    @torch.inference_mode()
    def make(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted = lambda: False,
    ) -> list[RenderedImage]:
        """The pictures of a batch, in its order. Its images agree in their `batch_key`.

        Images whose prompts differ in their number of chunks are made group after group: to pad
        a prompt to its neighbour's length would change its picture.
        """
        timings: dict[str, float] = {}
        loaded = self._loaded(batch[0], timings)
        groups = _groups(batch, loaded)
        drawn: list[list[Drawn]] = []
        with _algorithms(exact=batch[0].exact):
            for number, group in enumerate(groups):
                report = _shifted(on_step, number, len(groups))
                setting = Setting(
                    loaded, self._place.device, self._start_images, report, interrupted, timings
                )
                drawn.append(draw(setting, group))
        share = {phase: seconds / len(batch) for phase, seconds in timings.items()}
        images = {
            place: _rendered(one, group, loaded, self._place, share)
            for group, pictures in zip(groups, drawn, strict=True)
            for place, one in zip(group.places, pictures, strict=True)
        }
        return [images[place] for place in range(len(batch))]

    def _loaded(self, request: ImageRequest, timings: dict[str, float]) -> Loaded:
        """The checkpoint and VAE of this image, with its LoRAs and no others."""
        loaded = self._checkpoints.held(request)
        if loaded is None:
            with timed(timings, "load"):
                loaded = self._checkpoints.load(request)
        if loaded.loras.apply(request.loras):
            loaded.prompts.forget()
        return loaded


def _groups(batch: Sequence[ImageRequest], loaded: Loaded) -> list[Group]:
    """The batch by number of chunks; with `exact`, each image by itself."""
    groups: dict[tuple[int, int], Group] = {}
    for place, request in enumerate(batch):
        texts = (request.prompt, request.negative_prompt)
        chunks = max(len(chunks_of(loaded, request, text)) for text in texts)
        key = (chunks, place if request.exact else 0)
        group = groups.setdefault(key, Group(chunks, [], []))
        group.places.append(place)
        group.requests.append(request)
    return list(groups.values())


def _rendered(
    drawn: Drawn, group: Group, loaded: Loaded, place: Place, timings: dict[str, float]
) -> RenderedImage:
    return RenderedImage(
        width=drawn.width,
        height=drawn.height,
        pixels=drawn.pixels,
        device=place.name,
        precision=precision_name(loaded.unet.dtype),
        batch_size=len(group.requests),
        compiled=False,
        memory_rung="full",
        chunks=group.chunks,
        timings=dict(timings),
        versions=versions(),
        warnings=loaded.loras.warnings,
    )


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
