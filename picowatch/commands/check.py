"""`picowatch check`: what recipes would render, without loading a model."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from picowatch.catalog import Catalog
from picowatch.errors import FAILED, SUCCEEDED, CommandFailed, PicowatchError, PictureUnreadable
from picowatch.files.names import natural_key
from picowatch.inbox.files import MAX_BYTES, FileChanged, defaults_for, path_below
from picowatch.inbox.names import (
    DEFAULTS_NAME,
    ENDINGS,
    TEMPLATE_NAMES,
    is_dropped,
    is_recipe_path,
    is_template,
    why_path_skipped,
)
from picowatch.inbox.reading import named_in, read_dropped, template_above
from picowatch.inbox.scan import scan
from picowatch.outbox.start_images import NamedPictures
from picowatch.recipe import (
    DefaultsFile,
    Recipe,
    RecipeInvalid,
    error_text,
    no_hash,
    read_recipes,
)
from picowatch.recipe.converters import RANDOM
from picowatch.recipe.fields import CUTOUT, DETAIL, PROMPTS, ROWS
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.reading import NothingSaid, check_template, dropped_recipes
from picowatch.recipe.resolve.start_image import refuse_unusable
from picowatch.settings import Settings
from picowatch.streams import harmless

# The fields that stand in every line.
_SHOWN = {
    *("prompt", "checkpoint", "sampler", "schedule_type", "steps", "cfg_scale", "guidance"),
    *("width", "height", "seed", "variation_seed", "variation_strength"),
}
# What a recipe does beyond its text, in the lines of the images with it.
_BEYOND_TEXT = (
    *("image", "mask", "denoising_strength", "references", "control", "hires"),
    *(DETAIL, "upscale", CUTOUT),
)


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return check(load(), options.files, as_json=options.json)


def check(settings: Settings, files: Sequence[Path], as_json: bool) -> int:
    """Print each file's images; exit code 1 if any file has a problem."""
    inventory = Catalog(settings.models, settings.hash_cache, keep_hashes=False).inventory(
        settings.checkpoint, must_exist=settings.names_models
    )
    listed: list[dict[str, Any]] = []
    failed = False
    for file in files:
        bad: dict[str, None] = {}  # what is wrong with single pictures
        try:
            recipes = _read(settings, file, inventory, bad)
            images = [image for place in enumerate(recipes) for image in _images(file, *place)]
        except (PicowatchError, OSError) as error:
            bad[_problem(settings, file, error)] = None
        else:
            warnings = [*_ignored(settings, file), *(w for one in recipes for w in one.warnings)]
            for warning in dict.fromkeys(warnings):
                print(harmless(f"{file}: warning: {warning}"), file=sys.stderr)
            if file.name == DEFAULTS_NAME and not as_json:
                print(harmless(f"{file}: defaults of the recipes in this folder and below"))
                continue
            listed += images
            if not as_json:
                _print(file, images)
        for problem in bad:
            failed = True
            print(problem, file=sys.stderr)
    if as_json:
        print(json.dumps(listed, indent=1))
    return FAILED if failed else SUCCEEDED


def _problem(settings: Settings, file: Path, error: Exception) -> str:
    if isinstance(error, RecipeInvalid):
        return error_text(error, _folder(settings, file))
    if isinstance(error, FileChanged):
        return harmless(f"picowatch: {file}: it is being written. Check again.")
    why = (isinstance(error, OSError) and error.strerror) or error
    return harmless(f"picowatch: {file}: {why}")


def _ignored(settings: Settings, file: Path) -> Iterator[str]:
    """Why a file in the inbox is never run, whatever it says."""
    name = path_below(settings.inbox, file)
    if file.name in TEMPLATE_NAMES or is_dropped(file.name):
        return
    if name and not is_recipe_path(name):
        why = why_path_skipped(name) or "recipes and their folders have other names"
        yield f"this file in the inbox is never run: {why}."


def _read(
    settings: Settings, file: Path, inventory: Inventory, bad: dict[str, None]
) -> list[Recipe]:
    """Read a recipe; inside the inbox its folders' defaults hold. For `bad` see `_under`."""
    inbox, defaults = settings.inbox.resolve(), []
    if name := path_below(inbox, file):
        defaults = defaults_for(inbox, name)
        if is_template(name):
            return list(_under(settings, inbox, name, inventory, bad))
        if is_dropped(name):
            if template := template_above(inbox, name):
                _check_template(settings, inbox, template, inventory)
            return list(_dropped(settings, inbox, name, inventory))
    name = name or file.name
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if file.name == DEFAULTS_NAME:
        # They need no prompt: what they say is read as in a recipe that says nothing else.
        own = [] if defaults else [DefaultsFile(name, content)]
        defaults = [DefaultsFile("", b"prompt: a picture"), *defaults, *own]
        name, content = f"{name.removesuffix(DEFAULTS_NAME)}any.yaml", b"{}"
    elif not file.name.lower().endswith(ENDINGS):
        raise CommandFailed(f"names of recipes end in {', '.join(ENDINGS)}.")
    beside = file.parent if name == file.name else None
    pictures = NamedPictures(settings, name, beside)
    most = settings.max_images_per_save
    recipes = read_recipes(name, content, inventory, defaults, most, pictures)
    refuse_unusable(recipes, pictures.check)
    return [_with_masks(recipe, pictures) for recipe in recipes]


