"""The nodes of a cluster: whether they render the same pixels; for `picowatch doctor`, too."""

from concurrent.futures import Future, wait
from typing import Any

from picowatch.engine.cluster.driver import Driver, start_driver
from picowatch.engine.torch_check import Check
from picowatch.engine.versions import versions
from picowatch.errors import PicowatchError
from picowatch.settings import RaySettings

NODE_ID = "ray.io/node-id"  # a label that Ray gives each node
_CONNECT_SECONDS = 60.0
_ANSWER_SECONDS = 20.0  # a node starts a process to answer
_SAME = "Install the same versions there as here. Until then, nothing is rendered on it."
_LOOK = "docs/scale.md explains how to set up a cluster."


def check_cluster(settings: RaySettings) -> list[Check]:
    """A line for each node: what it has, and in which versions it differs from this machine."""
    driver = None
    try:
        driver = start_driver(settings.address)
        driver.connect().result(_CONNECT_SECONDS)
        return _check_nodes(driver)
    except PicowatchError as error:
        return [Check("cluster", str(error), _LOOK)]
    except TimeoutError:
        return [Check("cluster", "Ray does not answer", _LOOK)]
    finally:
        if driver is not None:
            driver.end(1.0)


def _check_nodes(driver: Driver) -> list[Check]:
    nodes = driver.call("nodes").result(_ANSWER_SECONDS)
    introductions = []
    for number, node in enumerate(nodes):
        driver.call("place", number, {"num_cpus": 0, "label_selector": {NODE_ID: node["NodeID"]}})
        introductions.append(driver.call("ask", number, "introduce"))
    wait(introductions, _ANSWER_SECONDS)
    checks = map(_check, nodes, introductions)
    return sorted(checks, key=lambda check: check.text)


def _check(node: dict[str, Any], introduction: Future[dict[str, str]]) -> Check:
    has = node["Resources"]
    size = f"{has.get('GPU', 0):g} GPU, {has.get('CPU', 0):g} CPU"
    try:
        there = introduction.result(0)
    # It dies meanwhile, or cannot start a process.
    except (PicowatchError, TimeoutError):
        return Check("node", f"{node['NodeName']}: {size}; it does not answer", _SAME)
    if unfit := differences(there):
        return Check("node", f"{there['node']}: {size}; {unfit}", _SAME)
    return Check("node", f"{there['node']}: {size}; same versions as here")


def differences(there: dict[str, str]) -> str:
    """What a node's versions lack of ours, in words; "" if they agree.

    What follows "+" is the build (torch 2.13.0+cpu): machines may differ in it. Ray itself refuses
    a node with another Python.
    """
    if "picowatch" not in there:
        return "picowatch is not installed there, or not where Ray runs"
    found = (
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in versions().items()
        if there.get(name, "").partition("+")[0] != version.partition("+")[0]
    )
    return ", ".join(found)
