"""`picowatch make`: puts recipes into the inbox, waits, and reports what became of them."""

import errno
import hashlib
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from picowatch import errors
from picowatch.commands import make_files
from picowatch.commands.control import ONLY_THEY
from picowatch.commands.status import current_status, rows_of
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.run import Mode
from picowatch.daemon.supervise import run_daemon
from picowatch.engine.process.child import started_engine
from picowatch.files.safe_paths import is_folder
from picowatch.inbox.folder import InboxFolder
from picowatch.metadata.embedded_text import chunk_of
from picowatch.observers.console import LiveConsole, LiveView, PlainConsole, can_draw
from picowatch.outbox import commands
from picowatch.outbox.commands import COMMANDS, REQUESTS, Answer, Command
from picowatch.outbox.status import is_running
from picowatch.settings.settings import Settings
from picowatch.signals import ENDING
from picowatch.streams import print_error

POLL_SECONDS = 0.25
_PAUSED = "picowatch is paused. Continue with `picowatch resume`."
_STAYS = "The recipes stay in the inbox and are rendered when picowatch runs."
_GONE = "The recipes are removed from the inbox, and what they still requested is cancelled."
_NOT_THERE = "Nothing was put into the inbox."


@dataclass(frozen=True, slots=True)
class Sent:
    """A recipe in the inbox, and the command whose answer says what became of it."""

    file: Path  # what the user called it
    recipe: str  # a folder's template, or the folder itself without a template
    request: Command
    command: Path  # the file of the `request`
    made: list[Path] | None  # the folders that were made for it; None if it was in the inbox before


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    try:
        settings = load()
    except errors.PicowatchError as error:
        if not options.json:
            raise
        print(json.dumps({"done": False, "errors": [error.with_remedy], "recipes": []}, indent=1))
        return error.exit_code
    return make(settings, options.files, name=options.name, remove=options.rm, as_json=options.json)


def make(
    settings: Settings,
    files: Sequence[Path],
    make_engine: MakeEngine = started_engine,
    *,
    name: str = "",
    remove: bool = False,
    as_json: bool = False,
) -> int:
    """Print the pictures of all recipes; exit code 1 if any of them was not rendered.

    `name` is the recipe's in the inbox. `remove` deletes it in the end, however that comes.
    """
    sent: list[Sent] = []
    answers: list[Answer] = []
    error, code = "", errors.SUCCEEDED
    try:
        answers = _made(settings, files, make_engine, sent, name=name, remove=remove)
    except KeyboardInterrupt:
        error, code = (_GONE if remove else _STAYS) if sent else _NOT_THERE, errors.INTERRUPTED
    except errors.PicowatchError as failure:
        if not as_json:
            raise
        error, code = failure.with_remedy, failure.exit_code
    finally:
        for entry in sent:
            commands.withdraw(entry.command)
        if remove:
            _remove(InboxFolder(settings.inbox), sent)
    missing = [Answer(False, error)] * (len(sent) - len(answers))
    parts = [*by_picture(InboxFolder(settings.inbox), sent, [*answers, *missing])]
    if as_json:
        print(json.dumps(as_object(settings, parts, error), indent=1))
        return code or (errors.SUCCEEDED if all(a.done for a in answers) else errors.FAILED)
    if error:
        print_error(error)
        return code
    return max((print_answer(settings, *part, remove) for part in parts), default=errors.SUCCEEDED)


# -- into the inbox


def _made(
    settings: Settings,
    files: Sequence[Path],
    make_engine: MakeEngine,
    sent: list[Sent],
    *,
    name: str,
    remove: bool,
) -> list[Answer]:
    """Put the recipes into the inbox, note them in `sent`, and wait for what becomes of them."""
    requests, running = commands.only_requests(settings.outbox), is_running(settings.outbox)
    if running and not (requests or os.access(settings.outbox, os.W_OK | os.X_OK)):
        words = f"The outbox {settings.outbox.absolute()} cannot be written."
        raise errors.CommandFailed(words, ONLY_THEY)
    check_folders(settings, writes=not requests)
    if requests and not running:
        raise errors.CommandFailed("picowatch is not running.", "Ask an administrator to start it.")
    inbox = InboxFolder(settings.inbox)
    folders = {f: make_files.folder_and_template(inbox, f) for f in files if is_folder(f)}
    read = {file: b"" if file in folders else make_files.content_of(inbox, file) for file in files}
    if name:
        make_files.check_name(inbox, name, files)
    for file in read:  # before any of them is there
        if file not in folders:
            make_files.check_place(inbox, file, read[file], name, remove=remove)
        elif name or remove:
            raise errors.CommandFailed(f"{file} is a folder.", "Leave out --name and --rm.")
    where = settings.inbox
    try:
        for file in files:
            where = settings.inbox
            if file in folders:
                folder, template = folders[file]
                recipe, made, request = template or folder, None, Command("make folder", folder)
            else:
                recipe, made = make_files.put_recipe(inbox, file, read[file], name)
                digest = hashlib.sha256(read[file]).hexdigest()
                kind = "make once" if remove and made is not None else "make"
                request = Command(kind, recipe, digest)
            where = settings.outbox
            # Noted before the command is there: a signal or a full disk may come in between.
            command = commands.new_file(settings.outbox, REQUESTS if requests else COMMANDS)
            sent.append(Sent(file, recipe, request, command, made))
            commands.send(settings.outbox, request, command)
        return _answers(settings, sent, make_engine)
    except OSError as error:
        raise _not_written(error, where, stays=bool(sent and not remove)) from error


