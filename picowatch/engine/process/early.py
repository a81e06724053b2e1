"""An engine's process that is started before anybody can say what it has to do.

It imports torch meanwhile, which takes longer than everything else before a first picture. So this
module imports little.
"""

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from picowatch.engine.process.command import ChildProcess, engine_process

if TYPE_CHECKING:
    from picowatch.engine.options import EngineOptions
    from picowatch.engine.process.child import ChildEngine


class EarlyEngine:
    """The process of the first engine, if it was started; it is ended if no engine is made."""

    def __init__(self) -> None:
        self._process: ChildProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start the process, once."""
        with suppress(OSError):  # whoever needs an engine later says what is wrong
            self._process = self._process or engine_process()

    def end(self) -> None:
        """It is not needed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def make_engine(self, options: "EngineOptions") -> "ChildEngine":
        """An engine with these options; the first one gets the process."""
        from picowatch.engine.process.child import ChildEngine

        process, self._process = self._process, None
        return ChildEngine(options, early=process)
