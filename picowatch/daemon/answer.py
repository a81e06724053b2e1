"""How a save is answered: its images are queued, or one readable error file says what is wrong."""

import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial

from picowatch.daemon.events import Event, accepted, explained, said
from picowatch.daemon.run import Run
from picowatch.daemon.sheets import sheet_of
from picowatch.errors import PicowatchError
from picowatch.inbox.differences import PICTURES
from picowatch.inbox.reading import Saved
from picowatch.ledger import accept
from picowatch.ledger.rows import Acceptance, RequestedEntry, Save
from picowatch.outbox.start_images import NamedPictures
from picowatch.recipe import Recipe, read_recipes
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.reading import dropped_recipes


def recipes_of(run: Run, seen: Saved, pictures: NamedPictures) -> list[Recipe]:
    """Read the recipes of a save. Raises RecipeInvalid."""
    inventory, most = run.hashes.inventory, run.settings.max_images_per_save
    if seen.dropped is not None:
        return dropped_recipes(seen.dropped, inventory, seen.defaults, most, pictures)
    return read_recipes(seen.path, seen.content, inventory, seen.defaults, most, pictures)


def queue_images(
    run: Run,
    seen: Saved,
    recipes: Sequence[Recipe],
    hash_picture: Callable[[str], str],
    *,
    is_again: bool,
) -> Event:
    """Accept a save of these recipes. Raises NotHashed, ModelRefused or PictureUnreadable."""
    hash_of = run.hashes.with_pictures(hash_picture)
    entries = [
        RequestedEntry(
            digest=recipe.digest(hash_of),
            priority=recipe.priority,
            random=recipe.wants_random_seed,
            requests=partial(recipe.image_requests, hash_of),
            sheet=sheet_of(recipe),
            may_differ=recipe.draws_from_files,
        )
        for recipe in recipes
    ]
    result = accept_entries(run, seen, entries, is_again=is_again)
    words = accepted(result, _show_newest(run, result))
    return said(seen.path, words if recipes else f"{words}, it says nothing to render")


def accept_entries(
    run: Run, save: Save, entries: Sequence[RequestedEntry], *, is_again: bool = False
) -> Acceptance:
    return accept.accept(
        run.ledger,
        save,
        entries,
        draw_seed=partial(secrets.randbelow, SEEDS),
        picture_exists=run.outbox.exists,
        is_again=is_again,
    )


def _show_newest(run: Run, result: Acceptance) -> str:
    """Point latest.png to the newest picture of a save that requests nothing new; return it."""
    if result.queued or result.cancelled:
        return ""
    newest = next(filter(run.outbox.exists, reversed(result.existing)), "")
    if newest:
        run.outbox.show_as_latest(newest)
    return newest


def refuse(
    run: Run, save: Save, why: PicowatchError | str, *, waits_for: str | None = None
) -> list[Event]:
    """Refuse a save. It is read again when what it waits for changes."""
    text, line = explained(save.path, why)
    run.outbox.problems.write_error(save.path, text)
    accept.refuse(run.ledger, save, line, waits_for=waits_for)
    return [Event(logging.ERROR, save.path, line)]


def those_refused(pictures: NamedPictures) -> str | None:
    """Return the pictures that could not be used, for which a save waits; None if all could."""
    return f"{PICTURES}{pictures.refused}" if pictures.refused else None


def warnings_of(recipes: Sequence[Recipe]) -> list[str]:
    """Return each warning once."""
    return list(dict.fromkeys(w for recipe in recipes for w in recipe.warnings))
