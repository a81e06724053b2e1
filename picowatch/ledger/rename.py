"""What a rename means: a recipe's queue, pictures and history move to its new name.

Nothing is rendered again.
"""

import sqlite3
from collections.abc import Callable, Sequence

from picowatch.files.picture_names import is_picture_name, names_of_dropped
from picowatch.ledger.accept import (
    forget_recipe,
    prioritise_images,
)
from picowatch.ledger.database import Database
from picowatch.ledger.rows import request_of, request_text
from picowatch.save import SizeAndTime


class Renaming(Database):
    """Recipes at another path."""

    def rename(
        self,
        old: str,
        new: str,
        size_and_time: SizeAndTime,
        folder: str = "",
        *,
        picture_exists: Callable[[str], bool],
    ) -> None:
        """Move the recipe.

        What the recipe that had the new name requested is cancelled: its file is gone.
        """
        with self.transaction() as sql:
            forget_recipe(sql, new)
            sql.execute(
                """UPDATE recipes SET path = ?, size_and_time = ?, folder = ?, todo = todo + 1
                   WHERE path = ?""",
                (new, size_and_time.as_text(), folder, old),
            )
            sql.execute("UPDATE entries SET recipe = ? WHERE recipe = ?", (new, old))
            sql.execute("UPDATE saves SET recipe = ? WHERE recipe = ?", (new, old))
            sql.execute("UPDATE OR REPLACE sheets SET recipe = ? WHERE recipe = ?", (new, old))
            if is_picture_name(old):
                _rename_dropped(sql, old, new)
            _merge_images(sql, old, new, picture_exists)
            sql.execute("UPDATE OR IGNORE images SET recipe = ? WHERE recipe = ?", (new, old))

    def prioritise(self, recipe: str, priorities: Sequence[int]) -> None:
        """Give the recipe's entries, in their order, the priorities of its new folder."""
        with self.transaction() as sql:
            sql.executemany(
                "UPDATE entries SET priority = ? WHERE recipe = ? AND place = ?",
                [(priority, recipe, place) for place, priority in enumerate(priorities)],
            )
            prioritise_images(sql, recipe)


def _rename_dropped(sql: sqlite3.Connection, old: str, new: str) -> None:
    """Requests of a dropped picture name it; those in progress are published as they were."""
    names = names_of_dropped(old, new)
    rows = sql.execute(
        "SELECT id, request FROM images WHERE recipe = ? AND state != 'running'", (old,)
    ).fetchall()
    for row in rows:
        request = request_of(row).with_names(names)
        sql.execute(
            "UPDATE OR IGNORE images SET digest = ?, request = ?, batch_key = ? WHERE id = ?",
            (request.digest, request_text(request), request.batch_key, row["id"]),
        )


def _merge_images(
    sql: sqlite3.Connection, old: str, new: str, picture_exists: Callable[[str], bool]
) -> None:
    """Keep a picture that both names requested once.

    The renamed recipe's image counts, unless only the other one's is rendered or in progress.
    """
    both = sql.execute(
        """SELECT mine.id AS mine, mine.state AS state, other.id AS other,
           other.state AS other_state, other.file AS other_file
           FROM images AS mine JOIN images AS other ON other.digest = mine.digest
           WHERE mine.recipe = ? AND other.recipe = ?""",
        (old, new),
    ).fetchall()
    for row in both:
        rendered = row["other_state"] == "done" and picture_exists(row["other_file"])
        if row["other_state"] == "running" or (
            rendered and row["state"] not in ("done", "running")
        ):
            sql.execute(
                "UPDATE entry_images SET image = ? WHERE image = ?", (row["other"], row["mine"])
            )
            sql.execute("DELETE FROM images WHERE id = ? AND state != 'running'", (row["mine"],))
        else:
            sql.execute("DELETE FROM images WHERE id = ?", (row["other"],))
