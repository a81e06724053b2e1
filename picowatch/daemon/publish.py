"""Turns a rendered image into a picture in the outbox: metadata, file, lists, ledger.

The order makes a crash harmless: the picture is durable under its reserved name before it is
listed, and the ledger says done after that. The next start repeats or skips each step.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial

from PIL import Image

from picowatch import __version__
from picowatch.catalog import Catalog
from picowatch.daemon.run import Run
from picowatch.engine.protocol import RenderedImage
from picowatch.errors import ModelRefused, PictureUnreadable
from picowatch.files.atomic import check_in_place
from picowatch.files.decoding import Original
from picowatch.files.essential import Ended, passes, unexpected
from picowatch.files.pictures import KEEPABLE_BITS
from picowatch.inbox.named_pictures import kept_metadata, kept_parameters
from picowatch.inbox.names import is_dropped
from picowatch.ledger import followups, queue
from picowatch.ledger.rows import QueuedImage
from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH, chunk_of
from picowatch.outbox.encoding import How, encode_apart
from picowatch.outbox.listing import line_of
from picowatch.outbox.names import PNG, TIFF, format_of
from picowatch.outbox.outbox import FOLDER_REMEDY
from picowatch.outbox.photo_metadata import NONE, NOTHING_KEPT, PhotoMetadata, mark_of, only_marked
from picowatch.recipe.a1111.writer import parameters_text, without_postprocessing
from picowatch.recipe.chunk import Chunk, picowatch_json
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")
# Pictures have a logger of their own: a console that shows the newest pictures filters it out.
log_picture = logging.getLogger("picowatch.pictures")

# What a picture's metadata say of how it was rendered, besides its request.
RENDERED = (
    "device", "precision", "batch_size", "compiled", "memory_rung", "chunks", "timings",
)  # fmt: skip
LARGE_PIXELS = 16_000_000  # of a picture that is encoded apart
NEWEST = 5  # pictures in the status
MOST_THREADS = 8  # compression takes a core each; more engines than that wait for each other
ON_WHITE = (
    "It is transparent, which JPEG cannot store, so it was put on white. Use format: png, webp or "
    "avif."
)


# Waits for a picture's thread: the pixels, their texts, and the bytes of the file.
_Begun = Callable[[], tuple[Image.Image, dict[str, str], bytes]]
_Part = tuple[QueuedImage, RenderedImage, _Begun]  # of a batch


class Publisher:
    """Publishes batches in threads of its own."""

    def __init__(self, run: Run, catalog: Catalog, *, keep_exif: str, ai_mark: bool) -> None:
        self.run, self.ledger, self.outbox = run, run.ledger, run.outbox
        self.writing, self.result = run.writing, run.result
        self._keep_exif, self._ai_mark = keep_exif, ai_mark
        self._catalog, self._lock = catalog, threading.Lock()  # which guards the catalog
        self.newest: deque[str] = deque(self.outbox.listing.recent_files(), maxlen=NEWEST)
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="publisher")
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encoder")

    def submit(self, batch: list[QueuedImage], pictures: list[RenderedImage]) -> Future[None]:
        """Begin to publish a batch; once this returns, its start images are not needed any more."""
        parts = list(map(self._begun, batch, pictures))
        return self._executor.submit(self._publish, parts)

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        self._encoders.shutdown(wait=True)

    def list_published(self) -> None:
        """Add pictures that a crash or a full disk kept out of the lists."""
        unlisted = followups.unlisted(self.ledger)
        recent = self.outbox.listing.recent_pictures() if unlisted else ()
        listed = {line["file"]: line.get("digest") for line in recent}  # the last of each counts
        for image in unlisted:
            path = self.outbox.root / image.file
            try:
                if self.outbox.exists(image.file):
                    chunk = chunk_of(path)
                    line = line_of(image.file, chunk, path.stat().st_mtime, image.entry_digest)
                    for warning in chunk.rendered.get("warnings", ()):
                        self._warn(image, warning)
                    if listed.get(image.file) != image.request.digest:
                        self.outbox.listing.append(line)
                    self.outbox.gallery.add(line)
                else:
                    check_in_place(path)  # raises if it is not deleted, but away
            except PictureUnreadable as error:
                log.warning("%s was damaged before it was listed: %s", image.file, error)
            except OSError:
                raise
            except Exception as error:  # no single picture may end the daemon
                log.error("%s is in no list: %s", image.file, unexpected(error))
            followups.mark_listed(self.ledger, image.id)

    def _publish(self, parts: list[_Part]) -> None:
        """Publish the pictures one by one; one commit, which costs four syncs, records them all."""
        with self.run.ended_by_errors():
            batch = [image for image, _, _ in parts]
            requested = self.writing.essential(partial(queue.hand_over, self.ledger, batch))
            left = [part for part in parts if part[0].id in requested]  # which cannot be cancelled
            done: list[tuple[QueuedImage, float, bool]] = []  # with seconds, and if it is listed
            try:
                while left and not self.writing.has_ended():
                    image, picture, _ = left[0]
                    if self._is_written(*left[0]):
                        done.append((image, sum(picture.timings.values()), False))
                        done[-1] = (*done[-1][:2], self._show(*left[0]))
                    del left[0]
            except Ended:
                pass
            except OSError as error:
                self.result.cannot_go_on(f"cannot write: {error}")
            self.writing.essential(partial(queue.finish, self.ledger, done))
            for image, _, _ in left:
                # The next start completes an image whose picture is there.
                if not self.outbox.holds(image.file, image.digest):
                    self.writing.essential(partial(queue.put_back, self.ledger, image))
        self.run.wake.set()

    def _is_written(self, image: QueuedImage, picture: RenderedImage, begun: _Begun) -> bool:
        """Write a picture, once the disk allows it; return whether that did not fail for good."""
        try:
            self.writing.essential(partial(self._write, image, picture, begun))
            return True
        except Exception as error:  # no single picture may take the publisher down
            if isinstance(error, OSError) and not passes(error):
                words = (error.strerror or str(error)).rstrip(".")
                reason = f"{image.file} cannot be written: {words}."
            else:
                reason = unexpected(error)
        self.writing.essential(partial(queue.fail, self.ledger, image, reason))
        self.result.count_failure()
        recipe = self.writing.essential(partial(queue.recipe_of, self.ledger, image))
        extra = {"event": "failed", "recipe": recipe, "picture": image.file}
        log.error("%s: %s failed: %s", recipe, image.file, reason, extra=extra)
        return False

    def _begun(self, image: QueuedImage, picture: RenderedImage) -> _Part:
        """Begin to encode a picture in a thread; return it with what waits for that."""
        parameters, metadata = self._source(image, picture)
        told = self._told(image, picture, metadata)
        is_large = picture.width * picture.height > LARGE_PIXELS
        decode = replace(told, control_maps=()).decoded
        given = [decode] if is_large else self._encoders.submit(decode)
        picture = replace(told, pixels=b"", alpha=b"", low=b"")  # which take hundreds of megabytes
        encode = partial(self._encoded, image, picture, parameters, metadata, given)
        begun = self._encoders.submit(encode)
        # What a disk refused then, it may allow now.
        return image, picture, lambda: encode() if begun.exception() else begun.result()

    def _encoded(
        self,
        image: QueuedImage,
        picture: RenderedImage,
        parameters: str,
        metadata: PhotoMetadata,
        given: "list[Callable[[], Original]] | Future[Original]",
    ) -> tuple[Image.Image, dict[str, str], bytes]:
        how = How(
            file=image.file,
            texts=self._texts(image, picture, parameters),
            quality=image.request.quality or self.outbox.quality_of(image.file),
            photo=metadata,
        )
        if isinstance(given, list):
            small, content = encode_apart(given[0], how)
            given.clear()
            return small, dict(how.texts), content
        return given.result().picture, dict(how.texts), how.encode(given.result())

    def _write(self, image: QueuedImage, picture: RenderedImage, begun: _Begun) -> None:
        """Write a picture. One whose folder alone may not be written fails: memory is limited."""
        _, _, content = begun()
        maps = [Image.frombytes("RGB", (m.width, m.height), m.pixels) for m in picture.control_maps]
        self.outbox.publish_maps(image.file, maps)
        try:
            self.outbox.publish(image.file, content)
        except PermissionError as error:
            if os.access(self.outbox.root, os.W_OK | os.X_OK):
                raise OSError(f"{error.strerror}. {FOLDER_REMEDY}") from error
            raise

    def _show(self, image: QueuedImage, picture: RenderedImage, begun: _Begun) -> bool:
        """Write what belongs to a written picture, and list it; return whether that worked."""
        line = line_of(image.file, _chunk_of(image, picture), time.time(), image.entry_digest)
        self.newest.append(image.file)
        chunks = f", {picture.chunks} prompt chunks" if picture.chunks > 1 else ""
        seconds = line["seconds"]
        recipe, file = image.recipe, image.file
        extra = {"event": "picture", "recipe": recipe, "picture": file, "seconds": seconds}
        log_picture.info("%s: %s (%.1f s%s)", recipe, file, seconds, chunks, extra=extra)
        try:
            self.outbox.show(image.file, *begun())
            # Observers come before the ledger: if the queue is empty, they have seen every picture.
            self.run.observers.published(line)
            for warning in picture.warnings:
                self._warn(image, warning)
            self.outbox.listing.append(line)
            self.outbox.gallery.add(line)
        except Exception as error:
            if not passes(error):
                log.error("%s", unexpected(error))
            return False  # the picture is there, and the next round does what is left
        return True

    def _warn(self, image: QueuedImage, warning: str) -> None:
        """Add a warning to the recipe's file, or its template's, if the image is requested."""
        with self.ledger.transaction():  # no save is accepted meanwhile
            recipe = queue.recipe_of(self.ledger, image)
            template = self.run.inbox.files.template_above(recipe) if is_dropped(recipe) else ""
            is_new = queue.is_requested(self.ledger, image.id) and self.outbox.problems.add_warning(
                template or recipe, warning
            )
        if is_new:
            extra = {"event": "warning", "recipe": recipe, "picture": image.file}
            log.warning("%s: %s", image.file, warning, extra=extra)

    def _source(self, image: QueuedImage, picture: RenderedImage) -> tuple[str, PhotoMetadata]:
        """Return what the picture has from its start image, or its first reference, and its mark.

        These are EXIF, XMP and, if it is only enlarged, A1111's parameters, as in A1111's Extras.
        """
        request, is_jpeg = image.request, format_of(image.file).name == "jpeg"
        parameters, lost = kept_parameters(self.outbox.root, request, is_jpeg=is_jpeg)
        mark = mark_of(request, is_drawn=bool(picture.batch_size)) if self._ai_mark else ""
        name, digest = request.masked
        if not digest:
            return parameters, only_marked(mark)
        placed = request.resize_to and request.resize_to.placed(*request.size_before_resize)
        is_padded = placed and placed.inner != placed.size
        is_whole = request.image and not (request.cutout or request.extend or is_padded)
        size = (picture.width, picture.height) if is_whole else None
        keep = request.keep_exif or self._keep_exif
        metadata = kept_metadata(self.outbox.root, digest, keep, mark=mark, size=size, name=name)
        if keep == NOTHING_KEPT and not self._ai_mark:
            metadata = replace(NONE, warnings=metadata.warnings)
        return parameters, replace(metadata, warnings=(*metadata.warnings, *lost))

    def _told(
        self, image: QueuedImage, picture: RenderedImage, metadata: PhotoMetadata
    ) -> RenderedImage:
        """Return the picture, with warnings of what its file cannot hold."""
        kind, more, request = format_of(image.file), metadata.warnings, image.request
        if picture.alpha and not kind.transparent:
            more = (*more, ON_WHITE)
        elif kind is PNG and (why := self.outbox.names.why_png(image.recipe, request)):
            more = (*more, why)
        if picture.low and kind in (PNG, TIFF):
            more = tuple(warning for warning in more if warning != KEEPABLE_BITS)
        return replace(picture, warnings=(*picture.warnings, *more)) if more else picture

    def _texts(self, image: QueuedImage, picture: RenderedImage, before: str) -> dict[str, str]:
        chunk = picowatch_json(_chunk_of(image, picture))
        hashes = {}  # as A1111's, without those of LoRAs that are gone or changed
        for lora in image.request.loras:
            with self._lock, suppress(ModelRefused):
                model = self._catalog.find("lora", lora.name)
                if self._catalog.sha256(model) == lora.hash:
                    hashes[lora.name] = self._catalog.weights_hash(model)
        parameters = parameters_text(_as_rendered(image.request, picture), __version__, hashes)
        parameters = ", ".join(filter(None, [without_postprocessing(before), parameters]))
        return {PARAMETERS: parameters, PICOWATCH: chunk}


def _as_rendered(request: ImageRequest, picture: RenderedImage) -> ImageRequest:
    """Return the request for other programs to read, with the size that memory allowed."""
    if request.published_size == (picture.width, picture.height):
        return request
    scale = request.hires.scale if request.hires else 1
    scale *= (request.upscale and request.upscale.scale) or 1
    width, height = round(picture.width / scale), round(picture.height / scale)
    return replace(request, width=width, height=height)


def _chunk_of(image: QueuedImage, picture: RenderedImage) -> Chunk:
    found = {}  # what was looked for in the picture
    if picture.places is not None:
        found = {"found": len(picture.places), "places": [*map(asdict, picture.places)]}
    return Chunk(
        request=image.request,
        recipe=image.recipe,
        save_digest=image.save_digest,
        entry_index=image.entry_index,
        image_index=image.image_index,
        rendered={
            **({"node": picture.node} if picture.node else {}),
            **{name: getattr(picture, name) for name in RENDERED},
            **found,
            "size": f"{picture.width}x{picture.height}",
            # Accepting the recipe has told of the size.
            "warnings": [*filter(None, [image.request.size_warning]), *picture.warnings],
            "versions": {**picture.versions, "picowatch": __version__},
        },
    )
