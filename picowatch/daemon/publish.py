"""Turns a rendered image into a picture in the outbox: metadata, file, lists, ledger.

The order makes a crash harmless: the picture is durable under its reserved name before it is
listed, and the ledger says done after that. The next start looks at what is there and repeats or
skips each step.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from picowatch import __version__
from picowatch.catalog import Catalog
from picowatch.daemon.run import Run
from picowatch.engine.protocol import RenderedImage
from picowatch.errors import ModelRefused, PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.files.attempt import Ended, passes, unexpected, unneeded
from picowatch.inbox.names import is_dropped
from picowatch.inbox.reading import template_above
from picowatch.ledger import outstanding, queue
from picowatch.ledger.rows import QueuedImage
from picowatch.metadata import (
    PARAMETERS,
    PICOWATCH,
    Chunk,
    parameters_text,
    picowatch_json,
    read_chunk,
    read_texts,
    without_postprocessing,
)
from picowatch.outbox.encoding import encoded
from picowatch.outbox.listing import line_of
from picowatch.outbox.names import format_of, kind_wanted
from picowatch.outbox.photo_metadata import NONE, NOTHING_KEPT, PhotoMetadata, mark_of, marked
from picowatch.outbox.start_images import kept_metadata, kept_parameters
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")
# Pictures have a logger of their own: a console that shows the newest ones filters it out.
log_picture = logging.getLogger("picowatch.pictures")

# What a picture's metadata say of how it was rendered, besides its request.
RENDERED = (
    "device", "precision", "batch_size", "compiled", "memory_rung", "chunks", "timings",
)  # fmt: skip
NEWEST = 5  # pictures in the status
MOST_THREADS = 8  # compression takes a core each; more engines than that wait for each other
ON_WHITE = (
    "It is transparent, which JPEG cannot store, so it was put on white. Use format: png, webp or "
    "avif."
)
AS_PNG = "It is transparent, which JPEG cannot store, so it is a PNG."
FOLDER_REMEDY = "Give the user that runs picowatch permission to write to its folder."


# Waits for a picture's thread: the pixels, their texts, and the bytes of the file.
_Begun = Callable[[], tuple[Image.Image, dict[str, str], bytes]]


@dataclass(frozen=True, slots=True)
class _Source:
    """What a picture has from the one it is made of: A1111's parameters, and EXIF and XMP."""

    parameters: str
    metadata: PhotoMetadata


