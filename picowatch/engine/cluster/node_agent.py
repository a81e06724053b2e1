"""An engine on a node: a ChildEngine, the models it is to see, and what it reports.

An OSError of any method means that the node cannot be used as it is (see `unfit_by`).
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from queue import Empty, SimpleQueue

from picowatch.catalog.models import FOLDERS
from picowatch.engine.cluster.node_models import Need, NodeModels
from picowatch.engine.options import EngineOptions, cache_folder
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.process.wire import Ended, FromEngine, Render, Step
from picowatch.engine.protocol import RenderedImage
from picowatch.errors import EngineDied, PicowatchError

_LISTEN_SECONDS = 10.0
_GATHER_SECONDS = 0.25
_START_IMAGES = "start-images"
_ARRIVING = "arriving"
_LOCK = "lock"


class NodeAgent:
    """Runs an engine on a node, as the daemon requests."""

    def __init__(self, options: EngineOptions, program: str, cpus: float) -> None:
        """The options are the daemon's, whose folders are elsewhere here."""
        compiled = cache_folder()
        if compiled is None:
            no_home = "its user has no home folder. Set XDG_CACHE_HOME there"
            raise OSError(errno.ENOENT, no_home)
        if os.environ.get("OMP_NUM_THREADS") == str(max(1, int(cpus))):  # Ray's doing
            del os.environ["OMP_NUM_THREADS"]
        root = compiled.parent / "models"
        self._view = _new_view(root / "views")
        self.models = NodeModels(root, options.models, self._view / _ARRIVING)
        there = replace(
            options,
            models=self._view,
            hash_cache=self.models.hash_file,
            start_images=self._view / _START_IMAGES,
            cache=compiled,
        )
        self.engine = ChildEngine(there, program)
        self._reports: SimpleQueue[FromEngine] = SimpleQueue()

    def listen(self) -> list[FromEngine]:
        """What the engine reported since the last time; [] after a while of silence.

        Steps are gathered: each answer wakes four processes, on cores that the engine may need.
        """
        reports: list[FromEngine] = []
        with suppress(Empty):
            reports.append(self._reports.get(timeout=_LISTEN_SECONDS))
            until = time.monotonic() + _GATHER_SECONDS
            while not isinstance(reports[-1], Ended):
                reports.append(self._reports.get(timeout=max(0.0, until - time.monotonic())))
        return reports

    def render(
        self, work: Render, needs: Sequence[Need], start_images: dict[str, bytes]
    ) -> list[Need]:
        """Start a batch; the models that are lacking, then nothing has begun."""
        found = {need: self.models.find(need) for need in needs}
        lacking = [need for need, files in found.items() if files is None]
        if not lacking:
            self._lay_out([files for files in found.values() if files], start_images)
            report = self._reports.put
            future = self.engine.render(
                work.batch,
                lambda done, total: report(Step(done, total)),
                work.waiting,
                report,
                work.preview_seconds,
            )
            future.add_done_callback(lambda future: report(self._ended(future)))
        return lacking

    def _lay_out(self, found: list[dict[str, Path]], start_images: dict[str, bytes]) -> None:
        """Put what this batch needs, and no other, where the engine looks for it."""
        for folder in (*FOLDERS.values(), _START_IMAGES):
            shutil.rmtree(self._view / folder, ignore_errors=True)
        for files in found:
            for relative, path in files.items():
                link = self._view / relative
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():  # two of one name: the engine reports it
                    link.symlink_to(path)
        (self._view / _START_IMAGES).mkdir()
        for digest, content in start_images.items():
            (self._view / _START_IMAGES / digest).write_bytes(content)

    def _ended(self, future: Future[list[RenderedImage]]) -> Ended:
        error = future.exception()
        if error is None:
            return Ended(future.result(), self.engine.memory())
        if isinstance(error, PicowatchError):
            return Ended(error)
        return Ended(EngineDied(f"Unexpected error: {type(error).__name__}: {error}."))


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
