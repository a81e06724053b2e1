"""Why images were requested."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from picowatch.ledger.rows import request_of

# The columns of `images`, with the `request` itself; the `picture`, if it was drawn; the `rule` by
# which it was queued, of commands/show.py; and what is known of the save.
Row = Mapping[str, Any]

_IMAGES = """
    SELECT images.*, saved_at, saves.why AS noticed, template,
        iif(state = 'done', file, NULL) AS picture, images.why AS rule
    FROM images LEFT JOIN saves ON saves.id = save"""
_FOUND = (
    f"""{_IMAGES} JOIN entry_images ON image = images.id JOIN entries ON entry = entries.id
        WHERE entries.recipe = :recipe ORDER BY place, position""",
    f"""{_IMAGES} WHERE images.recipe = :its_recipe AND substr(images.digest, 1, 64) = :digest
        ORDER BY file = :file DESC, ended DESC LIMIT 1""",
    f"{_IMAGES} WHERE file = :file ORDER BY state = 'done' DESC, ended DESC LIMIT 1",
)
# What nobody noted is the newest image that was requested in this place before.
_BEFORE = f"""{_IMAGES} WHERE images.id = coalesce(:before, (
    SELECT id FROM images WHERE :why IN ('', 'lost') AND recipe = :recipe
    AND entry_index = :entry_index AND image_index = :image_index AND (save, id) < (:save, :id)
    ORDER BY save DESC, id DESC LIMIT 1))"""


def find(sql: sqlite3.Connection, **names: str) -> list[Row]:
    """Return the images that a `recipe` requests, or that of a picture.

    A picture is known by its metadata's recipe and digest, or by its `file`, which may be gone.
    """
    return next(filter(None, (_rows(sql, query, names) for query in _FOUND)), [])


def before(sql: sqlite3.Connection, image: Row) -> Row | None:
    """Return the image that its entry requested before in its place, if there was one."""
    return next(iter(_rows(sql, _BEFORE, image)), None)


def _rows(sql: sqlite3.Connection, query: str, values: Row) -> list[Row]:
    return [{**row, "request": request_of(row)} for row in sql.execute(query, values)]
