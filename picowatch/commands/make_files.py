"""The files that `picowatch make` is given, and how they come into the inbox."""

import getpass
import json
import os
import re
import shlex
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePath

from picowatch.errors import CommandFailed
from picowatch.files.atomic import write_atomically
from picowatch.files.safe_paths import open_below
from picowatch.inbox import names
from picowatch.inbox.folder import MAX_BYTES, FileChanged, FileUnreadable, InboxFolder
from picowatch.inbox.reasons import reason_of
from picowatch.inbox.scan import scan
from picowatch.recipe.read.decoding import is_empty
from picowatch.recipe.read.names import field_called

READ_BITS = 0o444  # of a file's mode
_SETTLED_NS = 2_000_000_000  # the coarsest file systems have times in steps of two seconds
STANDARD_INPUT = Path("-")


def folder_and_template(inbox: InboxFolder, file: Path) -> tuple[str, str]:
    """Return a folder of recipes or dropped pictures, as a path below the inbox, and its template.

    Without dropped pictures, that is "". Raises CommandFailed for any other folder.
    """
    with _reading(file):
        folder = inbox.path_of(file)
    if folder not in ("", "."):
        template = inbox.template_above(f"{folder}/{names.PICTURES_NAME}") or ""
        inside = (name for _, _, files in os.walk(file) for name in files)
        if template or any(
            names.is_recipe_name(name) or name == names.PICTURES_NAME for name in inside
        ):
            return folder, template
    if folder == ".":
        remedy = "Name recipes and folders in it; `picowatch run --once` renders all."
        raise CommandFailed(f"{file} is the inbox itself.", remedy)
    words = f"is a folder, but not one of the inbox that has recipes or a {names.PICTURES_NAME}"
    if why := reason_of(scan(inbox.root, ()).others, folder):
        words = f"is ignored: {why}"
    raise CommandFailed(f"{file} {words}.", "Name recipes, or a folder with some.")


def content_of(inbox: InboxFolder, file: Path) -> bytes:
    """Return the bytes of a recipe. Raises CommandFailed if they cannot be a recipe."""
    with _reading(file):
        if file == STANDARD_INPUT:
            content = sys.stdin.buffer.read()
        else:
            below = inbox.path_of(file)
            content = inbox.read(below) if below else file.read_bytes()
    if file != STANDARD_INPUT and not names.is_recipe_name(file.name):
        raise _no_recipe(inbox, file, below)
    if len(content) > MAX_BYTES:
        words = f"{file} is too long: a recipe may have up to {MAX_BYTES:,} bytes."
        raise CommandFailed(words, "Split it into several files.")
    if is_empty(content):
        what = "Standard input" if file == STANDARD_INPUT else file
        raise CommandFailed(f"{what} is empty.", "Write at least a prompt.")
    return content


def _no_recipe(inbox: InboxFolder, file: Path, below: str) -> CommandFailed:
    """Return why a file whose name is no recipe's is not made, and how else it may be."""
    is_template = file.name in names.TEMPLATE_NAMES
    why = names.why_not_taken(file.name)
    if why is not None or not (is_template or names.is_dropped(file.name)):
        why = why or f"names of recipes end in {', '.join(names.ENDINGS)}"
        return CommandFailed(f"{file} is never run: {why}.", "Give it another name.")
    remedy = (
        f"Name it in a recipe, or drop it into a folder of the inbox with a {names.PICTURES_NAME}."
    )
    if inbox.template_above(below):
        folder = shlex.quote(str(inbox.shown(below).parent))
        remedy = f"It is made with its folder: `picowatch make {folder}`."
    elif is_template:
        remedy = "Name a recipe, or a folder of the inbox with some."
    what = "template" if is_template else "picture"
    return CommandFailed(f"{file} is a {what}, not a recipe.", remedy)


def check_name(inbox: InboxFolder, name: str, files: Sequence[Path]) -> None:
    """Raise CommandFailed unless the name is for one recipe from elsewhere, and a path."""
    if len(files) > 1:
        raise CommandFailed("--name is for one recipe.", "Give one FILE, or leave out --name.")
    if _below(inbox, files[0]):
        words = f"{files[0]} is in the inbox already, and keeps its name there."
        raise CommandFailed(words, "Leave out --name, or rename the file.")
    plain = name if name.lower().endswith(names.ENDINGS) else f"{name}.yaml"
    if not names.is_recipe_path(plain) or {"", ".", ".."} & {*plain.split("/")}:
        raise CommandFailed(
            f"--name {name} is not a recipe's name.",
            "It may be like `corgi` or `pets/corgi.yaml`; no part of it begins with '.', '_', '~' "
            "or '#'.",
        )
    folder = plain.rpartition("/")[0]
    if folder and inbox.is_through_link(folder):
        words = f"--name {name} leads through a link to a folder; linked folders are not searched."
        raise CommandFailed(words, "Name the folder itself.")


