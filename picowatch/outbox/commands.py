"""Commands to a daemon: files in `.picowatch/commands/`, so any machine with the outbox can send.

A command is `NAME.json`: {"command": "retry", "recipe": "corgi.yaml"}, or, for pictures,
{"command": "delete", "files": ["corgi/0001-1.png"]}. The daemon answers with `NAME.answer`:
{"done": true, "text": "…", "pictures": []}, and then deletes the command; after a crash in between
it runs the command again. The sender deletes the answer, and the command if it stops waiting;
answers that are unread after an hour are deleted, and temporary files as old.

Who may write in this folder controls picowatch. An administrator may make a folder
`.picowatch/requests/` besides, where users may only `make` what is in the inbox.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from picowatch.files.atomic import TEMPORARY_PREFIX, leftovers, write_atomically
from picowatch.files.safe_paths import open_regular
from picowatch.streams import harmless

log = logging.getLogger("picowatch")

COMMANDS = ".picowatch/commands"
REQUESTS = ".picowatch/requests"
MAX_REQUEST_BYTES = 1_000_000  # commands may name all pictures of an outbox
POLL_SECONDS = 0.1
# How long a sender may take to read its answer: it may be stopped, and picowatch restarted.
READING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Command:
    """A request to the daemon."""

    name: str
    recipe: str | None = None  # None: all recipes; of `keep`, the folder that pictures are put into
    digest: str | None = None  # sha256 of the recipe's bytes, if a certain save is meant
    files: tuple[str, ...] = ()  # pictures, as paths below the outbox, or several recipes
    sent_at_ns: int = 0  # the time of its `file`, once it has one
    file: str = ""
    sender: int | None = None  # of a request: the user's id

    @property
    def patterns(self) -> tuple[str, ...]:
        """The recipes that are meant: one, or a list."""
        return self.files or (() if self.recipe is None else (self.recipe,))


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a command was done, and a sentence for the user."""

    done: bool
    text: str
    pictures: tuple[str, ...] = ()  # as paths in the outbox
    error: str = ""  # the text of the recipe's error file, if there is any
    warning: str = ""  # the text of its warning file
    sheets: tuple[str, ...] = ()  # as paths in the outbox
    note: str = ""  # why there are fewer pictures than it names, or none
    parts: dict[str, "Answer"] = field(default_factory=dict)  # of a folder, by recipe or picture


def tidy_up(outbox: Path) -> None:
    """Delete what nobody has taken for long; who made a request may not delete its answer."""
    for folder in (outbox / COMMANDS, outbox / REQUESTS):
        for left in chain(folder.glob("*.answer"), leftovers(folder)):
            with suppress(OSError):
                if abs(time.time() - left.stat().st_mtime) > READING_SECONDS:
                    left.unlink()


def answer_all(outbox: Path, do: Callable[[Command], Answer | None]) -> bool:
    """Run the commands, oldest first; return whether any was answered.

    A command stays while `do` returns None, because it has no answer yet, or raises an error that
    may pass. Any other error becomes its answer.
    """
    is_answered = False
    found = chain.from_iterable((outbox / folder).glob("*.json") for folder in (COMMANDS, REQUESTS))
    for path in sorted(found, key=lambda path: path.name):
        if path.name.startswith(TEMPORARY_PREFIX):
            continue
        answer = _answered(path, do)
        if answer is not None:
            text, file = json.dumps(asdict(answer)), path.with_suffix(".answer")
            readers = 0o444 if _is_request(path) else 0
            write_atomically(file, text.encode(), durable=False, readers=readers)
            path.unlink(missing_ok=True)
            is_answered = True
    return is_answered


def _answered(path: Path, do: Callable[[Command], Answer | None]) -> Answer | None:
    try:
        command = _read(path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s is not a command: %s", harmless(path.name), harmless(f"{error}"))
        return Answer(False, "This is not a command.")
    except OSError:  # withdrawn, or a pipe, a folder, a file that may not be read
        return None
    try:
        answer = do(command)
    except Exception as error:  # no command may end the daemon
        from picowatch.files.essential import unexpected  # senders do without its sqlite3

        words = unexpected(error)
        log.error("command '%s': %s", command.name, words)
        return Answer(False, words)
    # Only `make` waits in any case.
    if answer and not answer.done and not command.name.startswith("make"):
        log.warning("command '%s': %s", command.name, answer.text)
    return answer


def new_file(outbox: Path, folder: str = COMMANDS) -> Path:
    """Return a new command's file, whose name comes after earlier names."""
    return outbox / folder / f"{time.time_ns()}-{secrets.token_hex(4)}.json"


def only_requests(outbox: Path) -> bool:
    """Whether this user may send requests to the daemon, but no commands."""
    folders = (outbox / COMMANDS, outbox, outbox / REQUESTS)
    may_write = [os.access(folder, os.W_OK | os.X_OK) for folder in folders]
    return may_write == [False, False, True]


def _is_request(path: Path) -> bool:
    return path.parent.name == Path(REQUESTS).name


def send(outbox: Path, command: Command, path: Path | None = None) -> Path:
    """Send a command to the daemon of an outbox, now or at its next start; return the file.

    `path` is a `new_file` if the caller has to know it before, to withdraw the command in any case.
    Raises OSError if the outbox cannot be written to.
    """
    path = path or new_file(outbox)
    values = {"command": command.name, "recipe": command.recipe, "digest": command.digest}
    text = json.dumps({**values, "files": command.files})
    # Readable for all: the daemon may run as another user, and the sender's umask may be 077.
    write_atomically(path, text.encode(), readers=0o444)
    return path


def wait_for_answer(path: Path, seconds: float) -> Answer | None:
    """Wait for the daemon's answer to a command; None if it does not come in time."""
    answer = path.with_suffix(".answer")
    deadline = time.monotonic() + seconds
    while not answer.exists():
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    found = _answer(json.loads(answer.read_bytes()))
    with suppress(OSError):
        answer.unlink()
    return found


def _answer(values: dict[str, Any]) -> Answer:
    lists = {name: tuple(values[name]) for name in ("pictures", "sheets")}
    parts = {recipe: _answer(part) for recipe, part in values["parts"].items()}
    return Answer(**values | lists | {"parts": parts})


def withdraw(path: Path) -> None:
    for file in (path, path.with_suffix(".answer")):
        with suppress(OSError):
            file.unlink()


def _read(path: Path) -> Command:
    """Read a command. Raises ValueError, KeyError, TypeError or RecursionError if it is none."""
    is_request = _is_request(path)
    with open_regular(path, follows_links=not is_request) as file:
        found = json.loads(file.read(MAX_REQUEST_BYTES if is_request else -1))
        about = os.fstat(file.fileno())
    name, recipe, digest = found["command"], found.get("recipe"), found.get("digest")
    files = tuple(found.get("files") or ())
    for text in (name, recipe or "", digest or "", *files):
        if not isinstance(text, str):
            raise TypeError("it has values that are not texts")
    key, sender = (f"request {path.name}", about.st_uid) if is_request else (path.name, None)
    return Command(name, recipe, digest, files, about.st_mtime_ns, key, sender)
