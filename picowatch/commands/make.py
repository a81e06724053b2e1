"""`picowatch make`: recipes in, the paths of their pictures out, with a daemon or without."""

import hashlib
import re
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from picowatch.commands.run import run_daemon
from picowatch.commands.status import look, rows_of
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.engine.process.child import ChildEngine
from picowatch.errors import FAILED, INTERRUPTED, CommandFailed, OutboxInUse
from picowatch.files.retry import Ended
from picowatch.inbox.names import ENDINGS, is_recipe_name, is_recipe_path
from picowatch.inbox.putting import put, save_again
from picowatch.observers.console import LiveConsole, LiveView, PlainConsole, can_draw
from picowatch.outbox.commands import Answer, Command, answer_to, leave, take_back
from picowatch.outbox.status import is_running
from picowatch.recipe import is_empty
from picowatch.recipe.fields import ROWS
from picowatch.recipe.messages.problems import harmless_lines
from picowatch.settings import Settings
from picowatch.signals import ENDING

LOOK_SECONDS = 0.25
STANDARD_INPUT = Path("-")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recipe files; - is standard input"
    )


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return make(load(), options.files)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A recipe in the inbox, and the command whose answer says what became of it."""

    recipe: str
    command: Path


def make(settings: Settings, files: Sequence[Path], make_engine: MakeEngine = ChildEngine) -> int:
    """Print the pictures of all recipes; exit code 1 if any of them was not made."""
    check_folders(settings)
    read = [(file, _content(file)) for file in files]
    asked: list[_Asked] = []
    where = settings.inbox
    try:
        for file, content in read:
            where = settings.inbox
            recipe = _place(settings, file, content)
            where = settings.outbox
            digest = hashlib.sha256(content).hexdigest()
            asked.append(_Asked(recipe, leave(settings.outbox, Command("make", recipe, digest))))
        answers = _answers(settings, asked, make_engine)
    except KeyboardInterrupt:
        _say("The recipes stay in the inbox and are rendered when picowatch runs.")
        return INTERRUPTED
    except OSError as error:
        # What fails on an open file, as a full disk does, names none.
        words = f"{error.filename or where} cannot be written: {error.strerror or error}."
        raise CommandFailed(words, "Free some space or allow writing.") from error
    finally:
        for one in asked:
            take_back(one.command)
    return max([_tell(settings, one, answer) for one, answer in zip(asked, answers, strict=True)])


def _content(file: Path) -> bytes:
    """A recipe that can be one; CommandFailed says why it cannot."""
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"Cannot read {file}: {error.strerror}.", "Give a recipe that you can read."
        ) from error
    if file != STANDARD_INPUT and not is_recipe_name(file.name):
        raise CommandFailed(
            f"{file} is not a recipe file name.",
            f"Recipe names end in {', '.join(ENDINGS)}, and do not begin with '.', '_', '~' or "
            "'#'.",
        )
    if is_empty(content):
        raise CommandFailed(f"{file} is empty.", "Write at least a prompt.")
    return content


def _place(settings: Settings, file: Path, content: bytes) -> str:
    """The recipe's path below the inbox; one that lies there is saved again."""
    if file == STANDARD_INPUT:
        return put(settings.inbox, f"stdin{_ending(content)}", content)
    inbox, path = settings.inbox.resolve(), file.resolve()
    if path.is_relative_to(inbox) and is_recipe_path(path.relative_to(inbox).as_posix()):
        save_again(path)
        return path.relative_to(inbox).as_posix()
    return put(settings.inbox, file.name, content)


def _ending(content: bytes) -> str:
    """A text that begins with a recipe's field is YAML; anything else is lines of prompts."""
    text = re.sub(rb"\A(?:\s|#.*\n|---\s*\n|- )*", b"", content)
    field = re.match(rb"([a-z_]+)\s*:", text)
    is_yaml = field is not None and field[1].decode() in ROWS
    return ".yaml" if is_yaml else ".txt"


def _answers(settings: Settings, asked: Sequence[_Asked], make_engine: MakeEngine) -> list[Answer]:
    """What became of each recipe, as a daemon says, or this process in its place."""
    found: dict[Path, Answer] = {}
    while True:
        for one in asked:
            if one.command not in found and (answer := answer_to(one.command, 0.0)):
                found[one.command] = answer
        missing = [one for one in asked if one.command not in found]
        if not missing:
            return [found[one.command] for one in asked]
        if is_running(settings.outbox):
            _wait(settings, missing)
        elif (reason := _work(settings, {one.recipe for one in missing}, make_engine)) is not None:
            rest = Answer(False, reason)
            return [found.get(one.command) or answer_to(one.command, 0.0) or rest for one in asked]


def _wait(settings: Settings, missing: Sequence[_Asked]) -> None:
    """Until one of them is answered, or no picowatch runs any more; shown on a terminal."""
    with ExitStack() as stack:
        view = LiveView(sys.stderr) if can_draw(sys.stderr) else None
        if view is not None:
            stack.callback(view.close)
        told = False
        while is_running(settings.outbox):
            if any(one.command.with_suffix(".answer").exists() for one in missing):
                return
            running, status = look(settings.outbox)
            if view is not None:
                view.draw(rows_of(running, status))
            elif status.paused and not told:
                _say("picowatch is paused. Continue with `picowatch resume`.")
                told = True
            time.sleep(LOOK_SECONDS)


def _work(settings: Settings, recipes: set[str], make_engine: MakeEngine) -> str | None:
    """Make these recipes in this process; gives why any of them has no answer then.

    None if another picowatch was quicker, and will answer.
    """
    drawn = can_draw(sys.stderr)
    console = LiveConsole(sys.stderr) if drawn else PlainConsole(sys.stderr)
    console.handler.addFilter(lambda record: False)  # what is worth saying is in the answers
    with ExitStack() as stack:
        stack.callback(console.close)
        for number in ENDING:  # the daemon takes them
            stack.callback(signal.signal, number, signal.getsignal(number))
        try:
            result, interrupted = run_daemon(
                settings, make_engine, console, once=True, only=recipes
            )
        except OutboxInUse:
            return None
        except Ended:
            raise KeyboardInterrupt from None
    if interrupted:
        raise KeyboardInterrupt
    if result.kept_waiting:
        return "picowatch is paused. Continue with `picowatch resume`."
    return result.reason or "it is no longer in the inbox, or is empty."


def _tell(settings: Settings, asked: _Asked, answer: Answer) -> int:
    for picture in answer.pictures:
        print(settings.outbox / picture)
    if answer.done:
        return 0
    text = answer.text.strip()
    _say(text if text.startswith(f"inbox/{asked.recipe}") else f"{asked.recipe}: {text}")
    return FAILED


def _say(text: str) -> None:
    print(harmless_lines(text), file=sys.stderr)