def check_place(inbox: InboxFolder, file: Path, content: bytes, name: str, *, remove: bool) -> None:
    """Raise CommandFailed for a place among dropped pictures: no recipe is read there."""
    below = _below(inbox, file)
    if why := inbox.why_no_recipe(below or _wanted(inbox, file, content, name)):
        raise CommandFailed(why, "Put it into another folder.")
    if remove and below:
        words = f"{file} is in the inbox already, and --rm removes only what it puts there."
        raise CommandFailed(words, "Leave out --rm, or give a file from elsewhere.")


def put_recipe(
    inbox: InboxFolder, file: Path, content: bytes, name: str
) -> tuple[str, list[Path] | None]:
    """Put the recipe into the inbox, or save it there again; see `put`."""
    if below := _below(inbox, file):
        save_again(inbox, below)
        return below, None
    # The daemon may run as another user, and our umask may be 077.
    readers = 0 if file == STANDARD_INPUT else file.stat().st_mode & READ_BITS
    return put(inbox, _wanted(inbox, file, content, name), content, readers)


def put(
    inbox: InboxFolder, path: str, content: bytes, readers: int = 0
) -> tuple[str, list[Path] | None]:
    """Save a recipe at this path, or with a number after its name; missing folders are made.

    `readers`: as for `write_atomically`; they may enter new folders. An empty file, which nobody
    reads, takes the name first.

    Returns the recipe's path and the folders made for it, the inner ones first, or None if a recipe
    with the same bytes exists there that we may save again instead. Raises OSError.
    """
    assert names.is_recipe_path(path)
    folder = inbox.shown(path).parent
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        with suppress(OSError):  # as for files
            new.chmod(stat.S_IMODE(new.stat().st_mode) | readers | readers >> 2)
    first = PurePath(path)
    for number in count(1):  # corgi.yaml, corgi-2.yaml, …
        own = first.with_stem(f"{first.stem}-{number}").as_posix() if number > 1 else path
        target = inbox.shown(own)
        try:
            target.open("xb").close()
        except FileExistsError:
            if _holds(inbox, own, content):
                with suppress(PermissionError):  # it is another user's
                    save_again(inbox, own)
                    return own, None
            continue
        try:
            write_atomically(target, content, readers=readers)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
        return own, made
    raise AssertionError("names do not end")


def save_again(inbox: InboxFolder, path: str) -> None:
    """Save a recipe again without a change; two saves always have different times."""
    try:
        with open_below(inbox.root, path) as file:
            before = os.fstat(file.fileno()).st_mtime_ns
            os.utime(file.fileno())
            if os.fstat(file.fileno()).st_mtime_ns == before:
                os.utime(file.fileno(), ns=(before + _SETTLED_NS, before + _SETTLED_NS))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(inbox.shown(path))) from error


def _holds(inbox: InboxFolder, path: str, content: bytes) -> bool:
    try:
        return inbox.read(path) == content
    except (FileUnreadable, FileChanged, OSError):
        return False


def _wanted(inbox: InboxFolder, file: Path, content: bytes, name: str) -> str:
    """The path below the inbox that a recipe from elsewhere gets, if it is free."""
    wanted = name or ("stdin" if file == STANDARD_INPUT else file.name)
    if not wanted.lower().endswith(names.ENDINGS):
        wanted += _ending(content) if file == STANDARD_INPUT else file.suffix
    with suppress(OSError, KeyError):  # a user id without a user
        user = getpass.getuser()
        # A user may be allowed to write only in the folder of that name.
        is_own = not os.access(inbox.root, os.W_OK) and os.access(inbox.root / user, os.W_OK)
        if is_own and "/" not in wanted:
            return f"{user}/{wanted}"
    return wanted


def _below(inbox: InboxFolder, file: Path) -> str:
    """The path below the inbox of a recipe that lies there; "" for others."""
    below = "" if file == STANDARD_INPUT else inbox.path_of(file)
    return below if names.is_recipe_path(below) else ""


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raise CommandFailed if a file cannot be read."""
    try:
        yield
    except (FileUnreadable, FileChanged, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error}" or "it is being written"
        words = f"Cannot read {file}: {why}."
        raise CommandFailed(words, "Give a recipe that you can read.") from error


def _ending(content: bytes) -> str:
    """JSON; YAML if a text begins with a field or a note; anything else is lines of prompts."""
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(content), dict | list):
            return ".json"
    # Fields between two lines --- are settings of prompts if no further field follows.
    parts = re.split(rb"(?m)^---\s*$", content.removeprefix(BOM_UTF8))
    texts = (re.sub(rb"\A(?:\s|#.*\n|- )*", b"", part) for part in parts)
    begins = [re.match(rb"[{\"']?([A-Za-z_ -]+)[\"']?:", text) for text in texts if text][:2]
    named = [name and field_called(name[1].decode()) for name in begins]
    return ".yaml" if named and all(named) else ".txt"
