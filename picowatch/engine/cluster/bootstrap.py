"""The actor on a node, which starts an engine there once the node's versions are known.

This module is sent to the nodes as it stands (cloudpickle, by value). A node without picowatch, or
with another version, can so answer for itself. It imports nothing of ours but in methods.
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


class AgentActor:
    """Holds a node's `NodeAgent`. Its methods are called by the driver, from several threads."""

    _agent: Any = None

    def introduce(self) -> dict[str, str]:
        """See `introduce`; "node" is the node's id in the cluster."""
        import ray

        return introduce() | {"node": ray.get_runtime_context().get_node_id()}

    def start(self, *particulars: Any) -> Any:
        """Make ready for batches; see `start_agent`. Gives why the node cannot be used, or None."""
        from picowatch.engine.cluster.node_agent import start_agent

        unfit, self._agent = start_agent(*particulars)
        return unfit

    def ask(self, what: str, *arguments: Any) -> Any:
        """See `NodeAgent.ask`."""
        return self._agent.ask(what, *arguments)
