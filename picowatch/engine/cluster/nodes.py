"""The nodes of a cluster: their names, and whether they make the same pixels. In the driver."""

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from picowatch.engine.cluster import bootstrap
from picowatch.engine.cluster.messages import Node
from picowatch.engine.versions import versions

_ANSWER_SECONDS = 20.0  # a node starts a process to answer
_AT_ONCE = 32


def list_nodes() -> tuple[Node, ...]:
    """All nodes that are alive, sorted by name; each is asked for its versions."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        nodes = list(pool.map(_ask, alive))
    return tuple(sorted(nodes, key=lambda node: node.name))


def _ask(node: Mapping[str, Any]) -> Node:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    question = ray.remote(bootstrap.introduce).options(num_cpus=0, scheduling_strategy=there)
    try:
        answer: dict[str, str] = ray.get(question.remote(), timeout=_ANSWER_SECONDS)
        unfit = differences(answer)
    # A node that dies meanwhile, or cannot start a process: Ray raises nearly anything.
    except Exception as error:
        answer = {"host": node["NodeManagerHostname"]}
        unfit = f"it does not answer ({type(error).__name__})"
    has = node["Resources"]
    return Node(_given_name(node) or answer["host"], has.get("GPU", 0), has.get("CPU", 0), unfit)


def name_of(node: str) -> str:
    """A node's given name by its id, "" if it has none."""
    return next((_given_name(found) for found in ray.nodes() if found["NodeID"] == node), "")


def _given_name(node: Mapping[str, Any]) -> str:
    """What the cluster's owner named a node, "" if nobody did: then it is its address."""
    name: str = node["NodeName"]
    return "" if name == node["NodeManagerAddress"] else name


def differences(there: dict[str, str]) -> str:
    """What a node's versions (`bootstrap.introduce`) lack of ours, in words; "" if they agree.

    What follows "+" is the build (torch 2.13.0+cpu): machines may differ in it. Of Python's
    version the first two numbers count, which decide what can be sent.
    """
    if "picowatch" not in there:
        return "picowatch is not installed there, or not where Ray runs"
    ours = versions() | {"python": platform.python_version()}
    found = (
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in ours.items()
        if _counted(name, there.get(name, "")) != _counted(name, version)
    )
    return ", ".join(found)


def _counted(name: str, version: str) -> str:
    if name == "python":
        return ".".join(version.split(".")[:2])
    return version.partition("+")[0]
