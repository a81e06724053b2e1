"""What entries say, with everything looked up: written values become recipes."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import FROM, PICTURE_FIELDS, PROMPTS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import MAX_WARNINGS
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.prompts.grammar import probable_mistakes
from picowatch.recipe.prompts.known_words import unknown_words
from picowatch.recipe.read.a1111_blocks import names_parameters
from picowatch.recipe.read.from_picture import read_from
from picowatch.recipe.read.yaml_entries import first_flag
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.building import RecipeBuilder, only_enlarges
from picowatch.recipe.resolve.control import control_images
from picowatch.recipe.resolve.edits import edit_warnings
from picowatch.recipe.resolve.families import family_warnings
from picowatch.recipe.resolve.layers import merged, names_none, normalised
from picowatch.recipe.resolve.limits import ImageLimit, position_of_count, refuse_long_sweep
from picowatch.recipe.resolve.start_image import NEEDED, idle_fields, named, read_path
from picowatch.recipe.resolve.sweep import WrittenAxis, combinations, read_axes
from picowatch.recipe.written import Entry, Layer, Written

_V_PREDICTION = re.compile(r"(?i)v[-_ ]?pred")
_MOST_CHARACTERS = 100_000  # of prompts in which unknown words are looked for


@dataclass(frozen=True, slots=True)
class _WholeEntry:
    """An entry with all that it starts from.

    `layer` has every field but `from` and `sweep`, `own` those that the entry says itself, `given`
    those and the file's settings. What does not fit in a `forgiven` field is a warning.
    """

    entry: Entry
    index: int
    layer: Layer
    sweep: Written | None
    own: Layer
    given: Layer
    picture: Entry
    forgiven: Set[str]


class EntryResolver:
    """Turns the entries of a file into recipes; what is wrong with any of them goes to `problems`.

    `layers` hold what all of them start from, farthest first; the last one are the file's own
    settings. Sweeps beyond `max_images` are refused before any combination is worked out.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        inventory: Inventory,
        max_images: int,
        pictures: Pictures,
        problems: Problems,
    ) -> None:
        *self._defaults, self._settings = [normalised(layer, problems) for layer in layers]
        self._inventory = inventory
        self._max_images = max_images
        self._pictures = pictures
        self._problems = problems
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
        return _with_unknown_words(recipes, self._inventory)

    def _add_unusable_pictures(self) -> None:
        """A file without other mistakes names them when they are kept."""
        for written in dict.fromkeys(self._named):
            path = read_path("", {"": written}, self._pictures, Problems())
            try:
                if path:
                    self._pictures.check(path)
            except PictureUnreadable as error:
                self._problems.add(written.error_position, named(path, str(error)))

    def _whole(self, index: int, entry: Entry) -> _WholeEntry | None:
        """The entry with what it starts from; None if the picture of its `from` failed."""
        own = merged(normalised(one, self._problems) for one in (entry.layer, *entry.nearer))
        given = self._settings | own
        written = merged([*self._defaults, self._settings, own]).get(FROM)
        picture = self._picture(written, given, entry)
        if picture is None:
            return None
        from_picture = normalised(picture.layer, self._problems)
        layer = merged([*self._defaults, from_picture, self._settings, own])
        layer.pop(FROM, None)
        draws = from_picture or any(idle_fields(own, {"prompt": False}))
        if only_enlarges(own) and not draws:
            layer.pop("prompt", None)  # the folder's is for recipes that draw
        sweep = layer.pop("sweep", None)
        forgiven = from_picture.keys() - given.keys()
        forgiven |= own.keys() if entry.forgives else set()
        return _WholeEntry(entry, index, layer, sweep, own, given, picture, forgiven)

    def _picture(self, written: Written | None, given: Layer, entry: Entry) -> Entry | None:
        """The settings of the picture that an entry starts from, if it does; None if it failed."""
        if written is None or names_none(written):
            return Entry({}, entry.position)
        path = read_path(FROM, {FROM: written}, self._pictures, self._problems)
        if not path:
            return None
        return read_from(replace(written, value=path), self._pictures, given, self._problems)

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
        """What makes several images of an entry; None if these are too many."""
        layer, sweep, limit = whole.layer, whole.sweep, self._limit
        axes: list[WrittenAxis] = []
        if sweep:
            axes = read_axes(sweep, layer, whole.own, self._max_images, self._problems)
            if limit.refuses_sweep(axes, sweep):
                return None
            if refuse_long_sweep(axes, layer, sweep, self._problems):
                return None
        if limit.refuses_seeds(axes, layer):
            return None
        return axes

    def _images(self, whole: _WholeEntry, axes: Sequence[WrittenAxis]) -> list[Recipe]:
        """Each combination of the axes' values, those left out in which something is wrong."""
        swept = {name for axis in axes for value in axis.values for name in value.overlay}
        forgiven = whole.forgiven - swept
        found = []
        for combination in combinations(axes, whole.layer):
            self._named += _named_pictures(combination)
            recipe = self._builder.build(
                dict(combination), whole.entry.position, whole.index, forgiven
            )
            found += [recipe] if recipe else []
        return found

    def _warnings(
        self, whole: _WholeEntry, axes: Sequence[WrittenAxis], images: Sequence[Recipe]
    ) -> list[str]:
        """All of a recipe's; fields without effect that the file itself says are refused."""
        entry = whole.entry
        warnings = [*entry.warnings, *whole.picture.warnings]
        warnings += _idle(whole.picture.layer, images, whole.given)
        warnings += _not_honoured(images, whole.given, self._inventory)
        if entry.forgives:
            warnings += _idle(whole.own, images, {})
        elif not entry.nearer:  # a template's fields are for whichever pictures need them
            swept = {name: w for axis in axes for name, w in axis.values[0].overlay.items()}
            _refuse_idle(whole.own | swept, images, self._problems)
        return warnings


