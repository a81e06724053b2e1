"""What the daemon and the driver, and the driver and the agents, say to each other.

The messages are pickled; between driver and agents by Ray. Nodes are asked for their versions
before anything of ours is sent to them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from picowatch.catalog import Kind
from picowatch.engine.options import EngineOptions
from picowatch.engine.process.wire import Step
from picowatch.engine.protocol import MemoryUse, Preview, RenderedImage
from picowatch.errors import PicowatchError
from picowatch.recipe.request import ImageRequest
from picowatch.settings import RaySettings


@dataclass(frozen=True, slots=True)
class Begin:
    """To the driver, once and first.

    `program` serves in engine processes, as of a ChildEngine. `folder` is for what a cluster on
    this machine keeps while it runs, where one is to be started.
    """

    options: EngineOptions
    settings: RaySettings
    program: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """To the driver: so many engines would have work."""

    engines: int


@dataclass(frozen=True, slots=True)
class Render:
    """To the driver and on to the agent: render these; `waiting` more are queued."""

    engine: int
    number: int
    batch: tuple[ImageRequest, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class Tell:
    """To the driver: start the engine's process, end its batch at the next step, or end it all."""

    engine: int
    what: Literal["prepare", "interrupt", "release"]


@dataclass(frozen=True, slots=True)
class ListNodes:
    """To the driver: what are the nodes?"""


@dataclass(frozen=True, slots=True)
class Ended:
    """From the agent, the last of a batch: its pictures, or why there are none."""

    outcome: list[RenderedImage] | PicowatchError
    memory: MemoryUse | None


FromEngine = Step | Preview | Ended


@dataclass(frozen=True, slots=True)
class Joined:
    """From the driver: an engine that takes batches, the node it is on and its versions."""

    engine: int
    node: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """From the driver: what an agent says of the batch with that number."""

    engine: int
    number: int
    message: FromEngine


@dataclass(frozen=True, slots=True)
class Left:
    """From the driver: an engine that is no more, and why; None if it was released."""

    engine: int
    why: PicowatchError | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """From the driver: why there are fewer engines than there should be; "" if all is well.

    `final`: there is no way to a cluster at all, so that a single run need not wait for one.
    """

    text: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node: what it has, and why it is not used ("" if it is; see `nodes.differences`)."""

    name: str
    gpus: float
    cpus: float
    unfit: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """From the driver: all nodes that are alive."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """From the driver: a line for the log."""

    text: str


# None: end, and give back what is held.
ToDriver = Want | Render | Tell | ListNodes | None
FromDriver = Joined | Said | Left | Trouble | Note | Nodes


@dataclass(frozen=True, slots=True)
class Need:
    """A model that a batch is made with, by name and hash."""

    kind: Kind
    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a model: `relative` is its place in a model's folder, "" of a model in one file."""

    relative: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Unfit:
    """From an agent: why its node cannot be used as it is."""

    why: str
