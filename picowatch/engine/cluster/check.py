"""What a check of a cluster finds, for `picowatch doctor`. Imports no Ray."""

from picowatch.engine.cluster.driver_process import DriverProcess, from_anywhere
from picowatch.engine.cluster.messages import Begin, ListNodes, Node, Nodes, Trouble
from picowatch.engine.options import EngineOptions
from picowatch.engine.torch_check import Check
from picowatch.settings import RaySettings

_PATIENCE_SECONDS = 60.0
_SAME = "Install the same versions there as here. Until then, nothing is rendered on it."
_LOOK = "docs/scale.md explains how to set up a cluster."


def check_cluster(options: EngineOptions, settings: RaySettings) -> list[Check]:
    """A line for each node: what it has, and in which versions it differs from this machine."""
    driver = DriverProcess(Begin(from_anywhere(options), settings, ""))
    try:
        driver.send(ListNodes())
        while True:
            match driver.hear(_PATIENCE_SECONDS):
                case Nodes(nodes):
                    return [_finding(node) for node in nodes]
                case Trouble(text) if text:
                    return [Check("cluster", text, _LOOK)]
    except (EOFError, OSError):  # TimeoutError, too
        return [Check("cluster", "Ray's driver ended, or said nothing", _LOOK)]
    finally:
        driver.end(1.0)
        driver.close()


def _finding(node: Node) -> Check:
    has = f"{node.name}: {node.gpus:g} GPU, {node.cpus:g} CPU"
    if node.unfit:
        return Check("node", f"{has}; {node.unfit}", _SAME)
    return Check("node", f"{has}; same versions as here")
