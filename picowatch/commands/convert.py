"""`picowatch convert`: a model as a pickle becomes safetensors, and nothing in it is run."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from picowatch.catalog.folder_files import has_index
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import FOLDERS
from picowatch.catalog.recognise import ARTICLES, recognise
from picowatch.errors import FAILED, SUCCEEDED, CommandFailed, ModelRefused
from picowatch.settings.settings import Settings
from picowatch.streams import harmless


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Convert each file; a file that cannot be converted does not stop the others."""
    # Imports torch, which takes seconds: other commands do without.
    from picowatch.engine.networks.convert import convert, files_with

    code, done = SUCCEEDED, set[Path]()
    for path in options.files:
        if path in done:  # with its other half
            continue
        try:
            files = files_with(path)
            done |= {*files} - {path}
            print(harmless(_described(convert(*files, force=options.force))))
        except (CommandFailed, ModelRefused) as error:
            named = f"{path} " if isinstance(error, ModelRefused) else ""
            print(harmless(f"picowatch: {named}{error}"), file=sys.stderr)
            code = FAILED
    return code


def _described(path: Path) -> str:
    """Say what was written, and where it belongs."""
    text = f"{path}: {path.stat().st_size / 1e6:.1f} MB"
    folder = path.absolute().parents[1]
    if has_index(folder):
        return f"{text}. It is a part of the folder {folder.name}/."
    try:
        found = recognise(read_header(path))
    except ModelRefused as refused:
        return f"{text}. It {refused.message}"
    return f"{text}. It is {ARTICLES[found.kind]}: it belongs in models/{FOLDERS[found.kind]}/."
