"""What the values of a layer name: installed models, and pictures by their paths."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.control import KIND_OF
from picowatch.recipe.fields import ALPHA, BAKED
from picowatch.recipe.installed import NoneOfThisName, find, find_checkpoint
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.parts import MOST_UPSCALED, PIXEL_UPSCALERS, USUAL_MARGIN
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.resolve.rules import Rules
from picowatch.recipe.resolve.severity import Reporter
from picowatch.recipe.resolve.start_image import read_path
from picowatch.recipe.written import Origin, Position, find_in

_MOST_NARROW = 8  # FLUX.2 refuses longer references (diffusers, flux2/image_processor.py)
Parts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What all recipes of a file are resolved with, and the `named` pictures, by their paths."""

    inventory: Inventory
    pictures: Pictures
    rules: Rules
    named: dict[str, Position] = field(default_factory=dict)


def find_installed(reporter: Reporter, inventory: Inventory, is_text: bool) -> Checkpoint:
    """Return the checkpoint of the reporter's layer; NO_CHECKPOINT if it cannot be used.

    `is_text`: another program's text may ask for it, not a picture.
    """
    written = reporter.layer.get("checkpoint")
    try:
        return find_checkpoint(text_of("checkpoint", written) if written else None, inventory)
    except ValueInvalid as error:
        remedy = error.remedy
        if isinstance(error, NoneOfThisName) and written and written.origin is Origin.FOREIGN:
            named = f"remove 'Model: {shown(written.text)}'"
            instead, who = (
                (named, "this text") if is_text else ("write 'checkpoint: …'", "the picture")
            )
            remedy = f"Put its file there, or {instead}: only {who} asks for it."
        reporter.wrong("checkpoint", str(error), remedy=remedy)
        return NO_CHECKPOINT


