"""The actor on a node: asks nothing of the node before its versions are known.

This module is sent to the nodes as it stands (cloudpickle, by value), so that one without
picowatch, or with another one, can answer for itself. It imports nothing of ours but in methods.
"""

from __future__ import annotations

import platform
import socket
from typing import Any


def introduce() -> dict[str, str]:
    """The machine's name, and the versions of what decides pixels there."""
    introduction = {"host": socket.gethostname(), "python": platform.python_version()}
    try:
        from picowatch.engine.versions import versions
    except ImportError:
        return introduction
    return introduction | versions()


class Host:
    """Runs one engine on its node. Its methods are called by the driver, from several threads."""

    def __init__(self) -> None:
        self._place: Any = None

    def introduce(self) -> dict[str, str]:
        """See `introduce`; "node" is the node's id in the cluster."""
        import ray

        return introduce() | {"node": ray.get_runtime_context().get_node_id()}

    def settle(self, *particulars: Any) -> Any:
        """Make ready for batches; what `Workplace` is told."""
        from picowatch.engine.cluster.workplace import settle

        answer, self._place = settle(*particulars)
        return answer

    def ask(self, what: str, *words: Any) -> Any:
        """Call a method of the `Workplace`."""
        return getattr(self._place, what)(*words)

    def listen(self) -> Any:
        """What the engine says next; () after a while of silence."""
        return self._place.listen()
