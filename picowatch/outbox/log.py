"""picowatch.log and the console: one plain line an event, whatever a prompt may contain."""

import json
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 5


def harmless(text: str) -> str:
    """The text in one line without control characters: nothing in it steers a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


class LineFormatter(logging.Formatter):
    """`2026-11-20 09:00:01 warning corgi.yaml: …`; the level only above info."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()} "
        return f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {level}{_message(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        line = {"time": time, "level": record.levelname.lower(), "message": _message(record)}
        return json.dumps(line, ensure_ascii=True)


def _message(record: logging.LogRecord) -> str:
    return harmless(record.getMessage())


def open_log(path: Path, log_format: str, console: logging.Handler | None) -> None:
    """Send the logger "picowatch" to the rotated file, and to the console."""
    formatter = JsonFormatter() if log_format == "json" else LineFormatter()
    logger = logging.getLogger("picowatch")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.propagate = False
    file = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    for handler in (file, console):
        if handler is not None:
            handler.setFormatter(formatter)
            logger.addHandler(handler)


def close_log() -> None:
    """Close and detach what `open_log` attached."""
    logger = logging.getLogger("picowatch")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def plain_console() -> logging.Handler:
    """Log lines on standard output."""
    return logging.StreamHandler(sys.stdout)
