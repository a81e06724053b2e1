"""Entries with everything looked up: written values become recipes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import FROM, PICTURE_FIELDS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.advice import advice, with_unknown_words
from picowatch.recipe.resolve.building import RecipeBuilder, only_enlarges
from picowatch.recipe.resolve.control import control_images
from picowatch.recipe.resolve.idle import idle_fields, says_drawing
from picowatch.recipe.resolve.layers import merged, names_none, normalised
from picowatch.recipe.resolve.limits import ImageLimit, position_of_count, refuse_long_sweep
from picowatch.recipe.resolve.others import nearest_possible
from picowatch.recipe.resolve.severity import Judge, Origin
from picowatch.recipe.resolve.start_image import named, read_path
from picowatch.recipe.resolve.sweep import WrittenAxis, combinations, read_axes, refuse_same_images
from picowatch.recipe.written import Entry, Layer, Written

# The picture that `from` names, the pictures of the recipe, what it says itself, and the problems.
ReadFrom = Callable[[Written, Pictures, Layer, Problems], Entry | None]


@dataclass(frozen=True, slots=True)
class _WholeEntry:
    """An entry with all that it starts from.

    `layer` has every field but `from` and `sweep`, `origins` say who wrote each, `own` has those
    that the recipe itself says.
    """

    entry: Entry
    index: int
    layer: Layer
    origins: dict[str, Origin]
    sweep: Written | None
    own: Layer
    warnings: tuple[str, ...]


class EntryResolver:
    """Turns the entries of a file into recipes; what is wrong with any of them goes to `problems`.

    `layers` hold what all of them start from, farthest first; the last one are the file's own
    settings. Sweeps beyond `max_images` are refused before any combination is worked out.
    `read_from` reads the settings of a picture.
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
        *self._defaults, self._settings = [normalised(layer, problems) for layer in layers]
        self._inventory = inventory
        self._max_images = max_images
        self._pictures = pictures
        self._problems = problems
        self._read_from = read_from
        self._builder = RecipeBuilder(inventory, pictures, problems)
        self._limit = ImageLimit(max_images, problems)
        self._named: list[Written] = []  # the pictures of all entries

    def recipes(self, entries: Sequence[Entry]) -> list[Recipe]:
        """The entries' recipes, in order."""
        recipes: list[Recipe] = []
        for index, entry in enumerate(entries):
            whole = self._whole(index, entry)
            if whole and (recipe := self._recipe_of(whole)):
                recipes.append(recipe)
                self._limit.count(recipe.image_count)
        if entries:
            self._limit.check(position_of_count(entries[0]))
        if self._problems:
            self._add_unusable_pictures()
        return with_unknown_words(recipes, self._inventory)

    def _add_unusable_pictures(self) -> None:
        """A file without other mistakes names them when they are kept."""
        for written in dict.fromkeys(self._named):
            path = read_path("", written, self._pictures, Problems())
            try:
                if path:
                    self._pictures.check(path)
            except PictureUnreadable as error:
                self._problems.add(written.error_position, named(path, str(error)))

    def _whole(self, index: int, entry: Entry) -> _WholeEntry | None:
        """The entry with what it starts from; None if the picture of its `from` failed."""
        warnings = list(entry.warnings)
        if entry.by_another_program:
            own = nearest_possible(entry.layer, warnings)
        else:
            own = merged(normalised(one, self._problems) for one in (entry.layer, *entry.nearer))
        given = self._settings | own
        picture = self._picture(merged([*self._defaults, given]).get(FROM), given, entry)
        if picture is None:
            return None
        warnings += picture.warnings
        from_picture = nearest_possible(picture.layer, warnings)
        layer = merged([*self._defaults, from_picture, self._settings, own])
        origins = dict.fromkeys([name for one in self._defaults for name in one], Origin.FOLDER)
        origins |= dict.fromkeys(from_picture, Origin.OTHERS)
        origins |= dict.fromkeys(self._settings, Origin.OWN)
        origins |= dict.fromkeys(own, Origin.OTHERS if entry.by_another_program else Origin.OWN)
        layer.pop(FROM, None)
        if only_enlarges(own) and not from_picture and not says_drawing(own):
            layer.pop("prompt", None)  # the folder's is for recipes that draw
        sweep = layer.pop("sweep", None)
        return _WholeEntry(entry, index, layer, origins, sweep, given, tuple(warnings))

    def _picture(self, written: Written | None, given: Layer, entry: Entry) -> Entry | None:
        """The settings of the picture that an entry starts from, if it does; None if it failed."""
        if written is None or names_none(written):
            return Entry({}, entry.position)
        path = read_path(FROM, written, self._pictures, self._problems)
        if not path:
            return None
        return self._read_from(written.with_value(path), self._pictures, given, self._problems)

    def _recipe_of(self, whole: _WholeEntry) -> Recipe | None:
        """The entry's recipe; None if something is wrong with all of it."""
        axes = self._axes(whole)
        images = [] if axes is None else self._images(whole, axes)
        if axes is None or not images:
            return None
        shown_axes = tuple(axis.axis for axis in axes)
        recipe = images[0].swept(shown_axes, images) if axes else images[0]
        return recipe.warned(self._warnings(whole, axes, images))

    def _axes(self, whole: _WholeEntry) -> list[WrittenAxis] | None:
        """The axes that make several images of an entry; None if these are too many."""
        layer, sweep = whole.layer, whole.sweep
        axes: list[WrittenAxis] = []
        if sweep:
            axes = read_axes(sweep, layer, whole.own, self._max_images, self._problems)
        if self._limit.refuses(axes, layer, sweep):
            return None
        if sweep and refuse_long_sweep(axes, layer, sweep, self._problems):
            return None
        return axes

    def _images(self, whole: _WholeEntry, axes: Sequence[WrittenAxis]) -> list[Recipe]:
        """The combinations of the axes' values, without those in which something is wrong."""
        origins = whole.origins | dict.fromkeys(_swept(axes), Origin.OWN)
        found = []
        for combination in combinations(axes, whole.layer):
            self._named += _named_pictures(combination)
            position = whole.entry.position
            recipe = self._builder.build(dict(combination), origins, position, whole.index)
            found += [recipe] if recipe else []
        return found

    def _warnings(
        self, whole: _WholeEntry, axes: Sequence[WrittenAxis], images: Sequence[Recipe]
    ) -> list[str]:
        """All warnings of a recipe; fields without effect that the file itself says are refused."""
        swept = _swept(axes)
        origins = whole.origins | dict.fromkeys(swept, Origin.OWN)
        layer = whole.layer | swept
        judge = Judge(layer, origins, whole.entry.position, self._problems)
        for finding in idle_fields(layer, origins, images):
            # A template's fields are for whichever pictures need them.
            if not whole.entry.nearer or origins[finding.field] is Origin.OTHERS:
                judge.replaces(finding)
        if axes and not self._problems:
            refuse_same_images(axes, images, self._problems)
        said = advice(images, whole.own, whole.origins, self._inventory)
        return [*whole.warnings, *judge.warnings, *said]


def _swept(axes: Sequence[WrittenAxis]) -> Layer:
    """The fields that a sweep varies, with their first values."""
    return {name: w for axis in axes for name, w in axis.values[0].overlay.items()}


def _named_pictures(layer: Layer) -> Iterator[Written]:
    """The start image, the mask and the pictures that ControlNets follow, as written."""
    for field in PICTURE_FIELDS if "image" in layer else ():
        if field in layer and isinstance(layer[field].value, str):
            yield layer[field]
    for _, written in control_images(layer):
        if isinstance(written.value, str):
            yield written
