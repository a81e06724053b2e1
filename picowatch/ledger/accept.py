"""What a save means for entries and images.

1. An entry that was already in the last valid save keeps its seeds, pictures and files; what
   failed or was cancelled is tried again, and with fixed seeds a picture that the user
   deleted is rendered again. So is its contact sheet.
2. A new entry's images are queued, except those that this recipe already has. A contact sheet of
   the same pictures is not drawn again either. An entry with fixed seeds is new, too, if its
   wildcard files say something else now.
3. If nothing changed at all, entries with a random seed are drawn again, replacing what was
   cancelled of them.
4. Queued images that no entry requests any more are cancelled.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from picowatch.ledger.database import Database
from picowatch.ledger.rebuild import EarlierDraws
from picowatch.ledger.rows import Acceptance, RequestedEntry, request_text
from picowatch.recipe.request import ImageRequest, digest_of
from picowatch.save import Save

# An image that may still be cancelled: one whose picture is being written may not.
UNFINISHED = "(state = 'queued' OR (state = 'running' AND drawn = 0))"

Key = tuple[str, int]  # an entry's digest, and its occurrence among equal ones
Place = tuple[int, int]  # an entry's index in its file, and an image's in its entry
# Requests, each after its digest, which is slow to compute.
DigestedRequests = list[tuple[str, ImageRequest]]


class Accepting(Database):
    """Valid saves; their entries become images."""

    def accept(
        self,
        save: Save,
        entries: Sequence[RequestedEntry],
        *,
        draw_seed: Callable[[], int],
        picture_exists: Callable[[str], bool],
        is_again: bool = False,
    ) -> Acceptance:
        """Accept a valid save with all its images, or not at all.

        `is_again`: if it requests what it did, that is no wish for more, but for what failed or
        was cancelled.
        """
        requested = dict(zip(keys_of(entry.digest for entry in entries), entries, strict=True))
        with self.transaction() as sql:
            outcome = outcome_of(sql, save.path)
            forget_archived(sql, save.path)
            before = entries_before(sql, save.path)
            for key in before.keys() & requested.keys():
                if _draws_otherwise(sql, before[key][0], requested[key]):
                    sql.execute("DELETE FROM entries WHERE id = ?", (before.pop(key)[0],))
            unchanged = {key: entry.priority for key, entry in requested.items()} == {
                key: priority for key, (_, priority) in before.items()
            }
            for key in before.keys() - requested.keys():
                sql.execute("DELETE FROM entries WHERE id = ?", (before[key][0],))
            save_id = record_save(sql, save, "accepted")
            writer = _SaveWriter(sql, save, save_id, draw_seed, picture_exists)
            if unchanged and is_again:
                writer.picture_exists = lambda file: True
            if outcome == "restored":  # not requested again: what the user deleted stays deleted
                writer.picture_exists = lambda file: True
                writer.earlier = EarlierDraws(sql, save.path)
            for entry_index, (key, entry) in enumerate(requested.items()):
                if key in before:
                    redraw = unchanged and entry.random and not is_again
                    writer.keep(before[key][0], entry_index, entry, redraw=redraw)
                else:
                    writer.add(key, entry_index, entry)
            prioritise_images(sql, save.path)
            writer.result.cancelled = cancel_unrequested(sql, save.path)
            return writer.result

    def refuse(
        self, save: Save, problem: str | None, *, waits_for: str | None = None, waits: bool = False
    ) -> None:
        """Record a save from which nothing is rendered, so that it is read only once.

        `problem` says why in a line; what the recipe requested before goes on. It is read again
        when `waits_for` changes. `waits`: nothing is wrong, but something is missing.
        """
        with self.transaction() as sql:
            forget_archived(sql, save.path)
            record_save(sql, save, "waiting" if waits else "refused", problem, waits_for)

    def forget(self, recipe: str) -> int:
        """Forget a recipe that is gone, and cancel its images; returns how many."""
        with self.transaction() as sql:
            return forget_recipe(sql, recipe)


def outcome_of(sql: sqlite3.Connection, recipe: str) -> str | None:
    """What became of the recipe's last save; None if it is not known."""
    row = sql.execute("SELECT outcome FROM recipes WHERE path = ?", (recipe,)).fetchone()
    return row["outcome"] if row else None


