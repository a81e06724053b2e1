"""The field `control`: a mapping, or a list of mappings, each a ControlNet and what it follows."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

from pydantic import ValidationError

from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed, squeezed
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.parts import Control, ControlKind, ControlMode, Preprocessor
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.resolve.installed import find_controlnet, find_depth
from picowatch.recipe.resolve.layers import names_none, unquoted
from picowatch.recipe.resolve.mappings import parts_in, read_parts
from picowatch.recipe.resolve.start_image import read_path
from picowatch.recipe.written import Layer, Written

CONTROL = "control"
MAX_CONTROLS = 10
PREPROCESSORS: tuple[str, ...] = get_args(Preprocessor)
KINDS: tuple[str, ...] = get_args(ControlKind)[1:]
# A1111's names of preprocessors, where they are others, and of modes.
A1111_MODULES = {
    "invert": "invert (from white bg & black line)",
    "lineart": "lineart_standard (from white bg & black line)",
    "blur": "blur_gaussian",
    "luminance": "recolor_luminance",
    "tile": "tile_resample",
    "depth": "depth_anything_v2",
    "inpaint": "inpaint_global_harmonious",
}
A1111_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
# Ours, A1111's, and their numbers in A1111's API.
MODES: dict[str, str] = {
    **{name: name for name in get_args(ControlMode)},
    **{theirs.casefold(): name for name, theirs in A1111_MODES.items()},
    **{str(number): name for number, name in enumerate(A1111_MODES)},
}
# The options of each preprocessor that are numbers, in the order of A1111's thresholds.
THRESHOLDS = {"canny": ("low", "high"), "threshold": ("threshold",), "blur": ("radius",)}
# Which preprocessor an option belongs to.
_OPTIONS = {name: one for one, names in THRESHOLDS.items() for name in names} | {"depth": "depth"}
# What a union follows if the map is made here.
_KIND_OF = {
    "depth": "depth",
    "canny": "hard edges",
    "lineart": "hard edges",
    "tile": "tile",
    "blur": "tile",
    "inpaint": "inpaint",
}
# Parts of the names of preprocessors that are networks of their own.
_DETECTORS = re.compile(
    "pose|hed|pidi|scribble|softedge|mlsd|normal|seg|oneformer|midas|zoe|leres|lineart|face|teed"
)


def read_controls(
    layer: Layer,
    inventory: Inventory,
    pictures: Pictures,
    checkpoint: Checkpoint,
    image: str,
    has_mask: bool,
    problems: Problems,
) -> tuple[Control, ...]:
    """The ControlNets of an entry, with what a sweep says of them; `image` is its start image.

    Where each one's picture stands in the file is added to the layer, for later errors.
    """
    written = layer.get(CONTROL)
    if written is None or written.value is False or names_none(written):
        return ()
    entries = _entries(layer)
    if len(entries) > MAX_CONTROLS:
        message = f"more than {MAX_CONTROLS} ControlNets here."
        problems.add(entries[MAX_CONTROLS].position, message)
        return ()
    swept = _swept(layer, len(entries), problems)
    found = []
    for index, entry in enumerate(entries):
        if not isinstance(entry.value, dict):
            problems.add(entry.error_position, wrong_value(CONTROL, entry))
            continue
        parts = read_parts(CONTROL, entry, problems) | swept
        layer[f"{CONTROL}.{index}"] = parts.get("image", entry)
        reader = _Reader(inventory, pictures, checkpoint, entry, parts, problems)
        control = reader.control(image, has_mask)
        found += [control] if control else []
    return tuple(found)


def _swept(layer: Layer, count: int, problems: Problems) -> Layer:
    swept = parts_in(layer, CONTROL)
    for name, written in swept.items():
        if count > 1:
            problems.add(
                written.name_position,
                f"'control: {name}' could vary any of the {count} ControlNets here. Sweep "
                "'control' itself, with whole lists as values.",
            )
    return swept


def control_images(layer: Layer) -> Iterator[tuple[int, Written]]:
    """The pictures that the entries of `control` name, as written, by the entries' indexes."""
    for index, entry in enumerate(_entries(layer)):
        for name, part in entry.pairs:
            if name == "image":
                yield index, part


