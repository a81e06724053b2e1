"""What `run` shows: log lines, and on a terminal one calm progress line below them."""

import logging
import sys
from typing import Protocol

from picowatch.outbox.log import harmless, plain_console
from picowatch.outbox.status import Status, duration


class Console(Protocol):
    """Shows the log and the progress of the image in work."""

    @property
    def handler(self) -> logging.Handler:
        """Where log lines go."""
        ...

    def show(self, status: Status) -> None:
        """The state of things, a few times a second."""
        ...

    def close(self) -> None: ...


def open_console() -> Console:
    """A live line on a terminal, plain lines elsewhere."""
    return LiveConsole() if sys.stdout.isatty() else PlainConsole()


class PlainConsole:
    """Log lines, and now and then a line of progress while a batch takes long."""

    SECONDS_BETWEEN = 10.0

    def __init__(self) -> None:
        self.handler = plain_console()
        self._shown_at = 0.0
        self._work = ("", 0)

    def show(self, status: Status) -> None:
        work = (status.recipe, status.image)
        if work != self._work:
            self._work, self._shown_at = work, status.updated
        elif status.recipe and status.updated - self._shown_at >= self.SECONDS_BETWEEN:
            self._shown_at = status.updated
            logging.getLogger("picowatch.progress").info("%s", progress_text(status))

    def close(self) -> None:
        """Nothing is held."""


class LiveConsole:
    """One line with step, speed and time left, below the log lines."""

    def __init__(self) -> None:
        # rich costs a tenth of a second to import; pipes and services do without it.
        from rich.console import Console as RichConsole
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._console = RichConsole(highlight=False, soft_wrap=True)
        self._live = Live(Text(), console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self.handler = _AboveLive(self._console)

    def show(self, status: Status) -> None:
        line = self._text(no_wrap=True, overflow="ellipsis")
        if status.recipe:
            done = round(20 * status.step / status.steps) if status.steps else 0
            line.append("━" * done, "green")
            line.append("━" * (20 - done), "bright_black")
            line.append(f" {progress_text(status)}")
        else:
            line.append(status.line(), "bright_black")
        self._live.update(line, refresh=True)

    def close(self) -> None:
        self._live.update(self._text(""), refresh=True)
        self._live.stop()


class _AboveLive(logging.Handler):
    def __init__(self, console: "object") -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "")
        self._console.print(self.format(record), style=style, markup=False)  # type: ignore[attr-defined]


def progress_text(status: Status) -> str:
    """`corgi.yaml: 3 of 20, step 12/24, 3.1 it/s, 40 s left; 112 images wait`."""
    parts = [harmless(f"{status.recipe}: {status.image} of {status.of}")]
    if status.step:
        parts.append(f"step {status.step}/{status.steps}")
    if status.steps_per_second:
        parts.append(f"{status.steps_per_second:.1f} it/s")
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    waiting = status.images["queued"]
    return ", ".join(parts) + (f"; {waiting} wait" if waiting else "")
