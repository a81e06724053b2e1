"""A recipe from one layer of written values: everything looked up and decided."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.fields import (
    BAKED,
    CHECKPOINT_HASH,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    NUMBERS,
    PICTURE,
    PICTURE_FIELDS,
    PROMPTS,
    ROWS,
    SWITCHES,
    default_of,
)
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import not_multiple_of, wrong_value
from picowatch.recipe.parts import PIXEL_UPSCALERS, Hires, Upscale
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Context, Recipe
from picowatch.recipe.resolve.advice import missing_embeddings
from picowatch.recipe.resolve.control import Followed, read_controls
from picowatch.recipe.resolve.installed import (
    EMBEDDINGS,
    MODULE,
    find_checkpoint,
    find_hires_upscaler,
    find_upscaler,
    find_vae,
    is_whole_name,
)
from picowatch.recipe.resolve.layers import names_none, seed_in, unquoted
from picowatch.recipe.resolve.loras import read_loras
from picowatch.recipe.resolve.mappings import parts_in
from picowatch.recipe.resolve.ranges import RANGE, NumberRange
from picowatch.recipe.resolve.rules import Rules, upscaled_size
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
from picowatch.recipe.written import Layer, Position, Written

_HASH_DIGITS = 10
_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"
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
        for field in NUMBERS | SWITCHES:
            if field in layer:
                layer[field] = unquoted(field, layer[field])

    def drawn(self) -> Recipe | None:
        """The recipe, with everything that its checkpoint and its folder's files decide."""
        layer = self._layer
        self._read_seed()
        name = self._text("checkpoint")
        found = self._installed("checkpoint", lambda: find_checkpoint(name, self._inventory))
        checkpoint = found or NO_CHECKPOINT
        self._check_hash(checkpoint)
        self._take_module()
        self._take_embeddings(checkpoint)
        loras, families = read_loras(layer, self._inventory, self._judge)
        if "prompt" not in layer:
            self._report("prompt", _no_prompt(self._judge.position))
        for field in PROMPTS:
            self._text(field)
        native = checkpoint.native_size
        values: dict[str, Any] = {"prompt": "", "width": native, "height": native}
        values |= checkpoint.rules.defaults
        values |= {name: w.value for name, w in layer.items() if name in Recipe.model_fields}
        values["prediction"] = values.get("prediction") or checkpoint.prediction
        values |= {"loras": loras, "checkpoint": checkpoint.name, "vae": self._vae()}
        values |= self._sampling(checkpoint)
        values |= self._named_pictures(checkpoint)
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
        image = self._path("image")
        upscale = self._upscale()
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
            self._report_wrong(error, self._layer)
        return None

    def _report(self, field: str, message: str, position: Position | None = None) -> None:
        self._judge.replaces(Finding(field, message, position=position))

    def _report_wrong(self, error: ValidationError, layer: Layer, prefix: str = "") -> None:
        for mistake in error.errors(include_url=False, include_context=False):
            name = str(mistake["loc"][0])
            written, field = layer[name], f"{prefix}{name}"
            message = wrong_value(field, written)
            side = written.value if mistake["type"] == "multiple_of" else None
            if isinstance(side, int) and MIN_SIDE <= side <= MAX_SIDE:
                message = not_multiple_of(8, field, side)
            self._report(field, message, written.error_position)

    def _text(self, field: str) -> str | None:
        """A field's text; something else than text is reported and taken out."""
        written = self._layer.get(field)
        if written is None or isinstance(written.value, str):
            return None if written is None else str(written.value)
        self._report(field, wrong_value(field, written))
        del self._layer[field]
        return None

    def _installed(
        self, field: str, find: Callable[[], _Found], instead: object = NOTHING
    ) -> _Found | None:
        """What is looked up; None if it is not installed."""
        try:
            return find()
        except ValueInvalid as error:
            self._judge.replaces(Finding(field, str(error), "", instead, of_checkpoint=False))
            return None

    def _path(self, field: str) -> str:
        return read_path(field, self._layer.get(field), self._pictures, self._builder.problems)

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

    def _take_module(self) -> None:
        """Forge's module is the VAE, if none is named."""
        module = self._layer.pop(MODULE, None)
        if module and "vae" not in self._layer:
            self._layer["vae"] = module
            self._judge.origins = {**self._judge.origins, "vae": Origin.OTHERS}

    def _take_embeddings(self, checkpoint: Checkpoint) -> None:
        """Warn of those that a picture's prompts name, but that are not here."""
        written = self._layer.pop(EMBEDDINGS, None)
        origins = self._judge.origins
        theirs = {
            field: self._layer[field]
            for field in PROMPTS
            if field in self._layer and origins.get(field) is Origin.OTHERS
        }
        if written:
            self._judge.warnings += missing_embeddings(written, theirs, checkpoint, self._inventory)

    def _vae(self) -> str:
        name = self._text("vae")
        if name is None:
            return BAKED
        return self._installed("vae", lambda: find_vae(name, self._inventory), BAKED) or BAKED

    def _sampling(self, checkpoint: Checkpoint) -> dict[str, object]:
        """The sampler and its schedule type; karras if nothing is written."""
        layer, rules = self._layer, checkpoint.rules
        default, schedule_type = find_sampler(DEFAULT_SAMPLER)
        name = default.name if not rules.flow else rules.samplers[0]
        sampler = str(layer["sampler"].value) if "sampler" in layer else name
        if "schedule_type" in layer:
            schedule_type = str(layer["schedule_type"].value)
        elif rules.flow or schedule_type not in sampler_named(sampler).schedule_types:
            schedule_type = AUTOMATIC
        return {"sampler": sampler, "schedule_type": schedule_type}

    def _named_pictures(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The fields that name pictures, and those that enlarge."""
        layer = self._layer
        image, mask = (self._path(field) for field in PICTURE_FIELDS)
        mask = mask if image else ""
        is_hires = "hires" in layer and bool(layer["hires"].value)
        followed = Followed(self._inventory, self._pictures, checkpoint, image, bool(mask))
        return {
            "image": image,
            "mask": mask,
            "hires": self._hires(checkpoint, takes_strength=not image) if is_hires else None,
            "control": read_controls(layer, followed, self._judge),
            "upscale": self._upscale(),
        }

    def _picture_size(self, values: dict[str, Any], checkpoint: Checkpoint) -> dict[str, int]:
        """The sides that are to be the start image's; beside a given one in its proportions."""
        open_sides = [side for side in ("width", "height") if values[side] == PICTURE]
        if not open_sides:
            return {}
        native = dict.fromkeys(open_sides, checkpoint.native_size)
        path = values["image"] or next((control.image for control in values["control"]), "")
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
        sides = picture_sides((width, height), *self._limits(checkpoint, values["hires"]))
        both = dict(zip(("width", "height"), sides, strict=True))
        return {name: both[name] for name in open_sides}

    def _limits(self, checkpoint: Checkpoint, hires: Hires | None) -> tuple[int, int, int]:
        """Of `size: picture`: the multiple of its sides, the longest one, the most pixels."""
        rules = checkpoint.rules
        side = min(MAX_SIDE, int(rules.max_side / (hires.scale if hires else 1)))
        pixels = self._pictures.most_pixels
        return rules.multiple, side, min(pixels, rules.most_start_pixels or pixels)

    def _hires(self, checkpoint: Checkpoint, *, takes_strength: bool) -> Hires:
        """Without a start image, the denoising strength is that of the second pass."""
        parts = parts_in(self._layer, "hires")
        if takes_strength and "denoising_strength" in self._layer:
            parts.setdefault("denoising_strength", self._layer["denoising_strength"])
        values: dict[str, Any] = {name: written.value for name, written in parts.items()}
        if checkpoint.rules.flow:
            values.setdefault("upscaler", PIXEL_UPSCALERS[0])
        upscaler = parts.get("upscaler")
        if upscaler and isinstance(upscaler.value, str):
            name, instead = upscaler.value, PIXEL_UPSCALERS[0]
            values["upscaler"] = (
                self._installed(
                    "hires.upscaler", lambda: find_hires_upscaler(name, self._inventory), instead
                )
                or instead
            )
        try:
            return Hires(**values)
        except ValidationError as error:
            self._report_wrong(error, parts, "hires.")
            return Hires()

    def _upscale(self) -> Upscale | None:
        """With the model that is meant, and its scale where none is given."""
        layer = self._layer
        if "upscale" not in layer or not layer["upscale"].value:
            return None
        parts = parts_in(layer, "upscale")
        name = self._text("upscale.model")
        if name is None and "model" in parts:
            return None
        model = self._installed(
            "upscale.model" if "model" in parts else "upscale",
            lambda: find_upscaler(name, self._inventory),
            instead="",
        )
        if model is None:
            return None
        scale: Any = parts["scale"].value if "scale" in parts else float(model.scale)
        try:
            return Upscale(model=model.name, scale=scale)
        except ValidationError as error:
            self._report_wrong(error, parts, "upscale.")
            return None

    def _read_seed(self) -> None:
        written = self._layer.pop("seed", None)
        if written is None:
            return
        seed: object = None
        if isinstance(written.value, tuple | NumberRange):
            is_list = isinstance(written.value, tuple)
            seed = self._seed_list(written) if is_list else tuple(written.value)
            if "count" in self._layer:
                kind = "list" if is_list else "range"
                what = f"count and a {kind} of seeds together: the {kind} makes one image for each "
                self._report(
                    "count", f"{what}seed. Remove count.", self._layer["count"].name_position
                )
        else:
            seed = seed_in(written)
            if seed is None:
                self._report("seed", wrong_value("seed", written), written.error_position)
        if seed is not None:
            self._layer["seed"] = replace(written, value=seed)

    def _seed_list(self, written: Written) -> tuple[object, ...] | None:
        seeds = tuple(map(seed_in, written.parts))
        known: set[object] = set()
        for part, seed in zip(written.parts, seeds, strict=True):
            what = ""
            if RANGE.fullmatch(str(part.value)):
                what = "a list cannot contain a range. Write the range alone, or each seed."
            elif not isinstance(seed, int):
                what = wrong_value("seed", part, _ONE_SEED)
            elif seed in known:
                what = f"the seed {seed} is listed twice: both images would be the same. Keep one."
            known.add(seed)
            if what:
                self._report("seed", what, part.position)
        if not seeds:
            what = "the list of seeds is empty. Write 'seed: random' or seeds."
            self._report("seed", what, written.position)
        return seeds if seeds and all(isinstance(seed, int) for seed in seeds) else None


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
        name: default_of(name)
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
