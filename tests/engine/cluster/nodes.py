"""A Ray cluster on this machine, a process for each part of each node. Not run by pytest itself.

As a program it starts the nodes that its standard input asks for, and ends with it: `add NAME
CPUS ENVIRONMENT`, `kill NAME`; it answers each line with the cluster's address.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

OBJECT_STORE_BYTES = 80 * 2**20
ROOT = Path(__file__).parents[3]


class Nodes:
    """The test's side: nodes by name, each with a cache folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.client_port = _free_port()
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.cluster.nodes", str(self.client_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | self.environment,
            cwd=ROOT,
            text=True,
        )
        self.address = ""

    @property
    def client_address(self) -> str:
        """For Ray Client."""
        return f"ray://127.0.0.1:{self.client_port}"

    def cache(self, name: str) -> Path:
        """What picowatch keeps on a node."""
        return self._folder / name / "picowatch"

    def add(self, name: str, cpus: int = 1, **environment: str) -> None:
        """Start a node; the first one is the head."""
        given = {"XDG_CACHE_HOME": str(self._folder / name), "PYTHONPATH": str(ROOT)}
        self.address = self._say("add", name, str(cpus), json.dumps(given | environment))

    def kill(self, name: str) -> None:
        """End all of a node's processes at once, as a power cut does."""
        self._say("kill", name)

    def suspend_head(self) -> None:
        """The head answers nobody until it is resumed."""
        self._head().suspend()

    def resume_head(self) -> None:
        """The head goes on as if nothing had happened."""
        self._head().resume()

    def _head(self) -> psutil.Process:
        processes = psutil.Process(self._program.pid).children(recursive=True)
        return next(process for process in processes if process.name() == "gcs_server")

    def hosts(self, name: str) -> list[int]:
        """The process ids of the engines' hosts on a node."""
        cache = str(self._folder / name)
        found = []
        for process in psutil.Process(self._program.pid).children(recursive=True):
            with suppress(psutil.Error):
                on_it = process.environ().get("XDG_CACHE_HOME") == cache
                if on_it and process.cmdline()[0].startswith("ray::AgentActor"):
                    found.append(process.pid)
        return found

    def close(self) -> None:
        """End all nodes."""
        assert self._program.stdin and self._program.stdout
        self._program.stdin.close()
        self._program.wait(30)
        self._program.stdout.close()

    def _say(self, *words: str) -> str:
        assert self._program.stdin and self._program.stdout
        self._program.stdin.write("\t".join(words) + "\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline().strip()
        assert answer, "the cluster's program ended"
        return answer


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def main(client_port: int) -> None:
    """Serve the test at the other end of the pipes."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster()
    nodes: dict[str, Any] = {}
    for line in sys.stdin:
        what, name, *rest = line.rstrip("\n").split("\t")
        if what == "kill":
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        else:
            cpus, environment = rest
            head = {"include_dashboard": False, "ray_client_server_port": client_port}
            nodes[name] = cluster.add_node(
                node_name=name,
                num_cpus=int(cpus),
                num_gpus=0,
                object_store_memory=OBJECT_STORE_BYTES,
                env_vars=json.loads(environment),
                **({} if cluster.head_node else head),
            )
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
