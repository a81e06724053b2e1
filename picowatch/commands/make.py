"""`picowatch make`: puts recipes into the inbox, waits, and reports what became of them."""

import errno
import hashlib
import json
import re
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch.commands.run import run_daemon
from picowatch.commands.status import current_status, rows_of
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.daemon import Mode
from picowatch.engine.child import ChildEngine
from picowatch.errors import (
    FAILED,
    INTERRUPTED,
    SUCCEEDED,
    CommandFailed,
    OutboxInUse,
    PicowatchError,
    PictureUnreadable,
)
from picowatch.files.retry import Ended
from picowatch.inbox.names import (
    ENDINGS,
    PICTURES_NAME,
    is_recipe_name,
    is_recipe_path,
    why_skipped,
)
from picowatch.inbox.putting import put, save_again
from picowatch.inbox.reading import template_above, why_no_recipe
from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.observers.console import LiveConsole, LiveView, PlainConsole, can_draw
from picowatch.outbox.commands import Answer, Command, new_file, send, wait_for_answer, withdraw
from picowatch.outbox.status import is_running
from picowatch.recipe import is_empty
from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.written import plain_name
from picowatch.settings import Settings
from picowatch.signals import ENDING
from picowatch.streams import print_error

POLL_SECONDS = 0.25
READ_BITS = 0o444  # of a file's mode
STANDARD_INPUT = Path("-")
_PAUSED = "picowatch is paused. Continue with `picowatch resume`."
_STAYS = "The recipes stay in the inbox and are rendered when picowatch runs."
_GONE = "The recipes are removed from the inbox, and what they still requested is cancelled."
_NOT_THERE = "Nothing was put into the inbox."


@dataclass(frozen=True, slots=True)
class _Sent:
    """A recipe in the inbox, and the command whose answer says what became of it.

    `file` is what the user called it. `is_ours`: it was not in the inbox before. Of a folder of
    dropped pictures `recipe` is its template.
    """

    file: Path
    recipe: str
    digest: str
    is_ours: bool
    command: Path


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    try:
        settings = load()
    except PicowatchError as error:
        if not options.json:
            raise
        found = {"done": False, "errors": [error.with_remedy], "recipes": []}
        print(json.dumps(found, indent=1))
        return error.exit_code
    return make(settings, options.files, name=options.name, remove=options.rm, as_json=options.json)


def make(
    settings: Settings,
    files: Sequence[Path],
    make_engine: MakeEngine = ChildEngine,
    *,
    name: str = "",
    remove: bool = False,
    as_json: bool = False,
) -> int:
    """Print the pictures of all recipes; exit code 1 if any of them was not rendered.

    With a `name` the recipe gets it in the inbox. `remove` deletes in the end, however that comes,
    what was put there.
    """
    sent: list[_Sent] = []
    answers: list[Answer] = []
    error, code = "", SUCCEEDED
    with ExitStack() as stack:
        _end_at_signals(stack)
        try:
            answers = _made(settings, files, make_engine, sent, name=name, remove=remove)
        except KeyboardInterrupt:
            error, code = (_GONE if remove else _STAYS) if sent else _NOT_THERE, INTERRUPTED
        except PicowatchError as failure:
            if not as_json:
                raise
            error, code = failure.with_remedy, failure.exit_code
        finally:
            for one in sent:
                withdraw(one.command)
            if remove:
                _remove(settings, sent)
    missing = [Answer(False, error)] * (len(sent) - len(answers))
    parts = [*_parts(settings, sent, [*answers, *missing])]
    if as_json:
        print(json.dumps(_as_json(settings, parts, error), indent=1))
        return code or (SUCCEEDED if all(answer.done for answer in answers) else FAILED)
    if error:
        print_error(error)
        return code
    return max((_report(settings, *part, remove) for part in parts), default=SUCCEEDED)


def _end_at_signals(stack: ExitStack) -> None:
    """Let every signal that ends picowatch end it as Ctrl-C does."""
    for number in ENDING:
        before = signal.getsignal(number)
        if before is signal.SIG_DFL:
            stack.callback(signal.signal, number, before)
            signal.signal(number, signal.default_int_handler)


