"""An engine on a node of a Ray cluster: the process of a Ray actor.

This module is sent to the nodes as it stands (cloudpickle, by value). So a node without picowatch,
or with another version, can answer for itself. It imports nothing of ours but in methods.
"""

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import ray


class EngineActor:
    """Holds an engine. One thread renders, Ray's threads answer; what crashes it ends the actor."""

    def __init__(self) -> None:
        self._pictures = Path(tempfile.gettempdir(), f"picowatch-{uuid4()}")
        self._batches: SimpleQueue[Any] = SimpleQueue()
        self._reports: SimpleQueue[Any] = SimpleQueue()
        self._interrupted: set[int] = set()

    def introduce(self) -> dict[str, str]:
        """Return this node's name, and the versions of what decides pixels here.

        The name is what the cluster's owner gave it. If nobody did, Ray has the address there.
        """
        here = ray.get_runtime_context().get_node_id()
        [node] = [node for node in ray.nodes() if node["NodeID"] == here]
        is_named = node["NodeName"] != node["NodeManagerAddress"]
        introduction = {"node": node["NodeName"] if is_named else socket.gethostname()}
        try:
            from picowatch.engine.versions import versions
        except ImportError:
            return introduction
        return introduction | versions()

    def start(self, options: Any, make_renderer: Any) -> None:
        """Make the renderer, in its own thread; what prevents that is said of the first batch."""
        from dataclasses import replace
        from functools import partial

        from picowatch.engine.child_main import serve
        from picowatch.engine.options import cache_folder

        there = replace(options, cache=cache_folder(), start_images=self._pictures)
        arguments = (
            self._reports.put,
            partial(make_renderer, there, self._reports.put),
            self._batches.get,
            self._interrupted.__contains__,
        )
        threading.Thread(target=serve, args=arguments, name="renderer", daemon=True).start()

    def render(self, work: Any, pictures: dict[str, bytes]) -> Iterator[Any]:
        """Render a batch with these start images by hash; yield what the engine reports."""
        from picowatch.engine.child_main import Ended

        self._pictures.mkdir(mode=0o700)
        for digest, content in pictures.items():
            (self._pictures / digest).write_bytes(content)
        self._batches.put(work)
        report = None
        while not isinstance(report, Ended):
            report = self._reports.get()
            if isinstance(report, Ended):  # the next batch may come at once
                shutil.rmtree(self._pictures)
            yield report

    def interrupt(self, number: int) -> None:
        """End the batch of that number at its next step."""
        self._interrupted.add(number)

    def stay(self) -> None:
        """Never return: whoever waits for it learns of this actor's end."""
        threading.Event().wait()
