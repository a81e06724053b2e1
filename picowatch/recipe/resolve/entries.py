"""What entries say, with everything looked up: written values become recipes."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod

from picowatch.recipe.fields import FROM, PROMPTS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import MAX_WARNINGS
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.prompts.grammar import probable_mistakes
from picowatch.recipe.prompts.prompts import MAX_SIGNS_OF_ALL, count_all_signs
from picowatch.recipe.read.from_picture import FromPicture, PictureFields, read_from
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.building import RecipeBuilder
from picowatch.recipe.resolve.edits import edit_warnings
from picowatch.recipe.resolve.families import family_warnings
from picowatch.recipe.resolve.layers import merged, names_none, normalised
from picowatch.recipe.resolve.patterns import read_patterns, wants_one_sheet
from picowatch.recipe.resolve.start_image import NEEDED, idle_fields, read_path
from picowatch.recipe.resolve.sweep import WrittenAxis, combinations, read_axes
from picowatch.recipe.written import Entry, Layer, Written

_V_PREDICTION = re.compile(r"(?i)v[-_ ]?pred")
MAX_SWEPT_CHARACTERS = 2_000_000


def resolve(
    entries: Sequence[Entry],
    layers: Sequence[Layer],
    inventory: Inventory,
    max_images: int,
    picture_fields: PictureFields,
    pictures: Pictures,
    problems: Problems,
    go_on: Callable[[], None],
) -> list[Recipe]:
    """The entries' recipes, in order; what is wrong with any of them goes to `problems`.

    `layers` hold what all of them start from, farthest first; the last one are the file's own
    settings. Sweeps beyond `max_images` are refused before any combination is worked out.
    """
    *defaults, settings = [normalised(layer, problems) for layer in layers]
    recipes: list[Recipe] = []
    images = 0
    builder = RecipeBuilder(inventory, pictures, problems)
    for entry_index, entry in enumerate(entries):
        go_on()
        own = merged(normalised(one, problems) for one in (entry.layer, *entry.nearer))
        layer = merged([*defaults, settings, own])
        given = settings | own
        picture = _picture(layer.pop(FROM, None), picture_fields, pictures, given, problems)
        if picture is None:
            continue
        from_picture = normalised(picture.layer, problems)
        layer = merged([*defaults, from_picture, settings, own])
        layer.pop(FROM, None)
        sweep = layer.pop("sweep", None)
        axes = read_axes(sweep, layer, own, problems) if sweep else []
        if sweep and (
            _are_too_many(axes, images, max_images, sweep, problems)
            or _are_too_long(axes, layer, sweep, problems)
        ):
            continue
        each = read_patterns(layer, pictures, problems)
        if each and _match_too_many(each, axes, images, max_images, layer, problems):
            continue
        if each and (axes or wants_one_sheet(layer)):
            axes, each = [each, *axes], None
        swept_names = {name for axis in axes for value in axis.values for name in value.overlay}
        theirs = from_picture.keys() - settings.keys() - own.keys()
        theirs |= own.keys() if entry.forgives else set()
        for one in combinations([each] if each else [], layer):
            found = []
            for combination in combinations(axes, one):
                go_on()
                recipe = builder.build(
                    dict(combination), entry.position, entry_index, theirs - swept_names
                )
                found += [recipe] if recipe else []
            if not found:
                continue
            warnings = [*entry.warnings, *picture.warnings]
            swept = {name: w for axis in axes for name, w in axis.values[0].overlay.items()}
            warnings += _idle(picture.layer, found)
            warnings += _not_honoured(found, settings | own, inventory)
            if entry.forgives:
                warnings += _idle(own, found)
            elif not entry.nearer:  # a template's fields are for whichever pictures need them
                _refuse_idle(own | swept, found, problems)
            recipe = found[0].swept(tuple(axis.axis for axis in axes), found) if axes else found[0]
            recipes.append(recipe.warned(warnings))
            images += recipe.image_count
    return recipes


def _match_too_many(
    each: WrittenAxis,
    axes: Sequence[WrittenAxis],
    before: int,
    max_images: int,
    layer: Layer,
    problems: Problems,
) -> bool:
    """Whether a pattern stands for none, which is a problem already, or for too many pictures."""
    images = prod(len(axis.values) for axis in (each, *axes))
    if before + images <= max_images:
        return not each.values
    combined = " With the sweep" if axes else " Together"
    written = layer[each.label]
    pattern = f"'{shown(written.value)}'" if isinstance(written.value, str) else "the pattern"
    problems.add(
        written.error_position,
        f"{pattern} matches {len(each.values):,} pictures.{combined} "
        f"this file requests {before + images:,} images; one save may request {max_images:,} "
        "(the setting max_images_per_save).",
    )
    return True


def _not_honoured(found: Sequence[Recipe], written: Layer, inventory: Inventory) -> Iterator[str]:
    """What prompts probably mean otherwise, and what checkpoints do not do of it all."""
    yield from found[0].refused_embeddings()
    yield from _probable_mistakes(written)
    for recipe in found:
        yield from recipe.warnings
        if not recipe.draws:
            continue
        yield from family_warnings(recipe, inventory.checkpoint(recipe.checkpoint))
        yield from edit_warnings(recipe, inventory.wildcards)
    yield from _doubtful_predictions(found, inventory)


def _probable_mistakes(written: Layer) -> list[str]:
    texts = [written[field].value for field in PROMPTS if field in written]
    found = [doubt for text in texts if isinstance(text, str) for doubt in probable_mistakes(text)]
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


def _picture(
    written: Written | None,
    picture_fields: PictureFields,
    pictures: Pictures,
    given: Layer,
    problems: Problems,
) -> FromPicture | None:
    """The settings of the picture that an entry starts from, if it does; None if they failed."""
    if written is None or names_none(written):
        return FromPicture({})
    path = read_path(FROM, {FROM: written}, pictures, problems)
    return (
        read_from(replace(written, value=path), picture_fields, given, problems) if path else None
    )


def _are_too_many(
    axes: Sequence[WrittenAxis], before: int, max_images: int, sweep: Written, problems: Problems
) -> bool:
    images = prod(len(axis.values) for axis in axes)
    if before + images <= max_images:
        return False
    sizes = " x ".join(f"{len(axis.values):,}" for axis in axes)
    problems.add(
        sweep.name_position,
        f"this sweep makes {sizes} = {images:,} images; one save may request {max_images:,} "
        "(the setting max_images_per_save).",
    )
    return True


def _are_too_long(
    axes: Sequence[WrittenAxis], layer: Layer, sweep: Written, problems: Problems
) -> bool:
    """Whether sweeping a piece of a prompt makes more text than can be looked through."""
    if not any(value.replaces for axis in axes for value in axis.values):
        return False
    texts = [str(layer[field].value) for field in PROMPTS if field in layer]
    images = prod(len(axis.values) for axis in axes)
    for what, most, each in (
        ("characters", MAX_SWEPT_CHARACTERS, sum(map(len, texts))),
        (
            "characters of wildcards and brackets",
            MAX_SIGNS_OF_ALL,
            sum(map(count_all_signs, texts)),
        ),
    ):
        if each * images > most:
            problems.add(
                sweep.name_position,
                f"this sweep of a prompt has {each * images:,} {what}; the limit is {most:,}. "
                "Shorten the prompt, or sweep fewer values.",
            )
            return True
    return False


def _refuse_idle(own: Layer, found: Sequence[Recipe], problems: Problems) -> None:
    for position, field, needs in idle_fields(own, _present(found)):
        message = f"{field} has no effect without {needs}. Add it, or remove {field}."
        problems.add(position, message)


def _idle(own: Layer, found: Sequence[Recipe]) -> list[str]:
    return [
        f"{field} was ignored: it needs {needs}, which is missing here."
        for _, field, needs in idle_fields(own, _present(found))
    ]


def _present(found: Sequence[Recipe]) -> dict[str, bool]:
    """Which of the fields that others need any combination has."""
    present = {name: any(getattr(recipe, name) for recipe in found) for name in NEEDED}
    return present | {"prompt": any(recipe.draws for recipe in found)}