class Publisher:
    """Publishes batches in threads of its own."""

    def __init__(self, run: Run) -> None:
        self.run, self.ledger, self.outbox = run, run.ledger, run.outbox
        self.attempts, self.result = run.attempts, run.result
        settings = run.settings
        self._catalog = Catalog(settings.models, settings.hash_cache)
        self._lock = threading.Lock()  # guards the catalog
        self.newest: deque[str] = deque(self.outbox.listing.recent_files(), maxlen=NEWEST)
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="publisher")
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encoder")

    def submit(self, batch: list[QueuedImage], pictures: list[RenderedImage]) -> Future[None]:
        """Publish a batch; the future is done when all of it is published or given up.

        The start images are not needed any more once this returns.
        """
        sources = list(map(self._source, batch, pictures))
        pictures = list(map(self._told, batch, pictures, sources))
        begun = list(map(self._begun, batch, pictures, sources))
        return self._executor.submit(partial(self._try_to_publish, batch, pictures, begun))

    def close(self) -> None:
        """Finish what was submitted, then end."""
        self._executor.shutdown(wait=True)
        self._encoders.shutdown(wait=True)

    def list_published(self) -> None:
        """Add pictures that a crash or a full disk kept out of the lists."""
        unlisted = outstanding.unlisted(self.ledger)
        listed = self.outbox.listing.recent_files() if unlisted else ()
        for image in unlisted:
            try:
                self._list_as_published(image, image.file in listed)
            except OSError:
                raise
            except Exception as error:  # no single picture may end the daemon
                log.error("%s is in no list: %s", image.file, unexpected(error))
            outstanding.mark_listed(self.ledger, image.id)

    def _list_as_published(self, image: QueuedImage, is_in_list: bool) -> None:
        """Add a published picture to the lists, as its metadata describe it."""
        path = self.outbox.root / image.file
        if not self.outbox.exists(image.file):
            check_in_place(path)  # raises if it is not deleted, but away
            return
        try:
            chunk = read_chunk(read_texts(path)[PICOWATCH])
        except PictureUnreadable as error:
            log.warning("%s was damaged before it was listed: %s", image.file, error)
            return
        line = line_of(image.file, chunk, path.stat().st_mtime, image.entry_digest)
        self._list(image, line, chunk.rendered.get("warnings", ()), is_in_list)

    def _list(
        self,
        image: QueuedImage,
        line: dict[str, Any],
        warnings: Iterable[str],
        is_in_list: bool = False,
    ) -> None:
        for warning in warnings:
            self._warn(image, warning)
        if not is_in_list:
            self.outbox.listing.append(line)
        with unneeded(".picowatch/gallery"):
            self.outbox.gallery.add(line)

    def _try_to_publish(
        self, batch: list[QueuedImage], pictures: list[RenderedImage], begun: list[_Begun]
    ) -> None:
        with self.run.ended_by_errors():
            self._publish(batch, pictures, begun)
        self.run.wake.set()

    def _publish(
        self, batch: list[QueuedImage], pictures: list[RenderedImage], begun: list[_Begun]
    ) -> None:
        """Publish the pictures one by one; one commit, which costs four syncs, records them all.

        Those cancelled before `hand_over` are dropped; after it none can be cancelled.
        """
        requested = self.attempts.until_done(partial(queue.hand_over, self.ledger, batch))
        left = [one for one in zip(batch, pictures, begun, strict=True) if one[0].id in requested]
        done: dict[int, bool] = {}  # by the ids of written images, whether they are listed
        try:
            while left:
                left = [one for one in left if not self._is_over(*one, done)]
                if left:
                    self.attempts.rest("picture", left[0][0].file)
        except Ended:
            pass
        except OSError as error:
            self.result.cannot_go_on(f"cannot write: {error}")
        written = [image for image in batch if image.id in done]
        listed = [image for image, is_listed in done.items() if is_listed]
        self.attempts.until_done(partial(queue.finish, self.ledger, written, listed))
        for image, _, _ in left:
            # The next start completes an image whose picture is there.
            if not self.outbox.holds(image.file, image.digest):
                self.attempts.until_done(partial(queue.put_back, self.ledger, image, drawn=True))

    def _is_over(
        self, image: QueuedImage, picture: RenderedImage, begun: _Begun, done: dict[int, bool]
    ) -> bool:
        """Write a picture and show it; return False if it waits for the disk, or picowatch ends."""
        write = partial(self._write, image, picture, begun)
        try:
            if self.attempts.has_ended():
                return False
            if not self.attempts.attempt("picture", image.file, write, is_alone=False):
                return False
        except Exception as error:  # no single picture may take the publisher down
            self._fail(image, error)
            return True
        done[image.id] = self._show(image, picture)
        return True

    def _fail(self, image: QueuedImage, error: Exception) -> None:
        if isinstance(error, OSError):
            reason = (
                f"{image.file} cannot be written: {(error.strerror or str(error)).rstrip('.')}."
            )
        else:
            reason = unexpected(error)
        self.attempts.until_done(partial(queue.fail, self.ledger, image, reason, drawn=True))
        self.result.count_failure()
        log.error("%s: %s failed: %s", image.recipe, image.file, reason)

    def _begun(self, image: QueuedImage, picture: RenderedImage, source: _Source) -> _Begun:
        """Begin to encode a picture in a thread; return what waits for it."""
        encode = partial(self._encoded, image, picture, source)
        begun = self._encoders.submit(encode)
        # What a disk refused then, it may allow now.
        return lambda: encode() if begun.exception() else begun.result()

    def _encoded(
        self, image: QueuedImage, picture: RenderedImage, source: _Source
    ) -> tuple[Image.Image, dict[str, str], bytes]:
        texts = self._texts(image, picture, source.parameters)
        pixels = Image.frombytes("RGB", (picture.width, picture.height), picture.pixels)
        if picture.alpha:
            pixels.putalpha(Image.frombytes("L", pixels.size, picture.alpha))
        quality, photo = image.request.quality, source.metadata
        content = encoded(
            image.file, pixels, texts, self.run.settings, quality=quality, photo=photo
        )
        return pixels, texts, content

    def _write(self, image: QueuedImage, picture: RenderedImage, begun: _Begun) -> None:
        """Write a picture. One whose folder alone may not be written fails: memory is limited."""
        try:
            maps = picture.control_maps
            self.outbox.publish_maps(
                image.file,
                [Image.frombytes("RGB", (one.width, one.height), one.pixels) for one in maps],
            )
            self.outbox.publish(image.file, *begun())
        except PermissionError as error:
            if os.access(self.outbox.root, os.W_OK | os.X_OK):
                raise OSError(f"{error.strerror}. {FOLDER_REMEDY}") from error
            raise

    def _show(self, image: QueuedImage, picture: RenderedImage) -> bool:
        """Add a written picture to the lists; return whether that worked.

        If not, the picture exists all the same, and the daemon's next round does what is left.
        """
        line = line_of(image.file, _chunk_of(image, picture), time.time(), image.entry_digest)
        self.newest.append(image.file)
        chunks = f", {picture.chunks} prompt chunks" if picture.chunks > 1 else ""
        log_picture.info("%s: %s (%.1f s%s)", image.recipe, image.file, line["seconds"], chunks)
        try:
            # Observers come before the ledger: if the queue is empty, they have seen every picture.
            self.run.observers.published(line)
            self._list(image, line, picture.warnings)
        except Exception as error:
            if not passes(error):
                log.error("%s", unexpected(error))
            return False
        return True

    def _warn(self, image: QueuedImage, warning: str) -> None:
        """Add a warning to the recipe's file, unless its last save does not request the image.

        A dropped picture's warning goes to its template's file: thousands may share it.
        """
        with self.ledger.transaction():  # no save is accepted meanwhile
            recipe = queue.recipe_of(self.ledger, image)
            template = template_above(self.run.settings.inbox, recipe) if is_dropped(recipe) else ""
            is_new = queue.is_requested(self.ledger, image.id) and self.outbox.problems.add_warning(
                template or recipe, warning
            )
        if is_new:
            log.warning("%s: %s", image.file, warning)

    def _source(self, image: QueuedImage, picture: RenderedImage) -> _Source:
        """Return what the picture has from its start image, or its first reference, and its mark.

        One that is only enlarged keeps the parameters, as in A1111's Extras.
        """
        settings, request, digest = self.run.settings, image.request, image.request.image_hash
        parameters = "" if request.draws else kept_parameters(self.outbox.root, digest)
        digest = digest or next((use.hash for use in request.references), "")
        keep, metadata = request.keep_exif or settings.keep_exif, NONE
        if digest and (settings.ai_mark or keep != NOTHING_KEPT):
            metadata = kept_metadata(self.outbox.root, digest, keep)
        mark = mark_of(request, is_drawn=bool(picture.batch_size)) if settings.ai_mark else ""
        return _Source(parameters, marked(metadata, mark))

    def _told(self, image: QueuedImage, picture: RenderedImage, source: _Source) -> RenderedImage:
        """Return the picture, with warnings of what its file cannot hold."""
        kind, more = format_of(image.file), source.metadata.warnings
        if picture.alpha and not kind.transparent:
            more = (*more, ON_WHITE)
        elif picture.alpha and not kind_wanted(image.request, self.run.settings).transparent:
            more = (*more, AS_PNG)
        return replace(picture, warnings=(*picture.warnings, *more)) if more else picture

    def _texts(self, image: QueuedImage, picture: RenderedImage, before: str) -> dict[str, str]:
        chunk = picowatch_json(_chunk_of(image, picture))
        with self._lock:
            hashes = self._lora_hashes(image.request)
        parameters = parameters_text(_as_rendered(image.request, picture), __version__, hashes)
        parameters = ", ".join(filter(None, [without_postprocessing(before), parameters]))
        return {PARAMETERS: parameters, PICOWATCH: chunk}

    def _lora_hashes(self, request: ImageRequest) -> dict[str, str]:
        """Return A1111's hashes of the image's LoRAs, without those that are gone or changed."""
        hashes = {}
        for lora in request.loras:
            with suppress(ModelRefused):
                model = self._catalog.find("lora", lora.name)
                if self._catalog.sha256(model) == lora.hash:
                    hashes[lora.name] = self._catalog.weights_hash(model)
        return hashes


