"""The field `from`: the settings that a picture's metadata holds, as a layer of fields.

In this order: picowatch's own JSON; settings of Fooocus, SwarmUI, InvokeAI and picoDiffusion;
ComfyUI's workflow, with the A1111 text in `parameters` that some of its nodes write.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.a1111.reader import holds_parameters, read_parameters
from picowatch.recipe.chunk import read_chunk
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS, PROMPTS
from picowatch.recipe.files import NO_PICTURES, Pictures
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.prompts.grammar import without_loras
from picowatch.recipe.read import foreign
from picowatch.recipe.read.comfyui import comfyui_in, read_comfyui
from picowatch.recipe.read.decoding import MAX_BYTES, MAX_LINES
from picowatch.recipe.request import recipe_values
from picowatch.recipe.written import Entry, Layer, SourceValue

_HASH_DIGITS = 10
_SIZES = {"size", "width", "height"}


def read_from(
    written: SourceValue, pictures: Pictures, given: Layer, problems: Problems
) -> Entry | None:
    """Return the settings of the picture that a recipe starts from, without the `given` fields.

    All have the position at which the recipe names the picture. Given `loras` also override those
    in the picture's prompts. `pictures` provides its texts, and the paths of its start images as
    seen from the recipe. Returns None if the picture cannot be read; `problems` gets the reason.
    """
    path = str(written.value)
    try:
        found = _settings(pictures.texts(path), pictures)
    except PictureUnreadable as error:
        words = str(error)
        words = words if path in words else f"{shown(path)}: {words}"
        problems.add(written.error_position, words)
        return None
    if "loras" in given:
        details = found.values.get("detail")
        for values in (found.values, *(details if isinstance(details, list) else ())):
            for name in values.keys() & PROMPTS:
                values[name] = without_loras(values[name]).strip()
    position = replace(written.position, note=f" (in {shown(path)})")
    entry = found.entry(position, given)
    digits, checkpoint = entry.checkpoint_hash[:_HASH_DIGITS], entry.layer.get("checkpoint")
    if digits and checkpoint:
        note = f"{position.note[:-1]}, rendered with the file whose hash begins {shown(digits)})"
        entry.layer["checkpoint"] = replace(checkpoint, position=replace(position, note=note))
    return entry


def settings_in(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that a picture's texts give. Raises PictureUnreadable."""
    return _settings(texts, NO_PICTURES).values


def _settings(texts: Mapping[str, str], pictures: Pictures) -> foreign.ForeignSettings:
    given = texts
    texts = {n: t for n, t in texts.items() if len(t) <= MAX_BYTES and t.count("\n") <= MAX_LINES}
    if "picowatch-sheet" in texts:
        words = "it is a contact sheet. The settings are in its pictures."
        raise PictureUnreadable(words, "Name one of those.")
    found, what = foreign.ForeignSettings(), "text"
    try:
        if "picowatch" in texts:
            found.values = _of_picowatch(texts["picowatch"], pictures)
            return found
        texts = {name: foreign.visible(text) for name, text in texts.items()}
        text = texts.get("parameters", "")
        if settings := foreign.settings_of(texts):
            what = f"text from {settings[0]}"
            foreign.read_settings(*settings, found)
        elif workflow := comfyui_in(texts):
            what = "workflow from ComfyUI"
            _read_workflow(workflow, text, found)
        elif holds_parameters(text):
            read_parameters(text, found)
        elif text:
            raise PictureUnreadable("its 'parameters' text has no line 'Steps: …, Sampler: …'.")
        elif '"links"' in texts.get("workflow", ""):
            words = "it has a workflow of ComfyUI's editor, without the values of a run."
            raise PictureUnreadable(words, "Run it there, and name the picture that it saves.")
        elif len(texts) < len(given):  # others may have pictures in them
            raise PictureUnreadable("its texts are too long to be settings.")
        else:
            raise PictureUnreadable(
                "it contains no settings that picowatch can read.",
                "Unedited pictures by picowatch, A1111, ComfyUI, Fooocus, InvokeAI 3 and later, "
                "picoDiffusion and SwarmUI do. For the result of a dropped picture, write outbox/ "
                "before its path.",
            )
    except foreign.DAMAGE:
        raise PictureUnreadable(f"its {what} is damaged.") from None
    for name in found.values.keys() & PROMPTS:
        found.values[name] = foreign.final(found.values[name])
    return found


def _read_workflow(workflow: str, text: str, found: foreign.ForeignSettings) -> None:
    """Read the workflow, and from the A1111 text beside it only what the workflow lacks."""
    beside = foreign.ForeignSettings()
    if holds_parameters(text):
        read_parameters(text, beside)
    try:
        read_comfyui(workflow, found)
    except PictureUnreadable:
        if not beside.values:
            raise
        found.values, found.warnings = beside.values, beside.warnings
    else:
        # People fill in the nodes that write such a text by hand: it may know less than the rest.
        said = {name: value for name, value in found.values.items() if value}
        if not _SIZES.isdisjoint(said):  # one source gives all of a size
            beside.values = {n: setting for n, setting in beside.values.items() if n not in _SIZES}
        found.values = found.values | beside.values | said


def _of_picowatch(text: str, pictures: Pictures) -> dict[str, Any]:
    """Return the request's fields as a recipe writes them."""
    request = read_chunk(text).request_for(pictures)
    fields = recipe_values(request)
    if not request.draws:
        return fields
    for detail in fields["detail"] if request.detail else ():
        detail |= {name: foreign.final(detail[name]) for name in detail.keys() & PROMPTS}
    embeddings = ",".join(use.name for use in request.embeddings)
    return fields | {CHECKPOINT_HASH: request.checkpoint_hash, EMBEDDINGS: embeddings}
