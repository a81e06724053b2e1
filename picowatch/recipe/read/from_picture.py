"""The field `from`: the settings that a picture's metadata holds, as a layer of fields.

Read are, in this order: picowatch's own JSON; settings of Fooocus, SwarmUI, InvokeAI and
picoDiffusion; ComfyUI's workflow, and A1111's text in `parameters`, which some of its nodes write.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS, FINISHING, PROMPTS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import NO_PICTURES, Pictures, as_written
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.prompts.wildcards import Template
from picowatch.recipe.read.a1111 import MAX_LINES, a1111_picture, holds_parameters
from picowatch.recipe.read.comfyui import comfyui_in, read_comfyui
from picowatch.recipe.read.decoding import MAX_BYTES, unix_line_ends
from picowatch.recipe.read.foreign import read_settings, settings_of
from picowatch.recipe.read.found import DAMAGE, Found
from picowatch.recipe.request import ImageRequest, recipe_values
from picowatch.recipe.written import FORBIDDEN, Entry, Layer, Position, Source, Written, written_at

_HASH_DIGITS = 10
_BRACKET = re.compile(r"(?<!\\)[\[\]]")
_WILDCARD = re.compile(r"\\.|\{|__", re.DOTALL)


def read_from(
    written: Written,
    pictures: Pictures,
    given: Layer,
    problems: Problems,
) -> Entry | None:
    """The settings of the picture that a recipe starts from; `given` are fields that it overrides.

    All stand where the recipe names the picture. `loras` override those in the picture's prompts,
    too. `pictures` tells its texts, and where its start images are, as seen from the recipe. None
    if not found: why goes to `problems`.
    """
    path = str(written.value)
    position = replace(written.position, note=f" (in {shown(path)})")
    try:
        texts = pictures.texts(path)
        found = _fields(texts, pictures, position, "checkpoint" in given)
    except PictureUnreadable as error:
        words = str(error)
        words = words if path in words else f"{shown(path)}: {words}"
        problems.add(written.error_position, words)
        return None
    layer = {name: value for name, value in found.layer.items() if name not in given}
    if "loras" in given:
        for name in PROMPTS:
            if name in layer:
                text = split_loras(str(layer[name].value))[0].strip()
                layer[name] = layer[name].with_value(text)
    return replace(found, layer=layer)


def settings_in(texts: Mapping[str, str]) -> tuple[dict[str, object], tuple[str, ...]]:
    """The fields that a picture's texts give, and warnings for what a recipe cannot say.

    Raises PictureUnreadable.
    """
    found = _fields(texts, NO_PICTURES, Position(Source("", ""), 0, 0))
    return {name: written.value for name, written in found.layer.items()}, found.warnings


def _fields(
    texts: Mapping[str, str],
    pictures: Pictures,
    position: Position,
    names_checkpoint: bool = False,
) -> Entry:
    if any(len(text) > MAX_BYTES or text.count("\n") > MAX_LINES for text in texts.values()):
        raise PictureUnreadable("its texts are too long to be settings.")
    if "picowatch-sheet" in texts:
        raise PictureUnreadable(
            "it is a contact sheet. The settings are in its pictures.", "Name one of those."
        )
    if "picowatch" in texts:
        return Entry(_of_picowatch(texts["picowatch"], pictures, position), position)
    visible = {name: _visible(text) for name, text in texts.items()}
    found = _of_another_program(visible, position, names_checkpoint)
    if found is None:
        raise PictureUnreadable(
            "it contains no settings that picowatch can read.",
            "Unedited pictures by picowatch, A1111, ComfyUI, Fooocus, InvokeAI 3 and later, "
            "picoDiffusion and SwarmUI do. For the result of a dropped picture, write outbox/ "
            "before its path.",
        )
    return replace(found, layer={name: _final(name, one) for name, one in found.layer.items()})


def _visible(text: str) -> str:
    """The text as a recipe can hold it: with line breaks of one kind, and nothing invisible."""
    return FORBIDDEN.sub("", unix_line_ends(text)).rstrip("\n")


def _final(field: str, written: Written) -> Written:
    """The value; a prompt is what was drawn, so wildcards in it are words."""
    if field not in PROMPTS:
        return written
    text = str(written.value)
    if Template(text, {}).is_drawn:
        text = _WILDCARD.sub(lambda m: m[0] if m[0][0] == "\\" else f"\\{m[0]}", text)
    return written.with_value(text)


def _of_another_program(
    texts: Mapping[str, str], position: Position, names_checkpoint: bool
) -> Entry | None:
    text, found, what = texts.get("parameters", ""), Found(), "text"
    try:
        if settings := settings_of(texts):
            what = f"text from {settings[0]}"
            read_settings(*settings, found)
            return _without_brackets(found.entry(position))
        beside = _of_a1111(text, position, names_checkpoint) if holds_parameters(text) else None
        if workflow := comfyui_in(texts):
            what = "workflow from ComfyUI"
            return _of_comfyui(workflow, beside, position)
    except DAMAGE:
        raise PictureUnreadable(f"its {what} is damaged.") from None
    if "parameters" in texts and beside is None:
        raise PictureUnreadable("its 'parameters' text has no line 'Steps: …, Sampler: …'.")
    return beside


def _of_comfyui(workflow: str, beside: Entry | None, position: Position) -> Entry:
    """What the workflow says, and what only A1111's text beside it does.

    Nodes that save such a text are given its values by hand: it may be the poorer of the two.
    """
    found = Found()
    try:
        read_comfyui(workflow, found)
    except PictureUnreadable:
        if beside is None:
            raise
        return beside
    entry = _without_brackets(found.entry(position))
    if beside is None:
        return entry
    said = {name: one for name, one in entry.layer.items() if one.value}
    return replace(entry, layer=entry.layer | beside.layer | said)


def _without_brackets(entry: Entry) -> Entry:
    """The entry, its square brackets as the words that they are to all other programs."""
    layer = {
        name: one.with_value(_BRACKET.sub(r"\\\g<0>", str(one.value)))
        for name, one in entry.layer.items()
        if name in PROMPTS
    }
    return replace(entry, layer=entry.layer | layer)


def _of_a1111(text: str, position: Position, names_checkpoint: bool) -> Entry:
    entry = a1111_picture(Source("", text), names_checkpoint)
    layer = {name: written_at(position, one.value) for name, one in entry.layer.items()}
    return Entry(layer, position, entry.warnings)


def _of_picowatch(text: str, pictures: Pictures, position: Position) -> Layer:
    try:
        values = json.loads(text)
        if values["format"] != 1:
            raise PictureUnreadable(
                "it was rendered by a newer picowatch.", "Read it with that version."
            )
        request = ImageRequest.from_dict(values["request"])
        folder = str(values.get("recipe", "")).rpartition("/")[0]
        names = {
            path: as_written(pictures.called_here(path, digest, folder))
            for path, digest in request.pictures.items()
        }
        return _layer_of(request.with_names(names), position)
    except DAMAGE:
        raise PictureUnreadable("its 'picowatch' text is damaged.") from None


def _layer_of(request: ImageRequest, position: Position) -> Layer:
    """The request's fields as somebody would have written them there."""
    layer = {name: written_at(position, value) for name, value in recipe_values(request).items()}
    if not request.draws:
        return {name: layer[name] for name in ("image", *FINISHING, "exact")}
    layer["checkpoint"] = Written(request.checkpoint, _hashed(position, request.checkpoint_hash))
    layer[CHECKPOINT_HASH] = Written(request.checkpoint_hash, position)
    if request.vae_hash:
        layer["vae"] = Written(request.vae, _hashed(position, request.vae_hash))
    names = ",".join(use.name for use in request.embeddings)
    layer[EMBEDDINGS] = Written(names, position)
    return layer


def _hashed(position: Position, hash_: str) -> Position:
    """The position, its note with the hash of a file that may have another name here."""
    note = f"{position.note[:-1]}, rendered with the file whose hash begins {hash_[:_HASH_DIGITS]})"
    return replace(position, note=note)