# -- into the inbox


def _made(
    settings: Settings,
    files: Sequence[Path],
    make_engine: MakeEngine,
    sent: list[_Sent],
    *,
    name: str,
    remove: bool,
) -> list[Answer]:
    """Put the recipes into the inbox, note them in `sent`, and wait for what becomes of them."""
    check_folders(settings)
    folders = {file: _folder(settings, file) for file in files if file.is_dir()}
    read = {file: b"" if file in folders else _content(file) for file in files}
    if name:
        _check_name(settings, name, files)
    for file in read:  # before any of them is there
        if file not in folders:
            _check_place(settings, file, read[file], name, remove=remove)
        elif name or remove:
            raise CommandFailed(f"{file} is a folder.", "Leave out --name and --rm.")
    where = settings.inbox
    try:
        for file in files:
            where = settings.inbox
            if file in folders:
                folder, recipe = folders[file]
                digest, is_ours, request = "", False, Command("make folder", folder)
            else:
                recipe, is_ours = _put(settings, file, read[file], name)
                digest = hashlib.sha256(read[file]).hexdigest()
                kind = "make once" if remove and is_ours else "make"
                request = Command(kind, recipe, digest)
            where = settings.outbox
            # Noted before the command is there: a signal or a full disk may come in between.
            command = new_file(settings.outbox)
            sent.append(_Sent(file, recipe, digest, is_ours, command))
            send(settings.outbox, request, command)
        return _answers(settings, sent, make_engine)
    except OSError as error:
        # What fails on an open file, as a full disk does, names none.
        words = f"{error.filename or where} cannot be written: {error.strerror or error}."
        remedy = "Free some space or allow writing."
        if error.errno == errno.ENAMETOOLONG:
            remedy = "Use a shorter name."
        if sent and not remove:
            remedy = f"{remedy} {_STAYS}"
        raise CommandFailed(words, remedy) from error


def _folder(settings: Settings, file: Path) -> tuple[str, str]:
    """A folder for dropped pictures, as a path below the inbox, and its template."""
    inbox, path = settings.inbox.resolve(), file.resolve()
    if path.is_relative_to(inbox):
        folder = path.relative_to(inbox).as_posix()
        if template := template_above(inbox, f"{folder}/{PICTURES_NAME}"):
            return folder, template
    raise CommandFailed(
        f"{file} is a folder, and no folder of the inbox with a {PICTURES_NAME}.",
        "Name the recipes in it instead.",
    )


def _content(file: Path) -> bytes:
    """A recipe that can be one; CommandFailed says why it cannot."""
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"Cannot read {file}: {error.strerror}.", "Give a recipe that you can read."
        ) from error
    if file != STANDARD_INPUT and not is_recipe_name(file.name):
        why = why_skipped(file.name) or f"names of recipes end in {', '.join(ENDINGS)}"
        raise CommandFailed(f"{file} is never run: {why}.", "Give it another name.")
    if is_empty(content):
        what = "Standard input" if file == STANDARD_INPUT else file
        raise CommandFailed(f"{what} is empty.", "Write at least a prompt.")
    return content


def _check_name(settings: Settings, name: str, files: Sequence[Path]) -> None:
    """A name is for one recipe from elsewhere, and a path below the inbox."""
    if len(files) > 1:
        raise CommandFailed("--name is for one recipe.", "Give one FILE, or leave out --name.")
    if _below(settings, files[0]):
        raise CommandFailed(
            f"{files[0]} is in the inbox already, and keeps its name there.",
            "Leave out --name, or rename the file.",
        )
    plain = name if name.lower().endswith(ENDINGS) else f"{name}.yaml"
    if not is_recipe_path(plain) or {"", ".", ".."} & {*plain.split("/")}:
        raise CommandFailed(
            f"--name {name} is not a recipe's name.",
            "It may be like `corgi` or `pets/corgi.yaml`; no part of it begins with '.', '_', '~' "
            "or '#'.",
        )


