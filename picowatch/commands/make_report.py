"""The report of `picowatch make`: paths of pictures and errors, or one JSON object for scripts."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from picowatch.errors import FAILED, SUCCEEDED, PictureUnreadable
from picowatch.inbox.folder import InboxFolder
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.commands import Answer, Command
from picowatch.settings.settings import Settings
from picowatch.streams import print_error


@dataclass(frozen=True, slots=True)
class Sent:
    """A recipe in the inbox, and the command whose answer says what became of it.

    `file` is what the user called it. If it was not in the inbox before, `made` are the folders
    that were made for it. `recipe` is a folder's template, or the folder itself without one.
    `command` is the file of the `request`.
    """

    file: Path
    recipe: str
    request: Command
    command: Path
    made: list[Path] | None


def by_picture(
    inbox: InboxFolder, sent: Sequence[Sent], answers: Sequence[Answer]
) -> Iterator[tuple[Sent, Answer]]:
    """Yield each recipe with its answer; for a folder, each picture and what concerns all."""
    for source, answer in zip(sent, answers, strict=True):
        if answer.warning or not answer.parts:
            yield source, replace(answer, done=True) if answer.parts else answer
        for recipe, part in answer.parts.items():
            yield replace(source, file=inbox.shown(recipe), recipe=recipe), part


def print_answer(settings: Settings, sent: Sent, answer: Answer, removed: bool) -> int:
    """Print the paths of an answer's pictures, or why there are none; return the exit code."""
    for picture in (*answer.pictures, *answer.sheets):
        print(settings.outbox / picture)
    if answer.warning:
        print_error(answer.warning.strip())
    if answer.note:
        print_error(f"{sent.file}: {answer.note}")
    if answer.done:
        return SUCCEEDED
    # A removed recipe's error file is gone, too.
    text = (answer.error if removed and answer.error else answer.text).strip()
    print_error(text if text.startswith(f"inbox/{sent.recipe}") else f"{sent.recipe}: {text}")
    return FAILED


def as_object(
    settings: Settings, parts: Sequence[tuple[Sent, Answer]], error: str
) -> dict[str, Any]:
    """Return the object that docs/scripts.md promises: new keys may come, these stay."""
    inbox = InboxFolder(settings.inbox)
    return {
        "done": not error and all(answer.done for _, answer in parts),
        "errors": [error] if error else [],
        "recipes": [
            {
                "file": str(sent.file),
                "recipe": sent.recipe,
                "in_inbox": inbox.shown(sent.recipe).exists(),
                "done": answer.done,
                "pictures": [_picture(settings.outbox / file) for file in answer.pictures],
                "contact_sheets": [str(settings.outbox / file) for file in answer.sheets],
                "errors": [] if answer.done else [(answer.error or answer.text).strip()],
                "warnings": [said.strip() for said in (answer.warning, answer.note) if said],
            }
            for sent, answer in parts
        ],
    }


def _picture(path: Path) -> dict[str, Any]:
    """Return what a script needs first; `picowatch show --json` has the rest."""
    found: dict[str, Any] = dict.fromkeys(
        ("seed", "width", "height", "checkpoint", "prompt", "negative_prompt")
    )
    with suppress(PictureUnreadable, OSError, KeyError, ValueError):
        chunk = chunk_of(path)
        size = map(int, str(chunk.rendered["size"]).split("x"))
        found = {name: getattr(chunk.request, name) for name in found}
        found["width"], found["height"] = size
    return {"path": str(path), **found}
