"""Accounts: how much of what was requested is done, what failed, what waits, and since when.

`picowatch status` reads them beside a picowatch that may be running, and has to begin quickly: so
nothing here imports recipes.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from picowatch.errors import CommandFailed
from picowatch.ledger.ledger import VERSION, Ledger
from picowatch.ledger.turns import Turns
from picowatch.outbox.status import ASK_PERMISSION, check_readable, unused
from picowatch.streams import harmless

WAIT_SECONDS = 5.0  # for a commit
DAY = 23 * 3600.0  # the shortest: in one night an hour is left out
_COLUMNS = """images.id, images.recipe, state, file, ended, seconds, reason,
              images.entry_index, images.image_index"""
_COUNTS = ("requested", "done", "failed", "running", "waiting", "cancelled", "refused")
# The last draw of each entry, and what is left of earlier draws.
_ALL_REQUESTED = f"""
    SELECT DISTINCT {_COLUMNS}
    FROM entries JOIN entry_images ON entry_images.entry = entries.id
    JOIN images ON images.id = entry_images.image
    WHERE (position >= drawn_from OR state IN ('queued', 'running', 'failed'))"""
_REQUESTED = f"""{_ALL_REQUESTED}
    AND entries.recipe IN (SELECT value FROM json_each(:recipes))"""
_ENDED = "FILTER (WHERE state IN ('done', 'failed'))"
# The fields of an Account that its images give.
_SUMS = f"""
    count(*) FILTER (WHERE state = 'done') AS done,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    count(*) FILTER (WHERE state = 'running') AS running,
    count(*) FILTER (WHERE state = 'queued') AS waiting,
    count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE state != 'cancelled') AS requested,
    min(ended - coalesce(seconds, 0)) {_ENDED} AS began, max(ended) {_ENDED} AS ended,
    round(total(seconds) {_ENDED}, 3) AS seconds"""
_BELOW = "(:folder = '' OR ({0} > :folder || '/' AND {0} < :folder || '0'))"
_UNTOLD = f"""
    SELECT {_COLUMNS} FROM images INDEXED BY images_untold
    WHERE told < 2 AND told < :told AND state IN ('done', 'failed') AND {_BELOW.format("recipe")}"""
# A file whose problem is not that of its images; a template's may be what its pictures lack.
REFUSED = """
    (problem IS NOT NULL AND (outcome = 'refused' OR NOT EXISTS (
        SELECT 1 FROM images WHERE recipe = path AND state = 'failed')))"""
# … and pictures that wait for their template: their own problem is NULL.
_REFUSED_OR_WAITING = f"(outcome = 'refused' OR {REFUSED})"
_UNTOLD_REFUSED = f"""
    SELECT path AS recipe, path, problem, problem_at FROM recipes
    WHERE {_REFUSED_OR_WAITING} AND told < :told AND {_BELOW.format("path")}
    AND (problem IS NOT NULL
         OR template IN (SELECT digest FROM recipes WHERE problem IS NOT NULL))"""
_FIRST_QUEUED = """
    SELECT -priority AS lower, save, entry_index, image_index, folder, is_copy
    FROM images INDEXED BY images_queue
    WHERE state = 'queued' AND recipe IN (SELECT value FROM json_each(?))
    ORDER BY priority DESC, save, entry_index, image_index LIMIT 1"""
_AHEAD = """
    SELECT max(id) AS id, folder, is_copy, count(*) AS queued, sum(-priority < :lower) AS higher,
        sum(priority = -:lower) AS equal, sum(sum(priority = -:lower)) OVER its AS folder_equal,
        min(min(iif(priority = -:lower, save, NULL))) OVER its AS folder_save,
        sum((-priority, save, entry_index, image_index)
            < (:lower, :save, :entry_index, :image_index)) AS before
    FROM images INDEXED BY images_alike WHERE state = 'queued' GROUP BY batch_key, folder
    WINDOW its AS (PARTITION BY is_copy, folder)"""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed image, or a refused file (`entry` and `image` 0); `at` is a Unix time, if known."""

    recipe: str
    reason: str
    at: float | None
    entry: int = 0
    image: int = 0
    seed: int | None = None  # None if nothing is drawn

    def line(self, now: float) -> str:
        """Return "failed  03:12  night/a.txt: entry 17, image 1, seed 5: Bad."."""
        what, where = "refused", ""
        if self.entry:
            seed = "" if self.seed is None else f", seed {self.seed}"
            what, where = "failed", f"entry {self.entry}, image {self.image}{seed}: "
        at = f"{moment(self.at, now)}  " if self.at else ""
        return f"{what:8}{at}{self.recipe}: {where}{self.reason}"


