"""An engine on a node of a Ray cluster: the process of a Ray actor.

This module is sent to the nodes as it stands (cloudpickle, by value), and imports nothing of ours
but in methods. So a node without picowatch can say which one it is.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import ray


class EngineActor:
    """A ChildEngine. One of Ray's threads renders, the others answer."""

    def __init__(self) -> None:
        self._pictures = Path(tempfile.gettempdir(), f"picowatch-{uuid4()}")
        self._engine: Any = None

    def start(self, wanted: dict[str, str], made_from: Sequence[Any]) -> tuple[str, str]:
        """Make the engine; return this node's name, and "" or in what versions it differs.

        Its pictures would differ with other versions than `wanted`. What follows "+" is the build
        (torch 2.13.0+cpu): machines may differ in it. Ray itself refuses a node with another Python
        or Ray. A node's name is its address, if it was given none. `made_from` refers to the
        options and `make_renderer`, which can be read only where picowatch is.
        """
        here = ray.get_runtime_context().get_node_id()
        [name] = [str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == here]
        try:
            from picowatch.engine.options import versions

            found = versions()
        except ImportError:
            found = {}
        for library, version in wanted.items():
            there = found.get(library, "missing")
            if there.partition("+")[0] != version.partition("+")[0]:
                return name, f"{library} is {there} there and {version} here"
        self._make(*ray.get(made_from[0]))
        return name, ""

    def render(self, work: Any, pictures: dict[str, bytes]) -> Iterator[Any]:
        """Render a batch with these start images by hash; yield what the engine reports."""
        from picowatch.engine.child_main import Step

        self._pictures.mkdir(mode=0o700)
        try:
            for digest, content in pictures.items():
                (self._pictures / digest).write_bytes(content)
            reports: SimpleQueue[Any] = SimpleQueue()
            future = self._engine.render(
                work.batch,
                lambda *step: reports.put(Step(*step)),
                reports.put,
                work.preview_seconds,
            )
            future.add_done_callback(lambda _: reports.put(None))
            while (report := reports.get()) is not None:
                yield report
        finally:  # the next batch may come at once
            shutil.rmtree(self._pictures)
        if (memory := self._engine.memory()) is not None:
            yield memory
        yield future.exception() or future.result()

    def interrupt(self) -> None:
        """End the batch in progress at its next step."""
        if self._engine is not None:
            self._engine.interrupt()

    def stay(self) -> None:
        """Never return: whoever waits for it learns of this actor's end."""
        threading.Event().wait()

    def _make(self, options: Any, make_renderer: Any) -> None:
        from dataclasses import replace

        from picowatch.engine.child import ChildEngine
        from picowatch.engine.options import cache_folder

        there = replace(options, cache=cache_folder(), start_images=self._pictures)
        self._engine = ChildEngine(there, make_renderer)
        self._engine.prepare()
