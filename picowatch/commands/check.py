"""`picowatch check`: what recipes would render, without loading a model."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain, cycle
from pathlib import Path
from typing import Any, Literal, TextIO

from picowatch.commands.schema import inventory_of
from picowatch.daemon.save_outcome import RecipeReader
from picowatch.errors import FAILED, SUCCEEDED, CommandFailed, PicowatchError, PictureUnreadable
from picowatch.files.names import natural_key
from picowatch.files.safe_paths import is_folder
from picowatch.inbox import names
from picowatch.inbox.folder import MAX_BYTES, FileChanged, FileUnreadable, InboxFolder
from picowatch.inbox.matching import nearest
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.inbox.read import Saved, read
from picowatch.inbox.reasons import reason_of, why_not, why_not_run
from picowatch.inbox.scan import pictures_under, scan
from picowatch.ledger.rows import NEVER_READ
from picowatch.metadata.recipe_yaml import value_yaml
from picowatch.outbox.names import OutboxNames
from picowatch.outbox.status import number_of
from picowatch.recipe.converters import RANDOM
from picowatch.recipe.fields import PROMPTS, ROWS
from picowatch.recipe.messages.problems import RecipeInvalid, error_text
from picowatch.recipe.prompts.drawing import files_in, mistaken_line
from picowatch.recipe.reading import DefaultsFile, NothingSaid
from picowatch.recipe.recipe import Recipe, no_hash
from picowatch.recipe.request import ImageRequest
from picowatch.settings.settings import Settings
from picowatch.streams import harmless

# A picture may be rendered otherwise than written (a warning); a file is refused, or is never run.
Code = Literal["mistake", "unusable", "being_written", "warning", "never_run"]
_REFUSALS = (PicowatchError, FileChanged, OSError)
_SEEDS_TRIED = 20  # of a recipe with a random seed, whose wildcards may draw a mistake


@dataclass(frozen=True, slots=True)
class FoundProblem:
    """A problem, as `--json` has it; line and column begin at 1, and are 0 for a whole file."""

    file: str
    line: int
    column: int
    code: Code
    text: str


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Print each file's images; exit code 1 if any file has a problem."""
    checking = _Checking(load(), as_json=options.json)
    for file in options.files:
        checking.check(file)
    if options.json:
        found = {"ok": not checking.failed, "images": checking.images}
        print(json.dumps(found | {"problems": [*map(asdict, checking.problems)]}, indent=1))
    return FAILED if checking.failed else SUCCEEDED