@dataclass(frozen=True, slots=True)
class Slowest:
    """The picture that took longest."""

    file: str
    recipe: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of some images and files. Times are Unix seconds."""

    requested: int = 0  # without cancelled images
    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    cancelled: int = 0
    refused: int = 0  # files
    began: float | None = None
    ended: float | None = None
    seconds: float = 0.0  # of rendering
    slowest: Slowest | None = None
    failures: tuple[Failure, ...] = ()  # the newest first

    def plus(self, other: "Account") -> "Account":
        """Return the account of both, without failures and what was slowest."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        began = min(filter(None, (self.began, other.began)), default=None)
        ended = max(filter(None, (self.ended, other.ended)), default=None)
        return Account(began=began, ended=ended, seconds=self.seconds + other.seconds, **counts)

    def line(self, now: float) -> str:
        """Return "299 of 300 done 22:04–06:12, 1 failed, 2 files refused"."""
        parts = []
        if self.requested:
            parts.append(f"{self.done:,} of {self.requested:,} done{self._span(now)}")
        files = "file" if self.refused == 1 else "files"
        for count, words in (
            (self.failed, "failed"),
            (self.refused, f"{files} refused"),
            (self.cancelled, "cancelled"),
            (self.running, "in progress"),
            (self.waiting, "waits" if self.waiting == 1 else "wait"),
        ):
            parts += [f"{count:,} {words}"] if count else []
        return ", ".join(parts) or "nothing is requested"

    def _span(self, now: float) -> str:
        if self.began is None or self.ended is None:
            return ""
        first = moment(self.began, now)
        last = moment(self.ended, self.ended + (self.ended - self.began))  # no date within a day
        return f" {first}" if first.endswith(last) else f" {first}–{last}"


def moment(at: float, now: float) -> str:
    """Return a time for people: "22:04", with its date from 23 hours on."""
    return time.strftime("%H:%M" if now - at < DAY else "%Y-%m-%d %H:%M", time.localtime(at))


@contextmanager
def reading(outbox: Path) -> Iterator[sqlite3.Connection]:
    """Open an outbox's ledger beside a picowatch that may be running. Raises CommandFailed."""
    check_readable(outbox)
    path = outbox / ".picowatch/ledger.sqlite"
    if not path.is_file():
        words = unused(outbox) or f"There is no ledger {path}."
        raise CommandFailed(words, "For another one: --outbox DIR")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)) as sql:
            sql.row_factory = sqlite3.Row
            (version,) = sql.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                words = f"The ledger {path} is of version {version}, not {VERSION}."
                raise CommandFailed(words, "Start picowatch, which brings it to this version.")
            yield sql
    except sqlite3.Error as error:
        words = f"The ledger {path} cannot be read: {error}."
        may_read = os.access(path, os.R_OK)
        remedy = "Start picowatch, which repairs it." if may_read else ASK_PERMISSION
        raise CommandFailed(words, remedy) from error


def known_paths(sql: sqlite3.Connection) -> list[str]:
    """Return every recipe and dropped picture that was saved, archived ones, too."""
    return [row["path"] for row in sql.execute("SELECT path FROM recipes ORDER BY path")]


