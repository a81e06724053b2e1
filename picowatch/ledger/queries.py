"""Queries: recipes, counts, outcomes, reasons; and what was measured of batches."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from sqlite3 import Connection, Row
from sys import intern
from typing import Any

from picowatch.ledger.account import REFUSED
from picowatch.ledger.entries import ATTACHED, FAILED
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.queue import OF_ONLY
from picowatch.ledger.rows import (
    KnownRecipe,
    Outcome,
    PassRate,
    QueuedImage,
    SizeAndTime,
    request_of,
)
from picowatch.recipe.request import COPIES, ImageRequest

MOST_ALIKE = 20


def known_recipes(ledger: Ledger) -> dict[str, KnownRecipe]:
    """Return each recipe of the inbox whose last save was accepted or refused."""
    return _recipes(ledger, "")


def known_paths(ledger: Ledger) -> set[str]:
    """Return every recipe and dropped picture that was saved, archived recipes, too."""
    return {row["path"] for row in ledger.select("SELECT path FROM recipes")}


def done_images(ledger: Ledger, files: Iterable[str]) -> dict[str, Row]:
    """Return the images whose pictures these are, by file. All images are read for it."""
    rows = ledger.select(
        f"""SELECT id, recipe, file, entry_digest, ended, listed FROM images
            WHERE state = 'done' AND file IN (SELECT value FROM json_each(?))
            ORDER BY {ATTACHED}, ended""",  # the last one has replaced the others
        (json.dumps([*files]),),
    )
    return {row["file"]: row for row in rows}


def files_in(ledger: Ledger, folder: str) -> set[str]:
    """Return the files in a folder of the outbox that images and contact sheets have, or had."""
    query = """SELECT file FROM (SELECT file FROM images UNION SELECT file FROM sheets)
               WHERE file > ? AND file < ?"""
    return {row["file"] for row in ledger.select(query, _below(folder))}


def being_written(ledger: Ledger) -> set[str]:
    """Return the pictures of images that are being published."""
    query = """SELECT file FROM images INDEXED BY images_running
               WHERE state = 'running' AND being_written"""
    return {row["file"] for row in ledger.select(query)}


def known_recipe(ledger: Ledger, recipe: str) -> KnownRecipe | None:
    """Return the recipe as of its last save, or None."""
    return _recipes(ledger, "AND path = ?", recipe).get(recipe)


def known_in(ledger: Ledger, name: str) -> dict[str, KnownRecipe]:
    """Return the recipe of this name, or all recipes in the folder of this name."""
    return _recipes(ledger, "AND (path = ? OR (path > ? AND path < ?))", name, *_below(name))


def with_version(ledger: Ledger, digest: str, size_and_time: SizeAndTime) -> dict[str, KnownRecipe]:
    """Return at most MOST_ALIKE recipes that had these bytes and time, the same inode first."""
    version = f"{size_and_time.size} {size_and_time.mtime_ns}"
    return _recipes(
        ledger,
        """AND digest = ? AND size_and_time > ? AND size_and_time < ?
           ORDER BY size_and_time GLOB ? DESC LIMIT ?""",
        *(digest, f"{version} ", f"{version}!", f"{version} {size_and_time.inode} *", MOST_ALIKE),
    )


def _recipes(ledger: Ledger, which: str, *values: object) -> dict[str, KnownRecipe]:
    columns = ", ".join(KnownRecipe._fields)
    query = f"SELECT path, {columns} FROM recipes WHERE outcome != 'archived' {which}"
    rows, known = deque(ledger.select(query, values)), dict[str, KnownRecipe]()
    while rows:  # each is freed as it is read: there may be thousands
        path, version, digest, outcome, inbox_id, template, *rest = rows.popleft()
        shared = intern(outcome), intern(inbox_id), intern(template)  # by thousands of rows
        known[path] = KnownRecipe(SizeAndTime.from_text(version), digest, *shared, *rest)
    return known


def recipes_that_are(ledger: Ledger, outcome: str) -> set[str]:
    """Return the refused recipes, or those that are done and were archived."""
    rows = ledger.select("SELECT path FROM recipes WHERE outcome = ?", (outcome,))
    return {row["path"] for row in rows}


def seen(ledger: Ledger, inbox_id: str, versions: Iterable[tuple[str, SizeAndTime]]) -> None:
    """Record where these recipes, whose bytes are the same as before, were seen last."""
    rows = ((inbox_id, version.as_text(), path) for path, version in versions)
    ledger.change_each("UPDATE recipes SET inbox_id = ?, size_and_time = ? WHERE path = ?", rows)


def lacks_prompts(ledger: Ledger, template: str, digest: str) -> bool:
    """Whether pictures below a template with this digest were refused for want of a prompt."""
    query = """SELECT 1 FROM recipes WHERE path > ? AND path < ? AND template = ?
               AND outcome = 'refused' AND problem IS NULL LIMIT 1"""
    return bool(ledger.select(query, (*_below(template.rpartition("/")[0]), digest)))


def problems(ledger: Ledger, most: int) -> tuple[list[str], int, int]:
    """Return the newest problems, oldest first, their number, and that of refused files."""
    query = "SELECT problem FROM recipes WHERE problem IS NOT NULL ORDER BY problem_at DESC LIMIT ?"
    rows = ledger.select(query, (most,))
    query = f"SELECT count(problem), count(*) FILTER (WHERE {REFUSED}) FROM recipes"
    ((count, refused),) = ledger.select(query)
    return [row["problem"] for row in reversed(rows)], count, refused


def named_pictures(ledger: Ledger) -> set[str]:
    """Return the paths below the inbox where pictures may be that recipes named; few are read."""
    rows = ledger.select(
        """SELECT recipe, request FROM images WHERE id IN (
               SELECT min(image) FROM start_images JOIN images ON images.id = image
               GROUP BY recipe, picture)"""
    )
    named = {
        (row["recipe"].rpartition("/")[0], path)
        for row in rows
        for path in request_of(row).pictures
    }
    beside = {f"{folder}/{path}" for folder, path in named if folder}
    return beside.union(path.removeprefix("inbox/") for _, path in named)


def batch_sizes(ledger: Ledger) -> dict[str, str]:
    """Return what was measured of batches, as JSON, by the kind of their images."""
    return {row["alike"]: row["measured"] for row in ledger.select("SELECT * FROM batch_sizes")}


def note_batch_size(ledger: Ledger, alike: str, measured: str) -> None:
    ledger.change("INSERT OR REPLACE INTO batch_sizes VALUES (?, ?)", (alike, measured))


def pass_rates(ledger: Ledger) -> dict[PassRate, float]:
    """Return how long passes take, those that were measured last at the end."""
    rows = ledger.select("SELECT * FROM pass_rates ORDER BY rowid")
    return {PassRate(*key): seconds for *key, seconds in rows}


def note_pass_rates(ledger: Ledger, rates: Mapping[PassRate, float]) -> None:
    rows = ((*key, seconds) for key, seconds in rates.items())
    ledger.change_each("INSERT OR REPLACE INTO pass_rates VALUES (?, ?, ?, ?, ?)", rows)


def queued_recipes(ledger: Ledger, shares: Mapping[str, float]) -> list[Row]:
    """Return the recipes of queued images that are alike, in the order of the first ones.

    With each come the `batch_key`, the number of images, their mean pixels, and the id of one of
    them. The order within a file does not count. The index has everything; no image is read.
    """
    rows = ledger.select(
        """SELECT recipe, batch_key, count(*) AS images, avg(pixels), max(id), priority, folder
           FROM images INDEXED BY images_alike
           WHERE state = 'queued' GROUP BY batch_key, folder, priority, save
           ORDER BY priority DESC, save"""
    )
    # As `Turns` has it. Not by a window of the query, which would hold the lock longer.
    starts: dict[tuple[int, str], float] = {}
    order: list[tuple[int, float]] = []
    for row in rows:
        priority, folder = row["priority"], row["folder"]
        start = starts.get((priority, folder), 0.0)
        starts[priority, folder] = start + row["images"] / shares.get(folder, 1.0)
        order.append((-priority, start))
    return [row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]


def requests(ledger: Ledger, ids: Iterable[int]) -> dict[int, ImageRequest]:
    """Return the requests of these images that are there, by id."""
    query = "SELECT id, request FROM images WHERE id IN (SELECT value FROM json_each(?))"
    rows = ledger.select(query, (json.dumps([*ids]),))
    return {row["id"]: request_of(row) for row in rows}


def outcome(ledger: Ledger, recipe: str, digest: str) -> Outcome | None:
    """Return the outcome of the newest save with these bytes; None if there was none."""
    with ledger.transaction():
        query = """SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ?
                   ORDER BY id DESC LIMIT 1"""
        saves = ledger.select(query, (recipe, digest))
        if not saves:
            return None
        save = saves[0]["id"]
        images = ledger.select(
            """SELECT state, file FROM images
               LEFT JOIN entry_images ON entry_images.image = images.id
               LEFT JOIN entries ON entries.id = entry_images.entry
               WHERE images.recipe = :recipe
               AND (images.save = :save OR (
                   entries.recipe = :recipe AND position >= drawn_from
                   AND EXISTS (SELECT 1 FROM recipes WHERE path = :recipe AND save = :save)))
               GROUP BY images.id
               ORDER BY min(coalesce(place, entry_index)),
                        min(coalesce(position, image_index))""",
            {"recipe": recipe, "save": save},
        )
    return _outcome(images, valid=saves[0]["outcome"] == "accepted")


def last_save(ledger: Ledger) -> int:
    """Return the id of the newest save; 0 before the first."""
    ((last,),) = ledger.select("SELECT coalesce(max(id), 0) FROM saves")
    return int(last)


def is_unfinished_below(ledger: Ledger, folder: str) -> bool:
    """Whether images of recipes in this folder or below are queued or running."""
    query = """SELECT 1 FROM images WHERE recipe > ? AND recipe < ?
               AND state IN ('queued', 'running') LIMIT 1"""
    return bool(ledger.select(query, _below(folder)))


def outcomes_below(ledger: Ledger, folder: str, since: int) -> dict[str, Outcome]:
    """Return outcomes of recipes below a folder, of archived ones if saved after `since`."""
    first, end = _below(folder)
    rows = ledger.select(
        """SELECT path, recipes.outcome, state, file FROM recipes
           LEFT JOIN entries ON entries.recipe = path
           LEFT JOIN entry_images ON entry = entries.id AND position >= drawn_from
           LEFT JOIN images ON images.id = image
           WHERE path > :first AND path < :end
           AND (recipes.outcome != 'archived' OR recipes.save > :since)
           ORDER BY path, place, position""",
        {"first": first, "end": end, "since": since},
    )
    found = {}
    for path, group in groupby(rows, key=lambda row: row["path"]):
        images = list(group)
        found[path] = _outcome(images, valid=images[0]["outcome"] != "refused")
    return found


def counts(ledger: Ledger) -> Counter[str]:
    rows = ledger.select("SELECT state, images FROM tallies")
    return Counter({row["state"]: row["images"] for row in rows})


def queued(ledger: Ledger, only: Sequence[str], *, copies: bool = False) -> int:
    """Return how many images are queued; with `only`, of these recipes and folders.

    `copies`: those alone that need no model.
    """
    if not (only or copies):
        return counts(ledger)["queued"]
    which = [f"batch_key = '{COPIES}'"] * copies + [OF_ONLY] * bool(only)
    query = f"SELECT count(*) FROM images WHERE state = 'queued' AND {' AND '.join(which)}"
    ((count,),) = ledger.select(query, {"only": json.dumps(only)})
    return int(count)


def requested(ledger: Ledger, name: str) -> Counter[str]:
    """Return how many images of each state a recipe requests, or all recipes in a folder."""
    rows = ledger.select(
        """SELECT state, count(DISTINCT images.id) FROM entries
           JOIN entry_images ON entry_images.entry = entries.id
           JOIN images ON images.id = entry_images.image
           WHERE entries.recipe = ? OR (entries.recipe > ? AND entries.recipe < ?)
           GROUP BY state""",
        (name, *_below(name)),
    )
    return Counter(dict(map(tuple, rows)))


def failures(ledger: Ledger, recipe: str) -> list[tuple[QueuedImage, str]]:
    """Return the failed images that the last valid save requests, with their reasons."""
    query = f"SELECT * FROM images WHERE recipe = ? AND {FAILED} ORDER BY entry_index, image_index"
    return [(QueuedImage.of(row), row["reason"]) for row in ledger.select(query, (recipe,))]


def _below(folder: str) -> tuple[str, str]:
    """Return two texts between which paths in a folder sort: "0" follows "/" in ASCII."""
    return f"{folder}/", f"{folder}0"


def _outcome(images: Sequence[Row], *, valid: bool) -> Outcome:
    states = Counter(image["state"] for image in images)
    return Outcome(
        valid=valid,
        pictures=tuple(image["file"] for image in images if image["state"] == "done"),
        unfinished=states["queued"] + states["running"],
        failed=states["failed"],
        cancelled=states["cancelled"],
    )


# -- why images were requested, for `picowatch show --why`

# The columns of `images`, with the `request` itself; the `picture`, if it was drawn; the `rule` by
# which it was queued, of commands/show.py; and what is known of the save.
Image = Mapping[str, Any]

_WITH_SAVES = """
    SELECT images.*, saved_at, saves.why AS noticed, template,
        iif(state = 'done', file, NULL) AS picture, images.why AS rule
    FROM images LEFT JOIN saves ON saves.id = save"""
_FOUND = (
    f"""{_WITH_SAVES} JOIN entry_images ON image = images.id JOIN entries ON entry = entries.id
        WHERE entries.recipe = :recipe ORDER BY place, position""",
    f"""{_WITH_SAVES} WHERE images.recipe = :its_recipe AND substr(images.digest, 1, 64) = :digest
        ORDER BY file = :file DESC, ended DESC LIMIT 1""",
    f"{_WITH_SAVES} WHERE file = :file ORDER BY state = 'done' DESC, ended DESC LIMIT 1",
)
# What nobody noted is the newest image that was requested in this place before.
_BEFORE = f"""{_WITH_SAVES} WHERE images.id = coalesce(:before, (
    SELECT id FROM images WHERE :why IN ('', 'lost') AND recipe = :recipe
    AND entry_index = :entry_index AND image_index = :image_index AND (save, id) < (:save, :id)
    ORDER BY save DESC, id DESC LIMIT 1))"""


def requested_images(sql: Connection, **names: str) -> list[Image]:
    """Return the images that a `recipe` requests, or that of a picture.

    A picture is known by its metadata's recipe and digest, or by its `file`, which may be gone.
    """
    return next(filter(None, (_rows(sql, query, names) for query in _FOUND)), [])


def image_before(sql: Connection, image: Image) -> Image | None:
    """Return the image that its entry requested before in its place, if there was one."""
    return next(iter(_rows(sql, _BEFORE, image)), None)


def _rows(sql: Connection, query: str, values: Image) -> list[Image]:
    return [{**row, "request": request_of(row)} for row in sql.execute(query, values)]