def forget_archived(sql: sqlite3.Connection, recipe: str) -> None:
    """Forget what an archived recipe requested: another file has its name now."""
    sql.execute(
        """DELETE FROM entries WHERE recipe IN
           (SELECT path FROM recipes WHERE path = ? AND outcome = 'archived')""",
        (recipe,),
    )


def record_save(
    sql: sqlite3.Connection,
    save: Save,
    outcome: str,
    problem: str | None = None,
    waits_for: str | None = None,
) -> int:
    """Record what became of this version of a recipe; returns the save's id."""
    save_id = sql.execute(
        "INSERT INTO saves (recipe, digest, saved_at, outcome) VALUES (?, ?, ?, ?)",
        (save.path, save.digest, save.saved_at, outcome),
    ).lastrowid
    assert save_id is not None
    sql.execute(
        """INSERT INTO recipes (path, size_and_time, digest, outcome, save, folder, template,
                                waits_for, problem, todo)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
           ON CONFLICT (path) DO UPDATE SET size_and_time = excluded.size_and_time,
               digest = excluded.digest, outcome = excluded.outcome, save = excluded.save,
               folder = excluded.folder, template = excluded.template,
               waits_for = excluded.waits_for, problem = excluded.problem, todo = todo + 1""",
        (
            save.path,
            save.size_and_time.as_text(),
            save.digest,
            outcome,
            save_id,
            save.folder,
            save.template,
            waits_for,
            problem,
        ),
    )
    return save_id


def forget_recipe(sql: sqlite3.Connection, recipe: str) -> int:
    """Forget a recipe's entries and cancel its images that wait or run; returns how many."""
    sql.execute("DELETE FROM entries WHERE recipe = ?", (recipe,))
    sql.execute("DELETE FROM recipes WHERE path = ?", (recipe,))
    return cancel_unrequested(sql, recipe)


def cancel_unrequested(sql: sqlite3.Connection, recipe: str) -> int:
    """Cancel the recipe's images that no entry requests any more; returns how many.

    Those that run stop at their next step, unless their pictures are being written.
    """
    return sql.execute(
        f"""UPDATE images SET state = 'cancelled' WHERE recipe = ? AND {UNFINISHED}
            AND NOT EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)""",
        (recipe,),
    ).rowcount


def prioritise_images(sql: sqlite3.Connection, recipe: str) -> None:
    """Give what is still to be rendered the highest priority of the entries that request it.

    An image in progress counts, too: if its engine dies, it is queued again.
    """
    sql.execute(
        """UPDATE images SET priority = requested.priority FROM (
               SELECT image, max(priority) AS priority FROM entries
               JOIN entry_images ON entry_images.entry = entries.id
               WHERE recipe = ? GROUP BY image
           ) AS requested
           WHERE images.id = requested.image AND images.state IN ('queued', 'running')
           AND images.priority != requested.priority""",
        (recipe,),
    )


def drawn_sheet(sheet: str, files: Sequence[str | None]) -> str:
    """The hash of what a contact sheet shows: the key of a row of `sheets`."""
    return digest_of({"sheet": sheet, "files": files})


def keys_of(digests: Iterable[str]) -> list[Key]:
    """The keys of a file's entries, from their digests in the order of the file."""
    seen: Counter[str] = Counter()
    keys = []
    for digest in digests:
        keys.append((digest, seen[digest]))
        seen[digest] += 1
    return keys


def entries_before(sql: sqlite3.Connection, recipe: str) -> dict[Key, tuple[int, int]]:
    """The ids and priorities of the entries of the recipe's last valid save."""
    rows = sql.execute(
        "SELECT id, digest, occurrence, priority FROM entries WHERE recipe = ?", (recipe,)
    )
    return {(row["digest"], row["occurrence"]): (row["id"], row["priority"]) for row in rows}


