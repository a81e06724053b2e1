"""A status in rows for people, the same on `run`'s terminal and in `picowatch status`."""

from dataclasses import dataclass

from picowatch.outbox.status import EngineStatus, Status, duration, images
from picowatch.recipe.messages.problems import harmless

BAR = 20
LABEL = 8  # columns
PICTURES = 3
ERRORS = 3
RECIPES = 3
ENGINES = 8
LONGEST_NAME = 22  # of a recipe beside its progress


@dataclass(frozen=True, slots=True)
class Row:
    """One line: its label, its text, and its style ("", "good", "bad" or "quiet")."""

    label: str
    text: str
    style: str = ""


def rows(status: Status) -> list[Row]:
    """The rows, most important first; empty ones are left out."""
    found = [_now(status)]
    if status.images["queued"]:
        found.append(Row("queued", _queued(status)))
    found.append(Row("so far", _so_far(status), "quiet"))
    if status.pictures:
        found.append(Row("last", "  ".join(reversed(status.pictures[-PICTURES:]))))
    found += [Row("error", error, "bad") for error in reversed(status.errors[-ERRORS:])]
    if (more := status.error_count - ERRORS) > 0:
        found.append(
            Row("error", f"and {more} more: see the .error.txt files in the outbox", "bad")
        )
    if len(status.engines) > 1 or any(engine.node for engine in status.engines):
        found += _engines(status)
    elif device := _device(status):
        found.append(Row("device", device, "quiet"))
    return [Row(row.label, harmless(row.text), row.style) for row in found]


def bar(status: Status) -> tuple[int, int]:
    """How much of a progress bar is done, and how much is left."""
    done = round(BAR * status.step / status.steps) if status.steps else 0
    return done, BAR - done


def progress_text(status: Status) -> str:
    """`corgi.yaml: 1–8 of 20, 40 s left, step 12/24, 3.1 it/s; 112 queued`."""
    waiting = status.images["queued"]
    return harmless(_work(status, status.recipe) + (f"; {waiting} queued" if waiting else ""))


def _now(status: Status) -> Row:
    if status.trouble:
        return Row("now", f"waiting: {status.trouble}", "bad")
    if status.recipe:
        last = "; then paused" if status.paused else ""
        return Row("now", _work(status, _short(status.recipe)) + last, "good")
    if status.paused:
        return Row("now", "paused until `picowatch resume`", "bad")
    return Row("now", "nothing is running", "quiet")


def _work(status: Status, recipe: str) -> str:
    parts = [f"{recipe}: {status.images_in_progress}"]
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    if status.step:
        parts.append(f"step {status.step}/{status.steps}")
    if status.steps_per_second:
        parts.append(f"{status.steps_per_second:.1f} it/s")
    return ", ".join(parts)


def _short(recipe: str) -> str:
    """The recipe's path, or its end: what follows must fit beside it."""
    return recipe if len(recipe) <= LONGEST_NAME else "…" + recipe[-LONGEST_NAME + 1 :]


def fitted(text: str, columns: int) -> str:
    """The text, or as many of its parts as fit into so many columns: the first ones matter most."""
    if len(text) <= columns:
        return text
    room = max(0, columns - 2)
    for between in (", ", "; ", "  ", " "):
        at = text[: room + len(between)].rfind(between)
        if at > columns // 2:
            return f"{text[:at]} …"
    return f"{text[:room]}…"


def _queued(status: Status) -> str:
    text = images(status.images["queued"])
    if status.all_seconds_left is not None and not status.paused:
        text += f", all done in {duration(status.all_seconds_left)}"
    named = [f"{recipe} {count}" for recipe, count in status.waiting[:RECIPES]]
    more = status.waiting_recipes - len(named)
    if named:
        text += f": {', '.join(named)}" + (f" and {more} more" if more > 0 else "")
    return text


def _so_far(status: Status) -> str:
    counts = status.images
    ended = [f"{images(counts.get('done', 0))} rendered"]
    ended += [f"{counts[state]} {state}" for state in ("failed", "cancelled") if counts.get(state)]
    return ", ".join(ended)


def _device(status: Status) -> str:
    if not status.device or status.device == "auto":  # not known before the first picture
        return ""
    held = _memory(status.memory_bytes, status.memory_peak_bytes)
    return ", ".join(filter(None, [status.device, status.precision, held]))


def _memory(now: int | None, peak: int | None) -> str:
    if now is None or peak is None:
        return ""
    return f"{now / 1e9:.1f} GB of memory, {peak / 1e9:.1f} GB at most"


def _engines(status: Status) -> list[Row]:
    """A row for each engine, the first ones if they are many."""
    shown = [
        Row("engines" if one is status.engines[0] else " ", *_engine(one))
        for one in status.engines[:ENGINES]
    ]
    more = len(status.engines) - ENGINES
    return shown + ([Row(" ", f"… and {more} more", "quiet")] if more > 0 else [])


def _engine(engine: EngineStatus) -> tuple[str, str]:
    """`2: lab-3, cuda:0 (NVIDIA H200), dreamshaper, 112 images, 54.1 it/s`, and its style."""
    parts = [engine.node, "" if engine.device == "auto" else engine.device, engine.checkpoint]
    parts.append(images(engine.images))
    if engine.batch:
        parts.append(f"{engine.steps_per_second:.1f} it/s")
    if engine.batch > 1:
        parts.append(f"{engine.batch} at once")
    parts.append(engine.trouble or _memory(engine.memory_bytes, engine.memory_peak_bytes))
    text = f"{engine.number}: " + ", ".join(filter(None, parts))
    return text, "bad" if engine.trouble else "quiet"
