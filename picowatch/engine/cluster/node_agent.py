"""An engine on a node: a ChildEngine, the models it is to see, and what it reports."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any

from picowatch.catalog.models import FOLDERS
from picowatch.engine.cluster.node_models import Need, NodeModels
from picowatch.engine.options import EngineOptions, cache_folder
from picowatch.engine.process.child import ChildEngine, Pictures
from picowatch.engine.process.wire import Ended, FromEngine, Reply, Step
from picowatch.engine.protocol import EngineLost
from picowatch.errors import EngineDied, PicowatchError
from picowatch.recipe.request import ImageRequest

_LISTEN_SECONDS = 10.0
_GATHER_SECONDS = 0.25
_START_IMAGES = "start-images"
_ARRIVING = "arriving"
_LOCK = "lock"


class NodeUnfit(EngineLost):
    """A node that cannot be used as it is."""


def start_agent(
    node: str, options: EngineOptions, program: str, gpus: float, cpus: float
) -> "NodeAgent":
    """An agent on this node, for an engine with so many GPUs and cores; raises NodeUnfit."""
    compiled = cache_folder()
    if compiled is None:
        raise NodeUnfit(
            f"{node} is not used: its user has no home folder. Set XDG_CACHE_HOME there."
        )
    root = compiled.parent / "models"
    with _fit(node):
        view = _new_view(root / "views")
        models = NodeModels(root, options.models, view / _ARRIVING)
    if os.environ.get("OMP_NUM_THREADS") == str(max(1, int(cpus))):  # Ray's doing
        del os.environ["OMP_NUM_THREADS"]
    cpu = "mps" if options.device == "mps" else "cpu"
    there = replace(
        options,
        models=view,
        hash_cache=models.hash_file,
        start_images=view / _START_IMAGES,
        compiled=compiled if options.compiled else None,
        device="cuda" if gpus else cpu,  # the cluster shows only the GPUs that it gave
        threads=None if gpus else max(1, int(cpus)),
    )
    return NodeAgent(ChildEngine(there, program), node, models, view)


@contextmanager
def _fit(node: str) -> Iterator[None]:
    """A full or unwritable disk makes the node unfit."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise NodeUnfit(f"{node} is not used: {error.strerror or error}{where}.") from error


def _new_view(folder: Path) -> Path:
    """A models folder for one engine; those of engines that ended are deleted."""
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
    return view


class NodeAgent:
    """Runs an engine on a node, as the daemon requests."""

    def __init__(self, engine: ChildEngine, node: str, models: NodeModels, view: Path) -> None:
        """`view` is the engine's models folder."""
        self.engine = engine
        self._node = node
        self.models = models
        self._view = view
        self._reports: list[Reply] = []
        self._changed = threading.Condition()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method, or one of `engine.` or `models.`; raises NodeUnfit for OSErrors."""
        with _fit(self._node):
            return attrgetter(method)(self)(*arguments)

    def listen(self) -> list[Reply]:
        """What was reported since the last time, by number of batch; [] after a while of silence.

        Steps are gathered: each answer wakes four processes, on cores that the engine may need.
        """

        def has_ended() -> bool:
            return any(isinstance(report.message, Ended) for report in self._reports)

        with self._changed:
            self._changed.wait_for(lambda: self._reports, _LISTEN_SECONDS)
            self._changed.wait_for(has_ended, _GATHER_SECONDS)
            reports, self._reports = self._reports, []
        return reports

    def render(
        self,
        number: int,
        batch: Sequence[ImageRequest],
        waiting: int,
        needs: Sequence[Need],
        start_images: dict[str, bytes],
    ) -> list[Need]:
        """Start a batch; the models that are lacking, then nothing has begun."""
        found = {need: self.models.find(need) for need in needs}
        lacking = [need for need, path in found.items() if path is None]
        if not lacking:
            self._lay_out({need: path for need, path in found.items() if path}, start_images)
            report = partial(self._report, number)
            future = self.engine.render(
                batch, lambda done, total: report(Step(done, total)), waiting, report
            )
            future.add_done_callback(lambda future: report(self._ended(future)))
        return lacking

    def _lay_out(self, found: dict[Need, Path], start_images: dict[str, bytes]) -> None:
        """Put what this batch needs, and no other, where the engine looks for it."""
        for folder in (*FOLDERS.values(), _START_IMAGES):
            shutil.rmtree(self._view / folder, ignore_errors=True)
        for need, path in found.items():
            ending = "" if path.is_dir() else ".safetensors"
            link = self._view / FOLDERS[need.kind] / f"{need.name}{ending}"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():  # two of one name: the engine reports it
                link.symlink_to(path)
        (self._view / _START_IMAGES).mkdir()
        for digest, content in start_images.items():
            if sha256(content).hexdigest() == digest:  # else the engine reports that it is gone
                (self._view / _START_IMAGES / digest).write_bytes(content)

    def _report(self, number: int, message: FromEngine) -> None:
        with self._changed:
            self._reports.append(Reply(number, message))
            self._changed.notify()

    def _ended(self, future: Pictures) -> Ended:
        error = future.exception()
        if error is None:
            pictures = [replace(image, node=self._node) for image in future.result()]
            return Ended(pictures, self.engine.memory())
        if isinstance(error, PicowatchError):
            return Ended(error, None)
        words = f"Unexpected error: {type(error).__name__}: {error}."
        return Ended(EngineDied(words), None)
