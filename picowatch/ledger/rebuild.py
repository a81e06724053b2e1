"""A new ledger from images.jsonl: its pictures are done, and their recipes are read again.

What was queued or failed is requested again by the inbox: when such a recipe is accepted, its
entries keep the seeds that were drawn before, if one of their pictures records them.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from picowatch.ledger.database import Database
from picowatch.ledger.rows import RequestedEntry, folded, request_text
from picowatch.recipe.fields import SEEDS
from picowatch.recipe.recipe import variation_seed_of
from picowatch.recipe.request import ImageRequest
from picowatch.save import NEVER_READ


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPicture:
    """A line of images.jsonl, with the number in the picture's name."""

    file: str
    number: int
    recipe: str
    request: ImageRequest
    save_digest: str
    entry_index: int
    image_index: int


class Rebuilding(Database):
    """A new ledger, built from the list of pictures."""

    def rebuild(self, listed: Iterable[ListedPicture]) -> int:
        """Enter pictures as done; returns how many."""
        numbers: Counter[str] = Counter()
        digests: dict[str, str] = {}  # of each recipe, the newest
        entered = 0
        with self.transaction() as sql:
            for save, one in enumerate(listed, 1):
                folder = folded(one.file.rpartition("/")[0])
                numbers[folder] = max(numbers[folder], one.number)
                digests[one.recipe] = one.save_digest
                entered += _enter(sql, one, save)
            sql.executemany(
                """INSERT INTO recipes (path, size_and_time, digest, outcome, save, folder)
                   VALUES (?, ?, ?, 'restored', 0, '')""",
                [(recipe, NEVER_READ.as_text(), digest) for recipe, digest in digests.items()],
            )
            sql.executemany("INSERT INTO numbers (folder, last) VALUES (?, ?)", numbers.items())
            # Later saves come after all of these.
            sql.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('saves', ?)", (entered,))
        return entered


def _enter(sql: sqlite3.Connection, one: ListedPicture, save: int) -> int:
    """Enter a picture; of several lines with one request, the last counts."""
    return sql.execute(
        """INSERT INTO images
           (recipe, digest, request, batch_key, checkpoint, state, priority, save, save_digest,
            entry_index, image_index, file, listed)
           VALUES (?, ?, ?, ?, ?, 'done', 0, ?, ?, ?, ?, ?, 1)
           ON CONFLICT (recipe, digest) DO UPDATE SET file = excluded.file, save = excluded.save,
               save_digest = excluded.save_digest, entry_index = excluded.entry_index,
               image_index = excluded.image_index""",
        (
            one.recipe,
            one.request.digest,
            request_text(one.request),
            one.request.batch_key,
            one.request.checkpoint_hash,
            save,
            one.save_digest,
            one.entry_index,
            one.image_index,
            one.file,
        ),
    ).rowcount


class EarlierDraws:
    """The seeds that a restored recipe's entries drew before, each given once, newest first."""

    def __init__(self, sql: sqlite3.Connection, recipe: str) -> None:
        self._draws = sql.execute(
            """SELECT digest, json_extract(request, '$.seed') AS seed,
                      json_extract(request, '$.variation_seed') AS variation_seed,
                      entry_index, image_index
               FROM images WHERE recipe = ? ORDER BY id DESC""",
            (recipe,),
        ).fetchall()

    def requests(self, entry: RequestedEntry, entry_index: int) -> Sequence[ImageRequest] | None:
        """The entry's images as they were drawn, if one of them was rendered; else None.

        Image i has seed+i, but a sweep's images all have the first seed, so both are tried. If a
        variation seed was drawn, either of the two is it.
        """

        # Where only the variation seed was drawn, pictures without one say nothing about it.
        def least_likely(draw: sqlite3.Row) -> tuple[bool, bool]:
            return draw["entry_index"] != entry_index, draw["variation_seed"] is None

        for draw in sorted(self._draws, key=least_likely):
            drawn = [draw["seed"]]
            if draw["variation_seed"] is not None:
                drawn.append(variation_seed_of(draw["variation_seed"]))
            firsts = [(seed - draw["image_index"]) % SEEDS for seed in drawn]
            for seed in dict.fromkeys((*firsts, *drawn)):
                requests = entry.requests(seed)
                # At its own place: with another first seed a sweep has some of the same images.
                same = requests[draw["image_index"] : draw["image_index"] + 1]
                if [request.digest for request in same] == [draw["digest"]]:
                    digests = {request.digest for request in requests}
                    self._draws = [one for one in self._draws if one["digest"] not in digests]
                    return requests
        return None
