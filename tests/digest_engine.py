"""The tests' engine: draws each request's digest as a picture, immediately, without torch."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import shake_256
from typing import Any

from PIL import Image

from picowatch.engine.protocol import (
    Look,
    MemoryUse,
    OnPreview,
    OnProgress,
    Place,
    Progress,
    RenderedImage,
    RgbPicture,
    go_on,
    unseen,
)
from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest

Batch = Sequence[ImageRequest]

LOOK_SECONDS = 0.1
_SIDE = 8  # the digest is drawn as 8 x 8 coloured squares


@dataclass(eq=False)
class DigestEngine:
    """Makes a picture from nothing but the request's digest.

    Equal requests give equal pixels, different ones different pixels. `before_batch` is called
    in the engine's thread before each batch: it may wait for an event the test holds, or raise
    what this batch is to fail with. `after_step` is called after each step's `on_progress`, with
    the steps done; it may wait or raise too. `heeds` tells, each time that a batch is to be
    interrupted, whether it is. `batches` lists every batch that was started;
    `timings` are those of each picture, if there are any.
    """

    before_batch: Callable[[Batch], None] = lambda batch: None
    after_step: Callable[[int], None] = lambda done: None
    heeds: Callable[[], bool] = lambda: True
    on_preview: OnPreview = unseen
    batches: list[tuple[ImageRequest, ...]] = field(default_factory=list)
    starts: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    _started: bool = False

    def render(
        self,
        batch: Batch,
        on_progress: OnProgress,
        on_preview: OnPreview = unseen,
        look: Look = go_on,
    ) -> list[RenderedImage]:
        """Draw in a thread, so that this one can look while a test's hook waits."""
        self.starts += not self._started
        self._started = True
        self.batches.append(tuple(batch))
        self.on_preview = on_preview
        pictures, stop = Future[list[RenderedImage]](), threading.Event()
        given = tuple(batch), on_progress, pictures, stop
        threading.Thread(target=self._draw, args=given, daemon=True).start()
        try:
            while not pictures.done():
                with suppress(TimeoutError):
                    pictures.exception(LOOK_SECONDS)
                if not pictures.done() and look() and self.heeds():
                    raise EngineStopped("The engine was interrupted.")
        except EngineDied:
            self.close()
            raise
        finally:
            stop.set()
        return pictures.result()

    def close(self) -> None:
        self._started = False

    def _draw(
        self,
        batch: tuple[ImageRequest, ...],
        on_progress: OnProgress,
        pictures: "Future[list[RenderedImage]]",
        stop: threading.Event,
    ) -> None:
        try:
            self.before_batch(batch)
            for done in range(1, batch[0].steps + 1):
                if stop.is_set():
                    return
                on_progress(Progress("draw", done, batch[0].steps))
                self.after_step(done)
            images = [digest_picture(request, len(batch)) for request in batch]
            for image in images:
                image.timings.update(self.timings)
        # What a test's hook raises is what this batch fails with.
        except BaseException as failure:
            pictures.set_exception(failure)
        else:
            pictures.set_result(images)


class EngineHere:
    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    def render(
        self, batch: Batch, on_progress: OnProgress, on_preview: OnPreview, look: Look
    ) -> list[RenderedImage]:
        return [*self._renderer.render(batch, on_progress, look)]

    def close(self) -> None:
        """Hold nothing."""


def fail_on_bad(batch: Batch) -> None:
    """Fail a batch that has the prompt "bad", as a `before_batch`."""
    if any(request.prompt == "bad" for request in batch):
        raise RenderFailed("Bad.")


def digest_pixels(request: ImageRequest) -> bytes:
    """The digest as 8 x 8 squares of colour, stretched to the request's size."""
    colours = shake_256(request.digest.encode()).digest(_SIDE * _SIDE * 3)
    squares = Image.frombytes("RGB", (_SIDE, _SIDE), colours)
    return squares.resize(_sides(request), Image.Resampling.NEAREST).tobytes()


def _sides(request: ImageRequest) -> tuple[int, int]:
    return request.given_size or (request.width, request.height)


def digest_picture(request: ImageRequest, batch_size: int) -> RenderedImage:
    """Return the request's picture as an engine does. In those called bare no words find a mask."""
    mask, looks = request.found_mask, bool(request.found_mask or request.detail)
    field = "mask" if mask else "detail"
    found = () if "bare" in request.masked[0] else (Place(field, 0.9, (1, 2, 3, 4)),)
    is_drawn = found or not (mask or request.only_details)
    previews = [use.preview for use in request.control] + [mask.preview if mask else False]
    return RenderedImage(
        width=_sides(request)[0],
        height=_sides(request)[1],
        pixels=digest_pixels(request),
        device="digest",
        precision="exact",
        batch_size=batch_size if is_drawn else 0,
        compiled=False,
        memory_rung="full",
        chunks=1,
        timings={"encode": 0.0, "denoise": 0.0, "decode": 0.0},
        versions={"picowatch": "test"},
        memory=MemoryUse(5_000_000, 7_000_000),
        control_maps=tuple(
            RgbPicture(*_sides(request), digest_pixels(request)) for wanted in previews if wanted
        ),
        places=found if looks else None,
        warnings=() if found or not looks else ("Nothing was found.",),
    )
