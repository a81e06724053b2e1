"""The field `control`: a mapping, or a list of mappings, each a ControlNet and what it follows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from picowatch.errors import ValueInvalid
from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.parts import Control
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.preprocessors import (
    KIND_OF,
    KINDS,
    OPTIONS,
    find_mode,
    find_preprocessor,
    why_no_preprocessor,
)
from picowatch.recipe.resolve.installed import find_controlnet, find_depth
from picowatch.recipe.resolve.layers import names_none, unquoted
from picowatch.recipe.resolve.mappings import parts_in, read_parts
from picowatch.recipe.resolve.severity import Finding, Judge
from picowatch.recipe.resolve.start_image import read_path
from picowatch.recipe.written import Layer, Written

CONTROL = "control"
MAX_CONTROLS = 10


@dataclass(frozen=True, slots=True)
class Followed:
    """What ControlNets may follow: the files that are there, start image and mask."""

    inventory: Inventory
    pictures: Pictures
    checkpoint: Checkpoint
    image: str
    has_mask: bool


def read_controls(layer: Layer, followed: Followed, judge: Judge) -> tuple[Control, ...]:
    """The ControlNets of an entry, with what a sweep says of them.

    Where each one stands in the file is added to the layer, for later errors.
    """
    written = layer.get(CONTROL)
    if written is None or written.value is False or names_none(written):
        return ()
    entries = _entries(layer)
    if len(entries) > MAX_CONTROLS:
        what = f"more than {MAX_CONTROLS} ControlNets here."
        judge.replaces(Finding(CONTROL, what, position=entries[MAX_CONTROLS].position))
        return ()
    swept = parts_in(layer, CONTROL)
    for name, part in swept.items() if len(entries) > 1 else ():
        what = f"'control: {name}' could vary any of the {len(entries)} ControlNets here."
        remedy = "Sweep 'control' itself, with whole lists as values."
        judge.replaces(Finding(CONTROL, what, remedy, position=part.name_position))
    found = []
    for index, entry in enumerate(entries):
        parts: Layer = {}
        if isinstance(entry.value, dict):
            parts = read_parts(CONTROL, entry, judge.problems) | swept
            control = _Reader(followed, entry, parts, judge).control()
            found += [control] if control else []
        else:
            what = wrong_value(CONTROL, entry)
            judge.replaces(Finding(CONTROL, what, position=entry.error_position))
        layer[f"{CONTROL}.{index}"] = parts.get("image", entry)
    return tuple(found)


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
        return {**layer, CONTROL: replace(written, parts=tuple(entries))}
    return {**layer, CONTROL: entries[index]}


def _entries(layer: Layer) -> tuple[Written, ...]:
    written = layer.get(CONTROL)
    if written is None:
        return ()
    return written.parts if isinstance(written.value, tuple) else (written,)


class _Reader:
    """Reads one entry; one that somebody else wrote is left out where it is wrong."""

    def __init__(self, followed: Followed, entry: Written, parts: Layer, judge: Judge) -> None:
        self._followed = followed
        self._entry = entry
        self._parts = {name: unquoted(f"{CONTROL}.{name}", part) for name, part in parts.items()}
        self._judge = judge
        self._is_wrong = False

    def control(self) -> Control | None:
        """The ControlNet; None if something is wrong."""
        model, preprocess = self._model(), self._preprocess()
        for name, needed in OPTIONS.items():
            if name in self._parts and needed != preprocess:
                what = f"control {name} has no effect without 'preprocess: {needed}'. Remove it."
                self._add(name, what)
        values: dict[str, Any] = {name: part.value for name, part in self._parts.items()} | {
            "image": self._image(),
            "model": model.name if model else "",
            "preprocess": preprocess,
            "depth": self._depth() if preprocess == "depth" else "",
            "kind": self._kind(model, preprocess) if model else "",
        }
        if "mode" in self._parts:
            values["mode"] = find_mode(str(values["mode"]))
        try:
            control = Control(**values)
        except ValidationError as error:
            for mistake in error.errors(include_url=False, include_context=False):
                name = str(mistake["loc"][0])
                if name in self._parts:
                    self._add(name, wrong_value(f"{CONTROL}.{name}", self._parts[name]))
            return None
        if control.start > control.end:
            what = f"control begins at {control.start:g}, after its end at {control.end:g}."
            self._add("start", what)
        return None if self._is_wrong else control

    def _image(self) -> str:
        """The path of the picture to follow: its own, or the start image."""
        written = self._parts.get("image")
        if written and not names_none(written):
            problems = Problems()
            path = read_path(f"{CONTROL} image", written, self._followed.pictures, problems)
            for problem in problems.found:
                self._add("image", problem.message)
            return path
        if not self._followed.image:
            self._add("image", "control has no picture to follow. Write 'image: …' there.")
        return self._followed.image

    def _model(self) -> ControlNet | None:
        """The ControlNet that is named, if it fits the checkpoint."""
        name, checkpoint = self._text("model"), self._followed.checkpoint
        installed = self._followed.inventory.controlnets
        if name is None:
            names = [one.name for one in installed if one.fits(checkpoint)]
            there = f"Installed: {listed(names)}." if names else "None is installed for it."
            if "model" not in self._parts:
                self._add("model", f"control names no model from models/controlnet. {there}")
            return None
        try:
            model = find_controlnet(name, self._followed.inventory)
        except ValueInvalid as error:
            self._add("model", str(error))
            return None
        if not checkpoint.rules.flow and not model.fits(checkpoint):
            self._add("model", _misfit(model, checkpoint), of_checkpoint=True)
        return model

    def _preprocess(self) -> str:
        text = self._text("preprocess") or "none"
        found = find_preprocessor(text)
        if not found:
            self._add("preprocess", why_no_preprocessor(text))
        elif found == "inpaint" and not self._followed.has_mask:
            what = (
                "'preprocess: inpaint' shows a ControlNet what the mask leaves of the start "
                "image. Add image and mask."
            )
            self._add("preprocess", what)
        return found or "none"

    def _depth(self) -> str:
        try:
            return find_depth(self._text("depth") or "", self._followed.inventory)
        except ValueInvalid as error:
            self._add("depth" if "depth" in self._parts else "preprocess", str(error))
            return ""

    def _kind(self, model: ControlNet, preprocess: str) -> str:
        """What the map shows, which a union has to be told."""
        text = (self._text("kind") or "").strip().casefold()
        if not model.kinds:
            if text:
                what = f"the ControlNet '{shown(model.name)}' is no union: it follows one kind"
                self._add("kind", f"{what} of map. Remove kind.")
            return ""
        known = KINDS[: model.kinds]
        kind = text or KIND_OF.get(preprocess, "")
        if kind in known:
            return kind
        what = f"not '{shown(kind)}'" if kind else "which 'preprocess: none' does not say"
        message = (
            f"the union ControlNet '{shown(model.name)}' must be told what the map shows, {what}. "
            f"Write 'kind: …' with {listed(known, 'or')}."
        )
        self._add("kind", message)
        return ""

    def _text(self, name: str) -> str | None:
        """An option's text; None if it is missing or, which is reported, something else."""
        written = self._parts.get(name)
        if written is None or isinstance(written.value, str):
            return None if written is None else str(written.value)
        self._add(name, wrong_value(f"{CONTROL}.{name}", written))
        return None

    def _add(self, name: str, message: str, *, of_checkpoint: bool = False) -> None:
        """Report an option, or the entry that lacks it: others' entries are left out."""
        written = self._parts.get(name)
        at = written.error_position if written else self._entry.name_position
        finding = Finding(CONTROL, message, instead="", of_checkpoint=of_checkpoint, position=at)
        self._judge.replaces(finding)
        self._is_wrong = True


def _misfit(model: ControlNet, checkpoint: Checkpoint) -> str:
    other = f"belongs to {checkpoint.family}"
    if model.family == checkpoint.family:
        other = "is of another size"
    return (
        f"the ControlNet '{shown(model.name)}' is for {model.family}, but the checkpoint "
        f"'{shown(checkpoint.name)}' {other}. Use a ControlNet of its family, or another "
        "checkpoint."
    )
