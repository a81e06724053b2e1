"""Asks every node of a cluster what it is. In the driver."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from picowatch.engine.cluster import host
from picowatch.engine.cluster.versions import differences
from picowatch.engine.cluster.wire import Node

_ANSWER_SECONDS = 20.0  # a node starts a process to answer
_AT_ONCE = 32


def survey() -> tuple[Node, ...]:
    """All nodes that are alive, sorted by name; Ray is connected."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        nodes = list(pool.map(_node, alive))
    return tuple(sorted(nodes, key=lambda node: node.name))


def _node(node: Mapping[str, Any]) -> Node:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    question = ray.remote(host.introduce).options(num_cpus=0, scheduling_strategy=there)
    try:
        answer: dict[str, str] = ray.get(question.remote(), timeout=_ANSWER_SECONDS)
        unfit = differences(answer)
    # A node that dies meanwhile, or cannot start a process: Ray raises nearly anything.
    except Exception as error:
        answer = {"host": node["NodeManagerHostname"]}
        unfit = f"it does not answer ({type(error).__name__})"
    resources = node["Resources"]
    return Node(
        name=given_name(node) or answer["host"],
        gpus=resources.get("GPU", 0),
        cpus=resources.get("CPU", 0),
        unfit=unfit,
    )


def given_name(node: Mapping[str, Any]) -> str:
    """What the cluster's owner named a node, "" if nobody did: then it is its address."""
    name: str = node["NodeName"]
    return "" if name == node["NodeManagerAddress"] else name
