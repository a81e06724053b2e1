"""Finds what in models/ may be a model, by names, sizes and times alone."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from picowatch.catalog.configs import config_beside
from picowatch.catalog.folder_files import (
    ARIA2,
    INDEX,
    PICKLE_ENDINGS,
    folder_files,
    is_file,
    is_folder,
    other_weights,
    weight_files,
)
from picowatch.catalog.folders import PART_FOLDERS, is_part_folder
from picowatch.catalog.gguf import GGUF
from picowatch.catalog.models import FOLDERS, Kind, Layout
from picowatch.errors import ModelRefused
from picowatch.files.names import SKIPPED_FOLDERS
from picowatch.recipe.written import NEVER_IN_NAMES, invisible
from picowatch.streams import harmless

_UNFINISHED = {".part", ".partial", ".crdownload", ".download", ARIA2, ".incomplete", ".tmp"}
SAFETENSORS = (".safetensors", ".sft")  # the second is how Black Forest Labs named theirs first
_ENDINGS = {*SAFETENSORS, GGUF} | _UNFINISHED | PICKLE_ENDINGS
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder that may be a model; equal stamps mean nothing in it has changed.

    `root` is the folder of its kind that it lies in.
    """

    root: Path
    name: str
    kind: Kind
    path: Path
    layout: Layout
    stamp: Stamp


def candidates(root: Path, kind: Kind, name: str = "") -> Iterator[Candidate]:
    """Everything below a kind's folder that is or pretends to be a model; with a `name` that one.

    Links are followed, since users link the model stores of other programs; a folder is entered
    once, by a link only after all others, so links in circles end and names stay the same. Names
    that begin with ".", foreign endings and what is in a bin are no models. Of other files nothing
    is asked: each question takes a millisecond on a share.
    """
    entered: set[str] = set()
    folders, links = deque([root]), deque[Path]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            real = os.path.realpath(folder)
            with os.scandir(folder) as entries:
                children = sorted(
                    (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # it is refused, for what is in it is not there either
            own = _below(root, folder) or root.name
            yield Candidate(root, own, kind, folder, "folder", ())
            continue
        if real in entered:
            continue
        entered.add(real)
        downloading = {child.removesuffix(ARIA2) for child, *_ in children if child.endswith(ARIA2)}
        for child, linked, inner in children:
            if child in downloading:
                continue
            path = folder / child
            if name and not _may_be(_below(root, path), name):
                continue
            inner = inner or (linked and is_folder(path))
            if inner and child.lower() in SKIPPED_FOLDERS:
                continue
            if inner and not _is_model_folder(path, kind):
                (links if linked else folders).append(path)
            elif inner:
                for one in _models_in(path, kind):
                    yield _candidate(root, kind, one, "folder" if one == path else "file")
            elif path.suffix.lower() in _ENDINGS or (linked and not os.path.exists(path)):  # noqa: PTH110  (never raises)
                yield _candidate(root, kind, path, "file")


def _candidate(root: Path, kind: Kind, path: Path, layout: Layout) -> Candidate:
    """Return a candidate, called by its path below its kind's folder.

    Only the endings .safetensors and .sft are left off.
    """
    name = _below(root, path)
    if layout == "file" and path.suffix.lower() in SAFETENSORS:
        name = name[: -len(path.suffix)]
    return Candidate(root, name, kind, path, layout, _stamp(path, kind, layout))


def _below(root: Path, path: Path) -> str:
    return str(path)[len(str(root)) + 1 :]


def _may_be(path: str, name: str) -> bool:
    """Whether a file or folder may have this name, or lead to what has it."""
    return path == name or path.startswith(f"{name}.") or name.startswith(f"{path}/")


def _models_in(path: Path, kind: Kind) -> list[Path]:
    """The file or folder itself; of a folder that has weights of other names, these too."""
    try:
        others = other_weights(path) if _is_part(path, kind) else []
        return [path, *others] if not others or weight_files(path) else others
    except OSError:  # it says why when it is looked at
        return [path]


def _is_model_folder(path: Path, kind: Kind) -> bool:
    return is_file(path / INDEX) or _is_part(path, kind)


def _is_part(path: Path, kind: Kind) -> bool:
    return kind in PART_FOLDERS and is_folder(path) and is_part_folder(path)


def _stamp(path: Path, kind: Kind, layout: Layout) -> Stamp:
    """Names, sizes and mtimes of a model's files; () for a dangling link."""
    try:
        if layout == "folder":
            stats = [(name, file.stat()) for name, file in folder_files(path).items()]
        else:
            stats = [("", path.stat())]
            if kind == "checkpoint":
                with suppress(OSError):
                    stats.append(("config", config_beside(path).stat()))
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)


def by_name(candidate: Candidate) -> tuple[str, bool]:
    """Files stand before folders of the same name."""
    return candidate.name, candidate.layout == "folder"


def place(candidate: Candidate) -> str:
    """The file's name, in messages; in another program's folder with the folder's name."""
    if candidate.root.name == FOLDERS[candidate.kind]:
        return printable(candidate.path.name)
    return printable(candidate.path.relative_to(candidate.root.parent).as_posix())


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 written as \\xNN, and what cannot be seen escaped."""
    return harmless(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def without_ending(name: str) -> str:
    """A refused file's name as a recipe may have it: without .ckpt, .safetensors.part and such."""
    path = Path(name)
    while path.suffix.lower() in _ENDINGS:
        path = path.with_suffix("")
    return path.as_posix()


def check_name(candidate: Candidate) -> None:
    """Refuse what can be refused by name alone, before anything is opened."""
    ending = candidate.path.suffix.lower()
    if not candidate.stamp:
        raise ModelRefused("cannot be read: its link leads nowhere, or access is denied.")
    hidden = NEVER_IN_NAMES.search(candidate.name)
    if hidden:
        not_utf8 = "\udc80" <= hidden[0] <= "\udcff"
        what = "that is not UTF-8" if not_utf8 else f"with {invisible(hidden[0])}"
        raise ModelRefused(f"has a name {what}: rename it.")
    if ending in _UNFINISHED:
        raise ModelRefused("is an unfinished download.")
    if ending == GGUF and candidate.kind != "checkpoint":
        raise ModelRefused("is a GGUF file: picowatch reads only transformers from such files.")
    if ending in PICKLE_ENDINGS:
        raise ModelRefused(
            "is a pickle file, which can run code when it is opened: get it as .safetensors, or "
            "convert it with `picowatch convert`, which runs none."
        )
