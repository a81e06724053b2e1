"""Where engines come from: one, several on this machine, or those of a cluster. No torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from picowatch.engine.options import EngineOptions
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.protocol import Engine


class Executor(Protocol):
    """Gives the worker its engines. Every call returns at once."""

    def engines(self) -> Sequence[Engine]:
        """The engines that take batches now; the same objects as long as they live.

        New ones may join and lost ones leave. One that left with a batch in progress ends it with
        EngineLost.
        """
        ...

    def want(self, engines: int) -> None:
        """So many engines would have work just now, those that work included; 0 if none would.

        A hint: a cluster may grow for it, and take back what idles.
        """
        ...

    def trouble(self) -> str:
        """Why there are no engines, or fewer than there should be; "" if all is well."""
        ...

    def is_final(self) -> bool:
        """Whether none will come unless somebody does something about `trouble`."""
        ...

    def close(self) -> None:
        """End all engines, and give back what they hold; within 2 seconds."""
        ...


class LocalEngines:
    """A fixed number of engines on this machine, each a process of its own."""

    def __init__(
        self,
        options: EngineOptions,
        engines: int = 1,
        make_engine: Callable[[EngineOptions], Engine] = ChildEngine,
    ) -> None:
        self._engines = tuple(
            make_engine(replace(options, ordinal=ordinal, engines=engines))
            for ordinal in range(engines)
        )

    def engines(self) -> Sequence[Engine]:
        """See `Executor.engines`."""
        return self._engines

    def want(self, engines: int) -> None:
        """See `Executor.want`; they start with their first batch."""

    def trouble(self) -> str:
        """See `Executor.trouble`; what an engine lacks, its batches say."""
        return ""

    def is_final(self) -> bool:
        """See `Executor.is_final`."""
        return False

    def close(self) -> None:
        """See `Executor.close`; all at once, for each may take a second to end."""
        with ThreadPoolExecutor(len(self._engines)) as pool:
            list(pool.map(lambda engine: engine.close(), self._engines))