def with_control_image(index: int, layer: Layer, image: Written) -> Layer:
    """The layer with another picture in that entry of `control`."""
    written, entries = layer[CONTROL], list(_entries(layer))
    pairs = tuple((n, image if n == "image" else part) for n, part in entries[index].pairs)
    entries[index] = entries[index].with_pairs(pairs)
    if isinstance(written.value, tuple):
        changed = replace(written, parts=tuple(entries))
    else:
        changed = entries[index]
    return {**layer, CONTROL: changed}


def _entries(layer: Layer) -> tuple[Written, ...]:
    written = layer.get(CONTROL)
    if written is None:
        return ()
    return written.parts if isinstance(written.value, tuple) else (written,)


class _Reader:
    """Reads one entry; what is wrong goes to `problems`."""

    def __init__(
        self,
        inventory: Inventory,
        pictures: Pictures,
        checkpoint: Checkpoint,
        entry: Written,
        parts: Layer,
        problems: Problems,
    ) -> None:
        self._inventory = inventory
        self._pictures = pictures
        self._checkpoint = checkpoint
        self._entry = entry
        self._parts = {name: _plain(name, part) for name, part in parts.items()}
        self._problems = problems

    def control(self, image: str, has_mask: bool) -> Control | None:
        """The ControlNet; None if something is wrong that leaves no sense."""
        values: dict[str, Any] = {name: part.value for name, part in self._parts.items()}
        model = self._model()
        preprocess = self._preprocess(has_mask)
        values |= {
            "image": self._image(image),
            "model": model.name if model else "",
            "preprocess": preprocess,
            "depth": self._depth() if preprocess == "depth" else "",
            "kind": self._kind(model, preprocess) if model else "",
        }
        self._refuse_idle(preprocess)
        try:
            control = Control(**values)
        except ValidationError as error:
            self._report(error)
            return None
        if control.start > control.end:
            message = f"control begins at {control.start:g}, after its end at {control.end:g}."
            self._add("start", message)
        return control if model else None

    def _image(self, start_image: str) -> str:
        """The path of the picture to follow: its own, or the start image."""
        if self._text("image") is not None:
            field = f"{CONTROL} image"
            layer = {field: self._parts["image"]}
            if not names_none(layer[field]):
                return read_path(field, layer, self._pictures, self._problems)
        if not start_image:
            self._add("image", "control has no picture to follow. Write 'image: …' there.")
        return start_image

    def _model(self) -> ControlNet | None:
        """The ControlNet that is named, if it fits the checkpoint."""
        name = self._text("model")
        if name is None:
            if "model" not in self._parts:
                names = [one.name for one in self._fitting()]
                there = f"Installed: {listed(names)}." if names else "None is installed for it."
                self._add("model", f"control names no model from models/controlnet. {there}")
            return None
        with self._problems.caught(self._parts["model"].error_position):
            model = find_controlnet(name, self._inventory)
            if not self._checkpoint.rules.flow and not model.fits(self._checkpoint):
                self._add("model", _misfit(model, self._checkpoint))
            return model
        return None

    def _fitting(self) -> Iterator[ControlNet]:
        return (one for one in self._inventory.controlnets if one.fits(self._checkpoint))

    def _preprocess(self, has_mask: bool) -> str:
        text = self._text("preprocess")
        found = find_preprocessor(text or "none")
        if not found:
            self._add("preprocess", why_no_preprocessor(text or ""))
            return "none"
        if found == "inpaint" and not has_mask:
            message = (
                "'preprocess: inpaint' shows a ControlNet what the mask leaves "
                "of the start image. Add image and mask."
            )
            self._add("preprocess", message)
        return found

    def _depth(self) -> str:
        written = self._parts.get("depth", self._parts["preprocess"])
        with self._problems.caught(written.error_position):
            return find_depth(self._text("depth") or "", self._inventory)
        return ""

    def _kind(self, model: ControlNet, preprocess: str) -> str:
        """What the map shows, which a union has to be told."""
        text = (self._text("kind") or "").strip().casefold()
        if not model.kinds:
            if text:
                message = (
                    f"the ControlNet '{shown(model.name)}' is no union: it follows "
                    "one kind of map. Remove kind."
                )
                self._add("kind", message)
            return ""
        known = KINDS[: model.kinds]
        kind = text or _KIND_OF.get(preprocess, "")
        if kind not in known:
            what = f"not '{shown(kind)}'" if kind else "which 'preprocess: none' does not say"
            message = (
                f"the union ControlNet '{shown(model.name)}' must be told what the "
                f"map shows, {what}. Write 'kind: …' with {listed(known, 'or')}."
            )
            self._add("kind", message)
            return ""
        return kind

    def _refuse_idle(self, preprocess: str) -> None:
        """Options of other preprocessors than its own."""
        for name, needed in _OPTIONS.items():
            if name in self._parts and needed != preprocess:
                message = f"control {name} has no effect without 'preprocess: {needed}'. Remove it."
                self._add(name, message)

    def _text(self, name: str) -> str | None:
        """An option's text; None if it is missing or, which is a problem, something else."""
        written = self._parts.get(name)
        if written is None or isinstance(written.value, str):
            return None if written is None else str(written.value)
        self._add(name, wrong_value(f"{CONTROL}.{name}", written))
        return None

    def _report(self, error: ValidationError) -> None:
        for mistake in error.errors(include_url=False, include_context=False):
            name = str(mistake["loc"][0])
            if name in self._parts:
                self._add(name, wrong_value(f"{CONTROL}.{name}", self._parts[name]))

    def _add(self, name: str, message: str) -> None:
        """A problem of an option, or of the entry that lacks it."""
        written = self._parts.get(name)
        position = written.error_position if written else self._entry.name_position
        self._problems.add(position, message)