def _check_place(
    settings: Settings, file: Path, content: bytes, name: str, *, remove: bool
) -> None:
    """Refuse a place among dropped pictures: no recipe is read there."""
    below = _below(settings, file)
    if why := why_no_recipe(settings.inbox, below or _wanted(file, content, name)):
        raise CommandFailed(why, "Put it into another folder.")
    if remove and below:
        raise CommandFailed(
            f"{file} is in the inbox already, and --rm removes only what it puts there.",
            "Leave out --rm, or give a file from elsewhere.",
        )


def _put(settings: Settings, file: Path, content: bytes, name: str) -> tuple[str, bool]:
    """Put the recipe into the inbox, or save it there again; its path below, and if it is new."""
    if below := _below(settings, file):
        save_again(file)
        return below, False
    folder, slash, own = _wanted(file, content, name).rpartition("/")
    # The daemon may run as another user, and our umask may be 077.
    readers = 0 if file == STANDARD_INPUT else file.stat().st_mode & READ_BITS
    own, is_new = put(settings.inbox / folder, own, content, readers)
    return f"{folder}{slash}{own}", is_new


def _wanted(file: Path, content: bytes, name: str) -> str:
    """The path below the inbox that a recipe from elsewhere gets, if it is free."""
    wanted = name or ("stdin" if file == STANDARD_INPUT else file.name)
    if not wanted.lower().endswith(ENDINGS):
        wanted += _ending(content) if file == STANDARD_INPUT else file.suffix
    return wanted


def _below(settings: Settings, file: Path) -> str:
    """The path below the inbox of a recipe that lies there; "" for others."""
    inbox, path = settings.inbox.resolve(), file.resolve()
    if file == STANDARD_INPUT or not path.is_relative_to(inbox):
        return ""
    below = path.relative_to(inbox).as_posix()
    return below if is_recipe_path(below) else ""


def _ending(content: bytes) -> str:
    """JSON; YAML if a text begins with a recipe's field; anything else is lines of prompts."""
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(content), dict | list):
            return ".json"
    text = re.sub(rb"\A(?:\s|#.*\n|---\s*\n|- )*", b"", content)
    field = re.match(rb"([A-Za-z_ -]+):", text)
    is_yaml = field is not None and plain_name(field[1].decode()) in FIRST_NAME_OF
    return ".yaml" if is_yaml else ".txt"


def _remove(settings: Settings, sent: Sequence[_Sent]) -> None:
    """Delete what was put into the inbox and is still the same, where the daemon has not."""
    for one in sent:
        path = settings.inbox / one.recipe
        with suppress(OSError):
            if one.is_ours and hashlib.sha256(path.read_bytes()).hexdigest() == one.digest:
                path.unlink()


# -- waiting


def _answers(settings: Settings, sent: Sequence[_Sent], make_engine: MakeEngine) -> list[Answer]:
    """What became of each recipe: by the daemon that is running, else by this process."""
    answers: dict[Path, Answer] = {}
    reason: str | None = None
    while True:
        for one in sent:
            if one.command not in answers and (answer := wait_for_answer(one.command, 0.0)):
                answers[one.command] = answer
        missing = [one.command for one in sent if one.command not in answers]
        if not missing or reason is not None:
            rest = Answer(False, reason or "")
            return [answers.get(one.command, rest) for one in sent]
        if is_running(settings.outbox):
            _wait(settings, missing)
        else:
            reason = _render_here(settings, missing, make_engine)


def _wait(settings: Settings, missing: Sequence[Path]) -> None:
    """Wait until one of them is answered, or no picowatch is running; shown on a terminal."""
    with ExitStack() as stack:
        view = LiveView(sys.stderr) if can_draw(sys.stderr) else None
        if view is not None:
            stack.callback(view.close)
        said = ""
        while is_running(settings.outbox):
            if any(command.with_suffix(".answer").exists() for command in missing):
                return
            running, status = current_status(settings.outbox)
            why = f"picowatch is waiting: {status.trouble}" if status.trouble else ""
            why = _PAUSED if status.paused else why
            if view is not None:
                view.draw(rows_of(running, status))
            elif why not in ("", said):
                print_error(why)
            said = why
            time.sleep(POLL_SECONDS)


