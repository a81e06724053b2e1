"""Resolves the entries of a file: written values become recipes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import FROM, PROMPTS, Axis
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
from picowatch.recipe.resolve.building import RecipeBuilder, only_finishes
from picowatch.recipe.resolve.layers import merged, names_none, normalised
from picowatch.recipe.resolve.prompts import MAX_COST, cost_of
from picowatch.recipe.resolve.rules import Rules
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.resolve.start_image import named, read_path
from picowatch.recipe.resolve.sweep import (
    Axes,
    combinations,
    first_values,
    read_axes,
    refuse_same_images,
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


class EntryResolver:
    """Turns the entries of a file into recipes; mistakes are added to `problems`.

    `layers` are what all entries start from, farthest first; the last one has the file's own
    settings. `read_from` reads the settings of a picture.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        inventory: Inventory,
        max_images: int,
        pictures: Pictures,
        problems: Problems,
        read_from: ReadFrom,
    ) -> None:
        self._problems = problems
        *defaults, settings = layers
        self._defaults = [self._normalised(layer, Origin.FOLDER) for layer in defaults]
        self._settings = self._normalised(settings, Origin.OWN)
        self._inventory = inventory
        self._max_images = max_images
        self._pictures = pictures
        self._read_from = read_from
        self._rules = Rules(inventory)
        self._named: dict[str, Position] = {}  # the pictures of all entries
        self._images = 0
        self._beyond: Position | None = None  # of the field that exceeds the limit
        self._cost = 0  # of the prompts of all images

    def recipes(self, entries: Sequence[Entry]) -> list[Recipe]:
        """Return the entries' recipes, in order."""
        found = [self._recipe(index, entry) for index, entry in enumerate(entries)]
        if self._beyond:
            self._problems.add(self._beyond, too_many(self._images, self._max_images))
        if self._problems:
            self._add_unusable_pictures()
        return with_unknown_words([recipe for recipe in found if recipe], self._inventory)

    def _add_unusable_pictures(self) -> None:
        """Report unusable pictures; in a file without mistakes, copying them reports them."""
        for path, position in self._named.items():
            try:
                self._pictures.check(path)
            except PictureUnreadable as error:
                self._problems.add(position, named(path, str(error)))

    def _normalised(self, layer: Layer, origin: Origin, warnings: list[str] | None = None) -> Layer:
        if origin is not Origin.OWN:
            layer = {name: replace(one, origin=origin) for name, one in layer.items()}
        warnings = [] if warnings is None else warnings
        return normalised(layer, Judge(layer, self._problems, warnings=warnings))

    def _recipe(self, index: int, entry: Entry) -> Recipe | None:
        """Return the entry's recipe; None if it cannot be built."""
        warnings = list(entry.warnings)
        origin = Origin.OTHERS if entry.by_another_program else Origin.OWN
        own = merged(
            self._normalised(one, origin, warnings) for one in (entry.layer, *entry.nearer)
        )
        given = self._settings | own
        picture = self._picture(merged([*self._defaults, given]).get(FROM), given, entry)
        if picture is None:
            return None
        warnings += picture.warnings
        theirs = self._normalised(picture.layer, Origin.OTHERS, warnings)
        layer = merged([*self._defaults, theirs, self._settings, own])
        layer.pop(FROM, None)
        if only_finishes(own) and not theirs and not says_drawing(own):
            layer.pop("prompt", None)  # a folder's is for recipes that draw
        sweep = layer.pop("sweep", None)
        axes = read_axes(sweep, layer, given, self._max_images, self._problems) if sweep else {}
        count = self._count(entry, layer, axes, sweep)
        images = []
        for combination in combinations(axes, layer) if count else ():
            self._cost += count * _cost(combination, axes)
            if self._cost > MAX_COST:
                refuse(entry.position, _TOO_LONG)
            judge = Judge(combination, self._problems, entry.position)
            builder = RecipeBuilder(self._inventory, self._pictures, self._rules, judge, index)
            recipe = builder.recipe()
            images += [recipe] if recipe else []
            self._named |= builder.named
        if not images:
            return None
        judge = Judge(layer | first_values(axes), self._problems, entry.position, warnings)
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

    def _picture(self, written: Written | None, given: Layer, entry: Entry) -> Entry | None:
        """Return the settings of the picture that an entry starts from; None if it is unusable."""
        if written is None or names_none(written):
            return Entry({}, entry.position)
        with self._problems.caught(written.error_position):
            path = read_path(FROM, written, self._pictures)
            return self._read_from(written.with_value(path), self._pictures, given, self._problems)
        return None

    def _count(self, entry: Entry, layer: Layer, axes: Axes, sweep: Written | None) -> int:
        """Count the images of each combination; 0 if there are too many, as in a long range."""
        each, position = 1, entry.position
        count, seeds = layer.get("count"), layer.get("seed")
        if seeds and isinstance(seeds.value, range | tuple):
            each, position = len(seeds.value), seeds.position
        elif count and isinstance(count.value, int):
            each, position = max(1, count.value), count.position
        self._images += each * prod(map(len, axes.values()))
        if self._images <= self._max_images:
            return each
        self._beyond = self._beyond or (sweep.name_position if axes and sweep else position)
        return 0


_TOO_LONG = (
    f"all images of this file together have more than {MAX_COST:,} characters of prompts, where "
    "those of wildcards and brackets count 80 times, and those of a sweep 10 times. Request fewer "
    "images, or shorten the prompt."
)


def _cost(layer: Layer, axes: Axes) -> int:
    is_swept = any(value.replaces for values in axes.values() for value in values)
    return sum(cost_of(layer[field].text, is_swept) for field in PROMPTS if field in layer)