@dataclass(frozen=True, slots=True)
class Lookup:
    """Looks up what the values `said` in the reporter's layer name; mistakes are reported."""

    reporter: Reporter
    known: Known
    said: dict[str, Any]

    def files(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the values of all fields that name files, for a recipe that draws."""
        vae = self.model("vae", "vae", BAKED) if "vae" in self.reporter.layer else ""
        image, references = self.path("image"), self._references()
        return {
            "checkpoint": checkpoint.name,
            "vae": vae or BAKED,
            "image": image,
            "references": references,
            "mask": self._mask(image, references),
            "hires": self._hires(is_flow=checkpoint.rules.flow),
            "upscale": self.upscale(),
            "cutout": self.cutout(),
            "detail": self._details(checkpoint.native_size),
            "control": self._controls(image),
        }

    def path(self, name: str) -> str:
        """Return the path of the picture that a field names; "" for none, or if it is wrong."""
        pictures, written = self.known.pictures, find_in(self.reporter.layer, name)
        try:
            path = read_path(re.sub(r"\.\d+\.", ".", name), written, pictures)
        except ValueInvalid as error:
            self.reporter.wrong(name, str(error))
            return ""
        if path:
            self.known.named[path] = self.reporter.position_of(name)
        return path

    def model(self, field: str, kind: str, instead: Any = "") -> str | None:
        """Return the installed model that a field names, or the one instead; None for an error."""
        written = find_in(self.reporter.layer, field)
        try:
            return find(kind, text_of(field, written) if written else None, self.known.inventory)
        except ValueInvalid as error:
            is_replaced = self.reporter.wrong(field, str(error), instead, remedy=error.remedy)
            return instead if is_replaced else None

    def upscale(self) -> Parts | None:
        """Return the upscaler, with the model's scale where none is given."""
        model = self.model("upscale.model", "upscaler") if "upscale" in self.said else None
        if not model:
            return None
        usual = float(min(self.known.inventory.named("upscaler")[model].scale, MOST_UPSCALED))
        return {"model": model, "scale": self.said["upscale"].get("scale") or usual}

    def cutout(self) -> Parts | None:
        """Return what cuts out and how, with the usual margin where only a size is given."""
        if "cutout" not in self.said:
            return None
        is_found = find_in(self.reporter.layer, "cutout.find")
        model = self.model("cutout.model", "segmentation" if is_found else "cutout")
        usual = {"margin": USUAL_MARGIN} if "size" in self.said["cutout"] else {}
        return usual | self.said["cutout"] | {"model": model} if model else None

    def _references(self) -> tuple[str, ...]:
        written = self.reporter.layer.get("references")
        parts = range(len(written.parts)) if written else ()
        paths = [self.path(f"references.{index}") for index in parts]
        for index, path in enumerate(paths):
            with suppress(PictureUnreadable):  # reported where pictures are kept
                width, height = self.known.pictures.size(path) if path else (1, 1)
                if max(width, height) > _MOST_NARROW * min(width, height):
                    what = f"'{shown(path)}' is too narrow, {width}x{height} pixels."
                    most = f"One side may have {_MOST_NARROW} times the other's pixels."
                    self.reporter.wrong(f"references.{index}", f"{what} {most}")
        return tuple(filter(None, paths))

    def _mask(self, image: str, references: tuple[str, ...]) -> str | Parts:
        """Return the mask's path, for `alpha` that of the masked picture; or what to find there."""
        if "mask" in self.said:
            return self._finder("mask", self.said["mask"]) or ""
        written = self.reporter.layer.get("mask")
        if written is None or written.text.strip().casefold() != ALPHA:
            return self.path("mask")
        return image or next(iter(references), "")

    def _finder(self, place: str, parts: Parts) -> Parts | None:
        """Return what is to be found, and by which model; None if nothing says what.

        Without the model that another picture was made with, the best one is used.
        """
        if "find" not in parts:
            if not find_in(self.reporter.layer, f"{place}.find"):
                name = place.partition(".")[0]
                what = f"{name} does not say what to find. Write 'find: …' there."
                self.reporter.wrong(place, what)
            return None
        best = next(iter(self.known.inventory.named("segmentation")))
        return parts | {"model": self.model(f"{place}.model", "segmentation", best) or ""}

    def _hires(self, *, is_flow: bool) -> Parts | None:
        parts: Parts | None = self.said.get("hires")
        pixels = PIXEL_UPSCALERS[0]
        if parts and "upscaler" in parts:
            upscaler = self.model("hires.upscaler", "hires upscaler", pixels)
            return parts | {"upscaler": upscaler or pixels}
        # Enlarging a flow model's latents spoils them.
        return parts if parts is None or not is_flow else parts | {"upscaler": pixels}

    def _details(self, native: int) -> tuple[Parts, ...]:
        """Return what is drawn again, with a model's name and a size."""
        each = enumerate(self.said.get("detail", ()))
        found = (self._finder(f"detail.{index}", parts) for index, parts in each)
        return tuple({"size": f"{native}x{native}"} | parts for parts in found if parts)

    def _controls(self, image: str) -> tuple[Parts, ...]:
        """Return the ControlNets; those whose model or picture is missing are left out."""
        found = []
        for index, parts in enumerate(self.said.get("control", ())):
            place = f"control.{index}"
            model = self.model(f"{place}.model", "controlnet") if "model" in parts else None
            if model == "":
                continue
            own = find_in(self.reporter.layer, f"{place}.image")
            is_own = own is not None and not own.is_none
            path = self.path(f"{place}.image") if is_own else image
            if is_own and not path:
                continue
            more = {"model": model or "", "image": path}
            if parts.get("preprocess") == "depth":
                more["depth"] = self.model(f"{place}.depth", "depth") or ""
            if model and self.known.inventory.named("controlnet")[model].kinds:
                more["kind"] = parts.get("kind", KIND_OF.get(parts.get("preprocess", ""), ""))
            found.append(parts | more)
        return tuple(found)
