"""A recipe file or a dropped picture, from bytes to recipes: the whole story in one place."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain, product

from picowatch.errors import PictureUnreadable
from picowatch.files.names import is_picture_name, stem_of, with_mask
from picowatch.recipe.a1111.reader import begins_parameters
from picowatch.recipe.converters import number_in
from picowatch.recipe.fields import PICTURE, SAYING_WHAT
from picowatch.recipe.files import NO_PICTURES, Pictures, as_written
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import (
    NOWHERE,
    Problem,
    Problems,
    RecipeInvalid,
    refuse,
    shown,
)
from picowatch.recipe.photo_names import has_number
from picowatch.recipe.read.csv_entries import csv_entries
from picowatch.recipe.read.decoding import decode, is_empty
from picowatch.recipe.read.from_picture import read_from
from picowatch.recipe.read.txt_entries import rename_to, txt_entries
from picowatch.recipe.read.yaml_entries import json_entries, yaml_entries, yaml_layer
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve import layers
from picowatch.recipe.resolve.entries import EntryResolver, too_many
from picowatch.recipe.resolve.lookup import Known, refuse_unusable
from picowatch.recipe.written import Entry, Layer, Origin, Position, Source, SourceValue

# The beginning of a YAML recipe that could be A1111's text, too, if it has capitals.
_PROMPT = re.compile(r"\s*(?:- +)?prompt\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DefaultsFile:
    """A `_defaults.yaml`: its name relative to the inbox, and its bytes."""

    name: str
    content: bytes


def read_recipes(
    name: str,
    content: bytes,
    inventory: Inventory,
    defaults: Sequence[DefaultsFile] = (),
    max_images: int = 1000,
    pictures: Pictures = NO_PICTURES,
) -> list[Recipe]:
    """Return a file's recipes, all resolved but random seeds; none if it holds only comments.

    `name` is relative to the inbox; its ending decides how the file is read. `defaults` are the
    `_defaults.yaml` from the inbox's root down to the file's folder. `pictures` are those that the
    recipes may name. Raises RecipeInvalid with all problems of the file.
    """
    problems = Problems()
    folder = defaults_layer(defaults, problems)
    entries, settings = _entries(name, content, problems)
    if len(entries) > max_images:  # before anything is drawn or looked up
        refuse(entries[0].position, too_many(len(entries), max_images))
    known = Known(inventory, pictures)
    resolver = EntryResolver(known, max_images, problems, read_from, folder, settings)
    return [recipe.warned(*_only_for_photos(recipe)) for recipe in resolver.recipes(entries)]


def _only_for_photos(recipe: Recipe) -> Iterator[str]:
    """Yield what says nothing in a recipe."""
    why = "has no effect here: it is for photos that a _pictures.yaml takes."
    if recipe.replace:
        yield f"replace {why} Each picture of a recipe has its own number."
    if recipe.name:
        yield f"name {why} The setting file_name names the pictures of recipes."


def priority_of(defaults: Sequence[DefaultsFile]) -> int:
    """Return the priority that these `_defaults.yaml` set, nearest last; 0 if none does."""
    written = defaults_layer(defaults, Problems()).get("priority")
    value = number_in(written) if written else 0
    return value if isinstance(value, int) else 0


def defaults_layer(defaults: Sequence[DefaultsFile], problems: Problems) -> Layer:
    """Return the merged fields of `_defaults.yaml` files; mistakes are added to `problems`."""
    layer, mistakes = _read_defaults(tuple(defaults))
    problems.take(mistakes)
    return layer


@lru_cache(maxsize=64)
def _read_defaults(defaults: tuple[DefaultsFile, ...]) -> tuple[Layer, Sequence[Problem]]:
    """Read the `_defaults.yaml` files, once for all the recipes of a folder."""
    problems = Problems()
    found = []
    for file in defaults:
        with problems.gathered(goes_on=True):
            layer = yaml_layer(decode(file.name, file.content), problems)
            found.append(layers.normalised(layer, problems, origin=Origin.FOLDER))
    return layers.merged(found), problems.found


def _entries(name: str, content: bytes, problems: Problems) -> tuple[list[Entry], Layer]:
    """The file's entries as written, and the settings above them in a TXT."""
    with problems.gathered():
        source, ending = decode(name, content), name.lower()
        if ending.endswith(".txt"):
            return txt_entries(source, problems)
        if ending.endswith(".csv"):
            return csv_entries(source, problems), {}
        if ending.endswith(".json"):
            return json_entries(source, problems), {}
        if not begins_parameters(source.text) or _PROMPT.match(source.text):
            return yaml_entries(source, problems), {}
        what = rename_to(source, "txt", "A1111's generation parameters")
        problems.add(source.whole_line(1), what)
    return [], {}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A dropped picture, as paths below the inbox, with the files that say what it requests."""

    path: str
    template: DefaultsFile
    # The fields and the prompt beside it, which override the template.
    sidecars: tuple[DefaultsFile, ...] = ()
    mask: str = ""


class NothingSaid(PictureUnreadable):
    """Neither the template nor anything beside a picture says what to do with it."""

    def __init__(self) -> None:
        super().__init__(
            "Pictures without a prompt are not rendered.",
            "Write one here, or beside each picture, like anna.txt for anna.jpg. For smaller "
            "copies of the pictures, write resize_to: 1600.",
        )


_ANY_SETTINGS = {"parameters": "a picture\nSteps: 20, Sampler: Euler"}
# The first is not quite square: a photo that has the shape of `extend` already is refused. What
# makes a photo too large, or is too much around it, may be right for another.
_ANY_SIZES = ((1024, 1000), (640, 32), (32, 640), (15_000, 14_000))


class _AnyPicture(Pictures):
    """Any picture, to check a template without one; and those that the template itself names."""

    def __init__(self, dropped: str, size: tuple[int, int], named: Pictures) -> None:
        self._any, self._size, self._named = with_mask(dropped), size, named
        self.most_pixels = named.most_pixels
        self.most_photo_pixels = named.most_photo_pixels
        self.gave_settings = False

    def check(self, path: str) -> None:
        if path not in self._any:
            self._named.check(path)

    def size(self, path: str) -> tuple[int, int]:
        return self._size if path in self._any else self._named.size(path)

    def taken(self, path: str) -> datetime:
        return datetime.fromtimestamp(0)

    def texts(self, path: str) -> Mapping[str, str]:
        if path in self._any:
            self.gave_settings = True
            return _ANY_SETTINGS
        return self._named.texts(path)

    def inside(self, path: str) -> str | None:
        return self._named.inside(path)

    def called_here(self, path: str, digest: str, folder: str) -> str:
        return self._named.called_here(path, digest, folder)


def dropped_recipes(
    dropped: Dropped,
    inventory: Inventory,
    defaults: Sequence[DefaultsFile],
    max_images: int,
    pictures: Pictures,
) -> list[Recipe]:
    """Return a recipe for each entry in a template. Raises RecipeInvalid or NothingSaid."""
    problems = Problems()
    folder = defaults_layer(defaults, problems)
    entries = _dropped_entries(dropped, folder, problems)
    known = Known(inventory, pictures)
    recipes = EntryResolver(known, max_images, problems, read_from, folder, {}).recipes(entries)
    for recipe in recipes:
        if recipe.replace and has_number(recipe.name):
            what = "with replace: true a name has no {number}: it stays a photo's own."
            raise recipe.problem_at("name", what)
    is_dated = any("{date" in recipe.name for recipe in recipes)
    taken = pictures.taken(dropped.path) if is_dated else None
    for variant in (variant for recipe in recipes for variant in (recipe, *recipe.variants)):
        variant.known(dropped=frozenset((dropped.path, dropped.mask)), taken=taken)
    return recipes


@lru_cache(maxsize=64)
def pictures_named(template: DefaultsFile) -> frozenset[str]:
    """Return all values of a template that are names of pictures; none if it cannot be read."""
    problems = Problems()
    with problems.gathered(goes_on=True):
        entries = yaml_entries(decode(template.name, template.content), problems)
        said = (value for entry in entries for value in entry.layer.values())
        texts = chain.from_iterable(map(_texts, said))
        return frozenset(text.removeprefix("./") for text in texts if is_picture_name(text))
    return frozenset()


def _texts(written: SourceValue) -> Iterator[str]:
    parts = [*written.parts, *(part for _, part in written.pairs)]
    for part in parts:
        yield from _texts(part)
    if not parts:
        yield written.text.strip()


def check_template(
    template: DefaultsFile,
    inventory: Inventory,
    defaults: Sequence[DefaultsFile],
    max_images: int,
    pictures: Pictures = NO_PICTURES,
) -> None:
    """Raise RecipeInvalid for a template that is wrong whichever picture is dropped.

    `pictures` are those that it names itself. Where it takes settings from dropped ones, only these
    and the names of its fields are checked.
    """
    folder = template.name.rpartition("/")[0]
    files = [*defaults]
    if not _draws_nothing(template, defaults):  # the prompt may be in a file beside each picture
        files = [DefaultsFile("", b"prompt: a picture"), *files]
    failures = []
    masks = "", f"{folder}/any.mask.png"  # some checkpoints need a mask
    for size, mask in product(_ANY_SIZES, masks):
        dropped = Dropped(f"{folder}/any.png", template, mask=mask)
        any_picture = _AnyPicture(dropped.path, size, pictures)
        try:
            recipes = dropped_recipes(dropped, inventory, files, max_images, any_picture)
        except RecipeInvalid as invalid:
            if any_picture.gave_settings:  # with a picture's own settings it may be right
                return
            failures.append(invalid)
        else:
            refuse_unusable(recipes, any_picture.check)
            return
    raise min(failures, key=lambda failure: len(failure.problems))


def _draws_nothing(template: DefaultsFile, defaults: Sequence[DefaultsFile]) -> bool:
    """Return whether each entry of a template only finishes pictures, so far as it can be read."""
    problems = Problems()
    with problems.gathered(goes_on=True):
        folder = defaults_layer(defaults, problems)
        entries = yaml_entries(decode(template.name, template.content), problems)
        return bool(entries) and all(_only_finishes(entry.layer, folder) for entry in entries)
    return False


def _dropped_entries(dropped: Dropped, folder: Layer, problems: Problems) -> list[Entry]:
    with problems.gathered():
        source = decode(dropped.template.name, dropped.template.content)
        entries = yaml_entries(source, problems) or [Entry({}, source.whole_line(1))]
        beside = {file.name: _sidecar(file, problems) for file in reversed(dropped.sidecars)}
    text = next((name for name in beside if name.endswith(".txt") and beside[name]), "")
    fields = [layer for name, layer in beside.items() if name != text]
    what = (
        f"{shown(text)} is no prompt: {shown(source.name)} only finishes pictures. To have this "
        f"one drawn, write 'prompt: …' into {shown(stem_of(text))}.yaml."
    )
    notes = [
        bool(text) and _only_finishes(layers.merged([e.layer, *fields]), folder) for e in entries
    ]
    told = (what,) if all(notes) else ()  # it may be the prompt of another entry
    found = []
    for entry, is_note in zip(entries, notes, strict=True):
        sidecars = fields if is_note else [*beside.values()]
        own = layers.merged([entry.layer, *sidecars])
        said = layers.with_swept(folder | own)
        if said.keys().isdisjoint(SAYING_WHAT) and not _only_finishes(own, folder):
            problems.raise_if_any()
            raise NothingSaid
        image = own.get("image")
        if image and not _is_picture(image):
            what = "image is the dropped picture itself."
            remedy = "Remove it here, or save a recipe elsewhere."
            problems.add(image.error_position, f"{what} {remedy}")
        layer = _picture_layer(dropped, own)
        is_undecided = "image" in layer and "image" not in own
        undecided = layer["image"] if is_undecided else None
        nearer, warnings = (*sidecars, layer), (*entry.warnings, *told)
        found.append(replace(entry, nearer=nearer, dropped=undecided, warnings=warnings))
    return found


def _only_finishes(fields: Layer, folder: Layer) -> bool:
    """Return whether fields finish pictures, and say nothing about drawing."""
    layer = layers.normalised(layers.with_swept(fields), Problems())
    layer["image"] = SourceValue(PICTURE, NOWHERE)
    if layers.only_writes(layer):  # then its folder decides
        layer = folder | layer
    return layers.only_finishes(layer) and "from" not in layer and not layers.says_drawing(layer)


def _sidecar(file: DefaultsFile, problems: Problems) -> Layer:
    """Return the prompt in a .txt, or the fields in a .yaml; nothing for an empty file."""
    if is_empty(file.content):
        return {}
    source = decode(file.name, file.content)
    if file.name.lower().endswith(".txt"):
        text = source.text.strip()
        return {"prompt": SourceValue(text, source.whole_line(1), text)}
    return yaml_layer(source, problems)


def _picture_layer(dropped: Dropped, own: Layer) -> Layer:
    """Return the picture's own layer, in which it is the start image, perhaps with a mask."""
    position = Position(Source(dropped.path, ""), 0, 0)
    picture = SourceValue(as_written(dropped.path), position)
    # A picture that a ControlNet follows, or that is a reference, is a start image only if the
    # template says so, too. If the template says nothing, the checkpoint decides whether the
    # picture is its start image or its reference.
    layer: Layer = {}
    if "control" in own:
        control = _with_picture(own["control"], picture)
        layer = {"control": control} if control != own["control"] else {}
    if "references" in own:
        said = own["references"]  # as a list, whose position stays that of the word
        said = said if said.parts else said.with_parts((said,))
        layer["references"] = _with_picture(said, picture)
    if "image" in own or not layer:
        layer["image"] = picture
    if dropped.mask:
        place = Position(Source(dropped.mask, ""), 0, 0)
        layer["mask"] = SourceValue(as_written(dropped.mask), place)
    if "from" in own and _is_picture(own["from"]):
        layer["from"] = picture
    return layer


def _with_picture(written: SourceValue, picture: SourceValue) -> SourceValue:
    """Replace the word `picture` in a value, its elements, or their `image`."""
    if written.pairs:
        pairs = ((n, _with_picture(p, picture) if n == "image" else p) for n, p in written.pairs)
        return written.with_pairs(tuple(pairs))
    if isinstance(written.value, tuple):
        return written.with_parts(tuple(_with_picture(part, picture) for part in written.parts))
    return picture if _is_picture(written) else written


def _is_picture(written: SourceValue) -> bool:
    return isinstance(written.value, str) and written.value.strip().casefold() == PICTURE
