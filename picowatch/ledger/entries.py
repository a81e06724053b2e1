"""The entries of a recipe, and the images that each requests."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from picowatch.ledger.rows import (
    Acceptance,
    RequestedEntry,
    Save,
    columns_of,
    insert_image,
)
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.recipe import variation_seed_of
from picowatch.recipe.request import ImageRequest

Key = tuple[str, int]  # an entry's digest, and its occurrence among equal ones
Place = tuple[int, int]  # an entry's index in its file, and an image's in its entry

FAILED = """state = 'failed'
            AND EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)"""
# Of an image that ended, but is requested again.
QUEUED_ANEW = """state = 'queued', file = NULL, drawn = 0, attempts = 0, deaths = 0, alone = 0,
                 passed = 0, reason = NULL, listed = 0"""


def keys_of(digests: Iterable[str]) -> list[Key]:
    """Return the keys of a file's entries, from their digests in the order of the file."""
    seen: Counter[str] = Counter()
    keys = []
    for digest in digests:
        keys.append((digest, seen[digest]))
        seen[digest] += 1
    return keys


def entry_digest(key: Key) -> str:
    """Return the digest by which a picture's entry is found; the second of equal ones has `-1`."""
    digest, occurrence = key
    return f"{digest}-{occurrence}" if occurrence else digest


def images_of(sql: sqlite3.Connection, entry_id: int) -> list[sqlite3.Row]:
    """Return the images that an entry requests, in its order, over all draws of its seed."""
    return sql.execute(
        """SELECT images.* FROM images JOIN entry_images ON entry_images.image = images.id
           WHERE entry_images.entry = ? ORDER BY entry_images.position""",
        (entry_id,),
    ).fetchall()


