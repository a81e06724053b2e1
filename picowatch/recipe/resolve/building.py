"""A recipe from one layer of written values: everything looked up and decided."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import (
    BAKED,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    NUMBERS,
    PICTURE,
    PICTURE_FIELDS,
    ROWS,
    SWITCHES,
    default_of,
)
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import not_multiple_of, wrong_value
from picowatch.recipe.parts import Hires, Upscale
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Context, Recipe
from picowatch.recipe.resolve.checks import RecipeChecks
from picowatch.recipe.resolve.control import read_controls
from picowatch.recipe.resolve.families import Borrowed
from picowatch.recipe.resolve.hires import PIXEL_UPSCALERS, UPSCALERS
from picowatch.recipe.resolve.installed import (
    find_checkpoint,
    find_hires_upscaler,
    find_upscaler,
    find_vae,
)
from picowatch.recipe.resolve.layers import names_none, seed_in, text_of, unquoted
from picowatch.recipe.resolve.loras import read_loras
from picowatch.recipe.resolve.mappings import parts_in
from picowatch.recipe.resolve.ranges import RANGE, NumberRange
from picowatch.recipe.resolve.start_image import named, picture_sides, read_path
from picowatch.recipe.samplers import (
    DEFAULT_SAMPLER,
    SIMPLE,
    check_flow_schedule,
    decide_schedule_type,
    find_sampler,
    sampler_named,
)
from picowatch.recipe.written import Layer, Position, Written

_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"


class RecipeBuilder:
    """Builds the recipes of one file from their layers; what is wrong goes to `problems`."""

    def __init__(self, inventory: Inventory, pictures: Pictures, problems: Problems) -> None:
        self._inventory = inventory
        self._named_pictures = pictures
        self._problems = problems
        self._checks = RecipeChecks(inventory, problems)

    def build(
        self, layer: Layer, position: Position, entry_index: int, borrowed: Collection[str] = ()
    ) -> Recipe | None:
        """The recipe of a normalised and merged layer without its sweep; the layer is used up.

        Of `borrowed` fields, which a picture or another program said, the recipe's warnings name
        what the checkpoint cannot do.
        """
        for field in NUMBERS | SWITCHES:
            if field in layer:
                layer[field] = unquoted(field, layer[field])
        if only_enlarges(layer):
            return self._without_drawing(layer, position, entry_index)
        self._read_seed(layer)
        checkpoint = self._checkpoint(layer, position)
        warnings = list(Borrowed(borrowed, layer, checkpoint, self._inventory).set_aside())
        loras, families = read_loras(layer, self._inventory, self._problems)
        self._checks.check_prompts(layer, position, loras)
        native = checkpoint.native_size
        values: dict[str, object] = {"prompt": "", "width": native, "height": native}
        values |= checkpoint.rules.defaults
        values |= {name: w.value for name, w in layer.items() if name in Recipe.model_fields}
        values["prediction"] = values.get("prediction") or checkpoint.prediction
        values |= self._sampling(layer, checkpoint)
        values["loras"] = loras
        values |= self._pictures(layer, checkpoint)
        values |= self._picture_size(layer, values, checkpoint)
        values |= _idle(values)
        values |= {"checkpoint": checkpoint.name, "vae": self._vae(layer)}
        context = Context(self._inventory, checkpoint, layer, position, entry_index, families)
        recipe = self._validated(values, context)
        if recipe:
            self._checks.check(recipe.warned(warnings))
        return recipe

    def _validated(self, values: Mapping[str, object], context: Context) -> Recipe | None:
        try:
            return Recipe.model_validate(values).read_in(context)
        except ValidationError as error:
            self._report(error, context.layer)
        return None

    def _without_drawing(self, layer: Layer, position: Position, entry_index: int) -> Recipe | None:
        """The recipe that enlarges its start image, for which it needs no checkpoint."""
        image = read_path("image", layer, self._named_pictures, self._problems)
        upscale = self._upscale(layer)
        if not image or upscale is None:
            return None
        try:
            size = self._named_pictures.size(image)
        except PictureUnreadable as error:
            self._problems.add(layer["image"].error_position, named(image, str(error)))
            return None
        others = ("exact", "grid", "grid_seconds", "priority")
        values = {name: layer[name].value for name in others if name in layer}
        values |= {"prompt": "", "seed": 0, "image": image, "upscale": upscale}
        context = Context(self._inventory, NO_CHECKPOINT, layer, position, entry_index)
        recipe = self._validated(values, context)
        if recipe:
            self._checks.check_upscaled_size(recipe.without_drawing(size))
        return recipe

    def _read_seed(self, layer: Layer) -> None:
        written = layer.pop("seed", None)
        if written is None:
            return
        seed: object
        if isinstance(written.value, tuple | NumberRange):
            is_list = isinstance(written.value, tuple)
            seed = self._seed_list(written) if is_list else tuple(written.value)
            if "count" in layer:
                what = "list" if is_list else "range"
                self._problems.add(
                    layer["count"].name_position,
                    f"count and a {what} of seeds together: the {what} makes one image for each "
                    "seed. Remove count.",
                )
        else:
            seed = seed_in(written)
            if seed is None:
                self._problems.add(written.error_position, wrong_value("seed", written))
        if seed is not None:
            layer["seed"] = replace(written, value=seed)

    def _seed_list(self, written: Written) -> tuple[object, ...] | None:
        seeds = tuple(map(seed_in, written.parts))
        for part, seed in zip(written.parts, seeds, strict=True):
            if RANGE.fullmatch(str(part.value)):
                message = "a list cannot contain a range. Write the range alone, or each seed."
                self._problems.add(part.position, message)
            elif not isinstance(seed, int):
                self._problems.add(part.position, wrong_value("seed", part, _ONE_SEED))
        if not seeds:
            message = "the list of seeds is empty. Write 'seed: random' or seeds."
            self._problems.add(written.position, message)
        return seeds if seeds and all(isinstance(seed, int) for seed in seeds) else None

    def _sampling(self, layer: Layer, checkpoint: Checkpoint) -> dict[str, object]:
        """The sampler and its schedule type, "automatic" decided; karras if nothing is written."""
        if checkpoint.rules.flow:
            return self._flow_sampling(layer, checkpoint)
        default, default_schedule_type = find_sampler(DEFAULT_SAMPLER)
        sampler = sampler_named(str(layer["sampler"].value)) if "sampler" in layer else default
        written = layer.get("schedule_type")
        decided = sampler.automatic
        if written:
            with self._problems.caught(written.position):
                decided = decide_schedule_type(sampler, str(written.value))
        elif default_schedule_type in sampler.schedule_types:
            decided = default_schedule_type
        return {"sampler": sampler.name, "schedule_type": decided}

    def _flow_sampling(self, layer: Layer, checkpoint: Checkpoint) -> dict[str, object]:
        """One of the few samplers that can step along a flow, with the model's own schedule."""
        samplers = checkpoint.rules.samplers
        sampler = str(layer["sampler"].value) if "sampler" in layer else samplers[0]
        written = layer.get("schedule_type")
        if sampler not in samplers:
            why = f"{checkpoint.family} has a sampler of its own"
            if len(samplers) > 1:
                why = f"it steps along noise, but {checkpoint.family} steps along a flow"
            self._problems.add(
                layer["sampler"].error_position,
                f"the sampler {sampler} cannot be used: {why}. Use {listed(samplers, 'or')}, or "
                "leave it out.",
            )
        elif written:
            with self._problems.caught(written.position):
                check_flow_schedule(str(written.value), checkpoint.family)
        return {"sampler": sampler, "schedule_type": SIMPLE}

    def _checkpoint(self, layer: Layer, position: Position) -> Checkpoint:
        name = text_of("checkpoint", layer, self._problems)
        with self._problems.caught(position if name is None else layer["checkpoint"].position):
            return find_checkpoint(name, self._inventory)
        return NO_CHECKPOINT

    def _vae(self, layer: Layer) -> str:
        name = text_of("vae", layer, self._problems)
        if name is not None:
            with self._problems.caught(layer["vae"].position):
                return find_vae(name, self._inventory)
        return BAKED

    def _pictures(self, layer: Layer, checkpoint: Checkpoint) -> dict[str, object]:
        """The fields that name pictures, and hires."""
        image, mask = (
            read_path(field, layer, self._named_pictures, self._problems)
            for field in PICTURE_FIELDS
        )
        hires = bool(layer["hires"].value) if "hires" in layer else False
        values: dict[str, object] = {"image": image, "mask": mask if image else ""}
        values["hires"] = self._hires(layer, not image, checkpoint) if hires else None
        values["control"] = read_controls(
            layer,
            self._inventory,
            self._named_pictures,
            checkpoint,
            image,
            bool(values["mask"]),
            self._problems,
        )
        values["upscale"] = self._upscale(layer) if "upscale" in layer else None
        return values

    def _picture_size(
        self, layer: Layer, values: dict[str, Any], checkpoint: Checkpoint
    ) -> dict[str, int]:
        """The sides that are to be the start image's; beside a given one in its proportions."""
        open_sides = [side for side in ("width", "height") if values[side] == PICTURE]
        if not open_sides:
            return {}
        position = layer[open_sides[0]].error_position
        native = dict.fromkeys(open_sides, checkpoint.native_size)
        followed = next((control.image for control in values["control"]), "")
        path = values["image"] or followed
        if not path:
            if "image" not in layer or names_none(layer["image"]):
                self._problems.add(
                    position, "size: picture is the size of the start image. Add image, or a size."
                )
            return native
        try:
            width, height = self._named_pictures.size(path)
        except PictureUnreadable as error:
            at = layer["image"] if values["image"] else layer["control"]
            self._problems.add(at.error_position, named(path, str(error)))
            return native
        if len(open_sides) == 1:
            given = next(side for side in ("width", "height") if side not in open_sides)
            if not isinstance(values[given], int):
                return native  # what is wrong with it is reported
            scale = values[given] / (width if given == "width" else height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        sides = picture_sides((width, height), *self._limits(checkpoint, values["hires"]))
        return {name: side for name, side in zip(("width", "height"), sides, strict=True)
                if name in open_sides}  # fmt: skip

    def _limits(self, checkpoint: Checkpoint, hires: Hires | None) -> tuple[int, int, int]:
        """Of `size: picture`: the multiple of its sides, the longest one, the most pixels."""
        rules = checkpoint.rules
        side = min(MAX_SIDE, int(rules.max_side / (hires.scale if hires else 1)))
        pixels = self._named_pictures.most_pixels
        return rules.multiple, side, min(pixels, rules.most_start_pixels or pixels)

    def _hires(self, layer: Layer, takes_strength: bool, checkpoint: Checkpoint) -> Hires:
        parts = parts_in(layer, "hires")
        if takes_strength and "denoising_strength" in layer:
            parts.setdefault("denoising_strength", layer["denoising_strength"])
        values: dict[str, Any] = {name: written.value for name, written in parts.items()}
        upscaler = parts.get("upscaler")
        if upscaler and isinstance(upscaler.value, str):
            with self._problems.caught(upscaler.error_position):
                values["upscaler"] = find_hires_upscaler(upscaler.value, self._inventory)
        if checkpoint.rules.flow:
            self._check_flow_upscaler(values, upscaler, checkpoint)
        try:
            return Hires(**values)
        except ValidationError as error:
            self._report_parts("hires", error, parts)
            return Hires()

    def _upscale(self, layer: Layer) -> Upscale | None:
        """With the model that is meant, and its scale where none is given."""
        if not layer["upscale"].value:
            return None
        parts = parts_in(layer, "upscale")
        name = text_of("upscale.model", layer, self._problems)
        if name is None and "model" in parts:
            return Upscale()
        with self._problems.caught(parts.get("model", layer["upscale"]).error_position):
            model = find_upscaler(name, self._inventory)
            scale = parts["scale"].value if "scale" in parts else float(model.scale)
            try:
                return Upscale(model=model.name, scale=scale)  # type: ignore[arg-type]
            except ValidationError as error:
                self._report_parts("upscale", error, parts)
        return Upscale()

    def _report_parts(self, field: str, error: ValidationError, parts: Layer) -> None:
        named = {f"{field}.{name}": written for name, written in parts.items()}
        self._report(error, named, f"{field}.")

    def _check_flow_upscaler(
        self, values: dict[str, Any], written: Written | None, checkpoint: Checkpoint
    ) -> None:
        """Pixels are enlarged, by default too: latents of a flow do not stand enlarging."""
        if written is None:
            values["upscaler"] = PIXEL_UPSCALERS[0]
        elif values["upscaler"] in UPSCALERS and values["upscaler"] not in PIXEL_UPSCALERS:
            self._problems.add(
                written.error_position,
                f"the upscaler {shown(str(written.value))} is for Stable Diffusion's latents. With "
                f"{checkpoint.family} use {listed((*PIXEL_UPSCALERS, 'a model'), 'or')}.",
            )

    def _report(self, error: ValidationError, layer: Layer, prefix: str = "") -> None:
        for mistake in error.errors(include_url=False, include_context=False):
            field = f"{prefix}{mistake['loc'][0]}"
            written = layer[field]
            message = wrong_value(field, written)
            side = written.value if mistake["type"] == "multiple_of" else None
            if isinstance(side, int) and MIN_SIDE <= side <= MAX_SIDE:
                message = not_multiple_of(8, field, side)
            self._problems.add(written.error_position, message)


def _idle(values: Mapping[str, object]) -> dict[str, object]:
    """The defaults of fields that change nothing, because what they need is not there."""
    return {
        name: default_of(name)
        for name, row in ROWS.items()
        if row.needs and not any(map(values.get, row.needs))
    }


def only_enlarges(layer: Layer) -> bool:
    """A start image, an upscaler, and nothing to draw."""
    image, upscale = layer.get("image"), layer.get("upscale")
    if "prompt" in layer or image is None or upscale is None:
        return False
    return bool(upscale.value) and not names_none(image)
