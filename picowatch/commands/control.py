"""`picowatch pause`, `resume`, `retry`, `cancel`, `delete`, `keep`: sent to the daemon as files in
the outbox, so they work from any machine that mounts it.
"""

import codecs
import errno
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from os.path import lexists
from pathlib import Path

from picowatch.errors import FAILED, SUCCEEDED, CommandFailed
from picowatch.outbox.commands import Answer, Command, send, wait_for_answer
from picowatch.outbox.status import check_readable, is_running, unused
from picowatch.sources import Folders
from picowatch.streams import harmless

ANSWER_SECONDS = 15.0
LATE = f"Not finished after {ANSWER_SECONDS:.0f} s; it will be carried out."
ONLY_THEY = "Only users who may write there can control picowatch."
NOT_RUNNING = "picowatch is not running; it will be carried out at the next start."


def main(options: Namespace, load: Callable[[], Folders]) -> int:
    (inbox, outbox), name = load(), options.command
    check_readable(outbox)
    if words := unused(outbox):
        raise CommandFailed(words, "Name the outbox of a picowatch that runs: --outbox DIR.")
    if name in ("delete", "keep"):
        files = [below(outbox, picture) for picture in pictures_in(options)]
        if "." in files:
            raise CommandFailed("That is the whole outbox.", "Name folders of it, or pictures.")
        _check_there(outbox, files, outbox, "the outbox")
        folder = None
        if name == "keep":
            from picowatch.outbox.names import OutboxNames  # the others do without its imports

            folder = OutboxNames(outbox).folder_to_keep(below(outbox, options.folder))
            name = "keep copies" if options.copy else name
        return control(outbox, [Command(name, folder, files=tuple(files))])
    written = *getattr(options, "recipes", ()), *names_in(getattr(options, "list", None))
    recipes = [below(inbox, recipe) for recipe in written]
    _check_there(outbox, recipes, inbox, "the inbox")
    if name == "retry" and (options.all or options.list):
        if not recipes:
            remedy = "Name them; without --all and --from, all that failed are tried."
            raise CommandFailed("`retry` was given no recipes.", remedy)
        name = "retry all" if options.all else name
        if options.list:
            return control(outbox, [Command(name, files=tuple(recipes))])
    return control(outbox, [Command(name, recipe) for recipe in recipes] or [Command(name)])


def _check_there(outbox: Path, names: Sequence[str], folder: Path, where: str) -> None:
    """Raise CommandFailed for a name that nothing has, where no daemon is there to say so."""
    strange = [name for name in names if not lexists(folder / name)]
    has_ledger = lexists(outbox / ".picowatch/ledger.sqlite")  # which never raises
    if not (strange and has_ledger) or is_running(outbox):
        return
    # These take as long to import as all else.
    from picowatch.inbox.matching import matching, no_such
    from picowatch.inbox.scan import scan
    from picowatch.ledger.account import known_paths, known_pictures, reading

    try:
        with reading(outbox) as sql:
            known = known_pictures(sql) if folder == outbox else known_paths(sql)
    except CommandFailed:  # picowatch will repair it
        return
    if folder != outbox:  # what was saved since picowatch ended is not known yet
        known += scan(folder, ()).paths
    for name in strange:
        if not matching(name, known):
            words = no_such(name, known, where)
            raise CommandFailed(words, "`picowatch status .` tells of everything.")


def pictures_in(options: Namespace) -> list[Path]:
    """Return the pictures that a command is given. Raises CommandFailed if there are none."""
    if found := [*options.pictures, *map(Path, names_in(options.list))]:
        return found
    words = f"`{options.command}` was given no pictures."
    raise CommandFailed(words, "Name them, or use --from.")


def names_in(file: Path | None) -> list[str]:
    """Return a list's names, one a line; quoted names are JSON strings. Raises CommandFailed."""
    if file is None:
        return []
    try:
        content = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            content = content.decode("utf-16").encode()
        text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
        lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
        names = [json.loads(line) if line.startswith('"') else line for line in lines]
        if wrong := [name for name in names if not name or "\0" in name]:
            raise ValueError(f"{wrong[0]!r} is no name")
        return [os.fsdecode(os.fsencode(name)) for name in names]  # no half of a surrogate pair
    except OSError as error:
        words = f"{file} cannot be read: {error.strerror}."
        raise CommandFailed(words, "Name a text file, or - for standard input.") from error
    except ValueError as error:
        words = f"{file} is no list of names: {error}."
        raise CommandFailed(words, "Write one name a line.") from error


def control(outbox: Path, commands: Sequence[Command]) -> int:
    """Send commands and print their answers; return 1 if any is not done."""
    # All are sent before the first answer: the daemon looks for commands once a second.
    try:
        sent = [send(outbox, command) for command in commands]
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        words = f"The outbox {outbox.absolute()} cannot be written: {error.strerror}."
        remedy = "Free some space, and try again." if is_full else ONLY_THEY
        raise CommandFailed(words, remedy) from error
    runs = is_running(outbox)
    seconds = ANSWER_SECONDS if runs else 0.0
    code = SUCCEEDED
    for path in sent:
        answer = wait_for_answer(path, seconds)
        if answer is None:
            seconds = 0.0
            answer = Answer(False, LATE if runs else NOT_RUNNING)
        print(harmless(answer.text), file=sys.stdout if answer.done else sys.stderr)
        code = code if answer.done else FAILED
    return code


def below(folder: Path, written: str | Path) -> str:
    """Return what the daemon calls a file: users give its path, or its name below a folder."""
    # `inbox/a.txt`, as messages name it, is understood in every working directory. A slash at the
    # end stays: it is a folder's, though a recipe beside that has its name.
    root, named = folder.resolve(), Path(written)
    path = named.parent.resolve() / named.name
    if path.is_relative_to(root) and (lexists(path) or not lexists(root / named)):
        named = path.relative_to(root)
    elif named.parts[:1] == (folder.name,) and not lexists(root / named):
        named = Path(*named.parts[1:])
    is_folder = bool(named.name) and str(written).endswith("/")
    return f"{named.as_posix()}/" if is_folder else named.as_posix()
