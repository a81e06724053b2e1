"""Queries: recipes and their states, counts, outcomes; and commands: cancel, retry, pause."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from sys import intern

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.accept import UNFINISHED
from picowatch.ledger.database import Database
from picowatch.ledger.entries import QUEUED_ANEW
from picowatch.ledger.queue import OF_ONLY
from picowatch.ledger.rows import (
    KnownRecipe,
    Outcome,
    QueuedImage,
    SizeAndTime,
    WaitingCommand,
)

FAILED = """state = 'failed'
            AND EXISTS (SELECT 1 FROM entry_images WHERE entry_images.image = images.id)"""
_OF_THESE = "recipe IN (SELECT value FROM json_each(:recipes))"
MOST_ALIKE = 20
KEPT_SECONDS = 31 * 24 * 3600.0  # for saves, and for recipes that were archived


class Questions(Database):
    """Answers the daemon's questions, and makes the changes that commands ask for."""

    def known_recipes(self) -> dict[str, KnownRecipe]:
        """Return each recipe of the inbox whose last save was accepted or refused."""
        return self._recipes("")

    def known_recipe(self, recipe: str) -> KnownRecipe | None:
        """Return the recipe as of its last save, or None."""
        return self._recipes("AND path = ?", recipe).get(recipe)

    def with_version(self, digest: str, size_and_time: SizeAndTime) -> dict[str, KnownRecipe]:
        """Return recipes of the inbox that had these bytes and this time, the same inode first.

        Of more than MOST_ALIKE only some, as each is looked up: copies may keep times.
        """
        version = f"{size_and_time.size} {size_and_time.mtime_ns}"
        return self._recipes(
            """AND digest = ? AND size_and_time > ? AND size_and_time < ?
               ORDER BY size_and_time = ? DESC LIMIT ?""",
            *(digest, f"{version} ", f"{version}!", size_and_time.as_text(), MOST_ALIKE),
        )

    def _recipes(self, which: str, *values: object) -> dict[str, KnownRecipe]:
        rows = self.select(f"SELECT * FROM recipes WHERE outcome != 'archived' {which}", values)
        return {row["path"]: _known(row) for row in rows}

    def seen_in(self, folder: str, recipes: Iterable[str]) -> None:
        """Record that these recipes were seen in the folder that is the inbox now."""
        self.change_each(
            "UPDATE recipes SET folder = ? WHERE path = ?",
            ((folder, recipe) for recipe in recipes),
        )

    def waits_below(self, folder: str, template: str) -> bool:
        """Whether a picture below the folder waits for a prompt, with this template."""
        rows = self.select(
            """SELECT 1 FROM recipes WHERE path > ? AND path < ? AND template = ?
               AND outcome = 'waiting' LIMIT 1""",
            (*_below(folder), template),
        )
        return bool(rows)

    # -- what is still to be done

    def todo(self) -> list[tuple[str, int, bool]]:
        """Return recipes with unfinished consequences: path, count, and whether any can be drawn.

        None can be drawn while nothing is wrong and no image has ended.
        """
        rows = self.select(
            """SELECT path, todo, problem IS NOT NULL OR EXISTS (
                   SELECT 1 FROM images
                   WHERE recipe = path AND state IN ('done', 'failed', 'cancelled')
               ) AS has_any FROM recipes WHERE todo > 0 ORDER BY save"""
        )
        return [(row["path"], row["todo"], bool(row["has_any"])) for row in rows]

    def done_with(self, todo: Iterable[tuple[str, int]]) -> None:
        """Record that the consequences were drawn, unless more has changed since."""
        self.change_each("UPDATE recipes SET todo = 0 WHERE path = ? AND todo = ?", todo)

    def note_problem(self, recipe: str, problem: str | None) -> None:
        """Record what is wrong with the recipe, in a line; None if nothing is any more."""
        self.change(
            "UPDATE recipes SET problem = ? WHERE path = ? AND problem IS NOT ?",
            (problem, recipe, problem),
        )

    def problems(self, most: int) -> tuple[list[str], int, int]:
        """Return the newest problems, oldest first, their number, and that of refused recipes."""
        rows = self.select(
            """SELECT problem FROM recipes WHERE problem IS NOT NULL
               ORDER BY save DESC LIMIT ?""",
            (most,),
        )
        ((count, refused),) = self.select(
            """SELECT count(*), coalesce(sum(outcome = 'refused'), 0) FROM recipes
               WHERE problem IS NOT NULL"""
        )
        return [row["problem"] for row in reversed(rows)], count, refused

    def archive(self, recipe: str) -> None:
        """Record that the recipe is done and was taken out of the inbox."""
        self.change(
            "UPDATE recipes SET outcome = 'archived', problem = NULL, todo = 0 WHERE path = ?",
            (recipe,),
        )

    def leave_to_make(self, recipe: str) -> None:
        """Record that `make --rm` removes the recipe: an equal file is no renaming of it."""
        self.change(
            "UPDATE recipes SET digest = '', problem = NULL, todo = 0 WHERE path = ?", (recipe,)
        )

    def prune(self, now: float) -> None:
        """Delete what nobody asks for any more: old saves, and recipes archived long ago."""
        with self.transaction() as sql:
            old = now - KEPT_SECONDS
            archived = """SELECT recipes.path FROM recipes JOIN saves ON saves.id = recipes.save
                          WHERE recipes.outcome = 'archived' AND saved_at < ?"""
            sql.execute(f"DELETE FROM entries WHERE recipe IN ({archived})", (old,))
            sql.execute(f"DELETE FROM recipes WHERE path IN ({archived})", (old,))
            sql.execute(
                "DELETE FROM saves WHERE saved_at < ? AND id NOT IN (SELECT save FROM recipes)",
                (old,),
            )
            sql.execute("DELETE FROM commands WHERE since < ?", (old,))
            sql.execute("DELETE FROM sheets WHERE recipe NOT IN (SELECT path FROM recipes)")

    # -- commands

    def retry(self, recipes: Iterable[str]) -> dict[str, int]:
        """Queue failed images that are still requested again; return their number by recipe."""
        with self.transaction() as sql:
            rows = sql.execute(
                f"""UPDATE images SET {QUEUED_ANEW}
                    WHERE {FAILED} AND {_OF_THESE} RETURNING recipe""",
                {"recipes": json.dumps([*recipes])},
            ).fetchall()
        return Counter(row["recipe"] for row in rows)

    def want_again(self, recipes: Collection[str], *, as_saved: bool) -> None:
        """Have recipes read again, with the templates and files that belong to them now.

        `as_saved`: as if each had been saved again, unless it still has unfinished images.
        """
        with self.transaction() as sql:
            sql.execute(
                """UPDATE recipes SET again = CASE WHEN :as_saved AND NOT EXISTS (
                       SELECT 1 FROM images WHERE recipe = path AND state IN ('queued', 'running')
                   ) THEN 'saved' ELSE max(again, 'read') END
                   WHERE outcome != 'archived'
                   AND path IN (SELECT value FROM json_each(:recipes))""",
                {"as_saved": as_saved, "recipes": json.dumps([*recipes])},
            )

    def recipes_with_failures(self) -> list[str]:
        """Return the recipes whose last valid save requests images that failed."""
        rows = self.select(f"SELECT DISTINCT recipe FROM images WHERE {FAILED} ORDER BY recipe")
        return [row["recipe"] for row in rows]

    def refused_recipes(self) -> set[str]:
        """Return the recipes whose last save was refused."""
        rows = self.select(
            "SELECT path FROM recipes WHERE outcome = 'refused' AND problem IS NOT NULL"
        )
        return {row["path"] for row in rows}

    def cancel(self, recipes: Collection[str]) -> tuple[int, int]:
        """Cancel images of the recipes; return how many, and how many of these were running.

        Their entries stay, so the recipe's next save queues them again (accept.py).
        """
        these = {"recipes": json.dumps([*recipes])}
        with self.transaction() as sql:
            ((running,),) = sql.execute(
                f"""SELECT count(*) FROM images INDEXED BY images_running
                    WHERE state = 'running' AND drawn = 0 AND {_OF_THESE}""",
                these,
            )
            cancelled = sql.execute(
                f"UPDATE images SET state = 'cancelled' WHERE {_OF_THESE} AND {UNFINISHED}", these
            ).rowcount
        return cancelled, running

    def unfinished_recipes(self) -> list[str]:
        """Return the recipes with images that can be cancelled."""
        rows = self.select(f"SELECT DISTINCT recipe FROM images WHERE {UNFINISHED} ORDER BY recipe")
        return [row["recipe"] for row in rows]

    def pause(self, since: float) -> None:
        """Start no rendering until `resume`."""
        self.change("INSERT INTO paused SELECT ? WHERE NOT EXISTS (SELECT 1 FROM paused)", (since,))

    def resume(self) -> None:
        """Start rendering again."""
        self.change("DELETE FROM paused")

    def is_paused(self) -> bool:
        """Whether rendering is paused."""
        return bool(self.select("SELECT 1 FROM paused"))

    def waiting_command(self, file: str) -> WaitingCommand | None:
        """Return what is known of a command that was seen before and has no answer yet."""
        rows = self.select("SELECT * FROM commands WHERE name = ?", (file,))
        return WaitingCommand(*tuple(rows[0])[1:]) if rows else None

    def note_command(self, file: str, waiting: WaitingCommand) -> None:
        """Record what is known of a command that has no answer yet."""
        self.change("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?)", (file, *waiting))

    # -- what was measured

    def batch_sizes(self) -> dict[str, str]:
        """Return what was measured of batches, as JSON, by the kind of their images."""
        return {row["alike"]: row["measured"] for row in self.select("SELECT * FROM batch_sizes")}

    def note_batch_size(self, alike: str, measured: str) -> None:
        """Record what was measured of batches of images that are alike."""
        self.change("INSERT OR REPLACE INTO batch_sizes VALUES (?, ?)", (alike, measured))

    # -- states

    def queued_recipes(self) -> list[tuple[str, str, int]]:
        """Return recipes, kinds and their numbers of queued images, in the order of the first ones.

        A kind is a `batch_key`: its images can be rendered together. Priorities and saves decide
        the order, not the order within a file. The index has everything but the recipe, which is
        read from one image per save and kind; finished images are not read.
        """
        rows = self.select(
            """WITH queued AS (
               SELECT batch_key, priority, save, count(*) AS images, min(id) AS first
               FROM images INDEXED BY images_alike WHERE state = 'queued'
               GROUP BY batch_key, priority, save
            )
            SELECT recipe, queued.batch_key, queued.images FROM queued
            JOIN images ON images.id = first ORDER BY queued.priority DESC, queued.save"""
        )
        return [(recipe, kind, count) for recipe, kind, count in rows]

    def outcome(self, recipe: str, digest: str) -> Outcome | None:
        """Return the outcome of the newest save with these bytes; None if there was none."""
        with self.transaction():
            saves = self.select(
                """SELECT id, outcome FROM saves WHERE recipe = ? AND digest = ?
                   ORDER BY id DESC LIMIT 1""",
                (recipe, digest),
            )
            if not saves:
                return None
            save = saves[0]["id"]
            images = self.select(
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

    def last_save(self) -> int:
        """Return the id of the newest save; 0 before the first."""
        ((last,),) = self.select("SELECT coalesce(max(id), 0) FROM saves")
        return int(last)

    def is_unfinished_below(self, folder: str) -> bool:
        """Whether images of recipes in this folder or below are queued or running."""
        rows = self.select(
            """SELECT 1 FROM images WHERE recipe > ? AND recipe < ?
               AND state IN ('queued', 'running') LIMIT 1""",
            _below(folder),
        )
        return bool(rows)

    def outcomes_below(self, folder: str, since: int) -> dict[str, Outcome]:
        """Return the outcomes of the last saves of the recipes in a folder and below.

        Archived recipes are included if they were saved after the save `since`.
        """
        first, end = _below(folder)
        rows = self.select(
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

    def counts(self) -> Counter[str]:
        """Return the numbers of all images by state."""
        rows = self.select("SELECT state, images FROM tallies")
        return Counter({row["state"]: row["images"] for row in rows})

    def queued(self, only: Sequence[str]) -> int:
        """Return how many images are queued; with `only`, of these recipes and folders."""
        if not only:
            return self.counts()["queued"]
        query = f"SELECT count(*) FROM images WHERE state = 'queued' AND {OF_ONLY}"
        ((count,),) = self.select(query, {"only": json.dumps(only)})
        return int(count)

    def requested(self, name: str) -> Counter[str]:
        """Return how many images of each state a recipe requests, or all recipes in a folder."""
        rows = self.select(
            """SELECT state, count(DISTINCT images.id) FROM entries
               JOIN entry_images ON entry_images.entry = entries.id
               JOIN images ON images.id = entry_images.image
               WHERE entries.recipe = ? OR (entries.recipe > ? AND entries.recipe < ?)
               GROUP BY state""",
            (name, *_below(name)),
        )
        return Counter(dict(map(tuple, rows)))

    def failures(self, recipe: str) -> list[tuple[QueuedImage, str]]:
        """Return the failed images that the last valid save requests, with their reasons."""
        rows = self.select(
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