def _render_here(
    settings: Settings, missing: Sequence[Path], make_engine: MakeEngine
) -> str | None:
    """Run a daemon until the recipes are answered; returns why any of them has no answer then.

    None if another picowatch was quicker, and will answer.
    """
    drawn = can_draw(sys.stderr)
    console = LiveConsole(sys.stderr) if drawn else PlainConsole(sys.stderr)
    console.handler.addFilter(lambda record: False)  # the answers say what matters
    with ExitStack() as stack:
        stack.callback(console.close)
        for number in ENDING:  # the daemon takes them
            stack.callback(signal.signal, number, signal.getsignal(number))
        try:
            result, interrupted = run_daemon(
                settings,
                make_engine,
                console,
                Mode(
                    once=True,
                    by_make=True,
                    until=lambda: not any(command.exists() for command in missing),
                ),
            )
        except OutboxInUse:
            return None
        except Ended:
            raise KeyboardInterrupt from None
    if interrupted:
        raise KeyboardInterrupt
    if result.kept_waiting:
        return _PAUSED
    return result.reason or "it is no longer in the inbox, or is empty."


# -- what became of them


def _parts(
    settings: Settings, sent: Sequence[_Sent], answers: Sequence[Answer]
) -> Iterator[tuple[_Sent, Answer]]:
    """Each recipe with its answer; of a folder each picture, and what concerns all of them."""
    for one, answer in zip(sent, answers, strict=True):
        if answer.warning or not answer.parts:
            yield one, replace(answer, done=True) if answer.parts else answer
        for recipe, part in answer.parts.items():
            yield replace(one, file=settings.inbox / recipe, recipe=recipe), part


def _report(settings: Settings, sent: _Sent, answer: Answer, removed: bool) -> int:
    for picture in (*answer.pictures, *answer.sheets):
        print(settings.outbox / picture)
    if answer.warning:
        print_error(answer.warning.strip())
    if answer.done:
        return SUCCEEDED
    # A removed recipe's error file is gone, too.
    text = (answer.error if removed and answer.error else answer.text).strip()
    print_error(text if text.startswith(f"inbox/{sent.recipe}") else f"{sent.recipe}: {text}")
    return FAILED


def _as_json(
    settings: Settings, parts: Sequence[tuple[_Sent, Answer]], error: str
) -> dict[str, Any]:
    """What docs/scripts.md promises to scripts: new keys may come, these stay."""
    return {
        "done": not error and all(answer.done for _, answer in parts),
        "errors": [error] if error else [],
        "recipes": [
            {
                "file": str(one.file),
                "recipe": one.recipe,
                "in_inbox": (settings.inbox / one.recipe).exists(),
                "done": answer.done,
                "pictures": [_picture(settings.outbox / file) for file in answer.pictures],
                "contact_sheets": [str(settings.outbox / file) for file in answer.sheets],
                "errors": [] if answer.done else [(answer.error or answer.text).strip()],
                "warnings": [answer.warning.strip()] if answer.warning else [],
            }
            for one, answer in parts
        ],
    }


def _picture(path: Path) -> dict[str, Any]:
    """What a script wants to know at once; `picowatch show --json` has all the rest."""
    found: dict[str, Any] = dict.fromkeys(
        ("seed", "width", "height", "checkpoint", "prompt", "negative_prompt")
    )
    with suppress(PictureUnreadable, OSError, KeyError, Image.DecompressionBombError):
        request = read_chunk(read_texts(path)[PICOWATCH]).request
        found = {name: getattr(request, name) for name in found}
        with Image.open(path) as picture:
            found["width"], found["height"] = picture.size
    return {"path": str(path), **found}
