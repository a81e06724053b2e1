"""What a save asks for, or why it is refused, and the log's words: all but the ledger's part.

Readers find it out in their threads, as models and pictures have to be looked at for it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple, cast

from picowatch.catalog import Kind
from picowatch.daemon.followups import sheet_of
from picowatch.daemon.model_hashes import ModelHashes
from picowatch.errors import LedgerCorrupt, ModelRefused, PicowatchError, PictureUnreadable
from picowatch.files.essential import unexpected
from picowatch.files.names import first_folder
from picowatch.inbox.folder import FileChanged, FileUnreadable, InboxFolder
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.inbox.names import is_dropped, is_reached, is_template
from picowatch.inbox.read import Saved
from picowatch.ledger.accept import QueueFull
from picowatch.ledger.rows import Acceptance, RequestedEntry
from picowatch.metadata.embedded_text import PICOWATCH
from picowatch.outbox.status import images
from picowatch.recipe import reading
from picowatch.recipe.chunk import read_chunk
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages import problems
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.reading import DefaultsFile, Dropped, NothingSaid
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.lookup import refuse_unusable, why_no_path
from picowatch.streams import harmless, harmless_lines

_NO_TEMPLATE = (
    "Pictures beside this file are not requests, because its name lacks an underscore. Rename it "
    "to _pictures.yaml."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a save asks for; a template asks for nothing. `copies` are hashes of copied pictures."""

    entries: Sequence[RequestedEntry]
    warnings: Sequence[str] = ()
    copies: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a save is refused."""

    text: str  # of the error file
    line: str  # for the log
    code: str
    waits: bool = False  # for something outside its bytes, which may change
    # That of a dropped picture, if it is refused instead: with one error for all its pictures,
    # which wait until it is right.
    template: str = ""
    lacks_prompt: bool = False  # neither it nor anything beside the picture says what to do


SaveOutcome = Asked | Refused


@dataclass(frozen=True, slots=True)
class RecipeReader:
    """Reads what a save requests, before it is hashed and copied: for the daemon and `check`."""

    inbox: InboxFolder
    models: Inventory
    max_images: int

    def recipes(
        self, seen: Saved, pictures: NamedPictures, use: Callable[[str], object]
    ) -> list[Recipe]:
        """Return a save's recipes. A template has none itself: a scan finds its pictures.

        The pictures that a recipe names are given to `use`, but not those of a dropped picture.
        Raises RecipeInvalid, FileUnreadable, PictureUnreadable or ModelRefused.
        """
        if is_template(seen.path):
            self.check_template(DefaultsFile(seen.path, seen.content), seen.defaults, pictures)
            return []
        given = self.models, seen.defaults, self.max_images, pictures
        if seen.dropped is not None:
            self._refuse_unusable(seen, seen.dropped, pictures)
            return reading.dropped_recipes(seen.dropped, *given)
        is_meant = self.inbox.is_meant_as_template(seen.path)
        try:
            recipes = reading.read_recipes(seen.path, seen.content, *given)
            if is_meant and not any(recipe.pictures for recipe in recipes):
                raise FileUnreadable(_NO_TEMPLATE)
            refuse_unusable(recipes, use)
        except RecipeInvalid:
            if is_meant:
                raise FileUnreadable(_NO_TEMPLATE) from None
            raise
        return recipes

    def check_template(
        self, template: DefaultsFile, defaults: Sequence[DefaultsFile], pictures: NamedPictures
    ) -> None:
        """Raise RecipeInvalid or FileUnreadable if nothing can be rendered with the template."""
        if "/" not in template.name:
            raise FileUnreadable(
                "Pictures cannot be dropped into the inbox itself, where recipes are saved.",
                f"Move {template.name} into a folder of its own.",
            )
        reading.check_template(template, self.models, defaults, self.max_images, pictures)

    def _refuse_unusable(self, seen: Saved, dropped: Dropped, pictures: NamedPictures) -> None:
        """Raise PictureUnreadable if the picture or its mask cannot be used."""
        if seen.damage:
            raise PictureUnreadable(seen.damage)
        if why_no_path(seen.path):
            raise PictureUnreadable(
                "Its name is too long, or has characters that a recipe cannot contain.",
                "Rename it.",
            )
        for path in filter(None, (seen.path, dropped.mask)):
            pictures.size(path)
        recipe = ""  # of which it is a result
        with suppress(PictureUnreadable, KeyError):
            recipe = read_chunk(pictures.texts(seen.path)[PICOWATCH]).recipe
        template = dropped.template.name
        is_result = is_dropped(recipe) and is_reached(recipe)
        if is_result and self.inbox.template_above(recipe) == template:
            raise PictureUnreadable(
                f"It was rendered with {template}: each result would be rendered again.",
                "Drop it into another folder, or remove its metadata.",
            )


@dataclass(frozen=True, slots=True)
class SaveReader:
    """Finds out what saves ask for; `pictures_of` gives the pictures that a recipe may name."""

    inbox: InboxFolder
    hashes: ModelHashes
    pictures_of: Callable[[str], NamedPictures]
    max_images: int  # of a save
    max_priority: Mapping[str, int]  # by folder

    def outcome(self, seen: Saved) -> SaveOutcome:
        """Return the outcome. Raises NotHashed, FileChanged, FileUnreadable or what may pass."""
        self.hashes.look_again()
        if seen.unreadable:
            what = "picture" if is_dropped(seen.path) else "recipe"
            words = f"This {what} cannot be read: {seen.unreadable}."
            return refused(seen.path, words, waits=True)
        pictures, reader, dropped = self.pictures_of(seen.path), self._reader(), seen.dropped
        try:
            recipes = reader.recipes(seen, pictures, pictures.keep)
            return self._asked(recipes, seen, pictures)
        except (RecipeInvalid, PictureUnreadable, ModelRefused) as error:
            lacks_model = reader.models.missed or isinstance(error, ModelRefused)
            waits = pictures.has_refused or bool(lacks_model)
            if dropped:
                return self._refused_picture(seen, dropped, error, waits=waits)
            return refused(seen.path, error, waits=waits)

    def _reader(self) -> RecipeReader:
        """Return a reader with models of its own, to be told which of them a save misses."""
        return RecipeReader(self.inbox, replace(self.hashes.inventory), self.max_images)

    def _refused_picture(
        self, seen: Saved, dropped: Dropped, error: PicowatchError, *, waits: bool
    ) -> Refused:
        """Refuse a picture, or its template if that is wrong whichever picture is dropped."""
        template = dropped.template.name
        if isinstance(error, NothingSaid | ModelRefused):
            lacks_prompt = isinstance(error, NothingSaid)
            why = refused(template, error, waits=not lacks_prompt)
            return replace(why, template=template, lacks_prompt=lacks_prompt)
        found = self.inbox.size_and_time(seen.path)
        if found is None or found.written_since(seen.size_and_time):
            raise FileChanged from error
        named, reader = self.pictures_of(template), self._reader()
        try:
            reader.check_template(dropped.template, seen.defaults, named)
        except (RecipeInvalid, FileUnreadable) as wrong:
            waits = named.has_refused or bool(reader.models.missed)
            return replace(refused(template, wrong, waits=waits), template=template)
        if isinstance(error, PictureUnreadable):
            return refused(seen.path, f"This picture cannot be used: {error}", waits=waits)
        return refused(seen.path, error, waits=waits)

    def _asked(self, recipes: Sequence[Recipe], seen: Saved, pictures: NamedPictures) -> Asked:
        """Return the entries. Raises NotHashed, ModelRefused or PictureUnreadable."""
        own = {seen.path: seen.digest} if seen.dropped else {}  # hashes of what is not copied now
        if seen.dropped and seen.dropped.mask:
            own[seen.dropped.mask] = pictures.digest(seen.dropped.mask)

        @cache  # for the seeds that are drawn in the ledger's transaction, which waits for none
        def hash_of(kind: str, name: str) -> str:
            if kind in ("image", "mask"):
                return own.get(name) or pictures.keep(name)
            return self.hashes.hash_of(cast(Kind, kind), name)

        highest = max((recipe.priority for recipe in recipes), default=0)
        folder = first_folder(seen.path)
        most = self.max_priority.get(folder, highest)
        entries = [
            RequestedEntry(
                digest=recipe.digest(hash_of),
                priority=min(recipe.priority, most),
                random=recipe.wants_random_seed,
                requests=partial(recipe.image_requests, hash_of),
                sheet=sheet_of(recipe),
                may_differ=recipe.draws_from_files,
            )
            for recipe in recipes
        ]
        warnings = dict.fromkeys(warning for recipe in recipes for warning in recipe.warnings)
        if highest > most:
            where = f"the folder {folder}" if folder else "the inbox itself"
            words = f"priority {highest} is lowered to {most}, the most in {where} (max_priority)."
            warnings[words] = None
        return Asked(entries, [*warnings], pictures.copies)


def refused(path: str, why: Exception | str, *, waits: bool = False) -> Refused:
    """Return why a save is refused, with the code of `check`; raise what is handled elsewhere."""
    if isinstance(why, LedgerCorrupt) or not isinstance(why, PicowatchError | str):
        why = unexpected(why)
    # Users may fix a picture's sidecar or template rather than the picture.
    of_picture = problems.PICTURE_CLOSING if is_dropped(path) else ""
    if isinstance(why, RecipeInvalid):
        text = problems.error_text(why, closing=of_picture or problems.closing_of(why, path))
        return Refused(text, str(why), "mistake", waits)
    first_line = str(why).partition("\n")[0]
    # Other pictures are run, and a full queue empties.
    is_open = isinstance(why, NothingSaid | QueueFull)
    closing = "" if is_open else f"\n{of_picture or problems.CLOSING}\n"
    text = f"{harmless(f'inbox/{path}')}\n\n" + harmless_lines(f"{why}\n{closing}")
    return Refused(text, f"{path}: {first_line}", "unusable", waits)


# -- what the log says of saves


class Event(NamedTuple):
    """A line about a recipe, for the log after the commit."""

    level: int
    recipe: str
    text: str
    event: str
    code: str | None = None


def said(path: str, words: str, event: str = "saved") -> Event:
    return Event(logging.INFO, path, f"{path}: {words}", event)


def said_once(events: Iterable[Event]) -> list[Event]:
    """Return one line for equal warnings of several recipes, in the place of the first."""
    found: dict[str, Event] = {}
    others: Counter[str] = Counter()
    for event in events:
        is_warning = event.level == logging.WARNING
        key = event.text.removeprefix(event.recipe) if is_warning else event.text
        others[key] += key in found
        found.setdefault(key, event)
    for key, more in others.items():
        if more and found[key].level == logging.WARNING:
            recipe = found[key].recipe
            found[key] = found[key]._replace(text=f"{recipe} and {more} more{key}")
    return [*found.values()]


def accepted(result: Acceptance, newest: str) -> str:
    """Return what a save changed, in words; `newest` is the newest picture that existed."""
    if result.existing and not (result.queued or result.cancelled):
        if newest:
            return f"saved, nothing new to render; its newest picture is {newest}"
        return "saved, nothing new to render; its pictures were deleted"
    parts = (
        (result.redrawn, "random seeds drawn again because no request changed"),
        (result.gone, f"{result.gone} whose picture is gone"),
        (result.cancelled, f"{result.cancelled} cancelled"),
        (result.kept, f"{result.kept} kept"),
    )
    queued = f"saved, {images(result.queued)} queued"
    return ", ".join([queued, *(words for count, words in parts if count)])
