"""Queries: recipes and their states, counts, outcomes; and what was measured of batches."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from sys import intern

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.entries import FAILED
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.queue import OF_ONLY
from picowatch.ledger.rows import (
    KnownRecipe,
    Outcome,
    QueuedImage,
    SizeAndTime,
)

MOST_ALIKE = 20


def known_recipes(ledger: Ledger) -> dict[str, KnownRecipe]:
    """Return each recipe of the inbox whose last save was accepted or refused."""
    return _recipes(ledger, "")


def known_recipe(ledger: Ledger, recipe: str) -> KnownRecipe | None:
    """Return the recipe as of its last save, or None."""
    return _recipes(ledger, "AND path = ?", recipe).get(recipe)


def known_in(ledger: Ledger, name: str) -> dict[str, KnownRecipe]:
    """Return the recipe of this name, or all recipes in the folder of this name."""
    return _recipes(ledger, "AND (path = ? OR (path > ? AND path < ?))", name, *_below(name))


def with_version(ledger: Ledger, digest: str, size_and_time: SizeAndTime) -> dict[str, KnownRecipe]:
    """Return recipes of the inbox that had these bytes and this time, the same inode first.

    Of more than MOST_ALIKE only some, as each is looked up: copies may keep times.
    """
    version = f"{size_and_time.size} {size_and_time.mtime_ns}"
    return _recipes(
        ledger,
        """AND digest = ? AND size_and_time > ? AND size_and_time < ?
           ORDER BY size_and_time = ? DESC LIMIT ?""",
        *(digest, f"{version} ", f"{version}!", size_and_time.as_text(), MOST_ALIKE),
    )


def _recipes(ledger: Ledger, which: str, *values: object) -> dict[str, KnownRecipe]:
    rows = ledger.select(f"SELECT * FROM recipes WHERE outcome != 'archived' {which}", values)
    return {row["path"]: _known(row) for row in rows}


def seen_in(ledger: Ledger, folder: str, recipes: Iterable[str]) -> None:
    """Record that these recipes were seen in the folder that is the inbox now."""
    ledger.change_each(
        "UPDATE recipes SET folder = ? WHERE path = ?",
        ((folder, recipe) for recipe in recipes),
    )


def is_waited_for(ledger: Ledger, waits_for: str) -> bool:
    """Whether a recipe waits for a change of this state."""
    return bool(ledger.select("SELECT 1 FROM recipes WHERE waits_for = ? LIMIT 1", (waits_for,)))


def problems(ledger: Ledger, most: int) -> tuple[list[str], int, int]:
    """Return the newest problems, oldest first, their number, and that of refused recipes."""
    rows = ledger.select(
        """SELECT problem FROM recipes WHERE problem IS NOT NULL
           ORDER BY save DESC LIMIT ?""",
        (most,),
    )
    ((count, refused),) = ledger.select(
        """SELECT count(*), coalesce(sum(outcome = 'refused'), 0) FROM recipes
           WHERE problem IS NOT NULL"""
    )
    return [row["problem"] for row in reversed(rows)], count, refused


def batch_sizes(ledger: Ledger) -> dict[str, str]:
    """Return what was measured of batches, as JSON, by the kind of their images."""
    return {row["alike"]: row["measured"] for row in ledger.select("SELECT * FROM batch_sizes")}


def note_batch_size(ledger: Ledger, alike: str, measured: str) -> None:
    """Record what was measured of batches of images that are alike."""
    ledger.change("INSERT OR REPLACE INTO batch_sizes VALUES (?, ?)", (alike, measured))


def queued_recipes(ledger: Ledger) -> list[tuple[str, str, int]]:
    """Return recipes, kinds and their numbers of queued images, in the order of the first ones.

    A kind is a `batch_key`: its images can be rendered together. Priorities and saves decide
    the order, not the order within a file. The index has everything but the recipe, which is
    read from one image per save and kind; finished images are not read.
    """
    rows = ledger.select(
        """WITH queued AS (
           SELECT batch_key, priority, save, count(*) AS images, min(id) AS first
           FROM images INDEXED BY images_alike WHERE state = 'queued'
           GROUP BY batch_key, priority, save
        )
        SELECT recipe, queued.batch_key, queued.images FROM queued
        JOIN images ON images.id = first ORDER BY queued.priority DESC, queued.save"""
    )
    return [(recipe, kind, count) for recipe, kind, count in rows]


def outcome(ledger: Ledger, recipe: str, digest: str) -> Outcome | None:
    """Return the outcome of the newest save with these bytes; None if there was none."""
    with ledger.transaction():
        saves = ledger.select(
            """SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ?
               ORDER BY id DESC LIMIT 1""",
            (recipe, digest),
        )
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
    rows = ledger.select(
        """SELECT 1 FROM images WHERE recipe > ? AND recipe < ?
           AND state IN ('queued', 'running') LIMIT 1""",
        _below(folder),
    )
    return bool(rows)


def outcomes_below(ledger: Ledger, folder: str, since: int) -> dict[str, Outcome]:
    """Return the outcomes of the last saves of the recipes in a folder and below.

    Archived recipes are included if they were saved after the save `since`.
    """
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
        is_valid = images[0]["outcome"] in ("accepted", "archived")
        found[path] = _outcome(images, valid=is_valid)
    return found


def counts(ledger: Ledger) -> Counter[str]:
    """Return the numbers of all images by state."""
    rows = ledger.select("SELECT state, images FROM tallies")
    return Counter({row["state"]: row["images"] for row in rows})


def queued(ledger: Ledger, only: Sequence[str]) -> int:
    """Return how many images are queued; with `only`, of these recipes and folders."""
    if not only:
        return counts(ledger)["queued"]
    query = f"SELECT count(*) FROM images WHERE state = 'queued' AND {OF_ONLY}"
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
    rows = ledger.select(
        f"""SELECT * FROM images WHERE recipe = ? AND {FAILED}
            ORDER BY entry_index, image_index""",
        (recipe,),
    )
    return [(QueuedImage.of(row), row["reason"]) for row in rows]


def _below(folder: str) -> tuple[str, str]:
    """Return two texts between which paths in a folder sort: "0" follows "/" in ASCII."""
    return f"{folder}/", f"{folder}0"


def _outcome(images: Sequence[sqlite3.Row], *, valid: bool) -> Outcome:
    states = Counter(image["state"] for image in images)
    return Outcome(
        valid=valid,
        pictures=tuple(image["file"] for image in images if image["state"] == "done"),
        unfinished=states["queued"] + states["running"],
        failed=states["failed"],
        cancelled=states["cancelled"],
    )


def _known(row: sqlite3.Row) -> KnownRecipe:
    try:
        size_and_time = SizeAndTime.from_text(row["size_and_time"])
    except (TypeError, ValueError) as error:
        words = f"The ledger is damaged: a recipe's size and time are not valid: {error}."
        raise LedgerCorrupt(words) from error
    return KnownRecipe(
        size_and_time,
        row["digest"],
        intern(row["outcome"]),  # thousands of rows share these values
        intern(row["folder"]),
        intern(row["template"]),
        row["waits_for"],
        row["problem"],
        row["again"],
    )
