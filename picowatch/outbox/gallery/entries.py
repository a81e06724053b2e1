"""What the gallery knows of a picture: its line of images.jsonl, and what the page shows too."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.metadata import PICOWATCH, differing_fields, read_chunk, read_texts, recipe_yaml
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.formats import PILLOW_NAMES
from picowatch.outbox.gallery.thumbnails import thumbnail_of
from picowatch.outbox.listing import request_of


def picture_entry(root: Path, line: dict[str, Any]) -> dict[str, Any]:
    """The entry of a listed picture; `yaml` is its recipe, without what is at its default."""
    entry = _entry(root, line["file"]) | line
    # `made_at` says it, also of pictures that are not listed; a copy may have a later time.
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        finished = datetime.fromisoformat(entry.pop("finished"))
        entry["made_at"] = min(entry["made_at"], int(finished.timestamp()))
    # A line that is not ours is shown as it is.
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        request = request_of(line)
        entry["yaml"] = recipe_yaml(request, differing_fields(request))
    return entry


def sheet_entry(root: Path, file: str, width: int, height: int, text: str) -> dict[str, Any] | None:
    """The entry of a contact sheet; `text` is its description. None if it is not one of ours.

    `cells` are the files of its pictures, None for each that was not rendered; `boxes` are where
    on the sheet they are, so that the page can show the paper dark and the pictures as they are.
    """
    try:
        shown = json.loads(text)
        axes = [[str(axis["label"]), list(map(str, axis["values"]))] for axis in shown["axes"]]
        cells = [str(cell) if cell else None for cell in shown["files"]]
        boxes = [[int(edge) for edge in box] for box in shown["boxes"]]
        named = {"recipe": str(shown["recipe"]), "prompt": str(shown["prompt"])}
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    size = {"width": width, "height": height}
    return _entry(root, file) | named | size | {"sheet": axes, "cells": cells, "boxes": boxes}


def entry_from_picture(root: Path, file: str) -> dict[str, Any] | None:
    """The entry of a picture that is not listed, from its own texts; None if it has none."""
    try:
        texts = read_texts(root / file)
        if SHEET_KEYWORD in texts:
            return sheet_entry(root, file, *_size(root / file), texts[SHEET_KEYWORD])
        chunk = read_chunk(texts[PICOWATCH])
    except (PictureUnreadable, KeyError, OSError):
        return None
    own = {
        "file": file,
        "recipe": chunk.recipe,
        **chunk.request.as_dict(),
        "digest": chunk.request.digest,
        "save_digest": chunk.save_digest,
        "entry_index": chunk.entry_index,
        "image_index": chunk.image_index,
        **_how(chunk.rendered),
    }
    return picture_entry(root, own)


def _how(rendered: Mapping[str, Any]) -> dict[str, Any]:
    """What images.jsonl says of a picture beside its request; nothing if it is not there."""
    try:
        seconds = round(sum(rendered["timings"].values()), 3)
        return {"seconds": seconds, "device": rendered["device"], "size": rendered["size"]}
    except (KeyError, TypeError, AttributeError):
        return {}


def _entry(root: Path, file: str) -> dict[str, Any]:
    """What every entry begins with; `file` comes first, so that it is found without parsing."""
    entry: dict[str, Any] = {"file": file, "thumb": thumbnail_of(file)}
    try:
        entry["made_at"] = int((root / file).stat().st_mtime)
    except OSError:
        entry["made_at"] = 0
    return entry


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header."""
    with Image.open(path, formats=PILLOW_NAMES) as picture:
        return picture.size