class _Checking:
    """Reads files as the daemon would, and prints what is found unless it is for JSON."""

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self._settings, self._as_json = settings, as_json
        self._inbox = InboxFolder(settings.inbox, settings.most_photo_pixels)
        known, most = inventory_of(settings), settings.max_images_per_save
        self._line_in = cache(lambda field, file: mistaken_line(field, file, known))
        self._reader = RecipeReader(self._inbox, known, most)
        self._there = scan(settings.inbox.resolve(), ())
        self._names = OutboxNames(settings.outbox, picture_format=settings.format)
        self._opened: set[str] = set()  # pictures that recipes name
        self.images: list[dict[str, Any]] = []
        # Each once: a template's are those of its pictures.
        self.problems: dict[FoundProblem, None] = {}
        self.failed: set[Path] = set()
        self._check_template = cache(lambda template: self._read(self._saved(template)))
        self._pictures_of = cache(lambda template: {*pictures_under(self._inbox, template)})

    def check(self, file: Path) -> None:
        """Check a file or folder; for a text or mask beside a dropped picture, the picture."""
        try:
            file.lstat()
            is_a_folder = is_folder(file)
            if why := "" if is_a_folder else self._why_not_taken(file):
                self._tell(file, "never_run", why)
            path = self._inbox.path_of(file)
            if is_a_folder:
                self._check_folder(file, path)
        except _REFUSALS as error:
            self._fail(file, "", error)
            return
        for own in () if is_a_folder else self._there.owners(path) or [path]:
            self._check(file if own == path else self._inbox.shown(own), own)

    def _check_folder(self, folder: Path, below: str) -> None:
        """Check all recipes and dropped pictures below a folder, and sum up."""
        if below:
            self._inbox.check_readable()
        there = self._there if below else scan(folder.resolve(), ())
        if why_not_searched := reason_of(there.others, below or "."):
            raise FileUnreadable(why_not_searched)
        images, failed = len(self.images), len(self.failed)
        root = f"{below}/" if below not in ("", ".") else ""
        found = sorted((path for path in there.found if path.startswith(root)), key=natural_key)
        if not below:  # `make` takes only recipes from elsewhere
            found = [path for path in found if names.is_recipe_path(path)]
        templates = {*filter(names.is_template, found)}
        for path in found:
            if not below:
                self._check(folder / path, "", lists=False)
            elif self._inbox.template_above(path) not in templates - {path}:
                self._check(self._inbox.shown(path), path, lists=False)
        why = why_not_run(self._there, self._opened) if below else {}  # by checked recipes
        never_run = [path for path in why if path.startswith(root)]
        for path in never_run:
            self._tell(self._inbox.shown(path), "never_run", why[path])
        parts = [number_of(len(found), "file"), number_of(len(self.images) - images, "image")]
        counts = {"with problems": len(self.failed) - failed, "never run": len(never_run)}
        parts += [f"{number} {what}" for what, number in counts.items() if number]
        self._print(harmless(f"{folder}: {', '.join(parts)}"))

    def _check(self, file: Path, path: str, *, lists: bool = True) -> None:
        """Check what is at `path` in the inbox, or a file elsewhere; perhaps list its images."""
        try:
            found = [*self._recipes(file, path)]
            images = _images(found, self._names)
        except _REFUSALS as error:
            self._fail(file, path or _name_in_inbox(file), error)
            return
        told = (text for *_, recipe in found for text in (*recipe.warnings, *self._later(recipe)))
        for warning in dict.fromkeys(told):
            self._tell(file, "warning", warning)
        if file.name == names.DEFAULTS_NAME:
            self._print(harmless(f"{file}: defaults of the recipes in this folder and below"))
            return
        self.images += images
        self._print(harmless(f"{file}: {number_of(len(images), 'image')}"))
        for line in _lines(images) if lists else ():
            self._print(harmless(line))

    def _later(self, recipe: Recipe) -> Iterator[str]:
        """Yield warnings on what random seeds may draw."""
        for variant in recipe.variants if recipe.seed == RANDOM else ():
            for field, text in variant.texts:
                files = sorted(files_in(text, variant.inventory))
                for file in files:
                    warning, others = self._line_in(field.rpartition(".")[2], file)
                    files += sorted(others.difference(files))
                    yield from filter(None, [warning])

    def _recipes(self, file: Path, path: str) -> Iterator[tuple[Path, int, Recipe]]:
        """Yield recipes with their places: a file, and the number of an entry."""
        if names.is_template(path):
            self._read(self._saved(path))
            for picture in pictures_under(self._inbox, path):
                shown = self._inbox.shown(picture)
                try:
                    recipes = self._read(self._saved(picture))
                    yield from [(shown, *place) for place in enumerate(recipes)]
                except _REFUSALS as error:
                    # That nothing is said is told once for all.
                    wrong = path if isinstance(error, NothingSaid) else picture
                    self._fail(self._inbox.shown(wrong), wrong, error)
            return
        if names.is_dropped(path):
            template = self._inbox.template_above(path)
            if template is None:
                words = "There is no _pictures.yaml in its folder or above it."
                remedy = "docs/pictures.md explains how pictures are requests."
                raise PictureUnreadable(words, remedy)
            self._check_template(template)
        saved = self._saved(path) if path else self._put(file)
        yield from ((file, *place) for place in enumerate(self._read(saved)))

    def _saved(self, path: str) -> Saved | None:
        """Return a file of the inbox as a save; None if it is empty."""
        noted = self._inbox.size_and_time(path)
        if noted is None:
            self._inbox.read(path)  # which says why
            raise FileChanged
        return read(self._inbox, "", path, noted) if noted.size else None

    def _put(self, file: Path) -> Saved:
        """Return a file from elsewhere as if `make` had put it into the inbox."""
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        name = _name_in_inbox(file)
        defaults = [] if file.name in names.TEMPLATE_NAMES else self._inbox.defaults_for(name)
        return Saved(name, "", NEVER_READ, content=content, defaults=defaults)

    def _read(self, saved: Saved | None) -> list[Recipe]:
        if saved is None:
            return []
        if saved.unreadable:
            raise FileUnreadable(saved.unreadable)
        settings, name = self._settings, saved.path.rpartition("/")[2]
        folders = self._inbox.root, settings.outbox
        pixels = settings.most_picture_pixels, settings.most_photo_pixels
        pictures = NamedPictures(*folders, *pixels, saved.path, self._opened)
        if name == names.DEFAULTS_NAME:
            # They need no prompt: what they say is read as in a recipe that says nothing else.
            files = dict.fromkeys([*saved.defaults, DefaultsFile(saved.path, saved.content)])
            defaults = [DefaultsFile("", b"prompt: a picture"), *files]
            path = f"{saved.path.removesuffix(names.DEFAULTS_NAME)}any.yaml"
            saved = replace(saved, path=path, content=b"{}", defaults=defaults)
        elif saved.dropped is None and not name.lower().endswith(names.ENDINGS):
            raise CommandFailed(f"names of recipes end in {', '.join(names.ENDINGS)}.")
        recipes = self._reader.recipes(saved, pictures, pictures.check)
        for recipe in recipes if saved.dropped else ():
            for _, path in recipe.pictures:
                pictures.check(path)
        # The engine warns later of masks that have no black or no white.
        for recipe in recipes:
            masked = (variant for variant in recipe.variants if variant.painted_mask)
            masks = dict.fromkeys((v.painted_mask, v.mask_invert, v.mask_is_alpha) for v in masked)
            recipe.warned(*(why for mask in masks for why in pictures.mask_warnings(*mask)))
        return recipes

    def _why_not_taken(self, file: Path) -> str:
        """Return why a file in the inbox or outbox is never run; "" for others."""
        outbox, inbox = self._settings.outbox, self._inbox
        real = file.parent.resolve() / file.name  # the file itself may be a link out
        root = inbox.root.resolve()
        if real.parent == outbox.resolve():
            return why_not(outbox, self._there, f"outbox/{file.name}")
        if not real.is_relative_to(root):
            return ""
        path = real.relative_to(root).as_posix()
        template = inbox.template_above(path)
        is_found = path in self._there.found and names.is_dropped(path)
        if template and is_found and path not in self._pictures_of(template):
            return f"its template {template} names it"
        is_other = names.is_dropped(path) or file.name in names.TEMPLATE_NAMES or template
        usual = "recipes and their folders have other names"
        why = "" if is_other or names.is_recipe_path(path) else usual
        return why_not(outbox, self._there, path) or why

    def _fail(self, file: Path, own: str, error: Exception) -> None:
        """Tell of a file that is refused; `own` is its name in the errors of a recipe."""
        self.failed.add(file)
        if isinstance(error, RecipeInvalid):
            problems = [
                replace(p, file=str(file if p.file == own else self._inbox.shown(p.file)))
                for p in error.problems
            ]
            found = [FoundProblem(p.file, p.line, p.column, "mistake", p.message) for p in problems]
            text = error_text(RecipeInvalid(problems), "")
        else:
            code: Code = "unusable"
            why = (isinstance(error, OSError) and error.strerror) or f"{error}"
            if isinstance(error, FileNotFoundError):
                hint = nearest(file.name, [path.name for path in file.parent.glob("*")])
                why += hint and f".{hint}"
            if isinstance(error, FileChanged):
                code, why = "being_written", "it is being written. Check again."
            found = [FoundProblem(str(file), 0, 0, code, why)]
            text = harmless(f"picowatch: {file}: {why}")
        if not self.problems.keys() >= {*found}:
            self.problems |= dict.fromkeys(found)
            self._print(text, to=sys.stderr)

    def _tell(self, file: Path, code: Code, why: str) -> None:
        """Tell of what does not refuse a file."""
        self.problems[FoundProblem(str(file), 0, 0, code, why)] = None
        what = f"this file is never run: {why}" if code == "never_run" else why
        self._print(harmless(f"{file}: warning: {what}"), to=sys.stderr)

    def _print(self, text: str, to: TextIO | None = None) -> None:
        if not self._as_json:
            print(text, file=to)


