"""`picowatch pause`, `resume`, `retry`, `cancel`: sent to the daemon as files in the outbox.

So they work from any machine that mounts it.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from picowatch.errors import FAILED, SUCCEEDED, CommandFailed
from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.outbox.status import is_running
from picowatch.recipe.messages.problems import harmless
from picowatch.settings import Settings

ANSWER_SECONDS = 15.0
RECIPES = {"retry": "*", "cancel": "+"}  # how many may be named


def add_arguments(parser: ArgumentParser) -> None:
    if count := RECIPES.get(parser.get_default("command")):
        parser.add_argument("recipes", nargs=count, type=Path, metavar="RECIPE")


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return control(load(), options.command, getattr(options, "recipes", ()))


def control(settings: Settings, name: str, recipes: Sequence[Path]) -> int:
    """Send it for each recipe, or once where none is named; exit code 1 if any is not done."""
    if not settings.state_folder.is_dir():
        raise CommandFailed(
            f"No picowatch has ever used the outbox {settings.outbox}.",
            "Give the outbox of the one that you mean: --outbox DIR.",
        )
    commands = [Command(name, _below_inbox(settings, recipe)) for recipe in recipes]
    return max([_send(settings, command) for command in commands or [Command(name)]])


def _send(settings: Settings, command: Command) -> int:
    try:
        path = send(settings.outbox, command)
    except OSError as error:
        raise CommandFailed(
            f"The outbox {settings.outbox} cannot be written: {error.strerror}.",
            "Only users who may write there can control picowatch.",
        ) from error
    answer = wait_for_answer(path, ANSWER_SECONDS if is_running(settings.outbox) else 0.0)
    if answer is None:
        print(
            f"picowatch does not answer; '{command.name}' is done when it is back.",
            file=sys.stderr,
        )
        return FAILED
    print(harmless(answer.text), file=sys.stdout if answer.done else sys.stderr)
    return SUCCEEDED if answer.done else FAILED


def _below_inbox(settings: Settings, recipe: Path) -> str:
    """The recipe as the daemon calls it; users give its path, or its name below the inbox."""
    inbox = settings.inbox.resolve()
    path = recipe.parent.resolve() / recipe.name
    if path.is_relative_to(inbox):
        return path.relative_to(inbox).as_posix()
    return recipe.as_posix()