def find_preprocessor(written: str) -> str:
    """The preprocessor that is meant, by ours or A1111's name; "" for one that picowatch lacks."""
    module = _squeezed_module(written)
    name = _MODULES.get(module, module)
    return name if name in PREPROCESSORS else ""


def why_no_preprocessor(written: str) -> str:
    """What to do without it."""
    known = listed(PREPROCESSORS, most=20)
    if _DETECTORS.search(squeezed(written)):
        return (
            f"the preprocessor '{shown(written)}' is a network of its own, which picowatch does "
            "not have. Make the map with another program and use it with 'preprocess: none'. The "
            f"preprocessors here are {known}."
        )
    meant = did_you_mean(written, PREPROCESSORS)
    return f"unknown preprocessor '{shown(written)}'. {meant}The preprocessors are {known}."


def find_mode(written: str) -> str:
    """The mode that is meant, or what was written."""
    return MODES.get(written.strip().casefold(), written)


def _plain(name: str, part: Written) -> Written:
    """An option's value; modes have other names, too."""
    if name == "mode" and isinstance(part.value, str | int):
        return replace(part, value=find_mode(str(part.value)))
    return unquoted(f"{CONTROL}.{name}", part)


def _squeezed_module(name: str) -> str:
    """What follows in brackets is for people."""
    return squeezed(name.partition("(")[0])


_MODULES = {_squeezed_module(theirs): name for name, theirs in A1111_MODULES.items()}
_MODULES["depthanything"] = "depth"


def _misfit(model: ControlNet, checkpoint: Checkpoint) -> str:
    other = f"belongs to {checkpoint.family}"
    if model.family == checkpoint.family:
        other = "is of another size"
    return (
        f"the ControlNet '{shown(model.name)}' is for {model.family}, but the checkpoint "
        f"'{shown(checkpoint.name)}' {other}. Use a ControlNet of its family, or another "
        "checkpoint."
    )
