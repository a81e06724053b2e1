"""Checks that apply to all combinations: each finding is a line."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.recipe.chunk import read_chunk
from tests.house import error_files, faults, is_sheet, rendered
from tests.meetings.machine import REASONS
from tests.meetings.recipes import drawn

if TYPE_CHECKING:
    from tests.meetings.world import World

NEVER_LOGGED = ("Traceback", "nexpected error", "no such savepoint", "picowatch exits:")


def of_the_work(world: "World") -> Iterator[str]:
    """Check that only requested images, or those being written, were finished."""
    model = world.model
    running = [image for image in model.images if image.state == "running" and not image.is_drawn]
    if running and model.in_order and not model.wanted() & {*running}:
        yield f"{running[0]}: goes on although nothing asks for it"


def while_it_runs(world: "World") -> Iterator[str]:
    """Check that nothing is left to do."""
    yield from world.not_handled()
    counts = world.model.counts()
    states = ("queued", "running", "done", "failed", "cancelled")
    right = {state: counts[state] for state in states}
    if world.status() != right:
        yield f"the status says {world.status()}, right is {right}"


def at_the_end(world: "World") -> Iterator[str]:
    """Check every file in the outbox once picowatch has ended."""
    yield from world.model.findings
    yield from world.sim.escaped
    yield from _of_pictures(world)
    yield from _of_sheets(world)
    yield from _of_errors(world)
    for line in (world.outbox / "picowatch.log").read_text().splitlines():
        if any(words in line for words in NEVER_LOGGED):
            yield f"in the log: {line}"


def _of_pictures(world: "World") -> Iterator[str]:
    """Check that all rendered pictures exist, show their requests, and that there are no others."""
    model, there = world.model, rendered(world.outbox)
    made = model.rendered()
    pictures = {file for file in there if not is_sheet(file)}
    for file in sorted(made.keys() - pictures - model.deleted):
        yield f"{file} is missing: {made[file]}"
    unknown = pictures - made.keys() - model.copies
    yield from (f"nobody requested {file}" for file in sorted(unknown))
    for file in sorted(pictures & made.keys()):
        told, image = read_chunk(read_texts(world.outbox / file)[PICOWATCH]).request, made[file]
        if (*drawn(told), told.seed) != image.request:
            yield f"{file} holds {told.prompt!r}, seed {told.seed}, not {image}"
    # A dropped picture's result that was deleted and made anew is listed again.
    touched, unlisted = model.deleted | model.made_anew, model.left | model.copies
    for fault in faults(world.outbox, touched, unlisted):
        # What was being written when the outbox went stays until a start after a crash.
        if not (fault.startswith("left over") and world.counts["outbox"]):
            yield fault


def _of_sheets(world: "World") -> Iterator[str]:
    """Check that each sweep has a sheet that shows its last draw."""
    sheets = [file for file in rendered(world.outbox) if is_sheet(file)]
    texts = [read_texts(world.outbox / sheet)[SHEET_KEYWORD] for sheet in sheets]
    first = world.model.former
    shown = [{first.get(it, it) for it in json.loads(text)["files"] if it} for text in texts]
    for path, recipe in world.model.recipes.items():
        for entry in recipe.entries:
            done = {image.file for image in entry.last_draw() if image.state == "done"}
            touched = done & world.model.deleted
            names = {first.get(file, file) for file in done}
            if done and entry.requested.wants_sheet and not touched and names not in shown:
                yield f"{path} lacks the contact sheet of {sorted(done)}"


def _of_errors(world: "World") -> Iterator[str]:
    # What is empty now is no save: nothing is promised of its old error.
    spared = {path for path in world.files if world.text_at(path).is_empty}
    wrong = {path for path, recipe in world.model.recipes.items() if not recipe.valid}
    if not world.settings_work:
        wrong.add("settings")
    failed = set(filter(world.model.failed, world.model.recipes))
    found = error_files(world.outbox)
    for path in sorted(found & wrong):
        text = (world.outbox / f"{path}.error.txt").read_text()
        if any(why in text for why in REASONS):
            yield f"{path}.error.txt does not say what is wrong with the recipe"
    missing, left = (wrong | failed) - found - spared, found - wrong - failed - spared
    yield from (f"{path}.error.txt is missing" for path in sorted(missing))
    yield from (f"{path}.error.txt should be gone" for path in sorted(left))
