"""A second, simple implementation of what a save means (docs/recipes.md).

The model is told in order what the ledger was told, by methods of the ledger's names, and knows
what has to be queued, rendered, failed or cancelled. Impossible events become `findings`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from picowatch.files.names import first_folder, is_picture_name
from picowatch.ledger.entries import MOST_TRIED
from picowatch.ledger.rows import PutBack, QueuedImage
from tests.meetings import recipes

SEEDS = 2**32
LIVE = ("queued", "running")
Order = tuple[int, int, int]  # minus priority, save, place


@dataclass(eq=False)
class Draw:
    """A seed, drawn or written; None until the first of its images starts."""

    seed: int | None
    random: bool


@dataclass(eq=False)
class Image:
    """A picture that was requested."""

    recipe: str
    entry: recipes.Entry
    steps: int
    draw: Draw
    plus: int
    position: int
    state: str = "new"
    order: Order = (0, 0, 0)
    file: str = ""
    deaths: int = 0
    is_drawn: bool = False  # its picture is being written: it is not cancelled any more
    photo: str = ""  # its recipe, unless its request names a photo as it was called before

    @property
    def seed(self) -> int | None:
        return None if self.draw.seed is None else (self.draw.seed + self.plus) % SEEDS

    @property
    def request(self) -> tuple[object, ...]:
        """Return its request; random seeds that are not known yet differ from all others."""
        seed = (self.draw, self.plus) if self.seed is None else self.seed
        entry = self.entry
        return entry.prompt, self.steps, entry.start, entry.style, entry.mask, seed

    @property
    def may_be_cancelled(self) -> bool:
        return self.state == "queued" or (self.state == "running" and not self.is_drawn)

    def rename(self, recipe: str) -> None:
        """Follow a renamed recipe; the request of what runs names a photo as before."""
        runs = self.state == "running" and is_picture_name(recipe)
        if self.photo == self.recipe and not runs:
            self.photo = recipe
        self.recipe = recipe

    def queue(self, order: Order) -> None:
        self.state, self.order, self.file, self.deaths = "queued", order, "", 0
        self.is_drawn = False

    def __str__(self) -> str:
        words = f"{self.recipe}: {self.entry.prompt!r}, steps {self.steps}"
        return f"{words}, seed {self.seed}, {self.state}"


@dataclass(eq=False)
class Entry:
    """An entry of a recipe's last valid save, with all images that it requests."""

    requested: recipes.Entry
    images: list[Image] = field(default_factory=list)

    def last_draw(self) -> list[Image]:
        return self.images[-len(list(self.requested.images())) :]


@dataclass(eq=False)
class Recipe:
    """The last save of a path."""

    valid: bool = True
    entries: list[Entry] = field(default_factory=list)


