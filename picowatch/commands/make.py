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
from picowatch.commands.status import current_status, rows_of
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.engine.process.child import ChildEngine
from picowatch.errors import FAILED, INTERRUPTED, CommandFailed, OutboxInUse
from picowatch.files.retry import Ended
from picowatch.inbox.names import ENDINGS, is_recipe_name, is_recipe_path
from picowatch.inbox.putting import put, save_again
from picowatch.observers.console import LiveConsole, LiveView, PlainConsole, can_draw
from picowatch.outbox.commands import Answer, Command, send, wait_for_answer, withdraw
from picowatch.outbox.status import is_running
from picowatch.recipe import is_empty
from picowatch.recipe.fields import ROWS
from picowatch.recipe.messages.problems import harmless_lines
from picowatch.settings import Settings
from picowatch.signals import ENDING

POLL_SECONDS = 0.25
STANDARD_INPUT = Path("-")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recipe files; - is standard input"
    )


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return make(load(), options.files)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A recipe in the inbox, and the command whose answer says what became of it."""

    recipe: str
    command: Path


def make(settings: Settings, files: Sequence[Path], make_engine: MakeEngine = ChildEngine) -> int:
    """Print the pictures of all recipes; exit code 1 if any of them was not rendered."""
    check_folders(settings)
    read = [(file, _content(file)) for file in files]
    sent: list[_Sent] = []
    where = settings.inbox
    try:
        for file, content in read:
            where = settings.inbox
            recipe = _put(settings, file, content)
            where = settings.outbox
            digest = hashlib.sha256(content).hexdigest()
            sent.append(_Sent(recipe, send(settings.outbox, Command("make", recipe, digest))))
        answers = _answers(settings, sent, make_engine)
    except KeyboardInterrupt:
        _print_error("The recipes stay in the inbox and are rendered when picowatch runs.")
        return INTERRUPTED
    except OSError as error:
        # What fails on an open file, as a full disk does, names none.
        words = f"{error.filename or where} cannot be written: {error.strerror or error}."
        raise CommandFailed(words, "Free some space or allow writing.") from error
    finally:
        for one in sent:
            withdraw(one.command)
    return max([_report(settings, one, answer) for one, answer in zip(sent, answers, strict=True)])


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


def _put(settings: Settings, file: Path, content: bytes) -> str:
    """Put the recipe into the inbox, or save it there again; returns its path below the inbox."""
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


def _answers(settings: Settings, sent: Sequence[_Sent], make_engine: MakeEngine) -> list[Answer]:
    """What became of each recipe, answered by a daemon, or by this process if none is running."""
    answers: dict[Path, Answer] = {}
    reason: str | None = None
    while True:
        for one in sent:
            if one.command not in answers and (answer := wait_for_answer(one.command, 0.0)):
                answers[one.command] = answer
        missing = [one for one in sent if one.command not in answers]
        if not missing or reason is not None:
            rest = Answer(False, reason or "")
            return [answers.get(one.command, rest) for one in sent]
        if is_running(settings.outbox):
            _wait(settings, missing)
        else:
            reason = _render_here(settings, {one.recipe for one in missing}, make_engine)


def _wait(settings: Settings, missing: Sequence[_Sent]) -> None:
    """Until one of them is answered, or no picowatch is running any more; shown on a terminal."""
    with ExitStack() as stack:
        view = LiveView(sys.stderr) if can_draw(sys.stderr) else None
        if view is not None:
            stack.callback(view.close)
        pause_reported = False
        while is_running(settings.outbox):
            if any(one.command.with_suffix(".answer").exists() for one in missing):
                return
            running, status = current_status(settings.outbox)
            if view is not None:
                view.draw(rows_of(running, status))
            elif status.paused and not pause_reported:
                _print_error("picowatch is paused. Continue with `picowatch resume`.")
                pause_reported = True
            time.sleep(POLL_SECONDS)


def _render_here(settings: Settings, recipes: set[str], make_engine: MakeEngine) -> str | None:
    """Render these recipes in this process; returns why any of them has no answer then.

    None if another picowatch was quicker, and will answer.
    """
    drawn = can_draw(sys.stderr)
    console = LiveConsole(sys.stderr) if drawn else PlainConsole(sys.stderr)
    console.handler.addFilter(lambda record: False)  # the answers say what matters
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


def _report(settings: Settings, sent: _Sent, answer: Answer) -> int:
    for picture in answer.pictures:
        print(settings.outbox / picture)
    if answer.done:
        return 0
    text = answer.text.strip()
    _print_error(text if text.startswith(f"inbox/{sent.recipe}") else f"{sent.recipe}: {text}")
    return FAILED


def _print_error(text: str) -> None:
    print(harmless_lines(text), file=sys.stderr)
