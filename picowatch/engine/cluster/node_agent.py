"""An engine on a node: a ChildEngine, the models it is to see, and what it says."""

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any

from picowatch.catalog.models import FOLDERS
from picowatch.engine.cluster.messages import Ended, FromEngine, Need, Unfit
from picowatch.engine.cluster.model_files import NodeModels
from picowatch.engine.options import EngineOptions, cache_folder
from picowatch.engine.process.child import ChildEngine, Pictures
from picowatch.engine.process.wire import Step
from picowatch.engine.protocol import Preview
from picowatch.errors import EngineDied, PicowatchError
from picowatch.recipe.request import ImageRequest

_LISTEN_SECONDS = 10.0
_GATHER_SECONDS = 0.25
_START_IMAGES = "start-images"
_LOCK = "lock"

Answer = tuple[tuple[int, FromEngine], ...] | list[Need] | Unfit | bool | None


def start_agent(
    options: EngineOptions, program: str, node: str, gpus: float, cpus: float
) -> tuple[Unfit | None, "NodeAgent | None"]:
    """An agent on this node for an engine with so many GPUs and cores, or why there is none."""
    compiled = cache_folder()
    if compiled is None:
        return Unfit("its user has no home folder. Set XDG_CACHE_HOME there"), None
    root = compiled.parent / "models"
    try:
        models, view = NodeModels(root), _new_view(root / "views")
    except OSError as error:
        return Unfit(f"{root} cannot be used: {error.strerror}"), None
    if os.environ.get("OMP_NUM_THREADS") == str(max(1, int(cpus))):  # Ray's doing
        del os.environ["OMP_NUM_THREADS"]
    there = replace(
        options,
        models=view,
        hash_cache=models.hash_file,
        start_images=view / _START_IMAGES,
        compiled=compiled if options.compiled else None,
        device=_device(options.device, gpus),
        threads=None if gpus else max(1, int(cpus)),
    )
    return None, NodeAgent(ChildEngine(there, program), node, models, view, options.models)


def _device(asked: str, gpus: float) -> str:
    """The cluster shows an engine only the GPUs that it gave it."""
    if gpus:
        return "cuda"
    return "mps" if asked == "mps" else "cpu"


def _new_view(folder: Path) -> Path:
    """A models folder for one engine; those of engines that are no more are deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as one_at_a_time:
        flock(one_at_a_time, LOCK_EX)
        for old in folder.iterdir():
            with suppress(OSError), (old / _LOCK).open() as lock:
                flock(lock, LOCK_EX | LOCK_NB)
                shutil.rmtree(old)
        view = Path(tempfile.mkdtemp(dir=folder))
        mine = os.open(view / _LOCK, os.O_CREAT | os.O_RDWR)  # until the process ends
        flock(mine, LOCK_EX)
    (view / _START_IMAGES).mkdir()
    return view


class NodeAgent:
    """Runs an engine on a node, as the driver asks."""

    def __init__(
        self, engine: ChildEngine, node: str, models: NodeModels, view: Path, shared: Path
    ) -> None:
        """`view` is the engine's models folder, `shared` the daemon's, which may be here, too."""
        self._engine = engine
        self._node = node
        self.models = models
        self._view = view
        self._shared = shared
        self._laid_out: dict[Need, Path] = {}
        self._said: list[tuple[int, FromEngine]] = []
        self._something = threading.Condition()

    def ask(self, what: str, *arguments: Any) -> Answer:
        """Call a method, or one of `models.`; what the node's disk says is an answer, too."""
        try:
            answer: Answer = attrgetter(what)(self)(*arguments)
        except OSError as error:
            return Unfit(f"{error.strerror or error} ({error.filename or 'model files'})")
        return answer

    def listen(self) -> tuple[tuple[int, FromEngine], ...]:
        """What was said since the last time, by number of batch; () after a while of silence.

        Steps are gathered: each answer wakes four processes, on cores that the engine may need.
        """
        with self._something:
            self._something.wait_for(lambda: self._said, _LISTEN_SECONDS)
            self._something.wait_for(self._has_ended, _GATHER_SECONDS)
            said, self._said = tuple(self._said), []
        return said

    def _has_ended(self) -> bool:
        return any(isinstance(message, Ended) for _, message in self._said)

    def prepare(self) -> None:
        """Start the engine's process."""
        self._engine.prepare()

    def interrupt(self) -> None:
        """End the batch in progress at its next step."""
        self._engine.interrupt()

    def render(
        self,
        number: int,
        batch: Sequence[ImageRequest],
        waiting: int,
        needs: Sequence[Need],
        start_images: dict[str, bytes],
    ) -> list[Need]:
        """Start a batch; the models that are lacking, then nothing has begun."""
        lacking = self._lay_out(needs)
        if not lacking:
            self._keep(start_images)
            on_step = partial(self._say_step, number)
            on_preview = partial(self._say_preview, number)
            future = self._engine.render(batch, on_step, waiting, on_preview)
            future.add_done_callback(partial(self._say_end, number))
        return lacking

    def _lay_out(self, needs: Sequence[Need]) -> list[Need]:
        """Link the models where the engine looks for them, under their names."""
        found = {need: self.models.find(need, self._shared) for need in needs}
        there = {need: path for need, path in found.items() if path is not None}
        if len(there) == len(found) and there != self._laid_out:
            self._laid_out = {}
            for folder in FOLDERS.values():
                shutil.rmtree(self._view / folder, ignore_errors=True)
            for need, path in there.items():
                ending = "" if path.is_dir() else ".safetensors"
                link = self._view / FOLDERS[need.kind] / f"{need.name}{ending}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():  # two of one name: the engine says so
                    link.symlink_to(path)
            self._laid_out = there
        return [need for need, path in found.items() if path is None]

    def _keep(self, start_images: dict[str, bytes]) -> None:
        """Start images and masks of this batch, and of no other."""
        folder = self._view / _START_IMAGES
        for old in folder.iterdir():
            if old.name not in start_images:
                old.unlink()
        for digest, content in start_images.items():
            if sha256(content).hexdigest() == digest:  # the engine says that one is gone
                (folder / digest).write_bytes(content)

    def _say(self, number: int, message: FromEngine) -> None:
        with self._something:
            self._said.append((number, message))
            self._something.notify()

    def _say_step(self, number: int, done: int, total: int) -> None:
        self._say(number, Step(done, total))

    def _say_preview(self, number: int, preview: Preview) -> None:
        self._say(number, preview)

    def _say_end(self, number: int, future: Pictures) -> None:
        error = future.exception()
        if error is None:
            pictures = [replace(image, node=self._node) for image in future.result()]
            self._say(number, Ended(pictures, self._engine.memory()))
        elif isinstance(error, PicowatchError):
            self._say(number, Ended(error, None))
        else:
            words = f"Unexpected error: {type(error).__name__}: {error}."
            self._say(number, Ended(EngineDied(words), None))
