"""A second, simple implementation of what a save means (docs/recipes.md).

The model is told in order what was saved, renamed, deleted, started and ended, and knows what has
to be queued, rendered, failed or cancelled. Impossible events become `findings`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from picowatch.files.names import is_picture_name
from picowatch.ledger.rows import QueuedImage
from tests.meetings.recipes import Requested

SEEDS = 2**32
LIVE = ("queued", "running")


@dataclass(eq=False)
class Draw:
    """A seed, drawn or written; None until the first of its images starts."""

    seed: int | None
    random: bool


@dataclass(eq=False)
class Image:
    """A picture that was requested."""

    recipe: str
    prompt: str
    steps: int
    start: str
    draw: Draw
    plus: int
    position: int
    state: str = "queued"
    order: tuple[int, int, int] = (0, 0, 0)  # minus priority, save, place
    file: str = ""
    deaths: int = 0
    is_drawn: bool = False  # its picture is being written: it is not cancelled any more

    @property
    def seed(self) -> int | None:
        return None if self.draw.seed is None else (self.draw.seed + self.plus) % SEEDS

    @property
    def request(self) -> tuple[object, ...]:
        """Return its request; random seeds that are not known yet differ from all others."""
        seed = (self.draw, self.plus) if self.seed is None else self.seed
        return self.prompt, self.steps, self.start, seed

    @property
    def may_be_cancelled(self) -> bool:
        return self.state == "queued" or (self.state == "running" and not self.is_drawn)

    def __str__(self) -> str:
        return f"{self.recipe}: {self.prompt!r}, steps {self.steps}, seed {self.seed}, {self.state}"


@dataclass(eq=False)
class Entry:
    """An entry of a recipe's last valid save, with all images that it requests."""

    requested: Requested
    images: list[Image]

    def last_draw(self) -> list[Image]:
        return self.images[-len(list(self.requested.images())) :]


@dataclass(eq=False)
class Recipe:
    """The last save of a path."""

    valid: bool
    entries: list[Entry] = field(default_factory=list)


