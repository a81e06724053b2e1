"""`picowatch show`: the recipes of pictures, ready for the inbox; `--why`: why they were drawn."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from os.path import commonprefix
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from picowatch.commands.control import below, pictures_in
from picowatch.commands.schema import inventory_of
from picowatch.errors import FAILED, SUCCEEDED, CommandFailed, PictureUnreadable, SettingsInvalid
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.inbox.names import is_dropped
from picowatch.ledger.account import reading
from picowatch.ledger.queries import Image, image_before, requested_images
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.metadata.recipe_yaml import differing_fields, others_yaml, recipe_yaml, value_yaml
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.photo_metadata import MARKS, NOTHING_KEPT, photo_metadata
from picowatch.recipe.chunk import escaped_json, read_chunk
from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.messages.problems import shown
from picowatch.settings.settings import Settings
from picowatch.sources import Folders
from picowatch.streams import harmless, print_error

_inventory = cache(lambda load: inventory_of(load()))
_SEED = re.compile(r"^seed: .*$", re.MULTILINE)  # within a text no line begins so
# By the rules in the ledger's `images.why`.
WHY = {
    "": "not known: an earlier picowatch requested it, or the ledger was lost since",
    "first": "the recipe was new",
    "new": "its entry was new in this save",
    "changed": "its entry asked for something else in this save than before",
    "reseeded": "its entry asked for something else in this save, and no picture of it stayed as "
    "it was; its seed is random, so a new one was drawn",
    "more": "its entry asked for something else in this save, and other images of it stayed as "
    "they were; its seed is random, so theirs was kept",
    "redrawn": "the recipe was saved again, and asked for the same; its seed is random, so a new "
    "one was drawn",
    "failed": "it had failed, and was requested again",
    "cancelled": "it had been cancelled, and was requested again",
    "gone": "its picture had been deleted, and was requested again",
    "lost": "the ledger was lost, and images.jsonl did not have this picture",
}
_AS_IT_IS = (
    *("recipe", "save_digest", "entry_index", "image_index", "state", "picture"),
    *("noticed", "rule"),
)
_NOTICED = {"new": "a new file", "a command": "by a command"}
_BEFORE_WILDCARDS = "unexpanded_"  # in the name of a prompt
_OF_A_PICTURE = {"seed", "width", "height", "given_size"}  # what follows from its size
_INDENT = " " * 11
_SHOWN = 12  # characters of a hash
_AROUND = 30  # characters of a long text that are shown around what differs


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
    code, begins_with = SUCCEEDED, ""
    for path in pictures:
        try:
            print(begins_with + text_of(path), end="")
            begins_with = separator
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
        with path.open("rb") as file:
            mark = photo_metadata(file, NOTHING_KEPT).mark  # which is no field of a recipe
        head = f"# {mark}: {MARKS[mark]} (IPTC DigitalSourceType).\n" if mark else ""
        if PICOWATCH not in texts:
            return head + others_yaml(texts, _inventory(load))
        chunk = read_chunk(texts[PICOWATCH])
        request = chunk.request
        with suppress(SettingsInvalid):  # its pictures keep their names then
            if request.pictures:  # a recipe in the inbox itself names them otherwise
                settings = load()
                named = NamedPictures(settings.inbox, settings.outbox, 0, 0, "")
                request = chunk.request_for(named)
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from None
    # No field of a recipe has the notes of a table's row, and the embeddings.
    told = [f"{name}: {text}" for name, text in request.notes.items()]
    if names := ", ".join(f"'{shown(use.name)}'" for use in request.embeddings):
        rest = "Any that is not in models/embeddings is plain words."
        told.append(f"The prompts use the embeddings {names}. {rest}")
    head += "".join(f"# {harmless(comment)}\n" for comment in told)
    return head + recipe_yaml(request, None if whole else differing_fields(request))


def _found(path: Path, load: Callable[[], Settings]) -> Path:
    """Return the picture of that name, or else below the outbox, as log and gallery name it."""
    if path.is_absolute() or os.path.exists(path):  # noqa: PTH110  (never raises)
        return path
    inside = load().outbox / path
    return inside if os.path.exists(inside) else path  # noqa: PTH110


# -- why, from the ledger and the pictures' metadata


def why(sql: Connection, folders: Folders, path: Path, *, as_json: bool) -> str:
    """Return why pictures were drawn. Raises CommandFailed or PictureUnreadable."""
    names = dict.fromkeys(("its_recipe", "digest"), "")
    with suppress(PictureUnreadable):
        texts = read_texts(path)
        if SHEET_KEYWORD in texts:
            raise CommandFailed(f"{path} is a contact sheet.", "Name one of its pictures.")
        chunk = read_chunk(texts.get(PICOWATCH, ""))
        names = {"its_recipe": chunk.recipe, "digest": chunk.request.digest}
    recipe, file = (below(folder, path) for folder in folders)
    found = requested_images(sql, recipe=recipe, file=file, **names)
    told = [_told(image, image_before(sql, image)) for image in found]
    if not told:
        raise CommandFailed(
            f"The ledger knows no picture and no recipe '{path}'.",
            "Name a picture of the outbox, or a recipe of the inbox that was accepted; for other "
            "folders: --inbox DIR --outbox DIR",
        )
    if as_json:
        return "".join(f"{json.dumps(image, indent=1)}\n" for image in told)
    return "\n".join("".join(f"{harmless(line)}\n" for line in _lines(image)) for image in told)


def _told(image: Image, former: Image | None) -> dict[str, Any]:
    """Return what is known of an image, ready for JSON."""
    was, now = (row["request"].as_dict(with_off=True) for row in (former or image, image))
    differs = _differences(was, now)
    at = image["saved_at"]
    return {name: image[name] for name in _AS_IT_IS} | {
        "saved": at and datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds"),
        "text": WHY[image["rule"]],
        "outside": _outside(image, former, was, now, differs) if former else "",
        "before": former and former["picture"],
        "differs": differs,
    }


def _outside(
    image: Image, former: Image, was: Image, now: Image, differs: Mapping[str, object]
) -> str:
    """Return what has changed outside the recipe's file; "" if nothing is known of that."""
    for name in PROMPTS if was["seed"] == now["seed"] else ():
        text = _BEFORE_WILDCARDS + name
        if name in differs and was[text] == now[text] != "":
            return f"a wildcard file of the {name} says something else now"
    # An image that the same save asked for again does not tell the bytes that it was of before.
    is_same = former["save"] != image["save"] and former["save_digest"] == image["save_digest"]
    if image["why"] == "redrawn" or not is_same:
        return ""
    hashes = {name for name in differs if name.endswith("hash")}
    if not (image["why"] or hashes):  # it may have been saved again for another seed
        return ""
    if differs.keys() - hashes <= (_OF_A_PICTURE if hashes else {"seed"}):
        what = "a file that it names"
    elif not is_dropped(image["recipe"]):
        what = "a _defaults.yaml, a setting, or another file that it is read with"
    elif image["template"] != former["template"]:
        what = "its template"
    else:
        what = "a file beside it, or a _defaults.yaml,"
    return f"its own bytes are the same, but {what} changed"


