"""The field `from`: the settings that a picture's metadata holds, as a layer of fields.

Read are, in this order: picowatch's own JSON; NovelAI's `Comment`; Fooocus' or SwarmUI's JSON, or
A1111's text, in `parameters`; InvokeAI's JSON; picoDiffusion's keys; ComfyUI's workflow; Draw
Things' XMP.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import CHECKPOINT_HASH, PROMPTS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import NO_PICTURES, Pictures, as_written
from picowatch.recipe.prompts.editing import edits_in, parse_edits
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.read.a1111 import a1111_picture
from picowatch.recipe.read.a1111_blocks import MAX_LINES, holds_parameters
from picowatch.recipe.read.carried import DAMAGE, Carried
from picowatch.recipe.read.comfyui import is_comfyui, read_comfyui
from picowatch.recipe.read.decoding import MAX_BYTES, unix_line_ends
from picowatch.recipe.read.draw_things import is_draw_things, read_draw_things
from picowatch.recipe.read.fooocus import is_fooocus, read_fooocus
from picowatch.recipe.read.invokeai import is_invokeai, read_invokeai
from picowatch.recipe.read.novelai import is_novelai, read_novelai
from picowatch.recipe.read.swarmui import is_swarmui, read_swarmui
from picowatch.recipe.request import ImageRequest, loras_beside_prompt, recipe_values
from picowatch.recipe.resolve.installed import EMBEDDINGS
from picowatch.recipe.written import Entry, Layer, Position, Source, Written, written_at

_HASH_DIGITS = 10
_PICODIFFUSION = ("steps", "seed", "sampler", "checkpoint", "vae", "width", "height")
# What picoDiffusion always does.
_PICODIFFUSION_CLIP_SKIP = 3


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
        found = _fields(path, texts, pictures, position, "checkpoint" in given)
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
                layer[name] = replace(layer[name], value=text)
    return replace(found, layer=layer)


def settings_in(texts: Mapping[str, str]) -> tuple[dict[str, object], tuple[str, ...]]:
    """The fields that a picture's texts give, and warnings for what a recipe cannot say.

    Raises PictureUnreadable.
    """
    position = Source("", "").whole_line(1)
    found = _fields("", texts, NO_PICTURES, position, names_checkpoint=True)
    return {name: written.value for name, written in found.layer.items()}, found.warnings


def _fields(
    path: str,
    texts: Mapping[str, str],
    pictures: Pictures,
    position: Position,
    names_checkpoint: bool,
) -> Entry:
    if any(len(text) > MAX_BYTES or text.count("\n") > MAX_LINES for text in texts.values()):
        raise PictureUnreadable("its texts are too long to be settings.")
    if "picowatch-sheet" in texts:
        raise PictureUnreadable(
            "it is a contact sheet. The settings are in its pictures.", "Name one of those."
        )
    if "picowatch" in texts:
        return Entry(_of_picowatch(texts["picowatch"], pictures, position), position)
    other = _of_another_program(texts, position)
    if other:
        return replace(other, warnings=(*other.warnings, *_brackets_in(other.layer)))
    if "parameters" in texts:
        return _of_a1111(path, texts["parameters"], position, names_checkpoint)
    raise PictureUnreadable(
        "it contains no settings that picowatch can read.",
        "Unedited pictures by picowatch, A1111, ComfyUI, Draw Things, Fooocus, InvokeAI, NovelAI, "
        "picoDiffusion and SwarmUI do." + _about_its_result(path, pictures),
    )


def _about_its_result(path: str, pictures: Pictures) -> str:
    """A dropped picture's result has its path in the outbox, but the inbox is searched first."""
    result = f"outbox/{path}"
    with suppress(PictureUnreadable):
        if "picowatch" in pictures.texts(result):
            return f" To start from its result, write '{shown(result)}'."
    return ""


def _of_another_program(texts: Mapping[str, str], position: Position) -> Entry | None:
    """What other programs than A1111 wrote, as far as theirs is known."""
    for name, wrote, read in (*_IN_PARAMETERS, *(() if "parameters" in texts else _ELSEWHERE)):
        if wrote(texts):
            carried = Carried()
            try:
                read(texts, carried)
            except DAMAGE:
                raise PictureUnreadable(f"its {name} is damaged.") from None
            return carried.entry(position)
    return None


