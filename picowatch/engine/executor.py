"""Where engines come from: this machine, or a cluster. Imports no torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from picowatch.engine.options import EngineOptions
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.protocol import Engine


class Executor(Protocol):
    """Gives the worker pool its engines. Every call returns at once."""

    def engines(self) -> Sequence[Engine]:
        """The engines that take batches now; the same objects for as long as they exist.

        New ones may join and lost ones leave. One that leaves with a batch in progress ends it
        with EngineLost.
        """
        ...

    def want(self, engines: int) -> None:
        """The number of engines that would have work now, including those that are working.

        A hint: a cluster may grow for it, and release idle engines.
        """
        ...

    def trouble(self) -> str:
        """Why there are no engines, or too few; "" if there are enough."""
        ...

    def is_final(self) -> bool:
        """Whether no engine will join until somebody fixes `trouble`."""
        ...

    def close(self) -> None:
        """End all engines and free what they hold, within 2 seconds."""
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
        """See `Executor.want`; here engines start with their first batch."""

    def trouble(self) -> str:
        """See `Executor.trouble`; here the batches of an engine that cannot start fail."""
        return ""

    def is_final(self) -> bool:
        """See `Executor.is_final`."""
        return False

    def close(self) -> None:
        """See `Executor.close`; all at once, for each may take a second to end."""
        with ThreadPoolExecutor(len(self._engines)) as pool:
            try:
                list(pool.map(lambda engine: engine.close(), self._engines))
            except RuntimeError:  # the system allows no more threads
                for engine in self._engines:
                    engine.close()
