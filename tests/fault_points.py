"""Deaths on purpose, to prove docs/durability.md.

The tests' daemons call `arm("before a picture's rename:3")`, which wraps picowatch from outside, so
that it dies by SIGKILL just before it reaches that point for the third time.
"""

import itertools
import os
import signal
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

_OUTSTANDING = "picowatch.ledger.followups"
_PUBLISH = "picowatch.outbox.outbox:Outbox.publish"
_GALLERY = "picowatch.outbox.gallery"
_PAGES = "picowatch.outbox.pages"
# `A > B` is B, while A is being done.
POINTS = {
    "before a save is read": "picowatch.inbox.inbox:Inbox.read",
    "before a start image's copy is in place": "picowatch.inbox.named_pictures:write_atomically",
    "before an error file is in place": "picowatch.outbox.problems:ProblemFiles.write_error",
    "before a save is accepted": "picowatch.ledger.accept:accept",
    "before a save is refused": "picowatch.ledger.accept:refuse",
    "after a save is accepted": "picowatch.daemon.accept:accepted",
    "before a deletion is noted": "picowatch.ledger.accept:forget",
    "before a renaming is noted": "picowatch.ledger.accept:rename",
    "before an image is claimed": "picowatch.ledger.queue:claim",
    "in the middle of a claim": "picowatch.ledger.queue:next_file",
    "before a dropped picture's copy is in place": "picowatch.daemon.dropped:write_atomically",
    "while a batch renders": "picowatch.daemon.rendering:Rendering.report",
    "before pictures are handed over": "picowatch.ledger.queue:hand_over",
    "before a picture is written": _PUBLISH,
    "while a picture is written": f"{_PUBLISH} > picowatch.files.atomic:sync_file",
    "before a picture's rename": f"{_PUBLISH} > picowatch.files.atomic:rename",
    "before the folder is synced": f"{_PUBLISH} > picowatch.files.atomic:sync_folder",
    "before a picture's sidecar is written": "picowatch.outbox.outbox:Outbox._write_sidecar",
    "before a dropped picture's copy is deleted": "picowatch.daemon.dropped:DroppedPictures.clear",
    "before a picture is listed": "picowatch.outbox.listing:Listing.append",
    "before a picture is in the gallery": f"{_GALLERY}:Gallery.add",
    "before the ledger says done": "picowatch.ledger.queue:finish",
    "before a failure is noted": "picowatch.ledger.queue:fail",
    "before a failure or a recipe is listed": "picowatch.daemon.round:list_lines",
    "before the ledger says that this is listed": f"{_OUTSTANDING}:mark_lines_listed",
    "before a recipe is finished": "picowatch.daemon.followups:follow_up",
    "before a recipe is marked finished": f"{_OUTSTANDING}:done_with",
    "before a contact sheet is written": "picowatch.outbox.outbox:Outbox.publish_sheet",
    "before a contact sheet is remembered": "picowatch.ledger.contact_sheets:mark_sheet_done",
    "before a recipe is archived": "picowatch.outbox.outbox:Outbox.archive",
    "before a recipe is taken out of the inbox": "picowatch.daemon.followups:_take_out",
    "after a recipe is archived": f"{_OUTSTANDING}:archive",
    "before a command is done": "picowatch.daemon.commands:Control.do",
    "before a command that waits is noted": "picowatch.ledger.control:note_command",
    "before a command is answered": "picowatch.outbox.commands:write_atomically",
    "before pictures are deleted": "picowatch.outbox.outbox:Outbox.delete",
    "before a picture is deleted": "picowatch.outbox.outbox:Outbox._unlink",
    "before a deleted picture leaves the gallery": f"{_GALLERY}:Gallery.remove",
    "before open galleries hear of it": f"{_GALLERY}:Gallery.remove > {_PAGES}:Pages.announce",
    "before a moved picture's line is written": "picowatch.daemon.picture_commands:line_of_moved",
    "before the ledger says where it is": "picowatch.ledger.contact_sheets:follow_moved",
    "before it is deleted at its former place": "picowatch.outbox.outbox:Outbox.leave",
    "before the gallery shows it there": f"{_GALLERY}:Gallery.keep",
    "in the middle of building a new ledger": "picowatch.ledger.rebuild:_enter",
    "in the middle of an upgrade of the ledger": "picowatch.ledger.ledger:_run",
}


def arm(fault: str) -> None:
    """Kill the process as `fault` says: a point, a colon, and which time."""
    point, _, count = fault.rpartition(":")
    within, _, target = POINTS[point].rpartition(" > ")
    inside = threading.Event()
    if within:
        wrap(within, lambda original: _noting(original, inside))
    else:
        inside.set()
    times = itertools.count(1)

    def die(*_: Any, **__: Any) -> None:
        if inside.is_set() and next(times) == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    wrap(target, preceded_by(die))


def wrap(
    point: str,
    wrapper: Callable[[Callable[..., Any]], Callable[..., Any]],
    put: Callable[[Any, str, Any], None] = setattr,
) -> None:
    """Replace `module:name` or `module:class.name` by what `wrapper` returns for it."""
    module, _, path = point.partition(":")
    owner: Any = import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    put(owner, name, wrapper(getattr(owner, name)))


def preceded_by(first: Callable[..., object]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper for `wrap`: each call calls `first` before, with the same arguments."""

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            first(*arguments, **named)
            return original(*arguments, **named)

        return call

    return wrapper


def refusing(number: int, when: Callable[..., bool] = lambda *_, **__: True) -> Callable[..., None]:
    """Return a function that raises the system's error of this number where `when` holds."""

    def refuse(*arguments: Any, **named: Any) -> None:
        if when(*arguments, **named):
            raise OSError(number, os.strerror(number), *map(str, arguments[:1]))

    return refuse


def _noting(original: Callable[..., Any], inside: threading.Event) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        inside.set()
        try:
            return original(*arguments, **named)
        finally:
            inside.clear()

    return call
