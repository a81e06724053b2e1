"""The entries of a recipe, and the images that each requests."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nsmallest
from sqlite3 import Connection, Row
from typing import Any, NamedTuple

from picowatch.files.names import is_picture_name, with_mask
from picowatch.ledger.rows import (
    Acceptance,
    RequestedEntry,
    Save,
    columns_of,
    insert_image,
    request_of,
)
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.request import ImageRequest

_SEEDS = """image_index, json_extract(request, '$.seed') AS seed,
            json_extract(request, '$.variation_seed') AS variation_seed"""
Key = tuple[str, int]  # an entry's digest, and its occurrence among equal ones
MOST_TRIED = 3  # former entries, or pictures, whose seeds are tried for an entry

REQUESTED = "EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)"
FAILED = f"state = 'failed' AND {REQUESTED}"
ATTACHED = "instr(digest, '-') = 0"  # see `detach`
# A path's folder is what is left of it once all characters but "/" are cut off its end.
ELSEWHERE = "rtrim(file, replace(file, '/', '')) != :folder || '/'"
# Of an image that ended, but is requested again.
QUEUED_ANEW = """state = 'queued', file = NULL, being_written = 0, attempts = 0, deaths = 0,
                 alone = 0, passed = 0, reason = NULL, ended = NULL, seconds = NULL,
                 listed = 0, before = NULL, why = iif(state = 'done', 'gone', state)"""


def placed(entries: Iterable[RequestedEntry]) -> dict[Key, RequestedEntry]:
    """Return a file's entries, with their places and occurrences, in the order of the file."""
    seen: Counter[str] = Counter()
    found = {}
    for place, entry in enumerate(entries):
        key = entry.digest, seen[entry.digest]
        found[key] = replace(entry, place=place, occurrence=key[1])
        seen[entry.digest] += 1
    return found


def images_of(sql: Connection, entry_id: int) -> list[Row]:
    """Return the images that an entry requests, in its order, over all draws of its seed."""
    query = """SELECT images.* FROM images JOIN entry_images ON entry_images.image = images.id
               WHERE entry_images.entry = ? ORDER BY entry_images.position"""
    return sql.execute(query, (entry_id,)).fetchall()


def last_draw(sql: Connection, entry: Row) -> list[int]:
    """Return the ids of the images that an entry's last draw requests."""
    query = "SELECT image FROM entry_images WHERE entry = ? AND position >= ? ORDER BY position"
    return [row["image"] for row in sql.execute(query, (entry["id"], entry["drawn_from"]))]


def move_images(sql: Connection, old: str, new: str, of_save: str = "") -> None:
    """Give images to a recipe's new name; `of_save`: those of this save that nobody requests."""
    which = f"recipe = :old AND (:save = '' OR (save_digest = :save AND NOT {REQUESTED}))"
    names = {"old": old, "new": new, "save": of_save}
    if is_picture_name(old):  # running images are published as they are
        query = f"SELECT id, request FROM images WHERE {which} AND state != 'running'"
        for row in sql.execute(query, names).fetchall():
            request = renamed(request_of(row), old, new)
            sql.execute(
                """UPDATE OR IGNORE images SET digest = :digest || substr(digest, 65),
                   request = :request, batch_key = :batch_key, pixels = :pixels WHERE id = :id""",
                columns_of(request) | {"id": row["id"]},
            )
    equal = f"recipe = :new AND digest IN (SELECT digest FROM images WHERE {which})"
    detach(sql, equal, {**names, "file": None})
    sql.execute(f"DELETE FROM images WHERE {equal} AND state != 'running'", names)
    sql.execute(f"UPDATE OR IGNORE images SET recipe = :new WHERE {which}", names)


def renamed(request: ImageRequest, old: str, new: str) -> ImageRequest:
    """Return a dropped picture's request under its new name."""
    return request.with_names(dict(zip(with_mask(old), with_mask(new), strict=True)))