@dataclass
class SaveWriter:
    """Writes the entries of one save into the ledger."""

    sql: sqlite3.Connection
    save: Save
    save_id: int
    draw_seed: Callable[[], int]
    picture_exists: Callable[[str], bool]
    is_restored: bool = False  # the ledger is new: seeds are taken from the pictures there are
    result: Acceptance = field(default_factory=Acceptance)

    def add(self, key: Key, entry_index: int, entry: RequestedEntry) -> None:
        entry_id = self.sql.execute(
            """INSERT INTO entries (recipe, digest, occurrence, place, priority, sheet)
               VALUES (?, ?, ?, ?, ?, ?)""",
            (self.save.path, *key, entry_index, entry.priority, entry.sheet),
        ).lastrowid
        assert entry_id is not None
        self._request_images(entry_id, key, entry_index, entry, 0)

    def keep(
        self, entry_id: int, key: Key, entry_index: int, entry: RequestedEntry, *, redraw: bool
    ) -> None:
        """Keep an entry that is requested again; `redraw` draws its random seed again."""
        self.sql.execute(
            "UPDATE entries SET place = ?, priority = ? WHERE id = ?",
            (entry_index, entry.priority, entry_id),
        )
        for image in images_of(self.sql, entry_id):
            if redraw and image["state"] == "cancelled":
                continue  # the new draw replaces it
            place = entry_index, image["image_index"]
            self._keep_image(image, place, entry.priority, even_if_deleted=entry.random)
        if redraw:
            self._forget_ended(entry_id)
            before = self.result.queued
            self._request_images(entry_id, key, entry_index, entry, self._draw_from(entry_id))
            self.result.redrawn += self.result.queued - before

    def _keep_image(
        self, image: sqlite3.Row, place: Place, priority: int, *, even_if_deleted: bool = False
    ) -> None:
        """Keep an image of an earlier save, or queue it again.

        It is queued again if it failed, was cancelled, or its picture is gone. An unfinished one
        keeps its place in the queue, because pictures are named in the order of the recipe.
        """
        state = image["state"]
        is_gone = state == "done" and not even_if_deleted and not self.picture_exists(image["file"])
        if is_gone or state in ("failed", "cancelled"):
            self.sql.execute(
                f"""UPDATE images SET {QUEUED_ANEW}, priority = ?, save = ?, save_digest = ?,
                   entry_index = ?, image_index = ?
                   WHERE id = ? AND state IN ('done', 'failed', 'cancelled')""",
                (priority, self.save_id, self.save.digest, *place, image["id"]),
            )
            self.result.queued += 1
            self.result.gone += is_gone
            return
        self.result.kept += 1
        if state == "done":
            self.result.existing += (image["file"],)

    def _forget_ended(self, entry_id: int) -> None:
        """Forget earlier draws that are done or cancelled; queued ones keep their position."""
        self.sql.execute(
            """DELETE FROM entry_images WHERE entry = ?
               AND image IN (SELECT id FROM images WHERE state IN ('done', 'cancelled'))""",
            (entry_id,),
        )

    def _draw_from(self, entry_id: int) -> int:
        """Record and return the position at which a new draw of the entry begins."""
        first: int = self.sql.execute(
            "SELECT coalesce(max(position) + 1, 0) FROM entry_images WHERE entry = ?", (entry_id,)
        ).fetchone()[0]
        self.sql.execute("UPDATE entries SET drawn_from = ? WHERE id = ?", (first, entry_id))
        return first

    def _request_images(
        self, entry_id: int, key: Key, entry_index: int, entry: RequestedEntry, first: int
    ) -> None:
        for image_index, request in enumerate(self._drawn(entry, key, entry_index)):
            place = entry_index, image_index
            if image := self._find(request.digest):
                self._keep_image(image, place, entry.priority)
                image_id = image["id"]
            else:
                image_id = self._queue(request, key, place, entry.priority)
            self.sql.execute(
                "INSERT INTO entry_images (entry, position, image) VALUES (?, ?, ?)",
                (entry_id, first + image_index, image_id),
            )

    def _drawn(self, entry: RequestedEntry, key: Key, entry_index: int) -> Sequence[ImageRequest]:
        """Return the entry's requests.

        Seeds are drawn again if this recipe already has their images; images that do not depend on
        the seed are the same in each draw.
        """
        if not entry.random:
            return entry.requests(None)
        if self.is_restored and (drawn := self._drawn_before(entry, key, entry_index)):
            return drawn
        before: set[str] = set()
        while True:
            drawn = entry.requests(self.draw_seed())
            known = {one.digest for one in drawn if self._find(one.digest) is not None}
            if known <= before:
                return drawn
            before = known

    def _drawn_before(
        self, entry: RequestedEntry, key: Key, entry_index: int
    ) -> Sequence[ImageRequest]:
        """Return the entry's images as they were drawn last, if one was rendered; else none.

        Pictures of earlier versions do not say of which entry they are, only its place. Image i has
        seed+i, but a sweep's images all have the first seed, so both are tried. With a variation
        seed, either of the two may be the one that was drawn.
        """
        rows = self.sql.execute(
            """SELECT digest, image_index, json_extract(request, '$.seed') AS seed,
                      json_extract(request, '$.variation_seed') AS variation_seed
               FROM images WHERE recipe = :recipe
               AND (entry_digest = :entry OR (entry_digest = '' AND entry_index = :place))
               ORDER BY entry_digest = '', variation_seed IS NULL, id DESC""",
            {"recipe": self.save.path, "entry": entry_digest(key), "place": entry_index},
        ).fetchall()
        for row in rows:
            at, seeds = row["image_index"], [row["seed"]]
            if row["variation_seed"] is not None:
                seeds.append(variation_seed_of(row["variation_seed"]))
            for seed in (*((seed - at) % SEEDS for seed in seeds), *seeds):
                drawn = entry.requests(seed)
                # Compared at its place: with another first seed, a sweep has some equal images.
                if at < len(drawn) and drawn[at].digest == row["digest"]:
                    return drawn
        return ()

    def _find(self, digest: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.sql.execute(
            "SELECT id, state, file FROM images WHERE recipe = ? AND digest = ?",
            (self.save.path, digest),
        ).fetchone()
        return row

    def _queue(self, request: ImageRequest, key: Key, place: Place, priority: int) -> int:
        columns = columns_of(request) | {
            "recipe": self.save.path,
            "state": "queued",
            "priority": priority,
            "save": self.save_id,
            "save_digest": self.save.digest,
            "entry_index": place[0],
            "image_index": place[1],
            "entry_digest": entry_digest(key),
        }
        self.result.queued += 1
        return insert_image(self.sql, columns, request)
