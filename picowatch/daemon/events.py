"""What the log says about saves, and what an error file says about a refused save."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from picowatch.errors import LedgerCorrupt, PicowatchError
from picowatch.files.essential import unexpected
from picowatch.inbox.names import is_dropped
from picowatch.ledger.accept import QueueFull
from picowatch.ledger.rows import Acceptance
from picowatch.outbox.status import images
from picowatch.recipe.messages import problems
from picowatch.recipe.reading import NothingSaid
from picowatch.streams import harmless, harmless_lines


class Event(NamedTuple):
    """A line about a recipe, for the log after the commit."""

    level: int
    recipe: str
    text: str
    event: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a save is refused."""

    text: str  # of the error file
    line: str  # for the log
    code: str
    waits: bool = False  # for something outside its bytes, which may change
    # That of a dropped picture, if it is refused instead: with one error for all its pictures,
    # which wait until it is right.
    template: str = ""
    lacks_prompt: bool = False  # neither it nor anything beside the picture says what to do


def said(path: str, words: str, event: str = "saved") -> Event:
    return Event(logging.INFO, path, f"{path}: {words}", event)


def said_once(events: Iterable[Event]) -> list[Event]:
    """Return one line for equal warnings of several recipes, in the place of the first."""
    found: dict[str, Event] = {}
    others: Counter[str] = Counter()
    for event in events:
        is_warning = event.level == logging.WARNING
        key = event.text.removeprefix(event.recipe) if is_warning else event.text
        others[key] += key in found
        found.setdefault(key, event)
    for key, more in others.items():
        if more and found[key].level == logging.WARNING:
            recipe = found[key].recipe
            found[key] = found[key]._replace(text=f"{recipe} and {more} more{key}")
    return [*found.values()]


def accepted(result: Acceptance, newest: str) -> str:
    """Return what a save changed, in words; `newest` is the newest picture that existed."""
    if result.existing and not (result.queued or result.cancelled):
        if newest:
            return f"saved, nothing new to render; its newest picture is {newest}"
        return "saved, nothing new to render; its pictures were deleted"
    parts = [f"saved, {images(result.queued)} queued"]
    if result.redrawn:
        parts.append("random seeds drawn again because no request changed")
    if result.gone:
        parts.append(f"{result.gone} whose picture is gone")
    if result.cancelled:
        parts.append(f"{result.cancelled} cancelled")
    if result.kept:
        parts.append(f"{result.kept} kept")
    return ", ".join(parts)


def refused(path: str, why: Exception | str, *, waits: bool = False) -> Refused:
    """Return why a save is refused, with the code of `check`; raise what is handled elsewhere."""
    if isinstance(why, LedgerCorrupt) or not isinstance(why, PicowatchError | str):
        why = unexpected(why)
    # Users may fix a picture's sidecar or template rather than the picture.
    of_picture = problems.PICTURE_CLOSING if is_dropped(path) else ""
    if isinstance(why, problems.RecipeInvalid):
        text = problems.error_text(why, closing=of_picture or problems.closing_of(why, path))
        return Refused(text, str(why), "mistake", waits)
    first_line = str(why).partition("\n")[0]
    # Other pictures are run, and a full queue empties.
    is_open = isinstance(why, NothingSaid | QueueFull)
    closing = "" if is_open else f"\n{of_picture or problems.CLOSING}\n"
    text = f"{harmless(f'inbox/{path}')}\n\n" + harmless_lines(f"{why}\n{closing}")
    return Refused(text, f"{path}: {first_line}", "unusable", waits)
