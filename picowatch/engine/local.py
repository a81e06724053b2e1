"""Makes pictures in this process: the story of a batch, from requests to pixels."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from picowatch.catalog import Catalog
from picowatch.engine.decode import decode
from picowatch.engine.denoise import denoise
from picowatch.engine.devices import Place, choose_place, precision_name
from picowatch.engine.loading import Checkpoints, Loaded
from picowatch.engine.noise import generators_for, initial_noise
from picowatch.engine.options import EngineOptions
from picowatch.engine.prompts import Chunk
from picowatch.engine.protocol import OnStep, RenderedImage
from picowatch.engine.samplers import build_sampler
from picowatch.engine.versions import versions
from picowatch.recipe.request import ImageRequest

Interrupted = Callable[[], bool]


class LocalEngine:
    """Renders batches one after the other; the last checkpoint stays in memory."""

    def __init__(self, options: EngineOptions) -> None:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._place = choose_place(options.device, options.precision)
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
        loaded = self._checkpoints.held(batch[0])
        if loaded is None:
            with _timed(timings, "load"):
                loaded = self._checkpoints.load(batch[0])
        if loaded.loras.apply(batch[0].loras):
            loaded.prompts.forget()
        groups = _groups(batch, loaded)
        drawn: list[list[bytes]] = []
        with _algorithms(exact=batch[0].exact):
            for number, group in enumerate(groups):
                report = _shifted(on_step, number, len(groups))
                drawn.append(_draw(loaded, self._place, group, report, interrupted, timings))
        share = {phase: seconds / len(batch) for phase, seconds in timings.items()}
        images = {
            place: _rendered(batch[place], pixels, group, loaded, self._place, share)
            for group, pictures in zip(groups, drawn, strict=True)
            for place, pixels in zip(group.places, pictures, strict=True)
        }
        return [images[place] for place in range(len(batch))]


class _Group(NamedTuple):
    """Images that go through the UNet together, and where in the batch they stand."""

    chunks: int
    places: list[int]
    requests: list[ImageRequest]


def _groups(batch: Sequence[ImageRequest], loaded: Loaded) -> list[_Group]:
    """The batch by number of chunks; with `exact`, each image by itself."""
    groups: dict[tuple[int, int], _Group] = {}
    for place, request in enumerate(batch):
        texts = (request.prompt, request.negative_prompt)
        chunks = max(len(_chunks(loaded, request, text)) for text in texts)
        key = (chunks, place if request.exact else 0)
        group = groups.setdefault(key, _Group(chunks, [], []))
        group.places.append(place)
        group.requests.append(request)
    return list(groups.values())


def _draw(
    loaded: Loaded,
    place: Place,
    group: _Group,
    on_step: OnStep,
    interrupted: Interrupted,
    timings: dict[str, float],
) -> list[bytes]:
    """The pixels of one group: encode, denoise, decode."""
    first = group.requests[0]
    with _timed(timings, "encode"):
        negative = _encoded(loaded, group, [request.negative_prompt for request in group.requests])
        positive = _encoded(loaded, group, [request.prompt for request in group.requests])
    with _timed(timings, "denoise"):
        sampler = build_sampler(
            first.sampler, first.schedule_type, first.steps, loaded.schedule, place.device
        )
        generators = generators_for([request.seed for request in group.requests])
        latents = denoise(
            loaded.unet,
            sampler,
            initial_noise(generators, first.width, first.height).to(place.device),
            (negative, positive),
            first.cfg_scale,
            generators,
            on_step,
            interrupted,
        )
        # CUDA works asynchronously; without this the decoder would be billed for the UNet.
        latents = latents.cpu().to(place.device)
    with _timed(timings, "decode"):
        # One by one: it saves memory, and a picture does not depend on its neighbours.
        return [decode(loaded.vae, latent[None]) for latent in latents]


def _encoded(loaded: Loaded, group: _Group, texts: Sequence[str]) -> torch.Tensor:
    """One row of hidden states for each text, all as long as the group's longest."""
    rows = [
        loaded.prompts.encode(
            _chunks(loaded, request, text), group.chunks, group.requests[0].clip_skip
        )
        for request, text in zip(group.requests, texts, strict=True)
    ]
    return torch.cat(rows)


def _chunks(loaded: Loaded, request: ImageRequest, text: str) -> list[Chunk]:
    """A text in chunks, with the request's embeddings for the words that name them."""
    return loaded.prompts.chunks(text, loaded.embeddings.tokens(request.embeddings))


def _rendered(
    request: ImageRequest,
    pixels: bytes,
    group: _Group,
    loaded: Loaded,
    place: Place,
    timings: dict[str, float],
) -> RenderedImage:
    return RenderedImage(
        width=request.width,
        height=request.height,
        pixels=pixels,
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
def _timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = time.perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + time.perf_counter() - start


@contextmanager
def _algorithms(*, exact: bool) -> Iterator[None]:
    """Deterministic algorithms while an exact image is made."""
    torch.use_deterministic_algorithms(exact)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