def _not_written(error: OSError, where: Path, *, stays: bool) -> errors.CommandFailed:
    """Return why nothing can be written; `stays`: recipes that are in the inbox stay there."""
    # What fails on an open file, as a full disk does, names none.
    words = f"{error.filename or where} cannot be written: {error.strerror or error}."
    remedy = "Free some space or allow writing."
    if error.errno == errno.ENAMETOOLONG:
        remedy = "Use a shorter name."
    return errors.CommandFailed(words, f"{remedy} {_STAYS}" if stays else remedy)


def _remove(inbox: InboxFolder, sent: Sequence[Sent]) -> None:
    """Delete what was put into the inbox and is still the same, and the folders made for it."""
    ours = [entry for entry in sent if entry.made is not None]
    for entry in ours:
        with suppress(OSError):
            inbox.delete(entry.recipe, entry.request.digest or "")
    with suppress(OSError):  # somebody put something into one of them
        for folder in (folder for entry in reversed(ours) for folder in entry.made or ()):
            folder.rmdir()


# -- waiting


def _answers(settings: Settings, sent: Sequence[Sent], make_engine: MakeEngine) -> list[Answer]:
    """Return what became of each recipe, rendered by the running daemon or by this process."""
    answers: dict[Path, Answer | None] = {entry.command: None for entry in sent}
    reason: str | None = None
    while True:
        for path, answer in answers.items():
            answers[path] = answer or commands.wait_for_answer(path, 0.0)
        missing = [entry for entry in sent if not answers[entry.command]]
        if not missing or reason is not None:
            return [answer or Answer(False, reason or "") for answer in answers.values()]
        if is_running(settings.outbox):
            _wait(settings, [entry.command for entry in missing])
        elif commands.only_requests(settings.outbox):
            reason = f"picowatch has ended. {_STAYS}"
        else:
            reason = _render_here(settings, missing, make_engine)


def _wait(settings: Settings, missing: Sequence[Path]) -> None:
    """Wait until a command is answered or no picowatch is running; show that on a terminal."""
    view = LiveView(sys.stderr) if can_draw(sys.stderr) else None
    with closing(view) if view else nullcontext():
        said = ""
        while not any(command.with_suffix(".answer").exists() for command in missing):
            running, status = current_status(settings.outbox)
            if not running:
                return
            why = f"picowatch is waiting: {status.trouble}" if status.trouble else ""
            why = _PAUSED if status.paused else why
            if view:
                view.draw(rows_of(running, status))
            elif why not in ("", said):
                print_error(why)
            said = why
            time.sleep(POLL_SECONDS)


def _render_here(
    settings: Settings, missing: Sequence[Sent], make_engine: MakeEngine
) -> str | None:
    """Run a daemon for these recipes until they are answered; it renders nothing else.

    Returns why any has no answer then, None if another picowatch was quicker and will answer.
    """
    console = LiveConsole(sys.stderr) if can_draw(sys.stderr) else PlainConsole(sys.stderr)
    console.handler.addFilter(lambda record: False)  # the answers say what matters
    only = tuple(entry.request.recipe or "" for entry in missing)
    left = [entry.command for entry in missing]
    mode = Mode(once=True, only=only, until=lambda: not any(map(Path.exists, left)))
    with ExitStack() as stack:
        stack.callback(console.close)
        for number in ENDING:  # the daemon takes them
            stack.callback(signal.signal, number, signal.getsignal(number))
        try:
            result, interrupted = run_daemon(settings, make_engine, console, mode)
        except errors.OutboxInUse:
            return None
    if interrupted:
        raise KeyboardInterrupt
    if result.kept_waiting:
        return _PAUSED
    return result.reason or "it is no longer in the inbox, or is empty."


# -- the report: paths of pictures and errors, or one JSON object for scripts


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
        return errors.SUCCEEDED
    # A removed recipe's error file is gone, too.
    text = (answer.error if removed and answer.error else answer.text).strip()
    print_error(text if text.startswith(f"inbox/{sent.recipe}") else f"{sent.recipe}: {text}")
    return errors.FAILED


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
    names = "seed", "width", "height", "checkpoint", "prompt", "negative_prompt"
    found: dict[str, Any] = dict.fromkeys(names)
    with suppress(errors.PictureUnreadable, OSError, KeyError, ValueError):
        chunk = chunk_of(path)
        size = map(int, str(chunk.rendered["size"]).split("x"))
        found = {name: getattr(chunk.request, name) for name in found}
        found["width"], found["height"] = size
    return {"path": str(path), **found}