def known_pictures(sql: sqlite3.Connection) -> list[str]:
    """Return every picture that was made, also those that users deleted by hand."""
    return [row["file"] for row in sql.execute("SELECT file FROM images WHERE state = 'done'")]


def account_of(sql: sqlite3.Connection, recipes: Collection[str]) -> Account:
    """Return the account of these recipes and dropped pictures."""
    files = f"""SELECT path, problem, problem_at FROM recipes
                WHERE path IN (SELECT value FROM json_each(:recipes)) AND {_REFUSED_OR_WAITING}"""
    return _account(sql, _REQUESTED, files, {"recipes": json.dumps([*recipes])})


def accounts(ledger: Ledger, recipes: Collection[str] | None = None) -> dict[str, Account]:
    """Return accounts of all recipes and dropped pictures, or of these, without single images."""
    values = {"recipes": json.dumps([*(recipes or ())])}
    which = _ALL_REQUESTED if recipes is None else _REQUESTED
    found: dict[str, Account] = {}
    for row in ledger.select(f"SELECT recipe, {_SUMS} FROM ({which}) GROUP BY recipe", values):
        sums = dict(row)
        recipe = sums.pop("recipe")
        found[recipe] = Account(**sums)
    these = "path IN (SELECT value FROM json_each(:recipes)) AND" * (recipes is not None)
    refused = f"SELECT path FROM recipes WHERE {these} {REFUSED}"
    for (recipe,) in ledger.select(refused, values):
        found[recipe] = replace(found.get(recipe, Account()), refused=1)
    return found


def ahead_of(
    sql: sqlite3.Connection, recipes: Collection[str], shares: Mapping[str, float]
) -> tuple[int, dict[int, tuple[float, int]]]:
    """Return how many images are rendered before the first queued one of these recipes.

    Folders take turns, as `Turns` says. With it come, by the id of one of the images that are alike
    in a folder, how many of these are before it and how many are queued.
    """
    first = sql.execute(_FIRST_QUEUED, (json.dumps([*recipes]),)).fetchone()
    if first is None:
        return 0, {}
    rows = sql.execute(_AHEAD, dict(first)).fetchall()
    of_kind = [row for row in rows if row["is_copy"] == first["is_copy"]]
    running = Counter(
        row["folder"]
        for row in sql.execute(
            """SELECT folder FROM images INDEXED BY images_running
               WHERE state = 'running' AND is_copy = :is_copy""",
            dict(first),
        )
    )
    own, turns = first["folder"], Turns(shares)
    place = sum(row["before"] - row["higher"] for row in of_kind if row["folder"] == own)
    ahead = dict.fromkeys((row["id"] for row in rows), 0.0)
    for row in of_kind:
        folder, equal = row["folder"], row["folder_equal"]
        ahead[row["id"]] = row["before"] if folder == own else row["higher"]
        if folder != own and equal:
            is_next = not running[folder] and row["folder_save"] < first["save"]
            before = turns.before(own, place, folder, is_next=is_next)
            ahead[row["id"]] += row["equal"] * min(1.0, before / equal)
    alike = {row["id"]: (ahead[row["id"]], row["queued"]) for row in rows}
    return running.total() + round(sum(ahead.values())), alike


def rows_to_estimate(
    sql: sqlite3.Connection, images: Collection[int]
) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
    """Return how long passes take, and the requests of these images."""
    rates = sql.execute("SELECT * FROM pass_rates ORDER BY rowid").fetchall()
    query = "SELECT id, request FROM images WHERE id IN (SELECT value FROM json_each(?))"
    return rates, sql.execute(query, (json.dumps([*images]),)).fetchall()


# -- what summary.txt has not told of


