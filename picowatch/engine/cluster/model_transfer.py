"""Sends a batch's models and start images to the node that is to render it. In the daemon."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.catalog import DEMO, DEMO_CONTROLNET, DEMO_UPSCALER, Catalog
from picowatch.engine.cluster.node_models import Need
from picowatch.engine.models.model_files import find_model
from picowatch.engine.options import EngineOptions
from picowatch.errors import RenderFailed
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ImageRequest

_PIECE_BYTES = 8 * 2**20  # little beside an object store
_WAIT_SECONDS = 1.0  # for another engine of the node, before that counts as progress

# Calls a method of a node's agent.
Ask = Callable[..., Future[Any]]


def needs_of(batch: Sequence[ImageRequest]) -> list[Need]:
    """The models that a batch is rendered with; the demo model is in the package on every node."""
    needs: dict[Need, None] = {}
    for request in batch:
        if request.checkpoint not in (DEMO, ""):
            needs[Need("checkpoint", request.checkpoint, request.checkpoint_hash)] = None
        if request.vae != BAKED:
            needs[Need("vae", request.vae, request.vae_hash)] = None
        for name, hash_ in request.upscalers.items():
            if name != DEMO_UPSCALER:
                needs[Need("upscaler", name, hash_)] = None
        for lora in request.loras:
            needs[Need("lora", lora.name, lora.hash)] = None
        for embedding in request.embeddings:
            needs[Need("embedding", embedding.name, embedding.hash)] = None
        for use in request.control:
            if use.model != DEMO_CONTROLNET:
                needs[Need("controlnet", use.model, use.model_hash)] = None
            if use.depth:
                needs[Need("depth", use.depth, use.depth_hash)] = None
    return list(needs)


class ModelTransfer:
    """Knows the daemon's models and start images."""

    def __init__(self, options: EngineOptions) -> None:
        self._catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        self._start_images = options.start_images
        self._reading = threading.Lock()
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; the engine reports what is missing."""
        found: dict[str, bytes] = {}
        if self._start_images is not None:
            for digest in {digest for request in batch for digest in request.pictures.values()}:
                with suppress(OSError):
                    found[digest] = (self._start_images / digest).read_bytes()
        return found

    def bring(
        self, needs: Sequence[Need], node: str, ask: Ask, on_progress: Callable[[], None]
    ) -> None:
        """Send models to the node with this id; `on_progress` is called now and then.

        One engine of a node at a time: the others find the files then. Raises RenderFailed if one
        cannot be read or is another one by now, EngineLost if the node cannot take it.
        """
        sending = self._sending[node]
        while not sending.acquire(timeout=_WAIT_SECONDS):
            on_progress()
        try:
            for need in needs:
                self._bring(need, ask, on_progress)
        except OSError as error:
            reason = f"The {need.kind} {need.name!r} cannot be read: {error.strerror}."
            raise RenderFailed(reason) from error
        finally:
            sending.release()

    def _bring(self, need: Need, ask: Ask, on_progress: Callable[[], None]) -> None:
        """Send one model, unless it is there."""
        with self._reading:
            model = find_model(self._catalog, need.kind, need.name, need.hash)
        if not ask("models.lacks", need, self._catalog.size(model)).result():
            return
        for relative, piece in _pieces(self._catalog.files_below(model)):
            ask("models.append", need, relative, piece).result()
            on_progress()
        if not ask("models.finish", need).result():
            raise RenderFailed(
                f"The {need.kind} {need.name!r} changed while it was sent to a node.",
                "When the file is there and complete, save the recipe again.",
            )


def _pieces(files: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    """Files in pieces, one at least of each."""
    for relative, path in files.items():
        with path.open("rb") as file:
            yield relative, file.read(_PIECE_BYTES)
            while piece := file.read(_PIECE_BYTES):
                yield relative, piece
