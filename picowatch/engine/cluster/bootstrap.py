"""The actor on a node, which starts an engine there once the node's versions are known.

This module is sent to the nodes as it stands (cloudpickle, by value). A node without picowatch, or
with another version, can so answer for itself. It imports nothing of ours but in methods.
"""

import socket
from operator import attrgetter
from typing import Any


class AgentActor:
    """Holds a node's `NodeAgent`. The driver calls `ask`, from several threads."""

    _agent: Any = None

    def introduce(self) -> dict[str, str]:
        """The node's id and name, and the versions of what decides pixels there.

        The name is what the cluster's owner gave it. If nobody did, Ray has the address there.
        """
        import ray

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

    def start(self, *arguments: Any) -> None:
        """Get ready for batches."""
        from picowatch.engine.cluster.node_agent import NodeAgent

        self._agent = NodeAgent(*arguments)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of this actor before `start`, of the `NodeAgent` after it.

        `engine.` and `models.` before a name mean those of the agent.
        """
        return attrgetter(method)(self._agent or self)(*arguments)
