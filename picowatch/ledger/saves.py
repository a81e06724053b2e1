"""Saves as they are answered, and the recipes that the ledger knows."""

import sqlite3

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.accept import AWAITED, cancel_unrequested, forget_awaited, record_save
from picowatch.ledger.database import Database
from picowatch.ledger.restore import forget_restored
from picowatch.save import KnownRecipe, Save, Stamp


class Saves(Database):
    """The last saves; `accept.py` and `rename.py` define what they mean."""

    def reject(self, save: Save) -> None:
        """Record an invalid save, so that the same version is answered only once."""
        with self.transaction() as sql:
            record_save(sql, save, "invalid")

    def await_pictures(self, recipe: str, pictures: str) -> None:
        """Remember what pictures a refused recipe is waiting for, until its next answer."""
        if pictures:
            self.remember(AWAITED + recipe, pictures)

    def awaited(self) -> dict[str, str]:
        """The refused recipes that are waiting for pictures, and for which."""
        rows = self.select("SELECT name, value FROM facts WHERE name GLOB ?", (f"{AWAITED}*",))
        return {row["name"].removeprefix(AWAITED): row["value"] for row in rows}

    def known_recipes(self) -> dict[str, KnownRecipe]:
        """Each recipe whose last save was answered."""
        with self.transaction() as sql:
            rows = sql.execute("SELECT path, stamp, digest FROM recipes")
            return {row["path"]: _known(row) for row in rows}

    def known_recipe(self, recipe: str) -> KnownRecipe | None:
        """The recipe as its last save was answered, or None."""
        rows = self.select("SELECT stamp, digest FROM recipes WHERE path = ?", (recipe,))
        return _known(rows[0]) if rows else None

    def forget(self, recipe: str) -> int:
        """The recipe is gone: cancel its queued images and forget its entries; returns how many."""
        with self.transaction() as sql:
            sql.execute("DELETE FROM entries WHERE recipe = ?", (recipe,))
            sql.execute("DELETE FROM recipes WHERE path = ?", (recipe,))
            forget_restored(sql, recipe)
            forget_awaited(sql, recipe)
            return cancel_unrequested(sql, recipe)

    def saves_of_images(self, recipe: str) -> list[str]:
        """The digests of the saves that requested the recipe's images."""
        rows = self.select(
            """SELECT DISTINCT saves.digest FROM images JOIN saves ON saves.id = images.save
               WHERE images.recipe = ? ORDER BY saves.id""",
            (recipe,),
        )
        return [row["digest"] for row in rows]


def _known(row: sqlite3.Row) -> KnownRecipe:
    try:
        return KnownRecipe(Stamp.from_text(row["stamp"]), row["digest"])
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: a recipe's stamp is not valid: {error}."
        ) from error
