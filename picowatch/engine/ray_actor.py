"""An engine on a node of a Ray cluster: the process of a Ray actor.

This module is sent to the nodes as it stands (cloudpickle, by value). So a node without picowatch,
or with another version, can answer for itself. It imports nothing of ours but in methods.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import ray

_GATHER_SECONDS = 0.25


def introduce() -> dict[str, str]:
    """Return this node's id and name, and the versions of what decides pixels here.

    The name is what the cluster's owner gave it. If nobody did, Ray has the address there.
    """
    node_id = ray.get_runtime_context().get_node_id()
    [node] = [node for node in ray.nodes() if node["NodeID"] == node_id]
    is_named = node["NodeName"] != node["NodeManagerAddress"]
    name = node["NodeName"] if is_named else socket.gethostname()
    introduction = {"id": node_id, "node": name}
    try:
        from picowatch.engine.versions import versions
    except ImportError:
        return introduction
    return introduction | versions()


class EngineActor:
    """Holds an engine. One thread renders, Ray's threads answer; what crashes it ends the actor."""

    def introduce(self) -> dict[str, str]:
        """See the function."""
        return introduce()

    def start(self, options: Any, make_renderer: Any, cpus: float) -> None:
        """Make the renderer, in its own thread; what prevents that is said of the first batch."""
        from functools import partial

        from picowatch.engine.child_main import serve
        from picowatch.engine.ray_nodes import NodeRenderer, new_folder, node_options

        if os.environ.get("OMP_NUM_THREADS") == str(max(1, int(cpus))):  # Ray's doing
            del os.environ["OMP_NUM_THREADS"]
        self._start_images = new_folder()
        self._batches: SimpleQueue[Any] = SimpleQueue()
        self._reports: SimpleQueue[Any] = SimpleQueue()
        self._interrupted: set[int] = set()
        make = partial(NodeRenderer, make_renderer)
        there = node_options(options, self._start_images)
        arguments = (
            self._reports.put,
            lambda: make(there, self._reports.put),
            self._batches.get,
            self._interrupted.__contains__,
        )
        threading.Thread(target=serve, args=arguments, name="renderer", daemon=True).start()

    def render(self, work: Any, pictures: dict[str, bytes]) -> Iterator[list[Any]]:
        """Render a batch with these start images by hash; yield what the engine reports.

        Steps are gathered: each report wakes several processes, on cores that the engine may need.
        """
        from picowatch.engine.child_main import Ended

        for digest, content in pictures.items():
            (self._start_images / digest).write_bytes(content)
        self._batches.put(work)
        reports: list[Any] = [None]
        while not isinstance(reports[-1], Ended):
            reports = [self._reports.get()]
            until = time.monotonic() + _GATHER_SECONDS
            with suppress(Empty):
                while not isinstance(reports[-1], Ended):
                    reports.append(self._reports.get(timeout=max(0.0, until - time.monotonic())))
            yield reports
        for digest in pictures:
            (self._start_images / digest).unlink(missing_ok=True)

    def interrupt(self, number: int) -> None:
        """End the batch of that number at its next step."""
        self._interrupted.add(number)

    def stay(self) -> None:
        """Never return: whoever waits for it learns of this actor's end."""
        threading.Event().wait()
