"""Accepts dropped pictures and their templates, or refuses them, with one error per template."""

import hashlib
import logging
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from picowatch.daemon.answer import (
    accept_entries,
    queue_images,
    recipes_of,
    refuse,
    those_refused,
    warnings_of,
)
from picowatch.daemon.events import Event, explained, said, warned
from picowatch.daemon.run import Run
from picowatch.errors import ModelRefused, PicowatchError, PictureUnreadable
from picowatch.inbox.differences import prompt_of
from picowatch.inbox.files import FileChanged, FileUnreadable
from picowatch.inbox.names import is_dropped, is_reached
from picowatch.inbox.reading import Saved, size_and_time_at, template_above
from picowatch.ledger import accept, questions
from picowatch.ledger.rows import NEVER_READ, Save
from picowatch.metadata import PICOWATCH, read_chunk
from picowatch.outbox.start_images import NamedPictures
from picowatch.recipe import DefaultsFile, Dropped, RecipeInvalid
from picowatch.recipe.reading import NothingSaid, check_template
from picowatch.recipe.resolve.start_image import why_no_path


def saved_template(run: Run, seen: Saved) -> list[Event]:
    """Accept a template, which requests nothing itself; a scan then finds its pictures."""
    pictures = run.inbox.pictures_of(seen.path)
    try:
        _check_template(run, DefaultsFile(seen.path, seen.content), seen, pictures)
    except RecipeInvalid as error:
        return refuse(run, seen, error, waits_for=those_refused(pictures))
    before = questions.known_recipe(run.ledger, seen.path)
    accept_entries(run, seen, [])
    run.outbox.problems.write_warnings(seen.path, ())
    run.inbox.want_scan()
    words = "saved, it applies to the pictures in its folder"
    if before and before.outcome == "accepted":
        folder = shlex.quote(seen.path.rpartition("/")[0])
        again = f"`picowatch retry --all {folder}` renders the others again"
        words = f"saved, it applies to pictures saved from now on; {again}"
    return [said(seen.path, words)]


def _check_template(run: Run, template: DefaultsFile, seen: Saved, pictures: NamedPictures) -> None:
    """Raise RecipeInvalid or FileUnreadable if nothing can be rendered with the template."""
    if "/" not in template.name:
        raise FileUnreadable(
            "Pictures cannot be dropped into the inbox itself, where recipes are saved.",
            f"Move {template.name} into a folder of its own.",
        )
    most = run.settings.max_images_per_save
    check_template(template, run.hashes.inventory, seen.defaults, most, pictures)


def saved_picture(run: Run, seen: Saved, dropped: Dropped) -> list[Event]:
    pictures = run.inbox.pictures_of(seen.path)
    try:
        _refuse_unusable(run, seen, dropped, pictures)
        recipes = recipes_of(run, seen, pictures)
        own = {seen.path: seen.digest}
        if dropped.mask:
            own[dropped.mask] = pictures.digest(dropped.mask)
        queued = queue_images(run, seen, recipes, pictures.hashes(own), is_again=seen.is_again)
    except NothingSaid as error:
        return _wait_for_prompt(run, seen, dropped.template.name, error)
    except (RecipeInvalid, PictureUnreadable) as error:
        return _refuse_picture(run, seen, dropped, error, those_refused(pictures))
    except ModelRefused as error:
        return _refuse_template(run, dropped, error)
    return [*_warn_once(run, dropped.template.name, warnings_of(recipes)), queued]


def _refuse_picture(
    run: Run,
    seen: Saved,
    dropped: Dropped,
    error: RecipeInvalid | PictureUnreadable,
    waits_for: str | None,
) -> list[Event]:
    """Refuse a picture, or its template if that is wrong whichever picture is dropped."""
    found = size_and_time_at(run.settings.inbox, seen.path)
    if found is None or found.written_since(seen.size_and_time):
        raise FileChanged from error
    named = run.inbox.pictures_of(dropped.template.name)
    try:
        _check_template(run, dropped.template, seen, named)
    except (RecipeInvalid, FileUnreadable) as wrong:
        return _refuse_template(run, dropped, wrong, those_refused(named))
    words = f"This picture cannot be used: {error}"
    why = error if isinstance(error, RecipeInvalid) else words
    return refuse(run, seen, why, waits_for=waits_for)


def _wait_for_prompt(run: Run, seen: Saved, template: str, why: NothingSaid) -> list[Event]:
    """Refuse a picture without a prompt; its template has one error file for all of them."""
    text, line = explained(template, why)
    run.outbox.problems.write_error(template, text)
    waits_for = prompt_of(template, seen.template)
    is_news = accept.refuse_for_template(run.ledger, seen, template, line, waits_for)
    return [Event(logging.ERROR, template, line)] if is_news else []


def _refuse_template(
    run: Run, dropped: Dropped, why: PicowatchError, waits_for: str | None = None
) -> list[Event]:
    """Refuse a template with one error for all its pictures, which wait until it is right."""
    name = dropped.template.name
    known = questions.known_recipe(run.ledger, name)
    digest = hashlib.sha256(dropped.template.content).hexdigest()
    size_and_time = known.size_and_time if known else NEVER_READ
    save = Save(name, digest, size_and_time, run.inbox.folder)
    return refuse(run, save, why, waits_for=waits_for)


def _warn_once(run: Run, template: str, warnings: Iterable[str]) -> list[Event]:
    """Add warnings to a template's file: thousands of pictures may share one. Log new ones."""
    return warned(template, filter(partial(run.outbox.problems.add_warning, template), warnings))


def _refuse_unusable(run: Run, seen: Saved, dropped: Dropped, pictures: NamedPictures) -> None:
    """Raise PictureUnreadable if the picture or its mask cannot be used."""
    if seen.damage:
        raise PictureUnreadable(seen.damage)
    if why_no_path(seen.path):
        raise PictureUnreadable(
            "Its name is too long, or has characters that a recipe cannot contain.",
            "Rename it.",
        )
    for path in filter(None, (seen.path, dropped.mask)):
        pictures.size(path)
    if _made_with(run, pictures.texts(seen.path)) == dropped.template.name:
        raise PictureUnreadable(
            f"It was rendered with {dropped.template.name}: each result would be rendered again.",
            "Drop it into another folder, or remove its metadata.",
        )


def _made_with(run: Run, texts: Mapping[str, str]) -> str | None:
    """Return the template that a picture with these texts was rendered with, or None."""
    with suppress(PictureUnreadable, KeyError):
        recipe = read_chunk(texts[PICOWATCH]).recipe
        if is_dropped(recipe) and is_reached(recipe):
            return template_above(run.settings.inbox, recipe)
    return None