def _named_pictures(layer: Layer) -> Iterator[Written]:
    """The start image, the mask and the pictures that ControlNets follow, as written."""
    for field in PICTURE_FIELDS if "image" in layer else ():
        if field in layer and isinstance(layer[field].value, str):
            yield layer[field]
    for _, written in control_images(layer):
        if isinstance(written.value, str):
            yield written


def _with_unknown_words(recipes: list[Recipe], inventory: Inventory) -> list[Recipe]:
    """With one warning about all of them. LoRAs teach words of their own."""
    demo = inventory.demo
    if demo.known_words is None:
        return recipes
    known = demo.known_words.and_names(inventory.embeddings)
    unknown: list[str] = []
    left = _MOST_CHARACTERS
    seen: set[str] = set()
    for variant in (variant for recipe in recipes for variant in recipe.variants):
        prompt = variant.prompt
        if left <= 0:
            break
        if prompt in seen or not variant.draws or variant.checkpoint != demo.name:
            continue
        seen.add(prompt)
        left -= len(prompt)
        if not variant.names_loras:
            unknown += known.unknown_in(prompt)
    if unknown:
        said = unknown_words(demo.name, known, unknown)
        recipes[0] = recipes[0].warned([*recipes[0].warnings, said])
    return recipes


def _not_honoured(found: Sequence[Recipe], written: Layer, inventory: Inventory) -> Iterator[str]:
    """What prompts probably mean otherwise, and what checkpoints do not do of it all."""
    yield from found[0].refused_embeddings()
    yield from _probable_mistakes(written)
    for recipe in found:
        yield from recipe.warnings
        if not recipe.draws:
            continue
        yield from family_warnings(recipe)
        yield from islice(edit_warnings(recipe, inventory.wildcards), MAX_WARNINGS)
    yield from _doubtful_predictions(found, inventory)


def _probable_mistakes(written: Layer) -> list[str]:
    found: list[str] = []
    for field in PROMPTS:
        prompt = written.get(field)
        if prompt is None or not isinstance(prompt.value, str):
            continue
        is_txt = prompt.position.source.is_txt
        found += probable_mistakes(prompt.value)
        flag, instead = first_flag(prompt.value)
        if flag and not is_txt:
            found.append(
                f"'{shown(flag)}' in {field} is part of its text: flags are for .txt files. Write "
                f"the field {instead.partition(':')[0]} instead."
            )
        if not is_txt and names_parameters(prompt.value):
            found.append(
                f"{field} has another program's parameters in it, which are part of its text here. "
                "Write them as fields (negative_prompt: …, steps: …), or save the whole text as a "
                ".txt file, where they are read."
            )
    return found[:MAX_WARNINGS]


def _doubtful_predictions(found: Sequence[Recipe], inventory: Inventory) -> list[str]:
    """Checkpoints whose names say v-prediction, but not their files: their pictures are noise."""
    silent = {one.name for one in inventory.checkpoints if not one.says_prediction}
    names = {recipe.checkpoint: None for recipe in found if not recipe.prediction}
    return [
        f"the checkpoint '{shown(name)}' says v-prediction only in its name. If its pictures are "
        "noise, write 'prediction: v_zero_snr' or 'prediction: v'."
        for name in names
        if name in silent and _V_PREDICTION.search(name)
    ]


def _refuse_idle(own: Layer, found: Sequence[Recipe], problems: Problems) -> None:
    # What is missing for a mistake of its own is not to be added.
    given = [name for name in NEEDED & own.keys() if not names_none(own[name])]
    said = {name: True for name in given if own[name].value}
    for position, field, needs in idle_fields(own, _present(found) | said):
        written = f'"{field.replace(".", ": ")}"' if "." in field else field  # as a sweep has it
        message = (
            f"{written} has no effect without {' or '.join(needs)}. Add it, or remove {written}."
        )
        problems.add(position, message)


def _idle(borrowed: Layer, found: Sequence[Recipe], own: Layer) -> Iterator[str]:
    """Nothing about what goes with a field that the recipe itself switches off."""
    off = set(own)
    for _, field, needs in idle_fields(borrowed, _present(found)):
        if off.isdisjoint(needs):
            needed = " or ".join(needs)
            yield f"{field} was ignored: it needs {needed}, which is missing here."
        else:
            off.add(field)


def _present(found: Sequence[Recipe]) -> dict[str, bool]:
    """Which of the fields that others need any combination has."""
    present = {name: any(getattr(recipe, name) for recipe in found) for name in NEEDED}
    return present | {"prompt": any(recipe.draws for recipe in found)}
