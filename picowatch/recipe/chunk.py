"""The `picowatch` chunk: JSON of everything that made a picture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from picowatch.errors import PictureUnreadable
from picowatch.recipe.files import Pictures
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.request import ImageRequest

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The contents of a picture's chunk."""

    request: ImageRequest
    recipe: str
    save_digest: str
    entry_index: int  # of the file, from 0
    image_index: int  # of the entry, from 0
    # How: device, precision, batch size, compile state, rung of the memory ladder, timings etc.
    rendered: Mapping[str, Any] = field(default_factory=dict)

    def request_for(self, pictures: Pictures) -> ImageRequest:
        """Return the request, its pictures named as `pictures` find them."""
        folder, named = self.recipe.rpartition("/")[0], self.request.pictures.items()
        names = {path: pictures.called_here(path, digest, folder) for path, digest in named}
        return self.request.with_names(names)


_adapter = cache(lambda: TypeAdapter(Chunk))  # built at its first use, as that of a request


def picowatch_json(chunk: Chunk) -> str:
    """Return the chunk's text. `rendered` must be plain values, ready for JSON."""
    request = chunk.request
    values = {
        "format": FORMAT,
        "request": request.as_dict(),
        "digest": request.digest,
        "recipe": chunk.recipe,
        "save_digest": chunk.save_digest,
        "entry_index": chunk.entry_index,
        "image_index": chunk.image_index,
        "unexpanded_prompt": request.unexpanded_prompt or request.prompt,
        "hashes": {
            "loras": {use.name: use.hash for use in request.loras},
            "embeddings": {use.name: use.hash for use in request.embeddings},
            "start_images": request.pictures,
        },
        "rendered": dict(chunk.rendered),
    }
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def read_chunk(text: str) -> Chunk:
    """Return the contents of a chunk's text. Raises PictureUnreadable for any other text."""
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()  # escapes may give lone surrogates
    except (ValueError, RecursionError):
        raise PictureUnreadable("the picture's 'picowatch' text is not JSON.") from None
    if not isinstance(values, dict) or "format" not in values:
        raise PictureUnreadable("the picture's 'picowatch' text contains no request.")
    if values["format"] != FORMAT:
        what = f"the picture's 'picowatch' text has format {shown(repr(values['format']))}"
        ours = f"this version reads format {FORMAT}."
        raise PictureUnreadable(f"{what}; {ours}", "A newer picowatch can read it.")
    known = {name: value for name, value in values.items() if name in Chunk.__dataclass_fields__}
    try:
        return _adapter().validate_python(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = shown(".".join(map(str, first["loc"])))
        is_unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        why = "this version does not know it" if is_unknown else shown(first["msg"])
        what = f"the picture's 'picowatch' text is damaged: {where}: {why}."
        raise PictureUnreadable(what) from None


def escaped_json(text: str) -> str:
    """Return the JSON with control characters escaped, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
