"""`picowatch init`: folders, a commented picowatch.yaml, example recipes, schemas for editors."""

import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from os.path import lexists, realpath
from pathlib import Path

from picowatch.catalog.models import FOLDERS as KINDS_OF_MODELS
from picowatch.commands.schema import FOLDER as SCHEMAS
from picowatch.commands.schema import KINDS, schema_text
from picowatch.errors import CommandFailed
from picowatch.files.atomic import make_folder, write_atomically
from picowatch.inbox.names import PICTURES_NAME
from picowatch.outbox.status import is_running
from picowatch.settings.settings import Settings, load_settings, settings_text
from picowatch.sources import FILE_NAME, FOLDERS

# Editors look a schema up from the file that names it.
_NAMES_SCHEMA = "# yaml-language-server: $schema="
LIVE_DEFAULTS = f"""\
{_NAMES_SCHEMA}../{SCHEMAS}/{KINDS["defaults"]}
# Recipes in this folder go to the front of the queue: save here what you want to see now.
priority: 10
"""


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Make what is missing, and examples at first; only schemas are overwritten.

    Folders that a picowatch.yaml there names count.
    """
    folder: Path = options.folder
    real = Path(realpath(folder))
    for path in (real, *real.parents):  # picowatch would read what is made in an inbox
        is_used = path.name == "inbox" and lexists(path.parent / "outbox/.picowatch")
        if is_used or lexists(path / SCHEMAS / KINDS["recipe"]):
            words = f"{path} is an inbox: recipes are saved there."
            raise CommandFailed(words, "Name a folder outside of it: picowatch init DIR.")
    file = folder / FILE_NAME
    try:
        named = load_settings({}, {}, file).model_dump(exclude_unset=True) if file.exists() else {}
        inbox, outbox, models = (named.get(name, folder / name) for name in FOLDERS)
        make_folder(outbox)
        # Another folder is somebody's, or a share that may not be mounted.
        is_own = Path(realpath(models)) == Path(realpath(folder / "models"))
        for kind in (*KINDS_OF_MODELS.values(), "wildcards") if is_own else ():
            make_folder(models / kind)
        made = [*_make_all(file, inbox, with_examples=not options.ready)]
        if options.ready:
            made += _make_templates(inbox, options.ready)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        what = f"Cannot create picowatch's folders in {folder}{where}: {error.strerror or error}."
        remedy = "Name a folder that you can write to: picowatch init DIR."
        raise CommandFailed(what, remedy) from error
    for line in made:  # after all is made, for a reader that ends early
        print(line)
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    print(f"Recipes are saved in {inbox}/, and their pictures appear in {outbox}/.")
    if is_running(outbox):
        print("picowatch is running here, and takes what you save.")
    else:
        print(f"Next: {there}picowatch run")
    return 0


def _make_all(file: Path, inbox: Path, *, with_examples: bool) -> Iterator[str]:
    """Make settings, inbox, examples and schemas, and yield what to print of them."""
    schemas = inbox / SCHEMAS
    for made in (inbox, inbox / "live", schemas):
        make_folder(made)
    schema = f"{_NAMES_SCHEMA}inbox/{SCHEMAS}/{KINDS['settings']}\n"
    yield _write(file, schema + settings_text())
    yield _write(inbox / "live/_defaults.yaml", LIVE_DEFAULTS)
    # Examples that are gone from a later `init` were deleted; nobody's photos wait for them.
    if with_examples and not any(schemas.iterdir()):
        for example in _assets("examples"):
            is_yaml = example.name.endswith(".yaml")
            names_it = f"{_NAMES_SCHEMA}{SCHEMAS}/{KINDS['recipe']}\n" if is_yaml else ""
            yield _write(inbox / example.name, names_it + example.read_text("utf-8"))
    for kind, name in KINDS.items():  # those of another version: nobody edits them by hand
        path, content = schemas / name, schema_text(kind).encode()
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
            yield f"created {path}"


def _make_templates(inbox: Path, ready: str) -> Iterator[str]:
    """Make the folders of that name, each with a template for the pictures dropped there."""
    # The folder that needs no model comes first.
    for template in sorted(_assets(ready), key=lambda file: file.name != "web.yaml"):
        folder, text = inbox / template.name.removesuffix(".yaml"), template.read_text("utf-8")
        schema = f"{_NAMES_SCHEMA}../{SCHEMAS}/{KINDS['defaults']}\n"
        is_new = not (folder / PICTURES_NAME).exists()
        yield _write(folder / PICTURES_NAME, schema + text)
        if is_new:
            lines = text.splitlines()
            needed = takewhile(lambda line: line.startswith(("# For photos: ", "#   ")), lines)
            yield from (line.removeprefix("#") for line in needed)


def _assets(name: str) -> list[Traversable]:
    folder = resources.files("picowatch").joinpath(f"assets/{name}")
    return sorted(folder.iterdir(), key=lambda file: file.name)


def _write(path: Path, text: str) -> str:
    """Write a file that is missing; return what to print of it."""
    if path.exists():
        return f"kept {path}"
    write_atomically(path, text.encode())
    return f"created {path}"