def _name_in_inbox(file: Path) -> str:
    """Return the path that a file from elsewhere has once `make` puts it into the inbox."""
    folder = f"{file.absolute().parent.name}/" if file.name in names.TEMPLATE_NAMES else ""
    return folder + file.name  # a template is for a folder


def _images(found: Sequence[tuple[Path, int, Recipe]], outbox: OutboxNames) -> list[dict[str, Any]]:
    """Return an object for each image; only what depends on a seed drawn later is unresolved."""
    images: dict[tuple[object, ...], dict[str, Any]] = {}
    for place, (file, entry_index, recipe) in enumerate(found):
        common = {"recipe": str(file), "entry_index": entry_index, "priority": recipe.priority}
        requests = _requests(recipe)
        later = ((each.size_warning, outbox.why_png(str(file), each)) for each in requests)
        # Recipes get the warnings that a run gives to their pictures.
        recipe.warned(*filter(None, chain.from_iterable(later)))
        for request, variant in zip(requests, cycle(recipe.variants), strict=False):
            key = file, request.digest, place if recipe.wants_random_seed else None
            image = _as_drawn_later(variant, {**common, **request.as_dict(with_off=True)})
            size = "{}x{}".format(*request.published_size)
            images.setdefault(key, image | {"published_size": size})
    return [*images.values()]


