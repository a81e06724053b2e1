"""The executor of this machine: a fixed number of engines, each in a process of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine


class LocalEngines:
    """An Executor; its engines start with their first batch and never leave."""

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
        """Implement `Executor.engines`."""
        return self._engines

    def want(self, engines: int) -> None:
        """Ignore the hint: engines start with their first batch."""

    def trouble(self) -> str:
        """Return "": the batches of an engine that cannot start fail."""
        return ""

    def is_final(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Close all at once, for each may take a second to end."""
        with ThreadPoolExecutor(len(self._engines)) as pool:
            list(pool.map(lambda engine: engine.close(), self._engines))