def _with_masks(recipe: Recipe, pictures: NamedPictures) -> Recipe:
    """Warn about masks that have no black or no white, which the engine does later."""
    masks = {
        (one.painted_mask, one.mask_invert, one.mask_is_alpha): None
        for one in recipe.variants
        if one.painted_mask
    }
    found = [why for mask in masks for why in pictures.mask_warnings(*mask)]
    return recipe.warned([*recipe.warnings, *found])


def _under(
    settings: Settings, inbox: Path, template: str, inventory: Inventory, bad: dict[str, None]
) -> Iterator[Recipe]:
    """Yield what the pictures under a template request; add their problems to `bad`."""
    _check_template(settings, inbox, template, inventory)
    folder = template.rpartition("/")[0]
    found, named = scan(inbox, (), folder, is_under_template=True).found, named_in(inbox, folder)
    for path in sorted(filter(is_dropped, found), key=natural_key):
        if template_above(inbox, path) != template or path in named:
            continue
        try:
            yield from list(_dropped(settings, inbox, path, inventory))
        except NothingSaid as error:  # once for all
            bad[_problem(settings, settings.inbox / template, error)] = None
        except (PicowatchError, OSError) as error:
            bad[_problem(settings, settings.inbox / path, error)] = None


def _dropped(settings: Settings, inbox: Path, path: str, inventory: Inventory) -> Iterator[Recipe]:
    dropped = read_dropped(inbox, path)
    if dropped is None:
        raise PictureUnreadable(
            "There is no _pictures.yaml in its folder or above it.",
            "docs/pictures.md explains how pictures are requests.",
        )
    pictures = NamedPictures(settings, path)
    pictures.check(path)
    defaults = defaults_for(inbox, path)
    most = settings.max_images_per_save
    for recipe in dropped_recipes(dropped, inventory, defaults, most, pictures):
        for _, other in recipe.pictures:
            pictures.check(other)
        yield _with_masks(recipe, pictures)


def _check_template(settings: Settings, inbox: Path, name: str, inventory: Inventory) -> None:
    template = DefaultsFile(name, (inbox / name).read_bytes())
    pictures = NamedPictures(settings, name)
    defaults, most = defaults_for(inbox, name), settings.max_images_per_save
    check_template(template, inventory, defaults, most, pictures)


def _folder(settings: Settings, file: Path) -> str:
    """The folder before a file's name in its errors: the inbox, or where the file is."""
    return "inbox" if path_below(settings.inbox, file) else file.parent.as_posix()


def _images(file: Path, entry_index: int, recipe: Recipe) -> list[dict[str, Any]]:
    """Return an object for each image; only what depends on a seed drawn later is unresolved."""
    common = {"recipe": str(file), "entry_index": entry_index, "priority": recipe.priority}
    return [
        _as_drawn_later(variant, {**common, **request.as_dict(with_off=True)})
        | {"published_size": "{}x{}".format(*request.published_size)}
        for request, variant in zip(
            recipe.image_requests(no_hash, 0), cycle(recipe.variants), strict=False
        )
    ]


def _as_drawn_later(variant: Recipe, image: dict[str, Any]) -> dict[str, Any]:
    """Return the request with the seeds and wildcards that are still to be drawn.

    Without hashes, which cost gigabytes of reading and say nothing to people.
    """
    if variant.seed == RANDOM:
        written = {field: image[f"unexpanded_{field}"] or image[field] for field in PROMPTS}
        image |= {"seed": RANDOM, **written}
    if variant.variation_strength and variant.variation_seed is None:
        image["variation_seed"] = RANDOM
    image["references"] = [use["image"] for use in image.get("references", ())]
    return {name: value for name, value in image.items() if not name.endswith("_hash")}


def _print(file: Path, images: Sequence[dict[str, Any]]) -> None:
    print(harmless(f"{file}: {len(images)} image{'' if len(images) == 1 else 's'}"))
    drawn = [image for image in images if "checkpoint" in image]
    differing = {
        name
        for name in ROWS.keys() - _SHOWN - {*_BEYOND_TEXT}
        if len({repr(image[name]) for image in drawn if name in image}) > 1
    }
    for image in images:
        sides = image.get("given_size") or (image["width"], image["height"])
        before, size = "{}x{}".format(*sides), image["published_size"]
        named = {name for name in _BEYOND_TEXT if image.get(name)}
        words, prompt = [], ""
        if "checkpoint" in image:
            named |= differing
            prompt = _short(" ".join(image["prompt"].split())) if image["prompt"] else ""
            words = [
                image["checkpoint"],
                f"{image['sampler']} {image['schedule_type']}",
                f"{image['steps']} steps",
                f"cfg_scale {image['cfg_scale']:g}",
                f"guidance {image['guidance']:g}" if image["guidance"] else "",
                f"seed {image['seed']}",
            ]
            if image["variation_strength"]:
                words[-1] += f" + {image['variation_strength']:g} of {image['variation_seed']}"
        words += [f"{name} {_short(image.get(name))}" for name in ROWS if name in named]
        size = size if size == before else f"{before} to {size}"
        print(harmless("  " + "  ".join(filter(None, [size, *words, prompt]))))


def _short(value: object) -> str:
    """A value in a line: `scale 2, steps 0` of a mapping."""
    if value in (None, "", [], {}):
        return "none"
    match value:
        case bool():
            words = str(value).lower()
        case float():
            words = f"{value:g}"
        case dict():
            words = ", ".join(f"{name} {_short(part)}" for name, part in value.items())
        case list():
            words = ", ".join(map(_short, value))
        case _:
            words = str(value)
    return words if len(words) <= 60 else f"{words[:59]}…"