def _requests(recipe: Recipe) -> list[ImageRequest]:
    """Return the requests, if random with a seed whose words are drawn. Raises RecipeInvalid."""
    for seed in range(_SEEDS_TRIED if recipe.seed == RANDOM else 0):
        with suppress(RecipeInvalid):
            return recipe.image_requests(no_hash, seed)
    return recipe.image_requests(no_hash, 0)  # a run will hardly draw a right seed, either


def _as_drawn_later(variant: Recipe, image: dict[str, Any]) -> dict[str, Any]:
    """Return the request before seeds are drawn, without hashes: they need gigabytes of reading."""
    if variant.seed == RANDOM:
        written = {field: image[f"unexpanded_{field}"] or image[field] for field in PROMPTS}
        image |= {"seed": RANDOM, **written}
    if variant.variation_strength and variant.variation_seed is None:
        image["variation_seed"] = RANDOM
    image["references"] = [use["image"] for use in image.get("references", ())]
    return {name: value for name, value in image.items() if not name.endswith("_hash")}


def _lines(images: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each image, with what is not the same in all."""
    drawn = [image for image in images if "checkpoint" in image]
    may_differ = [name for name, row in ROWS.items() if row.check == "differs"]
    values = {name: {repr(i[name]) for i in drawn if name in i} for name in may_differ}
    differing = {name for name, found in values.items() if len(found) > 1}
    for image in images:
        sides = image.get("given_size") or (image["width"], image["height"])
        before, size = "{}x{}".format(*sides), image["published_size"]
        named = {name for name, row in ROWS.items() if row.check == "set" and image.get(name)}
        words, prompt = [], ""
        if "checkpoint" in image:
            named |= differing
            prompt = _short(" ".join(image["prompt"].split())) if image["prompt"] else ""
            how = "{checkpoint}  {sampler} {schedule_type}  {steps} steps  cfg_scale {cfg_scale:g}"
            how += "  guidance {guidance:g}" if image["guidance"] else ""
            varied = " + {variation_strength:g} of {variation_seed}"
            how += "  seed {seed}" + (varied if image["variation_strength"] else "")
            words = [how.format_map(image)]
        words += [f"{name} {_short(image.get(name))}" for name in ROWS if name in named]
        size = size if size == before else f"{before} to {size}"
        yield "  " + "  ".join(filter(None, [size, *words, prompt]))


def _short(value: object) -> str:
    """A value in a line: `{scale: 2, steps: 0}`, cut off if it is long."""
    words = value if isinstance(value, str) else value_yaml(value) or str(value).lower()
    words = "none" if value in (None, "", [], {}) else words
    return words if len(words) <= 70 else f"{words[:69]}…"