class Model:
    """The state that picowatch should have."""

    def __init__(self, in_order: bool) -> None:
        """Make an empty model; `in_order`: images start in the queue's order, by one engine."""
        self.in_order = in_order
        self.recipes: dict[str, Recipe] = {}
        self.images: list[Image] = []
        self.by_id: dict[int, Image] = {}
        self.saves = 0
        self.paused = False
        self.deleted: set[str] = set()  # pictures that the user took away
        self.made_anew: set[str] = set()  # those of them that came back: a frame keeps its name
        self.former: dict[str, str] = {}  # what pictures were called before they were moved
        self.left: set[str] = set()  # names from which pictures were moved
        self.copies: set[str] = set()
        self.detached = 0  # former results of photos, which stand for nothing
        self.replaced: list[Image] = []  # by those of a recipe that was renamed over theirs
        self.numbers: dict[str, int] = {}
        self.findings: list[str] = []

    # -- saves

    def accept(
        self, path: str, requested: Iterable[recipes.Entry], *, is_again: bool, is_edited: bool
    ) -> None:
        """Take a valid save. `is_again`: the same dropped picture, which requests nothing more.

        `is_edited`: its bytes are not those of the save before.
        """
        self.saves += 1
        before = self.recipes.get(path, Recipe()).entries
        kept = dict(zip(_numbered(old.requested for old in before), before, strict=True))
        now = _numbered(requested)
        unchanged = [*kept] == [*now]
        if unchanged and is_edited:
            is_again |= any(
                old.requested.priority != now[key].priority for key, old in kept.items()
            )
        self.recipes[path] = recipe = Recipe()
        former = [
            (place, entry)
            for place, (key, entry) in enumerate(kept.items())
            if key not in now and entry.requested.random
        ]
        for place, (key, written) in enumerate(now.items()):
            order = (-written.priority, self.saves, place)
            entry = kept.get(key) or Entry(written)
            entry.requested = written
            recipe.entries.append(entry)
            redraw = unchanged and written.random and not is_again
            if key in kept:
                self._keep(entry, order, redraw, keeps_deleted=unchanged and is_again)
            if key not in kept:
                draw = self._draw_of_former(path, written, place, former, len(kept) - len(now))
                self._ask(path, entry, order, draw)
            elif redraw:
                self._ask(path, entry, order)
        self._prioritise(recipe)
        self._cancel_unrequested(path)

    def _keep(self, entry: Entry, order: Order, redraw: bool, *, keeps_deleted: bool) -> None:
        for image in list(entry.images):
            lost = image.state == "done" and not image.draw.random and image.file in self.deleted
            if redraw and image.state in ("done", "cancelled"):
                entry.images.remove(image)  # history: the new draw stands for it
            elif image.state in ("failed", "cancelled") or (lost and not keeps_deleted):
                image.queue(order)

    def _draw_of_former(
        self,
        path: str,
        requested: recipes.Entry,
        place: int,
        former: list[tuple[int, Entry]],
        fewer: int,
    ) -> Draw | None:
        """Return the draw of the nearest former entry that shares images with a new one."""
        there = {image.request for image in self._images(path)}
        nearest = sorted(
            former, key=lambda pair: min(abs(pair[0] - place), abs(pair[0] - place - fewer))
        )
        for pair in nearest[:MOST_TRIED] if requested.random else ():
            draw = pair[1].last_draw()[0].draw
            new = (
                Image(path, requested, steps, draw, at, 0) for _, at, steps in requested.images()
            )
            if there.intersection(image.request for image in new):
                former.remove(pair)
                return draw
        return None

    def _ask(self, path: str, entry: Entry, order: Order, former: Draw | None = None) -> None:
        draws: dict[int | None, Draw] = {None: former} if former else {}
        for position, (seed, plus, steps) in enumerate(entry.requested.images()):
            draw = draws.setdefault(seed, Draw(seed, seed is None))
            new = Image(path, entry.requested, steps, draw, plus, position, photo=path)
            same = (had for had in self._images(path) if had.request == new.request)
            image = next(same, new)
            entry.images.append(image)
            if image is new:
                self.images.append(new)
            made = image.state == "done" and (former or image.file not in self.deleted)
            if not made and image.state not in LIVE:
                image.position = position
                image.queue(order)

    def refuse(self, path: str) -> None:
        """Take an invalid save: what the last valid one requested continues."""
        self.saves += 1
        self.recipes[path] = Recipe(False, self.recipes.get(path, Recipe()).entries)

    def forget(self, path: str) -> None:
        self.recipes.pop(path, None)
        self._cancel_unrequested(path)

    def rename(self, old: str, new: str, *, exchanges: bool) -> None:
        """Move queue, pictures and history with the file, or with both files."""
        if new in self.recipes:
            names = {old: new, new: old}
            self.recipes = {names.get(path, path): row for path, row in self.recipes.items()}
            for image in self.images:
                image.rename(names.get(image.recipe, image.recipe))
            if not exchanges:
                self.forget(old)
                self._give_back(old, new)
            return
        if old in self.recipes:
            self.recipes[new] = self.recipes.pop(old)
        there = {picture.request: picture for picture in self._images(new)}
        for mine in [image for image in self.images if image.recipe == old]:
            mine.rename(new)
            if mine.photo == new and (other := there.get(mine.request)):
                self._merge(mine, other)

    def _give_back(self, old: str, new: str) -> None:
        """Leave the pictures of a replaced recipe at its name; a photo's requests name it."""
        there = {image.request for image in self.images if image.recipe == new}
        for image in self.images:
            if image.recipe == old and image.request not in there and not is_picture_name(new):
                image.rename(new)

    def _merge(self, mine: Image, other: Image) -> None:
        """Merge equal requests: the renamed recipe's counts, unless the other is in progress."""
        if other.state == "running":
            for recipe in self.recipes.values():
                for entry in recipe.entries:
                    entry.images = [other if image is mine else image for image in entry.images]
            mine, other = other, mine
        if other.state != "running":
            self.images.remove(other)
            self.replaced.append(other)
            self.detached += other.state == "done"

    def prioritise(self, path: str, priorities: list[int], *, result: object = None) -> None:
        """Give a moved recipe's entries the priorities that they have there, in their order."""
        for entry, priority in zip(self.recipes[path].entries, priorities, strict=False):
            entry.requested = replace(entry.requested, priority=priority)
        self._prioritise(self.recipes[path])

    def _prioritise(self, recipe: Recipe) -> None:
        """Give each unfinished image the highest priority of the entries that request it."""
        for image in {image for entry in recipe.entries for image in entry.images}:
            if image.state in LIVE:
                by = (owner.requested.priority for owner in recipe.entries if image in owner.images)
                image.order = (-max(by), *image.order[1:])

    def _cancel_unrequested(self, path: str) -> None:
        wanted = self.wanted()
        for image in self.images:
            may_be = image.may_be_cancelled or image.state == "failed"
            if image.recipe == path and may_be and image not in wanted:
                image.state = "cancelled"

    def _images(self, path: str) -> list[Image]:
        """Return a recipe's images; the request of none names a photo's former name."""
        return [image for image in self.images if image.recipe == path == image.photo]

    def wanted(self) -> set[Image]:
        return {image for path in self.recipes for image in self.of(path)}

    def is_unfinished(self, path: str) -> bool:
        return any(image.recipe == path and image.state in LIVE for image in self.images)

    # -- commands

    def pause(self, *, result: object) -> None:
        self.paused = True

    def resume(self, *, result: object) -> None:
        self.paused = False

    def cancel(self, recipes: Iterable[str], *, result: object) -> None:
        for image in self.images:
            if image.recipe in recipes and image.may_be_cancelled:
                image.state = "cancelled"

    def retry(self, recipes: Iterable[str], *, result: object) -> None:
        wanted = self.wanted()
        for image in self.images:
            if image.recipe in recipes and image.state == "failed" and image in wanted:
                image.queue(image.order)

    def follow_moved(self, images: Iterable[Any], moved: dict[str, str], *, result: object) -> None:
        for row in images:
            self._move(self.by_id[row["id"]], moved)

    def leave(self, moved: dict[str, str]) -> None:
        """Take what was moved at its new places; the ledger knows not all of it."""
        for image in self.replaced:
            self._move(image, moved)
        self.copies |= {moved[file] for file in self.copies & moved.keys()}

    def _move(self, image: Image, moved: dict[str, str]) -> None:
        old = image.file
        if image.state == "done" and old in moved:
            image.file = new = moved[old]
            self.former[new] = self.former.get(old, old)
            self.left.add(old)

    # -- the work

    def claim(self, *_: object, turns: object, result: list[QueuedImage]) -> None:
        """Take images that left the queue in this order."""
        if self.paused and result:
            self.findings.append("an image was started in a pause")
        queued = [image for image in self.images if image.state == "queued"]
        top = min((image.order[0] for image in queued), default=0)
        firsts: dict[str, Order] = {}  # of folders, which take turns
        for waiting in queued:
            folder = first_folder(waiting.recipe)
            if waiting.order[0] == top:
                firsts[folder] = min(firsts.get(folder, waiting.order), waiting.order)
        for place, row in enumerate(result):
            image = self._queued(row)
            if image is None:
                words = f"{row.recipe}: {row.request.prompt!r}, seed {row.request.seed}"
                self.findings.append(f"{words} was made although nothing asks for it")
                continue
            if self.in_order and place == 0 and image.order not in firsts.values():
                self.findings.append(f"{image} was made before what should come first")
            if image.draw.seed is None:
                image.draw.seed = (row.request.seed - image.plus) % SEEDS
            image.state, image.file = "running", row.file
            self.by_id[row.id] = image
            if is_picture_name(row.recipe):
                self._detach_former(row.recipe, row.file, replaces=row.request.replace)
            else:
                self._number(row.file)

    def _queued(self, row: QueuedImage) -> Image | None:
        like = row.recipe, *recipes.drawn(row.request)
        found = [
            image
            for image in self.images
            if image.state == "queued"
            and (image.recipe, *image.request[:5]) == like
            and image.seed in (None, row.request.seed)
            and (image.seed is not None or image.position == row.image_index)
        ]
        return min(found, key=lambda image: (image.seed is None, image.order), default=None)

    def _detach_former(self, recipe: str, file: str, *, replaces: bool) -> None:
        """Detach a dropped picture's result whose name another one gets: it was deleted.

        If that `replaces` it, those that were moved elsewhere are detached, too.
        """
        wanted, folder = self.wanted(), recipe.rpartition("/")[0]
        for image in [picture for picture in self.images if picture.state == "done"]:
            is_elsewhere = image.file.rpartition("/")[0] != folder and image not in wanted
            if image.recipe == recipe and (image.file == file or (replaces and is_elsewhere)):
                self.images.remove(image)
                self.detached += 1
                if replaces:
                    self.copies.add(image.file)
                if image in wanted or not (replaces or file in self.deleted):
                    self.findings.append(f"{file} was given although {image} has it")

    def _number(self, file: str) -> None:
        folder, _, name = file.casefold().rpartition("/")
        number = int(name.partition("-")[0])
        if number <= self.numbers.get(folder, 0):
            self.findings.append(f"{file} has a number that was given before")
        self.numbers[folder] = number

    def hand_over(self, batch: object, *, result: Iterable[int]) -> None:
        for image_id in result:
            self.by_id[image_id].is_drawn = True

    def finish(self, done: list[tuple[QueuedImage, object, object]], *, result: object) -> None:
        for row, _, _ in done:
            self.ended(row, "done")

    def put_back(
        self, row: QueuedImage, why: PutBack = PutBack.NO_FAULT, *, result: object, **_: Any
    ) -> None:
        self.ended(row, "queued", death=why is PutBack.DAEMON_DIED)

    def ended(self, row: QueuedImage, state: str, *, death: bool = False) -> None:
        """Take a running image that is done, failed, cancelled, or back in the queue."""
        image = self.by_id.get(row.id)
        if image is None or image.state != "running" or image.file != row.file:
            return  # steps that are done twice, or too late, change nothing
        image.state, image.deaths, image.is_drawn = state, image.deaths + death, False
        if state == "done" and image.file in self.deleted:
            for other in (*self.replaced, *self.images):
                if other.file == image.file and other is not image:  # kept there, and deleted
                    other.file += " deleted"
                    self.deleted.add(other.file)
            self.deleted.discard(image.file)
            self.made_anew.add(image.file)
        if state == "done" and self.rendered()[image.file] is not image:
            self.findings.append(f"{image.file} was overwritten")
        if state in ("queued", "failed") and image not in self.wanted():
            image.state = "cancelled"

    # -- questions

    def of(self, recipe: str) -> Iterator[Image]:
        for entry in self.recipes[recipe].entries:
            yield from entry.images

    def failed(self, recipe: str) -> bool:
        return any(image.state == "failed" for image in self.of(recipe))

    def rendered(self) -> dict[str, Image]:
        return {i.file: i for i in (*self.replaced, *self.images) if i.state == "done"}

    def counts(self) -> Counter[str]:
        return Counter(image.state for image in self.images) + Counter(done=self.detached)


def _numbered(entries: Iterable[recipes.Entry]) -> dict[tuple[recipes.Entry, int], recipes.Entry]:
    """Number equal entries of a file to tell them apart."""
    seen: Counter[recipes.Entry] = Counter()
    found = {}
    for entry in entries:
        found[entry.identity, seen[entry.identity]] = entry
        seen[entry.identity] += 1
    return found