def _brackets_in(layer: Layer) -> Iterator[str]:
    """Brackets that only A1111 reads as changes between the steps."""
    for field in PROMPTS:
        text = str(layer[field].value) if field in layer else ""
        for edit in islice(edits_in(parse_edits(text)), 1):
            yield (
                f"'{shown(text[edit.start : edit.end])}' in {field} changes words between the "
                "steps, as in A1111. If the other program read it as words, write \\[ and \\]."
            )


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
        return {name: layer[name] for name in ("image", "upscale", "exact")}
    layer["checkpoint"] = Written(request.checkpoint, _hashed(position, request.checkpoint_hash))
    layer[CHECKPOINT_HASH] = Written(request.checkpoint_hash, position)
    if request.vae_hash:
        layer["vae"] = Written(request.vae, _hashed(position, request.vae_hash))
    names = ",".join(use.name for use in request.embeddings)
    layer[EMBEDDINGS] = Written(names, position)
    for field, uses in (("prompt", request.loras), ("loras", loras_beside_prompt(request))):
        hashes = ", ".join(f"{u.name} {u.hash[:_HASH_DIGITS]}" for u in uses)
        if hashes:
            noted = _noted(position, f"; the hashes of its LoRAs begin: {shown(hashes, 200)}")
            layer[field] = replace(layer[field], position=noted)
    return layer


def _hashed(position: Position, hash_: str) -> Position:
    return _noted(position, f", rendered with the file whose hash begins {hash_[:_HASH_DIGITS]}")


def _noted(position: Position, more: str) -> Position:
    """The position with more in the brackets of its note."""
    return replace(position, note=f"{position.note.removesuffix(')')}{more})")


def _of_a1111(path: str, text: str, position: Position, names_checkpoint: bool) -> Entry:
    text = unix_line_ends(text).rstrip("\n")
    if not holds_parameters(text):
        raise PictureUnreadable("its 'parameters' text has no line 'Steps: …, Sampler: …'.")
    source = Source(path, text)
    mistakes = Problems()
    entry, model_hash = a1111_picture(source, mistakes)
    for mistake in mistakes.found:
        raise PictureUnreadable(mistake.message)
    if model_hash and not names_checkpoint:
        raise PictureUnreadable(
            f"the model with the hash {shown(model_hash)} is not known by name.",
            "Write 'checkpoint: …' here.",
        )
    layer = {name: _at(written, position) for name, written in entry.layer.items()}
    return Entry(layer, position, entry.warnings)


def _at(written: Written, position: Position) -> Written:
    """The value as if it stood in the recipe, where the picture is named."""
    pairs = tuple((name, _at(pair, position)) for name, pair in written.pairs)
    return Written(written.value, position, pairs=pairs)


def _is_picodiffusion(texts: Mapping[str, str]) -> bool:
    return texts.get("generator", "").casefold() == "picodiffusion"


def _read_picodiffusion(texts: Mapping[str, str], carried: Carried) -> None:
    carried.values |= {"prompt": "", "clip_skip": _PICODIFFUSION_CLIP_SKIP}
    fields = {name: name for name in (*PROMPTS, *_PICODIFFUSION)} | {"cfg": "cfg_scale"}
    carried.take_all({key: text for key, text in texts.items() if text}, fields)
    lora = texts.get("lora", "")
    if lora.casefold() != "none":
        carried.put_lora(lora, texts.get("lora_weight") or "1")


class _Program(NamedTuple):
    """What a program wrote into a picture: a name for it, whether it is there, what it says."""

    name: str
    wrote: Callable[[Mapping[str, str]], bool]
    read: Callable[[Mapping[str, str], Carried], None]


# Those that may write `parameters` as A1111 does, and the others.
_IN_PARAMETERS = (
    _Program("text from NovelAI", is_novelai, read_novelai),
    _Program("text from Fooocus", is_fooocus, read_fooocus),
    _Program("text from SwarmUI", is_swarmui, read_swarmui),
)
_ELSEWHERE = (
    _Program("text from InvokeAI", is_invokeai, read_invokeai),
    _Program("text from picoDiffusion", _is_picodiffusion, _read_picodiffusion),
    _Program("workflow from ComfyUI", is_comfyui, read_comfyui),
    _Program("text from Draw Things", is_draw_things, read_draw_things),
)