def _found(picture: RenderedImage) -> dict[str, Any]:
    """Return the metadata of what was looked for in a picture."""
    if picture.places is None:
        return {}
    return {"found": len(picture.places), "places": [asdict(one) for one in picture.places]}


def _as_rendered(request: ImageRequest, picture: RenderedImage) -> ImageRequest:
    """Return the request for other programs to read, with the size that memory allowed."""
    if request.published_size == (picture.width, picture.height):
        return request
    scale = request.hires.scale if request.hires else 1
    scale *= (request.upscale and request.upscale.scale) or 1
    width, height = round(picture.width / scale), round(picture.height / scale)
    return replace(request, width=width, height=height)


def _chunk_of(image: QueuedImage, picture: RenderedImage) -> Chunk:
    return Chunk(
        request=image.request,
        recipe=image.recipe,
        save_digest=image.save_digest,
        entry_index=image.entry_index,
        image_index=image.image_index,
        rendered={
            **({"node": picture.node} if picture.node else {}),
            **{name: getattr(picture, name) for name in RENDERED},
            **_found(picture),
            "size": f"{picture.width}x{picture.height}",
            # Accepting the recipe has told of the size.
            "warnings": [*filter(None, [image.request.size_warning]), *picture.warnings],
            "versions": {**picture.versions, "picowatch": __version__},
        },
    )
