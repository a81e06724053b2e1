"""Brings a batch's models and start images to the node that is to make it. In the driver."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.catalog import DEMO, Catalog, Model
from picowatch.catalog.folders import folder_files
from picowatch.catalog.hashes import HashCache
from picowatch.engine.cluster.messages import Need, Part, Unfit
from picowatch.engine.models.model_files import find_model
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import EngineLost
from picowatch.errors import ModelRefused, RenderFailed
from picowatch.recipe.request import ImageRequest

# Pieces and how many are on their way: little beside an object store, enough to keep a wire busy.
_PIECE_BYTES = 8 * 2**20
_PIECES = 3
_BAKED = "baked"

# Asks a node's agent at once, and gives what waits for its answer.
Ask = Callable[..., Callable[[], Any]]


def needs_of(batch: Sequence[ImageRequest]) -> list[Need]:
    """The models that a batch is made with; the demo model is in the package on every node."""
    needs: dict[Need, None] = {}
    for request in batch:
        if request.checkpoint != DEMO:
            needs[Need("checkpoint", request.checkpoint, request.checkpoint_hash)] = None
        if request.vae != _BAKED:
            needs[Need("vae", request.vae, request.vae_hash)] = None
        for lora in request.loras:
            needs[Need("lora", lora.name, lora.hash)] = None
        for embedding in request.embeddings:
            needs[Need("embedding", embedding.name, embedding.hash)] = None
    return list(needs)


class ModelTransfer:
    """Knows the daemon's models and start images."""

    def __init__(self, options: EngineOptions) -> None:
        self._catalog = Catalog(options.models, options.hash_cache, keep_hashes=False)
        self._hashes = HashCache(options.hash_cache, keep=False)
        self._start_images = options.start_images
        self._reading = threading.Lock()
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def start_images(self, batch: Sequence[ImageRequest]) -> dict[str, bytes]:
        """The start images and masks of a batch by hash; one that is gone the engine misses."""
        wanted = {
            digest
            for request in batch
            for digest in request.pictures.values()
            if self._start_images is not None
        }
        found = {}
        for digest in wanted:
            assert self._start_images is not None
            with suppress(OSError):
                found[digest] = (self._start_images / digest).read_bytes()
        return found

    def bring(self, needs: Sequence[Need], node: str, ask: Ask) -> None:
        """Send models to the node with this id, or as much of them as is not there.

        One engine of a node at a time: the others find the files then.
        """
        with self._sending[node]:
            for need in needs:
                self._bring(need, ask)

    def _bring(self, need: Need, ask: Ask) -> None:
        """Send one model.

        Raises RenderFailed if it cannot be read or is another one by now, EngineLost if the node
        cannot take it.
        """
        with self._reading:
            model = find_model(self._catalog, need.kind, need.name, need.hash)
            parts = self._parts(model)
        for part, path in parts:
            self._bring_part(part, path, need, ask)
        if model.layout == "folder":
            _answer(ask("models.keep_folder", need, [part for part, _ in parts]))

    def _parts(self, model: Model) -> list[tuple[Part, Path]]:
        files = [("", model.path)]
        if model.layout == "folder":
            files = [(file.relative, file.path) for file in folder_files(model.path)]
        try:
            return [
                (Part(relative, self._hashes.sha256(path), path.stat().st_size), path)
                for relative, path in files
            ]
        except (ModelRefused, OSError) as error:
            raise RenderFailed(str(error)) from error

    def _bring_part(self, part: Part, path: Path, need: Need, ask: Ask) -> None:
        """One file, unless it is there."""
        if not _answer(ask("models.lacks", part)):
            return
        try:
            self._send(part, path, ask)
        except OSError as error:
            raise RenderFailed(f"{path.name} cannot be read: {error.strerror}.") from error
        if not _answer(ask("models.finish", part)):
            raise RenderFailed(
                f"The {need.kind} {need.name!r} changed while it was sent to a node.",
                "When the file is there and complete, save the recipe again.",
            )

    def _send(self, part: Part, path: Path, ask: Ask) -> None:
        """A file's pieces, a few at a time."""
        on_their_way: deque[Callable[[], Any]] = deque()
        try:
            for offset, piece in _pieces(path):
                if len(on_their_way) >= _PIECES:
                    _answer(on_their_way.popleft())
                on_their_way.append(ask("models.write", part, offset, piece))
        finally:
            for arrival in on_their_way:
                _answer(arrival)


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        offset = 0
        while piece := file.read(_PIECE_BYTES):
            yield offset, piece
            offset += len(piece)


def _answer(arrival: Callable[[], Any]) -> Any:
    answer = arrival()
    if isinstance(answer, Unfit):
        raise EngineLost(f"The node cannot take model files: {answer.why}.")
    return answer
