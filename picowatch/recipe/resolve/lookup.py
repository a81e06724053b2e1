"""What the values of a layer name: installed models, and pictures, with sizes that fit."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.fields import ALPHA, BAKED, MIN_SIDE
from picowatch.recipe.files import Pictures
from picowatch.recipe.installed import NoneOfThisName, find, find_checkpoint
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems, Reporter, shown
from picowatch.recipe.parts import KIND_OF, MOST_UPSCALED, PIXEL_UPSCALERS, USUAL_MARGIN
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.resolve.rules import FoundInPrompts
from picowatch.recipe.written import FORBIDDEN, Origin, Position, SourceValue, find_in, invisible

_MOST_NARROW = 8  # FLUX.2 refuses longer references (diffusers, flux2/image_processor.py)
Parts = dict[str, Any]
MAX_PATH = 500
# Patterns that no path may match, and why; the first match is reported.
_WRONG_PATHS = {
    r"(?i)[a-z][a-z0-9+.-]+://": "is an address, and picowatch never downloads. Save the picture "
    "beside the recipe.",
    r".*\\|(.*/)?\.\.(/|$)|/|~|[A-Za-z]:": "must stay within inbox/ or outbox/, and have no '..' "
    "and no backslash, not '{path}'. Put the picture beside the recipe, or name one there, like "
    "photos/corgi.png.",
    f".{{{MAX_PATH + 1}}}": f"is longer than {MAX_PATH} characters.",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What all recipes of a file are resolved with, and the `named` pictures, by their paths."""

    inventory: Inventory
    pictures: Pictures
    named: dict[str, Position] = field(default_factory=dict)
    found_in_prompts: FoundInPrompts = field(default_factory=dict)


def find_installed(reporter: Reporter, inventory: Inventory, is_text: bool) -> Checkpoint:
    """Return the checkpoint of the reporter's layer; NO_CHECKPOINT if it cannot be used."""
    written = reporter.layer.get("checkpoint")
    is_foreign = reporter.origin_of("checkpoint") is Origin.FOREIGN
    try:
        named = text_of("checkpoint", written) if written else None
        return find_checkpoint(named, inventory, foreign=is_foreign)
    except ValueInvalid as error:
        remedy = error.remedy
        if isinstance(error, NoneOfThisName) and written and is_foreign:
            # Another program's text (`is_text`) may ask for it, or a picture.
            instead, who = "write 'checkpoint: …'", "the picture"
            if is_text:
                instead, who = f"remove 'Model: {shown(written.text)}'", "this text"
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
        native = checkpoint.native_size
        vae = self.model("vae", "vae", BAKED) if "vae" in self.reporter.layer else ""
        image, references = self.path("image"), self._references()
        details = enumerate(self.said.get("detail", ()))
        return {
            "checkpoint": checkpoint.name,
            "vae": vae or BAKED,
            "image": image,
            "references": references,
            "mask": self._mask(image, references),
            "hires": self._hires(is_flow=checkpoint.rules.flow),
            "upscale": self.upscale(),
            "cutout": self.cutout(),
            "detail": tuple(
                {"size": f"{native}x{native}"} | found
                for index, parts in details
                if (found := self._finder(f"detail.{index}", parts))
            ),
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
        """Return the installed model that a field names, or that instead; None for an error."""
        written = find_in(self.reporter.layer, field)
        try:
            named = text_of(field, written) if written else None
            is_foreign = written is not None and written.origin is Origin.FOREIGN
            return find(kind, named, self.known.inventory, foreign=is_foreign)
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
        written, paths = self.reporter.layer.get("references"), []
        for index in range(len(written.parts) if written else 0):
            paths.append(path := self.path(f"references.{index}"))
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
        """Return what is to be found, and by which model; None if nothing says what."""
        if "find" not in parts:
            if not find_in(self.reporter.layer, f"{place}.find"):
                name = place.partition(".")[0]
                what = f"{name} does not say what to find. Write 'find: …' there."
                self.reporter.wrong(place, what)
            return None
        # The best stands in for the model that another picture was made with, if it is missing.
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


def read_path(field: str, written: SourceValue | None, pictures: Pictures) -> str:
    """Return the picture's path as the recipe names it, or "" for none. Raises ValueInvalid."""
    if written is None or written.is_none:
        return ""
    path = text_of(field, written).strip().removeprefix("./")
    if path.startswith("/") and ".." not in path.split("/"):
        path = pictures.inside(path) or path  # inbox/… or outbox/…, as the folders may move
    path = pictures.beside(written.position.source.name, path)
    if why := why_no_path(path):
        raise ValueInvalid(f"{field.replace('.', ' ')} {why}")
    return path


def why_no_path(path: str) -> str | None:
    """Return why a recipe may not have this path of a picture; None if it may."""
    if hidden := FORBIDDEN.search(path) or re.search(r"[\t\n]", path):
        return f"contains {invisible(hidden[0])}. Remove it."
    for pattern, why in _WRONG_PATHS.items():
        if re.match(pattern, path):
            return why.format(path=shown(path))
    return None


def refuse_unusable(recipes: Sequence[Recipe], use: Callable[[str], object]) -> None:
    """Raise RecipeInvalid with all pictures for which `use` raises."""
    problems = Problems()
    for recipe in recipes:
        for place, path in recipe.pictures:
            try:
                use(path)
            except PictureUnreadable as error:
                what = named(path, str(error))
                if place == "mask" and "." not in path:
                    what += f" For what words find, write mask: {{find: {shown(path)}}}."
                problems.take(recipe.problem_at(place, what).problems)
    problems.raise_if_any()


def named(path: str, words: str) -> str:
    """Return a message about a picture, with its path in it."""
    return words if path in words else f"'{shown(path)}': {words}"


def fit(
    size: tuple[int, int],
    given: tuple[int | None, int | None],
    multiple: int,
    most_side: int,
    most_pixels: int,
) -> tuple[tuple[int, int], bool]:
    """Return a picture's size within limits, in proportion to a given side; True if reduced."""
    for side, of_picture in zip(given, size, strict=True):
        if side:
            scale = side / of_picture
            size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    shrink = min(1, most_side / max(size), (most_pixels / (size[0] * size[1])) ** 0.5)
    least, most = -(-MIN_SIDE // multiple), most_side // multiple
    width, height = (max(least, min(most, round(s * shrink / multiple))) * multiple for s in size)
    return (width, height), shrink < 1