def _draws_otherwise(sql: sqlite3.Connection, entry_id: int, entry: RequestedEntry) -> bool:
    """Whether an entry with fixed seeds requests other images than at its last save."""
    if entry.random or not entry.may_differ:
        return False
    rows = sql.execute(
        """SELECT images.digest FROM images JOIN entry_images ON entry_images.image = images.id
           WHERE entry_images.entry = ? ORDER BY entry_images.position""",
        (entry_id,),
    )
    return [row["digest"] for row in rows] != [one.digest for one in entry.requests(None)]


@dataclass
class _SaveWriter:
    """Writes the entries of one save into the ledger."""

    sql: sqlite3.Connection
    save: Save
    save_id: int
    draw_seed: Callable[[], int]
    picture_exists: Callable[[str], bool]
    earlier: EarlierDraws | None = None
    result: Acceptance = field(default_factory=Acceptance)

    def add(self, key: Key, entry_index: int, entry: RequestedEntry) -> None:
        """A new entry, with its images."""
        entry_id = self.sql.execute(
            """INSERT INTO entries (recipe, digest, occurrence, priority, sheet)
               VALUES (?, ?, ?, ?, ?)""",
            (self.save.path, *key, entry.priority, entry.sheet),
        ).lastrowid
        assert entry_id is not None
        self._request_images(entry_id, entry_index, entry)
        if entry.sheet is not None:
            self._keep_sheet(entry_id, entry.sheet)

    def keep(self, entry_id: int, entry_index: int, entry: RequestedEntry, *, redraw: bool) -> None:
        """An entry that is requested again; `redraw` draws its random seed again."""
        self.sql.execute("UPDATE entries SET priority = ? WHERE id = ?", (entry.priority, entry_id))
        for image in self._images_of(entry_id):
            if redraw and image["state"] == "cancelled":
                continue  # the new draw replaces it
            place = entry_index, image["image_index"]
            if self._keep_image(image, place, entry.priority, even_if_deleted=entry.random):
                self._request_sheet_again(entry_id)
        if redraw:
            self._forget_ended(entry_id)
            before = self.result.queued
            self._request_images(entry_id, entry_index, entry)
            self.result.redrawn += self.result.queued - before
        sheet = self._drawn_sheet(entry_id)
        if sheet is not None and not self.picture_exists(sheet):
            self._request_sheet_again(entry_id)

    def _keep_sheet(self, entry_id: int, sheet: str) -> None:
        """It is drawn already if an earlier save requested the same, such as the first of A, B, A.

        Pictures that are still to be rendered have no files yet, or will have others.
        """
        files = [image["file"] for image in self._images_of(entry_id)]
        row = self.sql.execute(
            "SELECT file FROM sheets WHERE recipe = ? AND shows = ?",
            (self.save.path, drawn_sheet(sheet, files)),
        ).fetchone()
        if row and self.picture_exists(row["file"]):
            self.sql.execute(
                "UPDATE entries SET sheet_file = ?, sheet_done = 1 WHERE id = ?",
                (row["file"], entry_id),
            )

    def _drawn_sheet(self, entry_id: int) -> str | None:
        row = self.sql.execute(
            "SELECT sheet_file FROM entries WHERE id = ? AND sheet_done", (entry_id,)
        ).fetchone()
        return row["sheet_file"] if row else None

    def _images_of(self, entry_id: int) -> list[sqlite3.Row]:
        return self.sql.execute(
            """SELECT images.* FROM images JOIN entry_images ON entry_images.image = images.id
               WHERE entry_images.entry = ? ORDER BY entry_images.position""",
            (entry_id,),
        ).fetchall()

    def _keep_image(
        self, image: sqlite3.Row, place: Place, priority: int, *, even_if_deleted: bool = False
    ) -> bool:
        """Keep an image of before; returns whether it is queued again.

        It is if it failed, was cancelled, or its picture is gone. Otherwise a queued one keeps its
        place; the others are named in the order of the recipe.
        """
        state = image["state"]
        is_gone = state == "done" and not even_if_deleted and not self.picture_exists(image["file"])
        if is_gone or state in ("failed", "cancelled"):
            self.sql.execute(
                """UPDATE images SET state = 'queued', priority = ?, save = ?, save_digest = ?,
                   entry_index = ?, image_index = ?, file = NULL, drawn = 0, attempts = 0,
                   deaths = 0, alone = 0, passed = 0, reason = NULL, listed = 0
                   WHERE id = ? AND state IN ('done', 'failed', 'cancelled')""",
                (priority, self.save_id, self.save.digest, *place, image["id"]),
            )
            self.result.queued += 1
            self.result.gone += is_gone
            return True
        self.result.kept += 1
        if state == "done":
            self.result.existing += (image["file"],)
        if state != "queued" and (image["entry_index"], image["image_index"]) != place:
            self.sql.execute(
                "UPDATE images SET entry_index = ?, image_index = ? WHERE id = ?",
                (*place, image["id"]),
            )
        return False

    def _forget_ended(self, entry_id: int) -> None:
        """Forget earlier draws that are done or cancelled; queued ones keep their position."""
        self.sql.execute(
            """DELETE FROM entry_images WHERE entry = ?
               AND image IN (SELECT id FROM images WHERE state IN ('done', 'cancelled'))""",
            (entry_id,),
        )
        self._request_sheet_again(entry_id)

    def _request_sheet_again(self, entry_id: int) -> None:
        self.sql.execute(
            "UPDATE entries SET sheet_file = NULL, sheet_done = 0 WHERE id = ?", (entry_id,)
        )

    def _request_images(self, entry_id: int, entry_index: int, entry: RequestedEntry) -> None:
        first = self.sql.execute(
            "SELECT coalesce(max(position) + 1, 0) FROM entry_images WHERE entry = ?", (entry_id,)
        ).fetchone()[0]
        self.sql.execute("UPDATE entries SET drawn_from = ? WHERE id = ?", (first, entry_id))
        for image_index, (digest, request) in enumerate(self._drawn(entry, entry_index)):
            place = entry_index, image_index
            if image := self._find(digest):
                self._keep_image(image, place, entry.priority)
                image_id = image["id"]
            else:
                image_id = self._queue(digest, request, place, entry.priority)
            self.sql.execute(
                "INSERT INTO entry_images (entry, position, image) VALUES (?, ?, ?)",
                (entry_id, first + image_index, image_id),
            )

    def _drawn(self, entry: RequestedEntry, entry_index: int) -> DigestedRequests:
        """The entry's requests; a random draw that this recipe already has is drawn again.

        Images that two draws have in common are the same whatever is drawn.
        """
        if not entry.random:
            return self._with_digests(entry.requests(None))
        if self.earlier and (requests := self.earlier.requests(entry, entry_index)):
            return self._with_digests(requests)
        before: set[str] = set()
        while True:
            drawn = self._with_digests(entry.requests(self.draw_seed()))
            known = {digest for digest, _ in drawn if self._find(digest) is not None}
            if known <= before:
                return drawn
            before = known

    def _with_digests(self, requests: Sequence[ImageRequest]) -> DigestedRequests:
        return [(request.digest, request) for request in requests]

    def _find(self, digest: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.sql.execute(
            """SELECT id, state, file, entry_index, image_index FROM images
               WHERE recipe = ? AND digest = ?""",
            (self.save.path, digest),
        ).fetchone()
        return row

    def _queue(self, digest: str, request: ImageRequest, place: Place, priority: int) -> int:
        image_id = self.sql.execute(
            """INSERT INTO images
               (recipe, digest, request, batch_key, checkpoint, state, priority, save, save_digest,
                entry_index, image_index)
               VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)""",
            (
                self.save.path,
                digest,
                request_text(request),
                request.batch_key,
                request.checkpoint_hash,
                priority,
                self.save_id,
                self.save.digest,
                *place,
            ),
        ).lastrowid
        assert image_id is not None
        self.result.queued += 1
        return image_id
