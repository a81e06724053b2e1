"""picowatch.log and the console: one plain line per event, even if a prompt has line breaks."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from traceback import format_exception

from picowatch.files.atomic import FolderAway, check_in_place, open_to_append
from picowatch.files.essential import Writing
from picowatch.streams import harmless, harmless_lines

LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 5


class LineFormatter(logging.Formatter):
    """Formats "2026-11-20 09:00:01 warning corgi.yaml: …", with a level only above info."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()} "
        time, trace = self.formatTime(record, "%Y-%m-%d %H:%M:%S"), _traceback(record)
        line = f"{time} {level}{harmless(record.getMessage())}"
        return f"{line}\n{trace}" if trace else line


# What a line of JSON has besides time, level and message; log calls give it as `extra`.
# docs/monitoring.md lists the events.
FIELDS = ("event", "recipe", "picture", "seconds", "code")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, event, what it is about, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        line = {"time": time, "level": record.levelname.lower(), "event": "other"}
        given = {name: getattr(record, name, None) for name in FIELDS}
        line |= {name: value for name, value in given.items() if value is not None}
        line["message"] = harmless(record.getMessage())
        if trace := _traceback(record):
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=True)


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback that --debug shows; an engine's comes as `extra`."""
    text = getattr(record, "traceback", "")
    if record.exc_info:
        text = "".join(format_exception(*record.exc_info))
    return harmless_lines(text).rstrip()


class LogFile(RotatingFileHandler):
    """The rotated log file, reopened if somebody deletes or renames it."""

    def __init__(self, path: Path, writing: Writing) -> None:
        self._path, self._writing = path, writing
        super().__init__(path, "a", LOG_BYTES, LOG_FILES, encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        with self._writing.optional(self._path.name):
            with suppress(FolderAway):
                self._follow()
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise error  # in `emit`
        super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()

    def _open(self) -> TextIOWrapper:
        check_in_place(self._path)
        return open(self._path, "a", encoding="utf-8", opener=open_to_append)

    def _follow(self) -> None:
        if self.stream is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self.stream.fileno())):
                return
        new = self._open()
        with suppress(OSError):
            self.stream.close()
        self.stream = new


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let the logger "picowatch" write to a handler, too, within a `with` block."""
    logger = logging.getLogger("picowatch")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def set_log_format(log_format: str) -> None:
    """Let all handlers of the logger "picowatch" write text or JSON."""
    formatter = JsonFormatter() if log_format == "json" else LineFormatter()
    for handler in logging.getLogger("picowatch").handlers:
        handler.setFormatter(formatter)