def finished_folders(ledger: Ledger) -> list[str]:
    """Return folders ("corgis/", or "" for the inbox) with ended images that no account told of."""
    folder = "rtrim(recipe, replace(recipe, '/', ''))"
    query = f"SELECT DISTINCT {folder} AS folder FROM ({_UNTOLD})"
    return [row["folder"] for row in ledger.select(query, {"folder": "", "told": 1})]


def finished_files(ledger: Ledger) -> tuple[str, str] | None:
    """Return the first and the last file that ended or was refused, by name; None: all are told."""
    both = f"SELECT recipe FROM ({_UNTOLD}) UNION ALL SELECT recipe FROM ({_UNTOLD_REFUSED})"
    query = f"SELECT min(recipe) AS first, max(recipe) AS last FROM ({both})"
    ((first, last),) = ledger.select(query, {"folder": "", "told": 2})
    return (first, last) if first is not None else None


def untold(ledger: Ledger, folder: str, *, told: int) -> Account:
    """Return the account of these images, and of the refused files there that were not told of."""
    with ledger.transaction() as sql:
        return _account(sql, _UNTOLD, _UNTOLD_REFUSED, {"folder": folder, "told": told})


def tell(ledger: Ledger, folder: str, *, told: int) -> None:
    """Record that these images and files were told of."""
    tables = (("images", "recipe", "told < 2"), ("recipes", "path", _REFUSED_OR_WAITING))
    with ledger.transaction() as sql:
        for table, path, which in tables:
            sql.execute(
                f"""UPDATE {table} SET told = :told
                    WHERE {which} AND told < :told AND {_BELOW.format(path)}""",
                {"folder": folder, "told": told},
            )


def _account(
    sql: sqlite3.Connection, which: str, files: str, values: Mapping[str, object]
) -> Account:
    """Return the account of images and files that queries find; the newest failures come first."""
    sums = sql.execute(f"SELECT {_SUMS} FROM ({which})", values).fetchone()
    slowest = sql.execute(
        f"""SELECT file, recipe, round(seconds, 3) FROM ({which}) WHERE state = 'done'
            AND seconds IS NOT NULL ORDER BY seconds DESC LIMIT 1""",
        values,
    ).fetchone()
    failed = sql.execute(
        f"""SELECT mine.recipe, mine.reason, mine.ended, mine.entry_index + 1,
            mine.image_index + 1, iif(coalesce(json_extract(request, '$.checkpoint'), '') = '',
            NULL, json_extract(request, '$.seed')) FROM ({which}) AS mine
            JOIN images ON images.id = mine.id WHERE mine.state = 'failed'
            ORDER BY mine.recipe, mine.entry_index, mine.image_index""",
        values,
    )
    found = [Failure(*row) for row in failed]
    rows = sql.execute(files, values).fetchall()
    refused = {row["path"]: row for row in rows if row["problem"]}
    # Pictures that wait for a prompt are no refused files: their template is one, told once.
    for folder in sorted({row["path"].rpartition("/")[0] for row in rows if not row["problem"]}):
        refused |= _template_of(sql, folder)
    for path, row in refused.items():
        name = harmless(path)
        reason = harmless(row["problem"]).removeprefix(f"inbox/{name}").removeprefix(name)
        found.append(Failure(path, reason.lstrip(":, "), row["problem_at"]))
    found.sort(key=lambda failure: -(failure.at or 0.0))
    account = Account(**dict(sums), refused=len(refused), failures=tuple(found))
    return replace(account, slowest=Slowest(*slowest)) if slowest else account


def _template_of(sql: sqlite3.Connection, folder: str) -> dict[str, sqlite3.Row]:
    """Return the nearest template with a problem that holds for a folder, by path."""
    while folder:
        path = f"{folder}/_pictures.yaml"
        query = "SELECT problem, problem_at FROM recipes WHERE path = ? AND problem IS NOT NULL"
        if row := sql.execute(query, (path,)).fetchone():
            return {path: row}
        folder = folder.rpartition("/")[0]
    return {}
