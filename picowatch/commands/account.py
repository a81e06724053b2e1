"""`picowatch status NAME`: what became of a recipe, a photo, a folder or everything."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from os.path import lexists
from pathlib import Path
from sqlite3 import Connection

from picowatch.errors import CommandFailed
from picowatch.files.names import is_mask_name
from picowatch.files.safe_paths import is_file
from picowatch.inbox.matching import matching, no_such, requests_in
from picowatch.inbox.names import DEFAULTS_NAME, folders_above, is_dropped, is_template
from picowatch.ledger import account as accounts
from picowatch.outbox.status import Status, duration
from picowatch.sources import Folders

MOST = 20  # failures and ignored files that are shown without --all


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What is known of a name; what waits of it is `behind` so many images."""

    name: str
    account: accounts.Account
    behind: int
    seconds_until: float | None  # it begins
    ignored: dict[str, str]


def named(folders: Folders, name: str, status: Status, *, running: bool) -> Named:
    """Return what is known of a recipe, photo, folder or glob. Raises CommandFailed."""
    with accounts.reading(folders.outbox) as sql:
        known = accounts.known_paths(sql)
        recipes = matching(name, known)
        ignored = dict(status.ignored)
        told = {path: ignored[path] for path in matching(name, ignored)}
        noticed = [*known, *ignored]
        if not (recipes or told):
            told = _why_not(folders, sql, name, noticed)
        elif unread := _unread(folders.inbox, name, noticed):
            told |= _why_not(folders, sql, name, noticed, unread)
        behind, seconds = _place(sql, recipes, status)
        account = accounts.account_of(sql, recipes)
    if account.running and not running:  # it was killed; the next start renders these
        behind, account = 0, replace(account, waiting=account.waiting + account.running, running=0)
    name = name.rstrip("/")
    return Named(name=name, account=account, behind=behind, seconds_until=seconds, ignored=told)


def _unread(inbox: Path, name: str, noticed: list[str]) -> list[str]:
    """Return what seems to be a request that nobody has noticed; only names are looked at."""
    folders = {path.rpartition("/")[0] for path in filter(is_template, noticed)}
    unknown = {*requests_in(inbox)}.difference(noticed)
    new = {p for p in unknown if is_dropped(p) != folders.isdisjoint(folders_above(p))}
    found = matching(name, [*noticed, *new]) if new else ()
    return [path for path in found if path in new and not is_mask_name(path)]


def _why_not(
    folders: Folders, sql: Connection, name: str, known: list[str], unread: Sequence[str] = ()
) -> dict[str, str]:
    """Return why files that nobody has noticed are not taken. Raises CommandFailed."""
    # These read pictures, which takes longer to import than all else.
    from picowatch.inbox.folder import InboxFolder
    from picowatch.inbox.reasons import why_no_request, why_not
    from picowatch.inbox.scan import pictures_under, scan

    inbox = InboxFolder(folders.inbox.resolve())
    there = scan(inbox.root, ())
    names = unread or matching(name, there.paths)
    if not names:
        is_outside = name.startswith("/") or ".." in name.split("/")
        if is_outside or not any(lexists(folder / name) for folder in folders):
            words = no_such(name, [*known, *there.paths], "the inbox")
            raise CommandFailed(words, "`picowatch status .` tells of everything.")
        names = [name] if is_file(inbox.root / name) else []
    is_refused = cache(lambda template: accounts.account_of(sql, [template]).refused)
    pictures_of = cache(lambda template: {*pictures_under(inbox, template)})

    def why_not_read(path: str) -> str:
        if path.rpartition("/")[2] == DEFAULTS_NAME:
            return "it holds for the recipes of its folder, whose status tells what became of them"
        if path not in there.found:
            owners = " and ".join(there.owners(path))
            return f"it belongs to {owners}, whose status tells what became of it" if owners else ""
        template = inbox.template_above(path) or path
        if template != path and is_refused(template):
            return f"its template {template} is refused"
        if template != path and path not in pictures_of(template):
            return "" if unread else f"its template {template} names it"
        return "it is not read yet"

    pictures = {*there.pictures}
    told = why_no_request(replace(there, pictures=sorted(pictures.intersection(names))), ())
    for path in names:
        if path not in pictures:
            told[path] = why_not(folders.outbox, there, path) or why_not_read(path)
    return {path: why for path, why in sorted(told.items()) if why}


def _place(sql: Connection, recipes: Collection[str], status: Status) -> tuple[int, float | None]:
    """Return how many images are before those of recipes that wait, and the seconds until then."""
    behind, alike = accounts.ahead_of(sql, recipes, status.shares)
    if not alike or status.all_seconds_left is None or status.paused:
        return behind, None
    # These import recipes: only what waits takes so long.
    from picowatch.daemon.clock import Rates, work_of
    from picowatch.ledger.rows import PassRate, request_of

    measured, requests = accounts.rows_to_estimate(sql, alike)
    rates = Rates({PassRate(*key): seconds for *key, seconds in measured}, ())
    seconds = {row["id"]: rates.image(work_of(request_of(row))).seconds for row in requests}
    each = [(seconds.get(id_, 0.0), *counts) for id_, counts in alike.items()]
    before = sum(cost * ahead for cost, ahead, _ in each)
    whole = sum(cost * queued for cost, _, queued in each)
    share = before / whole if whole else 0.0
    return behind, round(status.all_seconds_left * share, 1)


def in_json(found: Named) -> dict[str, object]:
    """Return the account for programs: everything, with all failures."""
    account = asdict(found.account)
    failures = account.pop("failures")
    place = {"behind": found.behind, "seconds_until": found.seconds_until}
    whole = {"name": found.name, **account, **place, "ignored": [*found.ignored.items()]}
    return {"account": whole, "failures": failures}


def lines(found: Named, status: Status, *, running: bool, all_of_them: bool) -> Iterator[str]:
    """Yield how far a recipe or folder is, then what is rendered, each failure and ignored file."""
    now = time.time()
    if not running:
        yield "picowatch is not running"
    name = "everything" if found.name == "." else found.name
    yield f"{name}: {found.account.line(now)}{_behind(found, status, running=running)}"
    shown = {folder.folder: folder.line() for folder in status.folders if running}
    if running and status.recipe:
        shown[status.name] = status.progress()
    for progress, line in shown.items():
        if found.name == "." or f"{progress}/".startswith(f"{found.name}/"):
            yield line
    told = [failure.line(now) for failure in found.account.failures]
    told += [f"ignored {path}: {why}" for path, why in found.ignored.items()]
    yield from told if all_of_them else told[:MOST]
    if (more := len(told) - MOST) > 0 and not all_of_them:
        yield f"and {more} more: --all shows them"
    if (more := status.ignored_count - len(status.ignored)) > 0:
        yield f"{more:,} more in the whole inbox are ignored: picowatch.log names them"


def _behind(found: Named, status: Status, *, running: bool) -> str:
    if not found.account.waiting or found.account.running:
        return ""
    pictures = "picture" if found.behind == 1 else "pictures"
    words = f", behind {found.behind:,} {pictures}" if found.behind else ", first in the queue"
    if status.paused:
        return f"{words}, paused"
    if not running or found.seconds_until is None:
        return words
    return f"{words}, about {duration(found.seconds_until)}"
