"""A recipe from one layer of written values: everything looked up and decided."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.fields import (
    BAKED,
    CHECKPOINT_HASH,
    DEFAULTS,
    EMBEDDINGS,
    MAX_SIDE,
    MIN_SIDE,
    PICTURE,
    PICTURE_FIELDS,
    PROMPTS,
    ROWS,
)
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import not_multiple_of, wrong_value
from picowatch.recipe.parts import KIND_OF, PIXEL_UPSCALERS
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Context, Recipe
from picowatch.recipe.resolve.advice import missing_embeddings
from picowatch.recipe.resolve.control import CONTROL, parts_of, split_controls
from picowatch.recipe.resolve.installed import (
    find_checkpoint,
    find_controlnet,
    find_depth,
    find_hires_upscaler,
    find_upscaler,
    find_vae,
    is_whole_name,
)
from picowatch.recipe.resolve.layers import names_none
from picowatch.recipe.resolve.loras import read_loras
from picowatch.recipe.resolve.mappings import parts_in
from picowatch.recipe.resolve.rules import Rules, upscaled_size
from picowatch.recipe.resolve.seeds import read_seed
from picowatch.recipe.resolve.severity import NOTHING, Finding, Judge, Origin
from picowatch.recipe.resolve.start_image import named, picture_sides, read_path
from picowatch.recipe.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    SIMPLE,
    ScheduleUnknown,
    decide_schedule_type,
    find_sampler,
    sampler_named,
)
from picowatch.recipe.written import Layer, Position

_HASH_DIGITS = 10
_Found = TypeVar("_Found")


class RecipeBuilder:
    """Builds the recipes of one file from their layers; what is wrong goes to `problems`."""

    def __init__(self, inventory: Inventory, pictures: Pictures, problems: Problems) -> None:
        self.inventory = inventory
        self.pictures = pictures
        self.problems = problems
        self.rules = Rules(inventory)

    def build(
        self, layer: Layer, origins: Mapping[str, Origin], position: Position, entry_index: int
    ) -> Recipe | None:
        """The recipe of a normalised and merged layer without its sweep; the layer is used up.

        `origins` say who wrote each field. The recipe's warnings name what it uses instead of
        what somebody else wrote.
        """
        judge = Judge(layer, origins, position, self.problems)
        one = _Building(self, layer, judge, entry_index)
        recipe = one.enlarged() if only_enlarges(layer) else one.drawn()
        return recipe.warned(judge.warnings) if recipe else None


class _Building:
    """Builds one recipe."""

    def __init__(
        self, builder: RecipeBuilder, layer: Layer, judge: Judge, entry_index: int
    ) -> None:
        self._builder = builder
        self._inventory, self._pictures = builder.inventory, builder.pictures
        self._layer = layer
        self._judge = judge
        self._entry_index = entry_index

    def drawn(self) -> Recipe | None:
        """The recipe, with everything that its checkpoint and its folder's files decide."""
        layer = self._layer
        if "prompt" not in layer:
            self._report("prompt", _no_prompt(self._judge.position))
        for field in PROMPTS:
            self._text(field)
        read_seed(layer, self._judge)
        checkpoint = self._find("checkpoint", find_checkpoint) or NO_CHECKPOINT
        self._check_hash(checkpoint)
        self._take_embeddings(checkpoint)
        loras, families = read_loras(layer, self._inventory, self._judge)
        native = checkpoint.native_size
        values: dict[str, Any] = {"prompt": "", "width": native, "height": native}
        values |= checkpoint.rules.defaults
        values |= {name: w.value for name, w in layer.items() if name in Recipe.model_fields}
        values |= {"loras": loras, "checkpoint": checkpoint.name}
        values["prediction"] = values.get("prediction") or checkpoint.prediction
        values["vae"] = (self._find("vae", find_vae, BAKED) if "vae" in layer else "") or BAKED
        values |= self._sampling(checkpoint)
        values |= {field: self._path(field) for field in PICTURE_FIELDS}
        values |= {"hires": self._hires(checkpoint, values), "upscale": self._upscale()}
        values["control"] = self._controls(values)
        values |= self._picture_size(values, checkpoint)
        context = self._context(checkpoint, families)
        recipe = self._validated(values | _off(values), context)
        if recipe is None:
            return None
        recipe = self._builder.rules.applied(recipe, self._judge)
        decided = {"schedule_type": _decided(recipe)} | _off(dict(recipe))
        return recipe.model_copy(update=decided)

    def enlarged(self) -> Recipe | None:
        """The recipe that enlarges its start image, for which it needs no checkpoint."""
        layer = self._layer
        image, upscale = self._path("image"), self._upscale()
        if not image or upscale is None:
            return None
        try:
            size = self._pictures.size(image)
        except PictureUnreadable as error:
            self._report("image", named(image, str(error)))
            return None
        others = ("exact", "grid", "grid_seconds", "priority")
        values = {name: layer[name].value for name in others if name in layer}
        values |= {"prompt": "", "seed": 0, "image": image, "upscale": upscale}
        recipe = self._validated(values, self._context(NO_CHECKPOINT))
        if recipe:
            recipe = recipe.without_drawing(size)
            for finding in upscaled_size(recipe):
                self._judge.replaces(finding)
        return recipe

    def _context(
        self, checkpoint: Checkpoint, families: tuple[tuple[str, str], ...] = ()
    ) -> Context:
        position = self._judge.position
        return Context(
            self._inventory, checkpoint, self._layer, position, self._entry_index, families
        )

    def _validated(self, values: Mapping[str, object], context: Context) -> Recipe | None:
        try:
            return Recipe.model_validate(values).read_in(context)
        except ValidationError as error:
            for mistake in error.errors(include_url=False, include_context=False):
                self._report_wrong(mistake["loc"], mistake["type"])
        return None

    def _report_wrong(self, place: tuple[int | str, ...], kind: str) -> None:
        """Report a value of the wrong type, or beyond its limits; a part where it stands."""
        names = (".".join(map(str, place[:count])) for count in (3, 2, 1))
        field = next(name for name in names if name in self._layer)
        written = self._layer[field]
        message = wrong_value(re.sub(r"\.\d+", "", field), written)
        if kind == "multiple_of" and MIN_SIDE <= int(str(written.value)) <= MAX_SIDE:
            message = not_multiple_of(8, field, int(str(written.value)))
        self._report(field, message)

    def _report(self, field: str, message: str) -> None:
        self._judge.replaces(Finding(field, message))

    def _text(self, field: str) -> str | None:
        """A field's text; something else than text is reported and taken out."""
        written = self._layer.get(field)
        if written is None or isinstance(written.value, str):
            return None if written is None else str(written.value)
        self._report(field, wrong_value(re.sub(r"\.\d+", "", field), written))
        del self._layer[field]
        return None

    def _find(
        self, field: str, find: Callable[[Any, Inventory], _Found], instead: Any = NOTHING
    ) -> _Found | Any:
        """Look up what a field names, or return what stands in for it; None for an error."""
        was_there = field in self._layer
        text = self._text(field)
        if was_there and text is None:
            return None
        try:
            return find(text, self._inventory)
        except ValueInvalid as error:
            finding = Finding(field, str(error), "", instead, of_checkpoint=False)
            return instead if self._judge.replaces(finding) else None

    def _path(self, field: str) -> str:
        name = re.sub(r"\.\d+\.", " ", field)
        return read_path(name, self._layer.get(field), self._pictures, self._builder.problems)

    def _check_hash(self, checkpoint: Checkpoint) -> None:
        """Warn if a picture's checkpoint may be another one than that of this name here."""
        theirs = self._layer.pop(CHECKPOINT_HASH, None)
        written = self._layer.get("checkpoint")
        if not written or self._judge.origins.get("checkpoint") is not Origin.OTHERS:
            return
        begins = theirs.text.casefold() if theirs else ""
        # Shorter ones are of A1111 before 2023, which hashed in another way.
        if checkpoint.hash and len(begins) >= _HASH_DIGITS:
            if not checkpoint.hash.startswith(begins):
                self._judge.warnings.append(
                    f"the checkpoint '{shown(checkpoint.name)}' is another file than the "
                    f"picture's: its hash begins {checkpoint.hash[:_HASH_DIGITS]}, the picture's "
                    f"{shown(begins[:_HASH_DIGITS])}."
                )
        elif checkpoint.name and not is_whole_name(written.text, checkpoint.name):
            self._judge.warnings.append(
                f"the picture's checkpoint '{shown(written.text)}' is taken for "
                f"'{shown(checkpoint.name)}', which may be another one."
            )

    def _take_embeddings(self, checkpoint: Checkpoint) -> None:
        """Warn of those that a picture's prompts name, but that are not here."""
        written = self._layer.pop(EMBEDDINGS, None)
        theirs = {
            field: self._layer[field]
            for field in PROMPTS
            if field in self._layer and self._judge.origins.get(field) is Origin.OTHERS
        }
        if written:
            found = missing_embeddings(written, theirs, checkpoint, self._inventory)
            self._judge.warnings += found

    def _sampling(self, checkpoint: Checkpoint) -> dict[str, object]:
        """The sampler and its schedule type; karras if nothing is written."""
        layer, rules = self._layer, checkpoint.rules
        default, schedule_type = find_sampler(DEFAULT_SAMPLER)
        name = rules.samplers[0] if rules.flow else default.name
        sampler = str(layer["sampler"].value) if "sampler" in layer else name
        if "schedule_type" in layer:
            schedule_type = str(layer["schedule_type"].value)
        elif rules.flow or schedule_type not in sampler_named(sampler).schedule_types:
            schedule_type = AUTOMATIC
        return {"sampler": sampler, "schedule_type": schedule_type}

    def _hires(self, checkpoint: Checkpoint, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The second pass. Without a start image, the denoising strength is its own."""
        layer = self._layer
        if "hires" not in layer or not layer["hires"].value:
            return None
        if not values["image"] and "denoising_strength" in layer:
            layer.setdefault("hires.denoising_strength", layer["denoising_strength"])
        parts: dict[str, Any] = {name: w.value for name, w in parts_in(layer, "hires").items()}
        pixels = PIXEL_UPSCALERS[0]
        if "upscaler" in parts:
            parts["upscaler"] = self._find("hires.upscaler", find_hires_upscaler, pixels) or pixels
        elif checkpoint.rules.flow:  # latents of a flow do not stand enlarging
            parts["upscaler"] = pixels
        return parts

    def _upscale(self) -> dict[str, Any] | None:
        """The upscaler that is meant, with its scale where none is given."""
        layer = self._layer
        if "upscale" not in layer or not layer["upscale"].value:
            return None
        model = self._find("upscale.model", find_upscaler, "")
        scale = layer["upscale.scale"].value if "upscale.scale" in layer else None
        return {"model": model.name, "scale": scale or float(model.scale)} if model else None

    def _controls(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """The ControlNets; what is not installed for them is not here either."""
        found = []
        for index in range(split_controls(self._layer, self._builder.problems)):
            parts = parts_of(self._layer, index)
            field = f"{CONTROL}.{index}"
            model = self._find(f"{field}.model", find_controlnet, "") if "model" in parts else None
            if model == "":
                continue
            parts["model"] = model.name if model else ""
            written = self._layer.get(f"{field}.image")
            is_own = written is not None and not names_none(written)
            parts["image"] = self._path(f"{field}.image") if is_own else values["image"]
            if is_own and not parts["image"]:
                continue
            if parts.get("preprocess") == "depth":
                parts["depth"] = self._find(f"{field}.depth", find_depth, "") or ""
            if model and model.kinds:
                parts.setdefault("kind", KIND_OF.get(parts.get("preprocess", ""), ""))
            found.append(parts)
        return tuple(found)

    def _picture_size(self, values: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, int]:
        """The sides that are to be the start image's; beside a given one in its proportions."""
        open_sides = [side for side in ("width", "height") if values[side] == PICTURE]
        if not open_sides:
            return {}
        native = dict.fromkeys(open_sides, checkpoint.native_size)
        path = values["image"] or next((one["image"] for one in values["control"]), "")
        if not path:
            if "image" not in self._layer or names_none(self._layer["image"]):
                what = "size: picture is the size of the start image. Add image, or a size."
                self._report(open_sides[0], what)
            return native
        try:
            width, height = self._pictures.size(path)
        except PictureUnreadable as error:
            self._report("image" if values["image"] else "control", named(path, str(error)))
            return native
        if len(open_sides) == 1:
            given = next(side for side in ("width", "height") if side not in open_sides)
            if not isinstance(values[given], int):
                return native  # what is wrong with it is reported
            scale = values[given] / (width if given == "width" else height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        rules, most_pixels = checkpoint.rules, self._pictures.most_pixels
        scale = values["hires"].get("scale", 2) if values["hires"] else 1
        is_scale = isinstance(scale, int | float) and scale >= 1  # else it is reported
        most_side = min(MAX_SIDE, int(rules.max_side / (scale if is_scale else 1)))
        most_pixels = min(most_pixels, rules.most_start_pixels or most_pixels)
        sides = picture_sides((width, height), rules.multiple, most_side, most_pixels)
        both = dict(zip(("width", "height"), sides, strict=True))
        return {name: both[name] for name in open_sides}


def _decided(recipe: Recipe) -> str:
    """The schedule type, without "automatic"; one that cannot be had is refused already."""
    if recipe.installed_checkpoint.rules.flow:
        return SIMPLE
    try:
        return decide_schedule_type(sampler_named(recipe.sampler), recipe.schedule_type)
    except ScheduleUnknown:
        return recipe.schedule_type


def _off(values: Mapping[str, object]) -> dict[str, object]:
    """The defaults of fields that change nothing, because what they need is not there."""
    return {
        name: DEFAULTS[name]
        for name, row in ROWS.items()
        if row.needs and not any(map(values.get, row.needs))
    }


def _no_prompt(position: Position) -> str:
    if position.source.is_txt:
        return "a prompt is missing. Write it before the flags."
    if position.source.is_json:
        return 'a prompt is missing. Write "prompt": "…".'
    return "a prompt is missing. Write 'prompt: …'."


def only_enlarges(layer: Layer) -> bool:
    """A start image, an upscaler, and nothing to draw."""
    image, upscale = layer.get("image"), layer.get("upscale")
    if "prompt" in layer or image is None or upscale is None:
        return False
    return bool(upscale.value) and not names_none(image)