def detach(sql: Connection, which: str, values: Mapping[str, object]) -> None:
    """Detach pictures from their requests: they stay known, but stand for none.

    One that has the same `file` now is not listed in their place.
    """
    sql.execute(
        f"""UPDATE images SET digest = digest || '-' || id, listed = listed OR file IS :file
            WHERE state = 'done' AND {ATTACHED} AND {which}""",
        values,
    )


class Former(NamedTuple):
    """An entry that is requested no more: its drawn seed, and the images of its last draw."""

    seed: int | None
    images: Sequence[int]


@dataclass(frozen=True, slots=True)
class Draw:
    """The requests of an entry."""

    requests: Sequence[ImageRequest]
    seed: int | None = None  # that was drawn, None for fixed seeds
    there: Mapping[int, Row] = field(default_factory=dict)  # images for some, by index
    why: str = "lost"  # of those that are queued
    before: Sequence[int] = ()  # the images that the entry had in their places


@dataclass
class SaveWriter:
    """Writes the entries of one save into the ledger."""

    sql: Connection
    save: Save
    save_id: int
    draw_seed: Callable[[], int]
    picture_exists: Callable[[str], bool]
    before: Mapping[Key, Row]  # the entries of the save before
    requested: Mapping[Key, RequestedEntry]
    # None for a new save. Otherwise the ledger is new, and seeds are taken from the pictures there
    # are. True: all of the save was rendered, whatever it requests now.
    restored: bool | None = None
    former: dict[int, Former] = field(default_factory=dict)  # requested no more, by their places
    result: Acceptance = field(default_factory=Acceptance)

    def write(self, kept: Mapping[Key, Row], *, redraws: bool) -> None:
        """Write what a save requests; `redraws`: random seeds of kept entries are drawn again."""
        for key, row in self.before.items():
            if key not in kept:
                self.former[row["place"]] = Former(row["seed"], last_draw(self.sql, row))
                self.sql.execute("DELETE FROM entries WHERE id = ?", (row["id"],))
        for key, entry in self.requested.items():
            if key in kept:
                self._keep(kept[key], entry, redraw=redraws and entry.random)
                continue
            columns = "recipe, digest, occurrence, place, priority, sheet"
            values = self.save.path, *key, entry.place, entry.priority, entry.sheet
            query = f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
            entry_id = self.sql.execute(query, values).lastrowid
            assert entry_id is not None
            self._request_images(entry_id, entry)

    def _keep(self, row: Row, entry: RequestedEntry, *, redraw: bool) -> None:
        """Keep an entry that is requested again; `redraw` draws its random seed again."""
        entry_id = row["id"]
        change = "UPDATE entries SET place = ?, priority = ? WHERE id = ?"
        self.sql.execute(change, (entry.place, entry.priority, entry_id))
        for image in images_of(self.sql, entry_id):
            if redraw and image["state"] == "cancelled":
                continue  # the new draw replaces it
            self._keep_image(image, entry, image["image_index"], even_if_deleted=entry.random)
        if redraw:
            earlier = last_draw(self.sql, row)
            # Of earlier draws, queued images keep their position.
            self.sql.execute(
                """DELETE FROM entry_images WHERE entry = ?
                   AND image IN (SELECT id FROM images WHERE state IN ('done', 'cancelled'))""",
                (entry_id,),
            )
            (first,) = self.sql.execute(
                """UPDATE entries SET drawn_from = (SELECT coalesce(max(position) + 1, 0)
                   FROM entry_images WHERE entry = entries.id) WHERE id = ? RETURNING drawn_from""",
                (entry_id,),
            ).fetchone()
            before = self.result.queued
            self._request_images(entry_id, entry, first, earlier)
            self.result.redrawn += self.result.queued - before

    def _keep_image(
        self, image: Row, entry: RequestedEntry, image_index: int, *, even_if_deleted: bool
    ) -> None:
        """Keep an image of an earlier save, or queue it again."""
        state = image["state"]
        is_gone = state == "done" and not even_if_deleted and not self.picture_exists(image["file"])
        if is_gone or state in ("failed", "cancelled"):
            place = entry.place, image_index
            self.sql.execute(
                f"""UPDATE images SET {QUEUED_ANEW}, priority = ?, save = ?, save_digest = ?,
                   entry_index = ?, image_index = ?
                   WHERE id = ? AND state IN ('done', 'failed', 'cancelled')""",
                (entry.priority, self.save_id, self.save.digest, *place, image["id"]),
            )
            self.result.queued += 1
            self.result.gone += is_gone
            return
        # An unfinished image keeps its place: pictures are named in the order of the recipe.
        self.result.kept += 1
        if state == "done":
            self.result.existing.append((image["ended"] or 0.0, image["file"]))

    def _request_images(
        self, entry_id: int, entry: RequestedEntry, first: int = 0, earlier: Sequence[int] = ()
    ) -> None:
        """Request an entry's images from position `first` on, in place of the `earlier` images."""
        draw = self._drawn(entry)
        if earlier:
            draw = replace(draw, why="redrawn", before=earlier)
        if entry.random:
            self.sql.execute("UPDATE entries SET seed = ? WHERE id = ?", (draw.seed, entry_id))
        save = self.save
        of_save = {"recipe": save.path, "save": self.save_id, "save_digest": save.digest}
        for at, request in enumerate(draw.requests):
            if image := self._find(request.digest) or draw.there.get(at):
                self._keep_image(image, entry, at, even_if_deleted=draw.why == "more")
                image_id = image["id"]
            elif self.restored:
                continue
            else:
                self.result.queued += 1
                before = draw.before[at % len(draw.before)] if draw.before else None
                why = {"state": "queued", "why": draw.why, "before": before}
                of_entry = {"priority": entry.priority, "entry_digest": entry.name}
                place = {"entry_index": entry.place, "image_index": at}
                image_id = insert_image(self.sql, request, **of_save, **of_entry, **place, **why)
            query = "INSERT OR IGNORE INTO entry_images (entry, position, image) VALUES (?, ?, ?)"
            self.sql.execute(query, (entry_id, first + at, image_id))

    def _drawn(self, entry: RequestedEntry) -> Draw:
        """Return what an entry requests that was not in the save before, or is drawn again."""
        why = "new" if self.before else "first"
        from_end = entry.place + len(self.before) - len(self.requested)
        before: Sequence[int] = ()
        if self.restored is not None:
            if draw := self._drawn_before(entry):
                return draw
            why = "lost"
        elif entry.random and (draw := self._drawn_as_former(entry)):
            return draw
        elif former := self.former.get(entry.place) or self.former.get(from_end):
            why, before = "reseeded" if entry.random else "changed", former.images
        if not entry.random:
            return Draw(entry.requests(None), why=why, before=before)
        known: set[str] = set()
        while True:  # seeds are drawn again if this recipe has images that depend on them
            seed = self.draw_seed()
            drawn, had = entry.requests(seed), known
            known = {request.digest for request in drawn if self._find(request.digest)}
            if known <= had:
                return Draw(drawn, seed, why=why, before=before)

    def _drawn_as_former(self, entry: RequestedEntry) -> Draw | None:
        """Return the draw with the seed of the entry that this was, if it shares images with it.

        It does so, too, if only the file's format and the like differ. The nearest entries, from
        the file's beginning or end, are tried; equal ones have their own seeds.
        """

        fewer = len(self.before) - len(self.requested)

        def distance(place: int) -> int:
            ahead = place - entry.place
            return min(abs(ahead), abs(ahead - fewer))

        seeded = (place for place, former in self.former.items() if former.seed is not None)
        for place in nsmallest(MOST_TRIED, seeded, distance):
            seed, images = self.former[place]
            drawn = entry.requests(seed)
            why = "more" if self._has_any(drawn) else "changed"
            first = images[0] if images else None
            query = "SELECT request FROM images WHERE id = ?"
            rows = self.sql.execute(query, (first,)).fetchall()
            alike = (drawn[0].in_format_of(request_of(row)) for row in rows)
            if why == "more" or self._has_any(alike):
                del self.former[place]
                return Draw(drawn, seed, why=why, before=images)
        return None

    def _drawn_before(self, entry: RequestedEntry) -> Draw | None:
        """Return the entry's newest draw of which an image was rendered, or None.

        An image is known by its entry. If that reads otherwise than then, because of a template, a
        `_defaults.yaml` or wildcards, an image of the same bytes is known by its place, and by its
        seeds if these were drawn. Lists of earlier versions have places alone. Last come the images
        of the nearest entries that are gone: a changed entry has its seed from what it was.
        """
        rows = self.sql.execute(
            f"""SELECT id, state, file, ended, digest, save_digest, {_SEEDS},
                      entry_digest IN (:entry, '') OR save_digest = :save AS is_own
               FROM images WHERE recipe = :recipe AND {ATTACHED}
               AND (entry_digest = :entry OR entry_index = :place)
               ORDER BY variation_seed IS NULL, id DESC""",
            {"recipe": self.save.path, "save": self.save.digest}
            | {"entry": entry.name, "place": entry.place},
        ).fetchall()
        same = [row for row in rows if row["save_digest"] == self.save.digest]
        there = {row["image_index"]: row for row in reversed(same)}
        if not entry.random:
            return Draw(entry.requests(None), there=there)
        own = [row for row in rows if row["is_own"]]
        # Compared at its place: with another first seed, a sweep has some equal images.
        if draw := _first_draw(own, entry, lambda request, row: request.digest == row["digest"]):
            return draw
        if draw := _first_draw(same, entry, _has_seeds):
            fits = {
                at: there[at]
                for at, request in enumerate(draw.requests)
                if at in there and _has_seeds(request, there[at])
            }
            return replace(draw, there=fits)
        for place in nsmallest(MOST_TRIED, self._gone, lambda gone: abs(gone - entry.place)):
            for row in self._gone[place][:MOST_TRIED]:
                draw = _first_draw([row], entry, lambda *_: True)
                if draw and self._has_any(draw.requests):
                    del self._gone[place]
                    return draw
        return None

    @cached_property
    def _gone(self) -> dict[int, list[Row]]:
        """The pictures of entries that are not requested, by place; best at telling seeds first."""
        found, names = defaultdict(list), {entry.name for entry in self.requested.values()}
        for row in self.sql.execute(
            f"""SELECT entry_index, entry_digest, {_SEEDS} FROM images
               WHERE recipe = ? AND save_digest != ? AND {ATTACHED}
               ORDER BY variation_seed IS NULL, image_index, id DESC""",
            (self.save.path, self.save.digest),
        ):
            if row["entry_digest"] not in names:
                found[row["entry_index"]].append(row)
        return found

    def _has_any(self, drawn: Iterable[ImageRequest]) -> bool:
        return any(self._find(request.digest) for request in drawn)

    def _find(self, digest: str) -> Row | None:
        query = "SELECT id, state, file, ended FROM images WHERE recipe = ? AND digest = ?"
        row: Row | None = self.sql.execute(query, (self.save.path, digest)).fetchone()
        return row


def _first_draw(
    rows: Iterable[Row], entry: RequestedEntry, fits: Callable[[ImageRequest, Any], bool]
) -> Draw | None:
    """Return the draw of an entry that has the first image which fits at its place."""
    for row in rows:
        at, guess = row["image_index"], row["seed"]
        if at >= len(drawn := entry.requests(guess)):
            continue
        for name in ("variation_seed", "seed"):  # fixed, or growing with the drawn seed
            if None not in (had := getattr(drawn[at], name), row[name]):
                seed = (guess + row[name] - had) % SEEDS
                if fits((wanted := entry.requests(seed))[at], row):
                    return Draw(wanted, seed)
    return None


def _has_seeds(request: ImageRequest, row: Any) -> bool:
    return (request.seed, request.variation_seed) == (row["seed"], row["variation_seed"])
