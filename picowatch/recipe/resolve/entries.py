"""Resolves the entries of a file: written values become recipes."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.converters import number_in, several_seeds
from picowatch.recipe.fields import PROMPTS, Axis
from picowatch.recipe.files import Pictures
from picowatch.recipe.messages.problems import Problems, Reporter, refuse, shown
from picowatch.recipe.prompts.drawing import MAX_COST, cost_of
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve import advice, layers, sweep
from picowatch.recipe.resolve.building import resolve
from picowatch.recipe.resolve.lookup import Known, named, read_path
from picowatch.recipe.written import Entry, Layer, Origin, Position, SourceValue

# Takes the picture that `from` names, the recipe's pictures, its own fields, and the problems.
ReadFrom = Callable[[SourceValue, Pictures, Layer, Problems], Entry | None]


def too_many(images: int, max_images: int) -> str:
    """Return the message about a file that requests too many images."""
    limit = f"one save may request {max_images:,} (the setting max_images_per_save)."
    return f"this file requests {images:,} images; {limit}"


@dataclass(frozen=True, slots=True)
class _Merged:
    """An entry with its whole layer, and the axes of its sweep apart."""

    entry: Entry
    layer: Layer
    own: Layer  # what the file says
    axes: sweep.Axes
    warnings: tuple[str, ...]
    count: int  # of images that each combination of the axes has
    position: Position  # of what says the count


@dataclass(frozen=True, slots=True)
class EntryResolver:
    known: Known
    max_images: int
    problems: Problems  # gets the mistakes
    read_from: ReadFrom  # reads the settings of a picture
    defaults: Layer  # of the folder, normalised and merged: all entries start from them
    settings: Layer  # the file's own, from which all entries start, too

    def recipes(self, entries: Sequence[Entry]) -> list[Recipe]:
        """Return the recipes. Raises RecipeInvalid with all mistakes of the file."""
        settings = layers.normalised(self.settings, self.problems)
        whole = list(filter(None, (self._merged(entry, settings) for entry in entries)))
        totals = list(accumulate(e.count * prod(map(len, e.axes.values())) for e in whole))
        within = bisect_right(totals, self.max_images)
        if within < len(whole):
            self.problems.add(whole[within].position, too_many(totals[-1], self.max_images))
        recipes, cost = [], 0
        for merged_entry in whole[:within]:
            images, cost = self._images_of(merged_entry, cost)
            recipes += [self._recipe(merged_entry, images)] if images else []
        if self.problems:
            # In a file without mistakes, copying the pictures reports unusable ones.
            for path, position in self.known.named.items():
                try:
                    self.known.pictures.check(path)
                except PictureUnreadable as error:
                    self.problems.add(position, named(path, str(error)))
            self.problems.raise_if_any()
        return advice.with_unknown_words(advice.with_equal_images(recipes), self.known.inventory)

    def _merged(self, entry: Entry, settings: Layer) -> _Merged | None:
        """Return an entry with all its layers; None if the picture it starts from is unusable."""
        warnings = list(entry.warnings)
        origin = Origin.FOREIGN if entry.by_another_program else Origin.OWN
        said = (entry.layer, *entry.nearer)
        own = layers.merged(layers.normalised(s, self.problems, warnings, origin) for s in said)
        given = settings | own
        varied = layers.with_swept(given)
        replaced = {name: varied[name] for name in {*given, "loras"} & varied.keys()}
        picture = self._picture(given.get("from", self.defaults.get("from")), replaced, entry)
        if picture is None:
            return None
        warnings += picture.warnings
        theirs = layers.normalised(picture.layer, self.problems, warnings, Origin.FOREIGN)
        layer = layers.merged([self.defaults, theirs, settings, own])
        layer.pop("from", None)
        sources = (written.position.source for written in layer.values())
        warnings += dict.fromkeys(source.warning for source in sources if source.warning)
        # A folder's prompt and details are for recipes that draw.
        first = layers.with_swept(own)
        does_more = layers.says_drawing(first) or layers.only_writes(first)
        finishes = layers.only_finishes(first) and not does_more
        if not theirs and (layers.only_details(own) or finishes):
            for field in {"prompt", "detail"} - own.keys():
                layer.pop(field, None)
        entry = replace(
            entry,
            checkpoint_hash=picture.checkpoint_hash or entry.checkpoint_hash,
            embeddings=picture.embeddings or entry.embeddings,
        )
        swept = layer.pop("sweep", None)
        reader = sweep.AxisReader(
            layer, given, self.max_images, self.known.inventory, self.problems
        )
        axes = reader.read(swept) if swept else {}
        if "sweep" not in own:
            where = "above the prompts" if "sweep" in settings else "of the folder"
            idle = [name for name in entry.layer if name in axes]
            why = f"has no effect: the sweep {where} varies it. Keep one."
            warnings += [f"{name} {why}" for name in idle]
        count, position = _count(layer, entry.position)
        position = swept.name_position if axes and swept else position
        return _Merged(entry, layer, given, axes, tuple(warnings), count, position)

    def _images_of(self, whole: _Merged, cost: int) -> tuple[list[Recipe], int]:
        """Return the recipes of a sweep's combinations, and the `cost` of all prompts so far."""
        found, loras = [], sweep.swept_loras(whole.axes, self.known.inventory)
        labels = (label.partition(": ") for label in whole.axes)
        is_swept = any(piece and name in PROMPTS for name, _, piece in labels)
        for layer in sweep.combinations(whole.axes, whole.layer):
            details = (dict(part.pairs) for part in layers.mappings_in(layer, "detail"))
            prompts = [said[name] for said in (layer, *details) for name in PROMPTS if name in said]
            cost += whole.count * sum(cost_of(prompt.text, is_swept) for prompt in prompts)
            if cost > MAX_COST:
                refuse(whole.entry.position, _TOO_LONG)
            reporter = Reporter(layer, self.problems, whole.entry.position)
            if recipe := resolve(reporter, self.known, whole.entry):
                found.append(recipe.known(swept_loras=loras))
        return found, cost

    def _recipe(self, whole: _Merged, images: list[Recipe]) -> Recipe:
        """Return the entry's recipe, whose variants are the images of a sweep."""
        entry, axes, warnings = whole.entry, whole.axes, [*whole.warnings]
        layer = next(sweep.combinations(axes, whole.layer))
        reporter = Reporter(layer, self.problems, entry.position, warnings)
        for finding in advice.idle_findings(layer, images):
            # A template's fields may be for other pictures.
            if not entry.nearer or reporter.origin_of(finding.field) is Origin.FOREIGN:
                reporter.replaces(finding)
            # A file beside a picture is for this picture.
            elif finding.position and not (images[0].draws and finding.position.line):
                file, line = finding.position.source.name, finding.position.line
                where = f"{shown(file)}, line {line}" if line else shown(file)
                warnings.append(f"{finding.warning} (in {where})")
        if axes and not self.problems:
            sweep.refuse_same_images(axes, images, self.problems)
        warnings += advice.advice(images, whole.own)
        recipe = images[0]
        if axes:
            swept = tuple(Axis(name, tuple(v.text for v in axes[name])) for name in axes)
            recipe = recipe.with_values(sweep=swept, combinations=tuple(images))
        return recipe.known(warnings=tuple(dict.fromkeys(warnings)))

    def _picture(self, written: SourceValue | None, given: Layer, entry: Entry) -> Entry | None:
        """Return the settings of the picture that an entry starts from; None if it is unusable."""
        if written is None or written.is_none:
            return Entry({}, entry.position)
        try:
            where = written.with_value(read_path("from", written, self.known.pictures))
        except ValueInvalid as error:
            self.problems.add(written.error_position, str(error))
            return None
        return self.read_from(where, self.known.pictures, given, self.problems)


def _count(layer: Layer, position: Position) -> tuple[int, Position]:
    """Return the number of images of each combination, and the position of what says it."""
    count, seeds = layer.get("count"), layer.get("seed")
    if seeds and (several := several_seeds(seeds)):
        return len(several), seeds.position
    if count and isinstance(number := number_in(count), int):
        return max(1, number), count.position
    return 1, position


_TOO_LONG = (
    f"the prompts of all images of this file have more than {MAX_COST:,} characters. One in "
    "wildcards or brackets counts 80 times, one in a sweep 10 times. Request fewer images, or "
    "shorten the prompt."
)