class Model:
    """The state that picowatch should have."""

    def __init__(self, in_order: bool = True) -> None:
        """With `in_order`, images start in the order of the queue, as there is one engine."""
        self.in_order = in_order
        self.recipes: dict[str, Recipe] = {}
        self.images: list[Image] = []
        self.by_id: dict[int, Image] = {}
        self.saves = 0
        self.deleted: set[str] = set()  # pictures that the user took away
        self.made_anew: Counter[str] = Counter()  # how often, of those: a frame keeps its name
        self.replaced: list[Image] = []  # by those of a recipe that was renamed over theirs
        self.numbers: dict[str, int] = {}
        self.findings: list[str] = []

    # -- evidence

    def saved(self, path: str, entries: list[Requested], *, is_again: bool = False) -> None:
        """Take a valid save. `is_again`: the same dropped picture, which requests nothing more."""
        self.saves += 1
        before = self.recipes.get(path, Recipe(True)).entries
        left = _numbered(entry.requested for entry in before)
        now = _numbered(entries)
        unchanged = {key: one.priority for key, one in left.items()} == {
            key: one.priority for key, one in now.items()
        }

        def redraws(one: Requested) -> bool:
            return unchanged and one.entry.random and not is_again

        kept = dict(zip(left, before, strict=True))
        recipe = Recipe(True)
        self.recipes[path] = recipe
        for place, (key, one) in enumerate(now.items()):
            order = (-one.priority, self.saves, place)
            entry = kept.get(key) or Entry(one, [])
            entry.requested = one
            recipe.entries.append(entry)
            if key in kept:
                keeps_deleted = unchanged and is_again
                self._keep(entry, order, anew=redraws(one), keeps_deleted=keeps_deleted)
            if key not in kept or redraws(one):
                self._ask(path, entry, order)
        self._cancel_unrequested(path)

    def _keep(
        self, entry: Entry, order: tuple[int, int, int], *, anew: bool, keeps_deleted: bool
    ) -> None:
        for image in list(entry.images):
            if image.state in LIVE:
                image.order = (order[0], *image.order[1:])
            if anew and image.state in ("done", "cancelled"):
                entry.images.remove(image)  # history: the new draw stands for it
                continue
            lost = image.state == "done" and not image.draw.random and image.file in self.deleted
            if image.state in ("failed", "cancelled") or (lost and not anew and not keeps_deleted):
                self._queue(image, order)

    def _ask(self, path: str, entry: Entry, order: tuple[int, int, int]) -> None:
        one, draws = entry.requested, dict[int | None, Draw]()
        for position, (seed, plus, steps) in enumerate(one.images()):
            draw = draws.setdefault(seed, Draw(seed, seed is None))
            new = Image(path, one.entry.prompt, steps, one.start, draw, plus, position, order=order)
            old = self._find(path, new)
            if old is None:
                self.images.append(new)
                entry.images.append(new)
                continue
            entry.images.append(old)
            made = old.state == "done" and old.file not in self.deleted
            if not made and old.state not in LIVE:
                old.position = position
                self._queue(old, order)

    def _queue(self, image: Image, order: tuple[int, int, int]) -> None:
        image.state, image.order, image.file, image.deaths = "queued", order, "", 0
        image.is_drawn = False

    def _find(self, path: str, like: Image) -> Image | None:
        if like.seed is None:
            return None
        found = (one for one in self.images if one.recipe == path and one.request == like.request)
        return next(found, None)

    def rejected(self, path: str) -> None:
        """Take an invalid save: what the last valid one requested continues."""
        self.saves += 1
        before = self.recipes.get(path)
        self.recipes[path] = Recipe(False, before.entries if before else [])

    def deleted_recipe(self, path: str) -> None:
        self.recipes.pop(path, None)
        self._cancel_unrequested(path)

    def renamed(self, old: str, new: str) -> None:
        """Move queue, pictures and history with the file."""
        if new in self.recipes:
            self.deleted_recipe(new)
        if old in self.recipes:
            self.recipes[new] = self.recipes.pop(old)
        there = {one.request: one for one in self.images if one.recipe == new}
        for mine in [image for image in self.images if image.recipe == old]:
            other = there.get(mine.request)
            mine.recipe = new
            if other is not None:
                self._merge(mine, other)

    def _merge(self, mine: Image, other: Image) -> None:
        """Merge equal requests: the renamed recipe's counts, unless only the other is done."""
        made = other.state == "done" and other.file not in self.deleted
        if other.state == "running" or (made and mine.state not in ("done", "running")):
            for recipe in self.recipes.values():
                for entry in recipe.entries:
                    entry.images = [other if one is mine else one for one in entry.images]
            mine, other = other, mine
        if other.state != "running":
            self.images.remove(other)
            self.replaced.append(other)

    def prioritised(self, path: str, priorities: list[int]) -> None:
        """Give the entries of a moved recipe these priorities, in their order."""
        for entry, priority in zip(self.recipes[path].entries, priorities, strict=False):
            entry.requested = replace(entry.requested, priority=priority)
            for image in entry.images:
                if image.state in LIVE:
                    image.order = (-priority, *image.order[1:])

    def _cancel_unrequested(self, path: str) -> None:
        wanted = self.wanted()
        for image in self.images:
            if image.recipe == path and image.may_be_cancelled and image not in wanted:
                image.state = "cancelled"

    def wanted(self) -> set[Image]:
        """Return everything that the last valid saves request."""
        return {
            image
            for recipe in self.recipes.values()
            for entry in recipe.entries
            for image in entry.images
        }

    def is_unfinished(self, path: str) -> bool:
        return any(image.recipe == path and image.state in LIVE for image in self.images)

    # -- commands

    def cancelled(self, recipes: Iterable[str]) -> None:
        names = set(recipes)
        for image in self.images:
            if image.recipe in names and image.may_be_cancelled:
                image.state = "cancelled"

    def retried(self, recipes: Iterable[str]) -> None:
        names = set(recipes)
        wanted = self.wanted()
        for image in self.images:
            if image.recipe in names and image.state == "failed" and image in wanted:
                image.state, image.file, image.deaths = "queued", "", 0

    # -- the work

    def started(self, batch: list[QueuedImage]) -> None:
        """Take images that left the queue in this order."""
        first = min((one.order for one in self.images if one.state == "queued"), default=None)
        for place, one in enumerate(batch):
            image = self._queued(one)
            if image is None:
                words = f"{one.recipe}: {one.request.prompt!r}, seed {one.request.seed}"
                self.findings.append(f"{words} was made although nothing asks for it")
                continue
            if self.in_order and place == 0 and image.order != first:
                self.findings.append(f"{image} was made before what should come first")
            if image.draw.seed is None:
                image.draw.seed = (one.request.seed - image.plus) % SEEDS
            image.state, image.file = "running", one.file
            self.by_id[one.id] = image
            if not is_picture_name(one.recipe):
                self._number(one.file)

    def _queued(self, one: QueuedImage) -> Image | None:
        like = one.recipe, one.request.prompt, one.request.steps, one.request.image_hash
        found = [
            image
            for image in self.images
            if image.state == "queued"
            and (image.recipe, image.prompt, image.steps, image.start) == like
            and image.seed in (None, one.request.seed)
            and (image.seed is not None or image.position == one.image_index)
        ]
        return min(found, key=lambda image: (image.seed is None, image.order), default=None)

    def _number(self, file: str) -> None:
        folder, _, name = file.rpartition("/")
        number = int(name.partition("-")[0])
        if number <= self.numbers.get(folder.casefold(), 0):
            self.findings.append(f"{file} has a number that was given before")
        self.numbers[folder.casefold()] = number

    def ended(self, image_id: int, state: str, *, death: bool = False) -> None:
        """Take a running image that is done, failed, cancelled, or back in the queue."""
        image = self.by_id.get(image_id)
        if image is None or image.state != "running":
            return  # steps that are done twice change nothing
        image.state, image.deaths, image.is_drawn = state, image.deaths + death, False
        if state == "done" and self.rendered()[image.file] is not image:
            self.findings.append(f"{image.file} was overwritten")
        if state == "done" and image.file in self.deleted:
            self.deleted.discard(image.file)
            self.made_anew[image.file] += 1
        if state == "queued" and image not in self.wanted():
            image.state = "cancelled"

    def drawn(self, image_ids: Iterable[int]) -> None:
        """Take images whose pictures are being written."""
        for image_id in image_ids:
            self.by_id[image_id].is_drawn = True

    def nothing_is_drawn(self) -> None:
        for image in self.images:
            image.is_drawn = False

    # -- questions

    def of(self, recipe: str) -> Iterator[Image]:
        """Return what the recipe's last valid save requests."""
        for entry in self.recipes[recipe].entries:
            yield from entry.images

    def failed(self, recipe: str) -> bool:
        return any(image.state == "failed" for image in self.of(recipe))

    def rendered(self) -> dict[str, Image]:
        """Return all pictures that were rendered, by file."""
        return {i.file: i for i in (*self.replaced, *self.images) if i.state == "done"}

    def counts(self) -> Counter[str]:
        return Counter(image.state for image in self.images)


def _numbered(entries: Iterable[Requested]) -> dict[tuple[object, int], Requested]:
    """Number equal entries of a file to tell them apart."""
    seen: Counter[object] = Counter()
    found = {}
    for one in entries:
        found[one.identity, seen[one.identity]] = one
        seen[one.identity] += 1
    return found