def _differences(was: Image, now: Image) -> dict[str, list[Any]]:
    """Return the former and the new value of each field that differs, or of each part."""
    parts = dict(_parts("", was, now))
    values = {name for name in parts if not name.endswith("hash")}
    # The hash of a file with another name says nothing more.
    return {
        name: pair
        for name, pair in parts.items()
        if name in values or (all(pair) and not any(v.startswith(_stem(name)) for v in values))
    }


def _parts(name: str, was: Any, now: Any) -> Iterator[tuple[str, list[Any]]]:
    """Compare two values, and their parts if both have some."""
    if was == now:
        return
    if isinstance(was, list | tuple) and isinstance(now, list | tuple):
        was, now = dict(enumerate(was)), dict(enumerate(now))
    if isinstance(was, dict) and isinstance(now, dict) and was and now:
        for part in {**was, **now}:
            yield from _parts(f"{name}.{part}" if name else part, was.get(part), now.get(part))
    else:
        yield name, [was, now]


def _stem(name: str) -> str:
    """Return the field whose file a hash is of."""
    return name.removesuffix("hash").rstrip("._")


# -- in words


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    entry, image = told["entry_index"] + 1, told["image_index"] + 1
    where = f"entry {entry}, image {image} of inbox/{told['recipe']}"
    yield f"{told['picture'] or told['state']}: {where}"
    when = "at a time that is not known any more"
    if told["saved"]:
        noticed = _NOTICED.get(told["noticed"], f"{told['noticed']} changed")
        when = f"{told['saved'][:19].replace('T', ' ')} ({noticed})"
    yield f"  saved    {when}, sha256 {told['save_digest'][:_SHOWN]}"
    first, *more = f"{told['text']}; {told['outside']}".removesuffix("; ").split("; ")
    yield f"  because  {first}"
    yield from (f"{_INDENT}{rule}" for rule in more)
    if told["differs"]:
        yield f"  before   {told['before'] or 'an image that was not drawn'}"
    for name, (was, now) in told["differs"].items():
        if name.removeprefix(_BEFORE_WILDCARDS) in told["differs"].keys() - {name}:
            continue  # the prompt itself says it
        if name.endswith("hash"):
            yield f"{_INDENT}{_stem(name)}: another file, sha256 {was[:_SHOWN]} → {now[:_SHOWN]}"
        else:
            yield f"{_INDENT}{name}: {' → '.join(_shown(was, now))}"


def _shown(*values: Any) -> list[str]:
    """Return two values in words; of long texts only what is around their difference."""
    if not all(isinstance(value, str) and len(value) > 2 * _AROUND for value in values):
        return [_words(value) if value else "none" for value in values]
    first = max(0, len(commonprefix(values)) - _AROUND)  # noqa: RUF071  (texts, not paths)
    left = len(commonprefix([value[:first:-1] for value in values]))  # noqa: RUF071
    shown = (value[first : len(value) - left + _AROUND] for value in values)
    return [f'"{"…" * bool(first)}{text}{"…" * (left > _AROUND)}"' for text in shown]


def _words(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value_yaml(value)
