"""What has to hold, whatever met whatever: each finding is a line."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.names import LATEST
from tests.meetings.machine import REASONS

if TYPE_CHECKING:
    from tests.meetings.world import World

OWN_FILES = {
    *LATEST, "now.txt", "index.html", "picowatch.log", "images.jsonl", "preview.png",
}  # fmt: skip
NEVER_LOGGED = ("Traceback", "nexpected error", "no such savepoint", "picowatch exits:")


def of_the_work(world: "World") -> Iterator[str]:
    """What nobody requests any more is not finished."""
    model = world.model
    running = [image for image in model.images if image.state == "running"]
    if running and model.in_order and not model.is_lost and not model.wanted() & {*running}:
        yield f"{running[0]}: goes on although nothing asks for it"


def while_it_runs(world: "World") -> Iterator[str]:
    """Nothing is left to do."""
    yield from world.not_handled()
    if world.model.is_lost:
        return
    for path, recipe in world.model.recipes.items():  # what one lacked may have come since
        version = world.handled.get(path)
        is_now = version and world.files.get(path) is version
        if version and is_now and not recipe.valid and world.meaning(path, version) is not None:
            yield f"{path} is refused although what it lacked is there"
    counts = world.model.counts()
    states = ("queued", "running", "done", "failed", "cancelled")
    right = {state: counts[state] for state in states}
    if world.status() != right:
        yield f"the status says {world.status()}, right is {right}"


def at_the_end(world: "World") -> Iterator[str]:
    """Of every file in the outbox, once picowatch has ended."""
    yield from world.model.findings
    yield from world.sim.escaped
    sheets = set[str]()
    yield from _of_files(world, sheets)
    yield from _of_lists(world, sheets)
    if not world.model.is_lost:
        yield from _of_sheets(world, sheets)
        yield from _of_errors(world)
    for line in (world.outbox / "picowatch.log").read_text().splitlines():
        if any(words in line for words in NEVER_LOGGED):
            yield f"in the log: {line}"


def _of_files(world: "World", sheets: set[str]) -> Iterator[str]:
    made = world.model.rendered()
    missing = made.keys() - world.model.deleted - world.spoilt
    for path in sorted(world.outbox.rglob("*")):
        file = path.relative_to(world.outbox).as_posix()
        if path.name.startswith(".picowatch-"):
            yield f"left over: {file}"
        if path.is_dir() or file.startswith(".picowatch/") or file in OWN_FILES | world.spoilt:
            continue
        if file in missing:
            missing.discard(file)
            told, image = read_chunk(read_texts(path)[PICOWATCH]).request, made[file]
            if (told.prompt, told.steps, told.seed) != (image.prompt, image.steps, image.seed):
                yield f"{file} holds {told.prompt!r}, seed {told.seed}, not {image}"
        elif "-sheet." in file and SHEET_KEYWORD in read_texts(path):
            sheets.add(file)
        elif not file.endswith((".error.txt", ".warning.txt")):
            is_recipe = file.endswith((".yaml", ".txt")) or "/originals/" in file
            if world.habits.when_done != "archive" or not is_recipe:
                yield f"nobody requested {file}"
    yield from (f"{file} is missing: {made[file]}" for file in sorted(missing))


def _of_lists(world: "World", sheets: set[str]) -> Iterator[str]:
    model, made = world.model, world.model.rendered().keys()
    listed = Counter(world.listed())
    for file, times in listed.items():
        if times > 1 + model.made_anew[file] and not model.is_lost:
            yield f"{file} is listed {times} times"
    spoilt = world.spoilt if model.is_lost else set()
    yield from (f"{file} is not listed" for file in sorted(made - listed.keys() - spoilt))
    ever = made | model.deleted | spoilt
    yield from (f"{file} is listed" for file in sorted(listed.keys() - ever))
    shown = Counter(_shown(world))
    yield from (f"the gallery shows {file} twice" for file, times in shown.items() if times > 1)
    there = {file for file in made | sheets if (world.outbox / file).exists()} - world.spoilt
    yield from (f"the gallery lacks {file}" for file in sorted(there - shown.keys()))


def _shown(world: "World") -> Iterator[str]:
    for page in sorted((world.outbox / ".picowatch/gallery").glob("page-*.js")):
        for line in page.read_text().splitlines():
            yield json.loads(line.removeprefix("picture(").removesuffix(");"))["file"]


def _of_sheets(world: "World", sheets: set[str]) -> Iterator[str]:
    """Each sweep and grid has one that shows its last draw."""
    texts = [read_texts(world.outbox / sheet)[SHEET_KEYWORD] for sheet in sheets]
    shown = [{file for file in json.loads(text)["files"] if file} for text in texts]
    for path, recipe in world.model.recipes.items():
        for entry in recipe.entries:
            done = {image.file for image in entry.last_draw() if image.state == "done"}
            touched = done & (world.spoilt | world.model.deleted)
            if done and entry.requested.wants_sheet and not touched and done not in shown:
                yield f"{path} lacks the contact sheet of {sorted(done)}"


def _of_errors(world: "World") -> Iterator[str]:
    # What was moved away, or is empty now, is no save: nothing is promised of its old error.
    old = world.ghosts | {path for path, one in world.files.items() if one.text.is_empty}
    spared = {f"{path}.error.txt" for path in old}
    wanted = set()
    for path, recipe in world.model.recipes.items():
        file = world.outbox / f"{path}.error.txt"
        if not recipe.valid or world.model.failed(path):
            wanted.add(f"{path}.error.txt")
        if not recipe.valid and file.exists() and any(why in file.read_text() for why in REASONS):
            yield f"{path}.error.txt does not say what is wrong with the recipe"
    found = {p.relative_to(world.outbox).as_posix() for p in world.outbox.rglob("*.error.txt")}
    yield from (f"{file} is missing" for file in sorted(wanted - found - spared))
    yield from (f"{file} should be gone" for file in sorted(found - wanted - spared))
