"""What the commands of other processes do to the daemon's work."""

import logging
from collections.abc import Callable

from picowatch.ledger.ledger import Ledger
from picowatch.outbox.commands import Answer, Command
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import images

log = logging.getLogger("picowatch")


class Steering:
    """Does commands; each may come twice if picowatch dies between doing and answering it."""

    def __init__(self, ledger: Ledger, outbox: Outbox, *, look: Callable[[], None]) -> None:
        """`look` tells the worker that there may be work."""
        self._ledger = ledger
        self._outbox = outbox
        self._look = look

    def do(self, command: Command) -> Answer:
        """Do it and say what came of it."""
        if command.name == "retry":
            return self._retry(command.recipe)
        return Answer(False, f"This picowatch knows no command '{command.name}'.")

    def _retry(self, recipe: str | None) -> Answer:
        retried = self._ledger.retry(recipe)
        for name in retried:
            self._outbox.remove_error(name)
            log.info("%s: %s tried again, as asked", name, images(retried[name]))
        self._look()
        if retried:
            return Answer(True, f"{images(sum(retried.values()))} queued again.")
        if recipe is None:
            return Answer(True, "No image has failed.")
        failed = sorted(self._ledger.recipes_with_failures())
        known = f" These have: {', '.join(failed[:10])}." if failed else ""
        return Answer(False, f"No image of {recipe} has failed.{known}")
