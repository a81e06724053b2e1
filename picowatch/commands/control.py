"""`picowatch pause`, `resume`, `retry`, `cancel`, `delete`: sent to the daemon as files in the
outbox, so they work from any machine that mounts it.
"""

import errno
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from picowatch.errors import FAILED, SUCCEEDED, CommandFailed
from picowatch.outbox.commands import Answer, Command, send, wait_for_answer
from picowatch.outbox.status import check_readable, is_running
from picowatch.settings import Settings
from picowatch.streams import harmless

ANSWER_SECONDS = 15.0
FILES_AT_ONCE = 100  # in one command; its file may have 100 kB


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    settings, name = load(), options.command
    if name == "delete":
        files = [below(settings.outbox, picture) for picture in options.pictures]
        parts = (files[at : at + FILES_AT_ONCE] for at in range(0, len(files), FILES_AT_ONCE))
        return control(settings, [Command(name, files=tuple(part)) for part in parts])
    if name == "retry" and options.all:
        name = "retry all"
        if not options.recipes:
            raise CommandFailed(
                "--all must be told what to render again.", "Name a folder or recipe."
            )
    recipes = [below(settings.inbox, recipe) for recipe in getattr(options, "recipes", ())]
    return control(settings, [Command(name, recipe) for recipe in recipes] or [Command(name)])


def control(settings: Settings, commands: Sequence[Command]) -> int:
    """Send commands and print their answers; return 1 if any is not done."""
    check_readable(settings.outbox)
    if not (settings.state_folder / "commands").is_dir():
        raise CommandFailed(
            f"No picowatch has ever used the outbox {settings.outbox.absolute()}.",
            "Name the outbox of a picowatch that runs: --outbox DIR.",
        )
    # All are sent before the first answer: the daemon looks for commands once a second.
    sent = [(command, _send(settings, command)) for command in commands]
    seconds = ANSWER_SECONDS if is_running(settings.outbox) else 0.0
    codes = []
    for command, path in sent:
        answer = wait_for_answer(path, seconds)
        if answer is None:
            seconds = 0.0
        codes.append(_report(command, answer))
    return max(codes)


def _send(settings: Settings, command: Command) -> Path:
    try:
        return send(settings.outbox, command)
    except OSError as error:
        remedy = "Only users who may write there can control picowatch."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space, and try again."
        raise CommandFailed(
            f"The outbox {settings.outbox.absolute()} cannot be written: {error.strerror}.", remedy
        ) from error


def _report(command: Command, answer: Answer | None) -> int:
    if answer is None:
        print(
            f"picowatch does not answer; '{command.name}' takes effect when it answers again.",
            file=sys.stderr,
        )
        return FAILED
    print(harmless(answer.text), file=sys.stdout if answer.done else sys.stderr)
    return SUCCEEDED if answer.done else FAILED


def below(folder: Path, named: Path) -> str:
    """A file as the daemon calls it; users give its path, or its name below inbox or outbox."""
    root = folder.resolve()
    path = named.parent.resolve() / named.name
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return named.as_posix()
