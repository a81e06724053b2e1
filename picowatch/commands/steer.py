"""`picowatch retry`: a command to the daemon, from any machine that mounts the outbox."""

import sys
from pathlib import Path

from picowatch.errors import PicowatchError
from picowatch.outbox.commands import Command, answer_to, leave
from picowatch.outbox.lock import is_held
from picowatch.outbox.log import harmless
from picowatch.settings import Settings

ANSWER_SECONDS = 15.0


def steer(settings: Settings, name: str, recipe: Path | None) -> int:
    """Leave the command and print the daemon's answer; exit code 1 if it could not be done."""
    asked = None if recipe is None else _below_inbox(settings, recipe)
    if not (settings.outbox / ".picowatch").is_dir():
        raise PicowatchError(f"No picowatch ever worked with the outbox {settings.outbox}.")
    try:
        path = leave(settings.outbox, Command(name, asked))
    except OSError as error:
        raise PicowatchError(
            f"The outbox {settings.outbox} cannot be written: {error.strerror}."
        ) from error
    answer = answer_to(path, ANSWER_SECONDS if is_held(settings.outbox) else 0.0)
    if answer is None:
        print(f"picowatch does not answer; '{name}' is done when it is back.", file=sys.stderr)
        return 1
    print(harmless(answer.text), file=sys.stdout if answer.done else sys.stderr)
    return 0 if answer.done else 1


def _below_inbox(settings: Settings, recipe: Path) -> str:
    """The recipe as the daemon calls it; users give its path, or its name below the inbox."""
    inbox = settings.inbox.resolve()
    path = recipe.parent.resolve() / recipe.name
    if path.is_relative_to(inbox):
        return path.relative_to(inbox).as_posix()
    return recipe.as_posix()
