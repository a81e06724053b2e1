"""Makes pictures in this process: the story of a batch, from requests to pixels."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from picowatch.catalog import Catalog
from picowatch.engine.decode import decode
from picowatch.engine.denoise import denoise
from picowatch.engine.devices import Place, choose_place
from picowatch.engine.loading import Checkpoints, Loaded
from picowatch.engine.noise import generators_for, initial_noise
from picowatch.engine.options import EngineOptions
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
        with _timed(timings, "load"):
            loaded = self._checkpoints.get(batch[0])
        groups = _groups(batch, loaded)
        made: dict[int, RenderedImage] = {}
        with _algorithms(exact=batch[0].exact):
            for number, (chunks, members) in enumerate(groups):
                requests = [batch[member] for member in members]
                report = _shifted(on_step, number, len(groups))
                pixels = _draw(loaded, self._place, requests, chunks, report, interrupted, timings)
                for member, picture in zip(members, pixels, strict=True):
                    made[member] = self._rendered(batch[member], picture, len(members), chunks)
        share = {phase: seconds / len(batch) for phase, seconds in timings.items()}
        for image in made.values():
            image.timings.update(share)
        return [made[member] for member in range(len(batch))]

    def _rendered(
        self, request: ImageRequest, pixels: bytes, batch_size: int, chunks: int
    ) -> RenderedImage:
        return RenderedImage(
            width=request.width,
            height=request.height,
            pixels=pixels,
            device=self._place.name,
            precision=self._place.precision,
            batch_size=batch_size,
            compiled=False,
            memory_rung="full",
            chunks=chunks,
            versions=versions(),
        )


def _groups(batch: Sequence[ImageRequest], loaded: Loaded) -> list[tuple[int, list[int]]]:
    """Places in the batch by number of chunks; with `exact`, each image by itself."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for member, request in enumerate(batch):
        texts = (request.prompt, request.negative_prompt)
        chunks = max(len(loaded.prompts.chunks(text)) for text in texts)
        groups[chunks, member if request.exact else 0].append(member)
    return [(chunks, members) for (chunks, _), members in groups.items()]


def _draw(
    loaded: Loaded,
    place: Place,
    requests: Sequence[ImageRequest],
    chunks: int,
    on_step: OnStep,
    interrupted: Interrupted,
    timings: dict[str, float],
) -> list[bytes]:
    """Pixels of images that go through the UNet together: encode, denoise, decode."""
    first = requests[0]
    with _timed(timings, "encode"):
        negative = _encoded(loaded, [r.negative_prompt for r in requests], chunks, first.clip_skip)
        positive = _encoded(loaded, [r.prompt for r in requests], chunks, first.clip_skip)
    with _timed(timings, "denoise"):
        sampler = build_sampler(
            first.sampler, first.schedule_type, first.steps, loaded.schedule, place.device
        )
        generators = generators_for([request.seed for request in requests])
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


def _encoded(loaded: Loaded, texts: Sequence[str], chunks: int, clip_skip: int) -> torch.Tensor:
    """One row of hidden states for each text, all of one length."""
    encoder = loaded.prompts
    return torch.cat([encoder.encode(encoder.chunks(text), chunks, clip_skip) for text in texts])


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
