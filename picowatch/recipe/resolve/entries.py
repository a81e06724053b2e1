"""Resolves the entries of a file: written values become recipes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.converters import number_in, several_seeds
from picowatch.recipe.fields import DETAIL, FROM, PROMPTS, ROWS, Axis
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, refuse
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.advice import (
    advice,
    idle_findings,
    says_drawing,
    with_unknown_words,
)
from picowatch.recipe.resolve.building import Known, resolve
from picowatch.recipe.resolve.layers import (
    merged,
    only_details,
    only_finishes,
    read_values,
    spelt_out,
)
from picowatch.recipe.resolve.prompts import MAX_COST, cost_of
from picowatch.recipe.resolve.rules import Rules
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.resolve.start_image import named, read_path
from picowatch.recipe.resolve.sweep import (
    Axes,
    combinations,
    first_layer,
    read_axes,
    refuse_same_images,
    swept_loras,
)
from picowatch.recipe.written import Entry, Layer, Origin, Position, Written

# Takes the picture that `from` names, the recipe's pictures, its own fields, and the problems.
ReadFrom = Callable[[Written, Pictures, Layer, Problems], Entry | None]


def too_many(images: int, max_images: int) -> str:
    """Return the message about a file that requests too many images."""
    return (
        f"this file requests {images:,} images; one save may request {max_images:,} (the setting "
        "max_images_per_save)."
    )


def folder_layer(layer: Layer, problems: Problems) -> Layer:
    """Return the layer of a `_defaults.yaml`, ready to be merged."""
    layer = {name: replace(one, origin=Origin.FOLDER) for name, one in layer.items()}
    return spelt_out(layer, Judge(layer, problems))


class EntryResolver:
    """Turns the entries of a file into recipes; mistakes are added to `problems`.

    All entries start from the folder's `defaults`, spelt out and merged, and from the file's own
    `settings`. `read_from` reads the settings of a picture.
    """

    def __init__(
        self,
        defaults: Layer,
        settings: Layer,
        inventory: Inventory,
        max_images: int,
        pictures: Pictures,
        problems: Problems,
        read_from: ReadFrom,
    ) -> None:
        self._problems = problems
        self._defaults = defaults
        self._settings = spelt_out(settings, Judge(settings, problems))
        self._known = Known(inventory, pictures, Rules(inventory), {})
        self._max_images = max_images
        self._read_from = read_from
        self._images = 0
        self._beyond: Position | None = None  # of the field that exceeds the limit
        self._cost = 0  # of the prompts of all images

    def recipes(self, entries: Sequence[Entry]) -> list[Recipe]:
        found = [self._recipe(entry) for entry in entries]
        if self._beyond:
            self._problems.add(self._beyond, too_many(self._images, self._max_images))
        if self._problems:
            self._add_unusable_pictures()
        return with_unknown_words([recipe for recipe in found if recipe], self._known.inventory)

    def _add_unusable_pictures(self) -> None:
        """Report unusable pictures; in a file without mistakes, copying them reports them."""
        for path, position in self._known.named.items():
            try:
                self._known.pictures.check(path)
            except PictureUnreadable as error:
                self._problems.add(position, named(path, str(error)))

    def _layer(self, layer: Layer, origin: Origin, warnings: list[str]) -> Layer:
        if origin is Origin.OWN:
            return spelt_out(layer, Judge(layer, self._problems, warnings=warnings))
        layer = {name: replace(one, origin=origin) for name, one in layer.items()}
        judge = Judge(layer, self._problems, warnings=warnings)
        layer = spelt_out(layer, judge)
        # What others wrote wrong must not hide a folder's value.
        wrong = (layer.keys() & ROWS.keys()) - read_values(layer, judge).keys()
        return {name: written for name, written in layer.items() if name not in wrong}

    def _recipe(self, entry: Entry) -> Recipe | None:
        """Return the entry's recipe; None if it cannot be built."""
        warnings = list(entry.warnings)
        origin = Origin.OTHERS if entry.by_another_program else Origin.OWN
        own = merged(self._layer(one, origin, warnings) for one in (entry.layer, *entry.nearer))
        given = self._settings | own
        picture = self._picture(given.get(FROM, self._defaults.get(FROM)), given, entry)
        if picture is None:
            return None
        warnings += picture.warnings
        theirs = self._layer(picture.layer, Origin.OTHERS, warnings)
        layer = merged([self._defaults, theirs, self._settings, own])
        layer.pop(FROM, None)
        # A folder's prompt and details are for recipes that draw.
        if not theirs and (only_details(own) or (only_finishes(own) and not says_drawing(own))):
            for field in {"prompt", DETAIL} - own.keys():
                layer.pop(field, None)
        sweep = layer.pop("sweep", None)
        axes = self._axes(sweep, layer, given) if sweep else {}
        if picture.checkpoint_hash or picture.embeddings:
            said = picture.checkpoint_hash or entry.checkpoint_hash
            embeddings = picture.embeddings or entry.embeddings
            entry = replace(entry, checkpoint_hash=said, embeddings=embeddings)
        images = self._images_of(entry, layer, axes, self._count(entry, layer, axes, sweep))
        if not images:
            return None
        judge = Judge(first_layer(axes, layer), self._problems, entry.position, warnings)
        for finding in idle_findings(judge.layer, images):
            # A template's fields may be for other pictures.
            if not entry.nearer or judge.origin_of(finding.field) is Origin.OTHERS:
                judge.replaces(finding)
        if axes and not self._problems:
            refuse_same_images(axes, images, self._problems)
        warnings += advice(images, given)
        recipe = images[0]
        if axes:
            shown = tuple(Axis(name, tuple(v.text for v in axes[name])) for name in axes)
            recipe = recipe.model_copy(update={"sweep": shown}).known(variants=tuple(images))
        return recipe.warned(warnings)

    def _axes(self, sweep: Written, layer: Layer, given: Layer) -> Axes:
        inventory = self._known.inventory
        return read_axes(sweep, layer, given, self._max_images, inventory, self._problems)

    def _images_of(self, entry: Entry, layer: Layer, axes: Axes, count: int) -> list[Recipe]:
        """Return the recipe, or those of all combinations of a sweep's values."""
        found, loras = [], swept_loras(axes, self._known.inventory)
        for combination in combinations(axes, layer) if count else ():
            self._cost += count * _cost(combination, axes)
            if self._cost > MAX_COST:
                refuse(entry.position, _TOO_LONG)
            judge = Judge(combination, self._problems, entry.position)
            recipe = resolve(judge, self._known, entry)
            if recipe:
                found.append(recipe.known(swept_loras=loras) if loras else recipe)
        return found

    def _picture(self, written: Written | None, given: Layer, entry: Entry) -> Entry | None:
        """Return the settings of the picture that an entry starts from; None if it is unusable."""
        if written is None or written.is_none:
            return Entry({}, entry.position)
        try:
            where = written.with_value(read_path(FROM, written, self._known.pictures))
        except ValueInvalid as error:
            self._problems.add(written.error_position, str(error))
            return None
        return self._read_from(where, self._known.pictures, given, self._problems)

    def _count(self, entry: Entry, layer: Layer, axes: Axes, sweep: Written | None) -> int:
        """Count the images of each combination; 0 if there are too many, as in a long range."""
        each, position = 1, entry.position
        count, seeds = layer.get("count"), layer.get("seed")
        if seeds and (several := several_seeds(seeds)):
            each, position = len(several), seeds.position
        elif count and isinstance(number := number_in(count), int):
            each, position = max(1, number), count.position
        self._images += each * prod(map(len, axes.values()))
        if self._images <= self._max_images:
            return each
        self._beyond = self._beyond or (sweep.name_position if axes and sweep else position)
        return 0


_TOO_LONG = (
    f"the prompts of all images of this file have more than {MAX_COST:,} characters. One in "
    "wildcards or brackets counts 80 times, one in a sweep 10 times. Request fewer images, or "
    "shorten the prompt."
)


def _cost(layer: Layer, axes: Axes) -> int:
    is_swept = any(value.changes_prompt for values in axes.values() for value in values)
    details = [dict(part.pairs) for part in layer[DETAIL].parts] if DETAIL in layer else []
    prompts = [one[field] for one in (layer, *details) for field in PROMPTS if field in one]
    return sum(cost_of(prompt.text, is_swept) for prompt in prompts)
