"""`picowatch show`: the recipes of pictures, ready for the inbox."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from picowatch.commands.control import pictures_in
from picowatch.commands.schema import inventory_of
from picowatch.commands.why import why
from picowatch.errors import FAILED, SUCCEEDED, CommandFailed, PictureUnreadable, SettingsInvalid
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.ledger.account import reading
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.metadata.recipe_yaml import differing_fields, others_yaml, recipe_yaml
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.photo_metadata import MARKS, NOTHING_KEPT, photo_metadata
from picowatch.recipe.chunk import Chunk, escaped_json, read_chunk
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.request import ImageRequest
from picowatch.settings.settings import Settings
from picowatch.sources import Folders
from picowatch.streams import harmless, print_error

_inventory = cache(lambda load: inventory_of(load()))
_SEED = re.compile(r"^seed: .*$", re.MULTILINE)  # within a text no line begins so


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Print each picture's recipe as a YAML document, its whole chunk, or why it was drawn.

    Without `--all`, fields that have their defaults are left out. A picture by another program
    gives what `from:` makes of it with the installed models, its warnings as comments; as JSON, its
    texts. One without any does not stop the others.
    """
    pictures = [_found(path, load) for path in pictures_in(options)]
    as_json: bool = options.json
    if options.why:
        settings = load()
        folders = Folders(settings.inbox, settings.outbox)
        with reading(folders.outbox) as sql:
            text_of = partial(why, sql, folders, as_json=as_json)
            return _print_each(pictures, text_of, "" if as_json else "\n")
    text_of = partial(_text, load=load, as_json=as_json, whole=options.all)
    if options.new_seed:
        return _print_each(pictures, lambda path: _SEED.sub("seed: random", text_of(path)), "---\n")
    return _print_each(pictures, text_of, "" if as_json else "---\n")


def _print_each(pictures: Sequence[Path], text_of: Callable[[Path], str], separator: str) -> int:
    code, before = SUCCEEDED, ""
    for path in pictures:
        try:
            print(before + text_of(path), end="")
            before = separator
        except (CommandFailed, PictureUnreadable) as error:
            print_error(f"picowatch: {error.with_remedy}")
            code = FAILED
    return code


def _text(path: Path, load: Callable[[], Settings], as_json: bool, whole: bool) -> str:
    texts = read_texts(path)
    if as_json:
        found = texts.get(PICOWATCH) or json.dumps(texts, ensure_ascii=False, indent=1)
        return f"{escaped_json(found)}\n"
    if SHEET_KEYWORD in texts:
        raise PictureUnreadable(f"{path}: It is a contact sheet.", "Show one of its pictures.")
    try:
        if PICOWATCH in texts:
            return _mark(path) + _recipe(read_chunk(texts[PICOWATCH]), load, whole)
        return _mark(path) + others_yaml(texts, _inventory(load))
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from None


def _found(path: Path, load: Callable[[], Settings]) -> Path:
    """Return the picture of that name, or else below the outbox, as log and gallery name it."""
    if path.is_absolute() or os.path.exists(path):  # noqa: PTH110  (never raises)
        return path
    inside = load().outbox / path
    return inside if os.path.exists(inside) else path  # noqa: PTH110


def _recipe(chunk: Chunk, load: Callable[[], Settings], whole: bool) -> str:
    request = chunk.request
    with suppress(SettingsInvalid):  # its pictures keep their names then
        if request.pictures:  # a recipe in the inbox itself names them otherwise
            settings = load()
            named = NamedPictures(settings.inbox, settings.outbox, 0, 0, "")
            request = chunk.request_for(named)
    fields = None if whole else differing_fields(request)
    return _comments(request) + recipe_yaml(request, fields)


def _mark(path: Path) -> str:
    """A comment: how the picture was made is no field of a recipe."""
    with path.open("rb") as file:
        mark = photo_metadata(file, NOTHING_KEPT).mark
    return f"# {mark}: {MARKS[mark]} (IPTC DigitalSourceType).\n" if mark else ""


def _comments(request: ImageRequest) -> str:
    """Return what no field of a recipe has: the notes of a table's row, and the embeddings."""
    told = [f"{name}: {text}" for name, text in request.notes.items()]
    if names := ", ".join(f"'{shown(use.name)}'" for use in request.embeddings):
        rest = "Any that is not in models/embeddings is plain words."
        told.append(f"The prompts use the embeddings {names}. {rest}")
    return "".join(f"# {harmless(comment)}\n" for comment in told)
