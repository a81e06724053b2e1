"""A recipe from one layer of written values: everything looked up and decided."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from pydantic import ValidationError

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.control import KIND_OF
from picowatch.recipe.converters import RANDOM, SAME
from picowatch.recipe.extend import margins_of
from picowatch.recipe.fields import (
    ALPHA,
    BAKED,
    CONTROL,
    CUTOUT,
    DEFAULTS,
    DETAIL,
    MAX_SIDE,
    PARTS,
    PICTURE,
    WHOLE,
    WRITING,
    ZERO_SNR,
    Loras,
    idle_fields,
)
from picowatch.recipe.installed import find, find_checkpoint, is_whole_name
from picowatch.recipe.inventory import NO_CHECKPOINT, Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.parts import PIXEL_UPSCALERS, USUAL_MARGIN
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.prompts.grammar import lora_tags
from picowatch.recipe.recipe import Context, Recipe
from picowatch.recipe.resolve.advice import missing_embeddings
from picowatch.recipe.resolve.finishing import mistakes_in_finishing
from picowatch.recipe.resolve.layers import (
    only_details,
    only_finishes,
    read_values,
    text_of,
    with_part,
)
from picowatch.recipe.resolve.loras import read_loras, steps_of_lightning
from picowatch.recipe.resolve.rules import Rules
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.resolve.start_image import named, picture_sides, read_path
from picowatch.recipe.samplers import (
    DEFAULT_SAMPLER,
    SAMPLER_OF_ZERO_SNR,
    SIMPLE,
    decide_schedule_type,
    find_sampler,
    sampler_named,
)
from picowatch.recipe.written import Entry, Layer, Origin, Position, Written, find_in

_HASH_DIGITS = 10
_MOST_NARROW = 8  # FLUX.2 refuses longer references (diffusers, flux2/image_processor.py)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Known:
    """What all recipes of a file are resolved with, and the `named` pictures, by their paths."""

    inventory: Inventory
    pictures: Pictures
    rules: Rules
    named: dict[str, Position]


def resolve(judge: Judge, known: Known, entry: Entry) -> Recipe | None:
    """Return the recipe of the judge's layer, without its sweep; None if it cannot be built.

    The layer is spelt out and merged. The judge is told of mistakes, and of replaced values that
    others chose. The `entry` says which files were used before, and what was dropped.
    """
    if only_details(judge.layer):
        judge.layer = {name: one for name, one in judge.layer.items() if name not in WHOLE}
    resolving = _Resolving(judge, known, entry)
    recipe = resolving.finished() if only_finishes(judge.layer) else resolving.drawn()
    if recipe is None:
        return None
    is_transparent = False
    if not recipe.draws or recipe.only_details:
        with suppress(PictureUnreadable):  # reported where pictures are kept
            is_transparent = known.pictures.is_transparent(recipe.image)
    if is_transparent or resolving.size_warning:
        recipe = recipe.known(is_transparent=is_transparent, size_warning=resolving.size_warning)
    return recipe.warned(judge.warnings)


@dataclass
class _Resolving:
    """One layer on its way to a recipe: values by their fields, looked up, within limits."""

    judge: Judge
    known: Known
    entry: Entry
    size_warning: str = ""

    @property
    def layer(self) -> Layer:
        """The layer, as the judge has it."""
        return self.judge.layer

    def drawn(self) -> Recipe | None:
        """Return the recipe, with all that depends on its checkpoint and the files it names."""
        if "prompt" not in self.layer and not only_details(self.layer):
            self.judge.wrong("prompt", "a prompt is missing. Write 'prompt: …'.")
        checkpoint = self._checkpoint()
        self._place_dropped(checkpoint)
        self._check_hash(checkpoint)
        self.judge.warnings += missing_embeddings(
            self.layer, self.entry.embeddings, checkpoint, self.known.inventory
        )
        loras, families = read_loras(self.layer, self.known.inventory, self.judge)
        written = read_values(self.layer, self.judge)
        prediction = written.get("prediction") or checkpoint.prediction
        defaults = self._defaults(checkpoint, loras, prediction)
        values = defaults | written | {"loras": loras, "checkpoint": checkpoint.name}
        values["prediction"] = prediction
        vae = self._find("vae", "vae", BAKED) if "vae" in self.layer else ""
        values["vae"] = vae or BAKED
        values |= {"image": self._path("image"), "references": self._references()}
        values["mask"] = self._mask(values["image"], values["references"])
        values["seed"] = self._seeds(values["seed"])
        values |= {"hires": self._hires(checkpoint, values), "upscale": self._upscale()}
        values[CUTOUT] = self._cutout()
        values[DETAIL] = self._details(checkpoint)
        values["control"] = self._controls(values)
        values["format"] = self._format(values)
        values |= self._picture_size(values, checkpoint)
        values |= {name: DEFAULTS[name] for name in idle_fields(values.get)}
        given = self._size_kept(values)
        context = self._context(checkpoint, lora_families=families, given_size=given)
        recipe = self._validated(values, defaults, context)
        if recipe is None:
            return None
        recipe = self.known.rules.applied(recipe, self.judge)
        off = {name: DEFAULTS[name] for name in idle_fields(partial(getattr, recipe))}
        return recipe.model_copy(update={"schedule_type": _decided(recipe)} | off)

    def _defaults(self, checkpoint: Checkpoint, loras: Loras, prediction: str) -> dict[str, Any]:
        """Return the values of fields that are not written, where the checkpoint has its own."""
        rules, native = checkpoint.rules, checkpoint.native_size
        found = {"prompt": "", "width": native, "height": native, "seed": RANDOM, **rules.defaults}
        if extend := self.layer.get("extend"):  # the margins begin with noise
            found |= {} if extend.is_off else {"denoising_strength": 1.0}
        if only_details(self.layer):
            found["denoising_strength"] = 0.0
        if rules.lightning:
            prompt = self.layer.get("prompt")
            tags = lora_tags(prompt.text) if prompt else []
            used = [*loras, *((tag.name, tag.weight) for tag in tags)]
            found |= steps_of_lightning(name for name, weight in used if weight)
        if not rules.flow:
            usual = SAMPLER_OF_ZERO_SNR if prediction == ZERO_SNR else DEFAULT_SAMPLER
            sampler, schedule_type = find_sampler(usual)
            found |= {"sampler": sampler.name, "schedule_type": schedule_type}
        return found

    def finished(self) -> Recipe | None:
        """Return the recipe that only finishes its start image, without a checkpoint."""
        image, upscale, cutout = self._path("image"), self._upscale(), self._cutout()
        if not image or not (upscale or cutout):
            return None
        try:
            size = self.known.pictures.size(image)
        except PictureUnreadable as error:
            self.judge.wrong("image", named(image, str(error)))
            return None
        others = (*WRITING, "exact", "grid", "grid_seconds", "priority")
        written = read_values(self.layer, self.judge)
        values = {name: written[name] for name in others if name in written}
        values |= {"prompt": "", "seed": 0, "image": image, "upscale": upscale, CUTOUT: cutout}
        recipe = self._validated(
            values, {}, self._context(NO_CHECKPOINT, given_size=size, draws=False)
        )
        if recipe:
            for finding in mistakes_in_finishing(recipe):
                self.judge.replaces(finding)
        return recipe

    def _context(self, checkpoint: Checkpoint, **more: Any) -> Context:
        return Context(self.known.inventory, checkpoint, self.layer, self.judge.position, **more)

    def _validated(
        self, values: dict[str, Any], defaults: Mapping[str, Any], context: Context
    ) -> Recipe | None:
        """Return the recipe; values that others chose are limited or left out if they are wrong."""
        while True:
            try:
                return Recipe.model_validate(values).read_in(context)
            except ValidationError as error:
                mistakes = error.errors(include_url=False)
            replaced = [self._replaced(values, defaults, mistake) for mistake in mistakes]
            if all(replaced):
                continue
            # The rules are checked without the wrong values, so that all mistakes are told at once.
            # Those that switch something on are needed by other fields, which would be blamed.
            names = {str(mistake["loc"][0]) for mistake in mistakes}
            with suppress(ValidationError):
                if all(defaults.get(name, DEFAULTS.get(name)) for name in names):
                    others = {name: value for name, value in values.items() if name not in names}
                    used = {name: defaults[name] for name in names & defaults.keys()}
                    return Recipe.model_validate(others | used).read_in(context)
            return None

    def _replaced(
        self, values: dict[str, Any], defaults: Mapping[str, Any], mistake: Mapping[str, Any]
    ) -> bool:
        """Report a value of the wrong type or beyond its limits; return whether it was replaced."""
        place: tuple[int | str, ...] = mistake["loc"]
        while not find_in(self.layer, name := ".".join(map(str, place))) and len(place) > 1:
            place = place[:-1]
        limits: Mapping[str, Any] = mistake.get("ctx", {})
        instead = limits.get("ge", limits.get("le")) if place == mistake["loc"] else None
        written = find_in(self.layer, name)
        message = wrong_value(re.sub(r"\.\d+", "", name), written) if written else mistake["msg"]
        if not self.judge.wrong(name, message, instead):
            return False
        *path, last = place
        inner: Any = values
        for step in path:
            inner = inner[step]
        inner[last] = defaults.get(name) if instead is None else instead
        if inner[last] is None:
            del inner[last]
        return True

    def _checkpoint(self) -> Checkpoint:
        written = self.layer.get("checkpoint")
        try:
            name = text_of("checkpoint", written) if written else None
            return find_checkpoint(name, self.known.inventory)
        except ValueInvalid as error:
            self.judge.wrong("checkpoint", str(error))
            return NO_CHECKPOINT

    def _find(self, field: str, kind: str, instead: Any = "") -> str | None:
        """Return the installed model that a field names, or the one instead; None for an error."""
        written = find_in(self.layer, field)
        try:
            return find(kind, text_of(field, written) if written else None, self.known.inventory)
        except ValueInvalid as error:
            return instead if self.judge.wrong(field, str(error), instead) else None

    def _path(self, name: str) -> str:
        """Return the path of the picture that a field names; "" for none, or if it is wrong."""
        written = find_in(self.layer, name)
        try:
            path = read_path(re.sub(r"\.\d+\.", ".", name), written, self.known.pictures)
        except ValueInvalid as error:
            self.judge.wrong(name, str(error))
            return ""
        if path:
            self.known.named[path] = self.judge.position_of(name)
        return path

    def _place_dropped(self, checkpoint: Checkpoint) -> None:
        """Make a dropped picture the start image, or the reference of an editing checkpoint."""
        dropped = self.entry.dropped
        if not dropped:
            return
        layer = {name: one for name, one in self.layer.items() if name != "image"}
        stays = only_details({**layer, "image": dropped})
        stays = stays or ("extend" in layer and not layer["extend"].is_off)
        if checkpoint.rules.references and "references" not in layer and not stays:
            layer["references"] = dropped.with_parts((dropped,))
        elif "references" not in layer:
            layer["image"] = dropped
        self.judge.layer = layer

    def _mask(self, image: str, references: tuple[str, ...]) -> str | dict[str, Any]:
        """Return the mask's path, for `alpha` that of the masked picture; or what to find there."""
        written = self.layer.get("mask")
        if written is not None and isinstance(written.value, dict):
            return self._find_by_words("mask", written)
        if written is None or written.text.strip().casefold() != ALPHA:
            return self._path("mask")
        return image or next(iter(references), "")

    def _find_by_words(self, field: str, written: Written) -> str | dict[str, Any]:
        """Return what a mapping wants to be found, and by which model; "" if it does not say it.

        Without the model that another picture was made with, the best one is used.
        """
        parts = _values_of(field, written)
        if "find" not in parts:
            name = field.partition(".")[0]
            self.judge.wrong(field, f"{name} does not say what to find. Write 'find: …' there.")
            return ""
        best = next(iter(self.known.inventory.named("segmentation")))
        return parts | {"model": self._find(f"{field}.model", "segmentation", best) or ""}

    def _references(self) -> tuple[str, ...]:
        written = self.layer.get("references")
        parts = range(len(written.parts)) if written else ()
        paths = [self._path(f"references.{index}") for index in parts]
        for index, path in enumerate(paths):
            with suppress(PictureUnreadable):  # reported where pictures are kept
                width, height = self.known.pictures.size(path) if path else (1, 1)
                if max(width, height) > _MOST_NARROW * min(width, height):
                    what = f"'{shown(path)}' is too narrow, {width}x{height} pixels."
                    most = f"One side may have {_MOST_NARROW} times the other's pixels."
                    self.judge.wrong(f"references.{index}", f"{what} {most}")
        return tuple(filter(None, paths))

    def _seeds(self, seed: object) -> object:
        """Return one seed, or several, with which `count` is a mistake."""
        if isinstance(seed, tuple | range) and "count" in self.layer:
            what = "count and several seeds together: each seed makes one image. Remove count."
            self.judge.wrong("count", what, position=self.layer["count"].name_position)
        return tuple(seed) if isinstance(seed, range) else seed

    def _check_hash(self, checkpoint: Checkpoint) -> None:
        """Warn if a picture's checkpoint may not be the installed one of this name."""
        begins, written = self.entry.checkpoint_hash.casefold(), self.layer.get("checkpoint")
        if not written or written.origin is not Origin.OTHERS:
            return
        # Shorter ones are from A1111 before 2023, which hashed in another way.
        if checkpoint.hash and len(begins) >= _HASH_DIGITS:
            if not checkpoint.hash.startswith(begins):
                self.judge.warnings.append(
                    f"the checkpoint '{shown(checkpoint.name)}' is another file than the "
                    f"picture's: its hash begins {checkpoint.hash[:_HASH_DIGITS]}, the picture's "
                    f"{shown(begins[:_HASH_DIGITS])}."
                )
        elif checkpoint.name and not is_whole_name(written.text, checkpoint.name):
            self.judge.warnings.append(
                f"the picture's checkpoint '{shown(written.text)}' is taken for "
                f"'{shown(checkpoint.name)}', which may be another one."
            )

    def _hires(self, checkpoint: Checkpoint, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the second pass; without a start image, denoising_strength is for it."""
        written, strength = self.layer.get("hires"), self.layer.get("denoising_strength")
        if not written or written.is_off:
            return None
        if strength and not values["image"] and not find_in(self.layer, "hires.denoising_strength"):
            self.judge.layer = with_part(self.layer, "hires.denoising_strength", strength)
        parts = _values_of("hires", self.layer["hires"])
        pixels = PIXEL_UPSCALERS[0]
        if "upscaler" in parts:
            parts["upscaler"] = self._find("hires.upscaler", "hires upscaler", pixels) or pixels
        elif checkpoint.rules.flow:  # enlarging a flow model's latents spoils them
            parts["upscaler"] = pixels
        return parts

    def _upscale(self) -> dict[str, Any] | None:
        """Return the upscaler, with the model's scale where none is given."""
        written = self.layer.get("upscale")
        is_on = written is not None and not written.is_off
        model = self._find("upscale.model", "upscaler") if is_on else None
        if not written or not model:
            return None
        usual = float(self.known.inventory.named("upscaler")[model].scale)
        return {"model": model, "scale": _values_of("upscale", written).get("scale") or usual}

    def _cutout(self) -> dict[str, Any] | None:
        """Return what cuts out and how, with the usual margin where only a size is given."""
        written = self.layer.get(CUTOUT)
        is_on = written is not None and not written.is_off
        kind = "segmentation" if find_in(self.layer, f"{CUTOUT}.find") else "cutout"
        model = self._find(f"{CUTOUT}.model", kind) if is_on else None
        if not written or not model:
            return None
        usual = {"margin": USUAL_MARGIN} if find_in(self.layer, f"{CUTOUT}.size") else {}
        return usual | _values_of(CUTOUT, written) | {"model": model}

    def _controls(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Return the ControlNets; those whose model or picture is missing are left out."""
        written = self.layer.get(CONTROL)
        found = []
        for index, entry in enumerate(written.parts if written else ()):
            parts, name = _values_of(CONTROL, entry), f"{CONTROL}.{index}"
            model = self._find(f"{name}.model", "controlnet") if "model" in parts else None
            if model == "":
                continue
            parts["model"] = model or ""
            image = find_in(self.layer, f"{name}.image")
            is_own = image is not None and not image.is_none
            parts["image"] = self._path(f"{name}.image") if is_own else values["image"]
            if is_own and not parts["image"]:
                continue
            if parts.get("preprocess") == "depth":
                parts["depth"] = self._find(f"{name}.depth", "depth") or ""
            if model and self.known.inventory.named("controlnet")[model].kinds:
                parts.setdefault("kind", KIND_OF.get(parts.get("preprocess", ""), ""))
            found.append(parts)
        return tuple(found)

    def _details(self, checkpoint: Checkpoint) -> tuple[dict[str, Any], ...]:
        """Return what is drawn again, with a model's name and a size."""
        written, found = self.layer.get(DETAIL), []
        native = f"{checkpoint.native_size}x{checkpoint.native_size}"
        for index, entry in enumerate(written.parts if written else ()):
            parts = self._find_by_words(f"{DETAIL}.{index}", entry)
            if isinstance(parts, dict):
                found.append({"size": native} | parts)
        return tuple(found)

    def _format(self, values: Mapping[str, Any]) -> str:
        """Return the file format; a folder's `same` is for its recipes with pictures."""
        has_picture = values["image"] or values["references"] or values["control"]
        is_for_others = self.judge.origin_of("format") is Origin.FOLDER and not has_picture
        found: str = values.get("format", "")
        return "" if is_for_others and found == SAME else found

    def _extended(self, extend: str, size: tuple[int, int]) -> tuple[int, int]:
        """Return a picture's size with what is drawn around it."""
        try:
            return margins_of(extend, size).around(size)
        except ValueInvalid as error:
            self.judge.wrong("extend", str(error))
            return size

    def _size_kept(self, values: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the size of the picture, if only parts of it are drawn."""
        if _keeps_size(values):
            with suppress(PictureUnreadable):  # reported where pictures are kept
                return self.known.pictures.size(values["image"] or values["references"][0])
        return None

    def _picture_size(self, values: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, int]:
        """Return the sides to take from a picture; next to a given side, in proportion."""
        sides = [side for side in ("width", "height") if values[side] == PICTURE]
        references = values["references"]
        extend = values.get("extend", "") if values["image"] else ""
        if _keeps_size(values):
            return dict.fromkeys(sides, checkpoint.native_size)
        if (references or extend) and not {"width", "height"}.intersection(self.layer):
            sides = ["width", "height"]
        if not sides and not extend:
            return {}
        followed = (one["image"] for one in values["control"])
        path = values["image"] or next(chain(references, followed), "")
        image, size = self.layer.get("image"), (checkpoint.native_size, checkpoint.native_size)
        if path:
            try:
                size = self.known.pictures.size(path)
            except PictureUnreadable as error:
                field = "image" if values["image"] else "references.0" if references else CONTROL
                self.judge.wrong(field, named(path, str(error)))
            if extend:
                size = self._extended(extend, size)
        elif not image or image.is_none:
            what = "size: picture is the size of the start image. Add image, or a size."
            self.judge.wrong(sides[0], what)
        if len(sides) == 1:
            given = "height" if sides == ["width"] else "width"
            if isinstance(values[given], int):  # otherwise it is reported elsewhere
                scale = values[given] / size[given == "height"]
                size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        rules, most_pixels = checkpoint.rules, self.known.pictures.most_pixels
        scale = values["hires"].get("scale", 2) if values["hires"] else 1
        is_scale = isinstance(scale, int | float) and scale >= 1  # otherwise reported elsewhere
        most_side = min(MAX_SIDE, int(rules.max_side / (scale if is_scale else 1)))
        if not references:
            most_pixels = min(most_pixels, rules.most_start_pixels or most_pixels)
        multiple = 1 if references else rules.multiple
        width, height = picture_sides(size, multiple, most_side, most_pixels)
        if len(sides) > 1 and (size[0] * size[1] > most_pixels or max(size) > most_side):
            is_setting = most_pixels == self.known.pictures.most_pixels
            self.size_warning = (
                f"A picture of {size[0]}x{size[1]} pixels becomes {width}x{height}: "
                f"{'max_picture_megapixels' if is_setting else 'this checkpoint'} allows "
                f"{most_pixels / 1e6:.2g} megapixels, with sides of {most_side} at most."
            )
            self.judge.warnings.append(self.size_warning)
        return {side: width if side == "width" else height for side in sides}


def _decided(recipe: Recipe) -> str:
    """Return the schedule type, "automatic" resolved; an impossible one is refused already."""
    if recipe.installed_checkpoint.rules.flow:
        return SIMPLE
    decided = decide_schedule_type(sampler_named(recipe.sampler), recipe.schedule_type)
    return decided or recipe.schedule_type


def _keeps_size(values: Mapping[str, Any]) -> bool:
    """Return whether only parts of a picture are drawn, as `keeps_size` does."""
    stays = values["image"] and values.get("denoising_strength") == 0 and not values["hires"]
    only_masked = values["mask"] and values.get("mask_padding") is not None
    return bool(only_masked or (stays and values[DETAIL]))


def _values_of(field: str, mapping: Written) -> dict[str, Any]:
    """Return the values that the parts of a mapping mean."""
    parts = PARTS[field.partition(".")[0]]
    return {name: parts[name].reads(part) for name, part in mapping.pairs}
