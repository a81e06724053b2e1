"""Finds possible models in models/ by names, sizes and times, and recognises or refuses them."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from picowatch.catalog import folder_files, folders
from picowatch.catalog.finders import IS_PICKLE
from picowatch.catalog.folder_files import ARIA2, PICKLE_ENDINGS, has_index
from picowatch.catalog.headers import GGUF, read_header
from picowatch.catalog.models import FOLDERS, Kind, Layout, Model, Recognised, Refused, folders_of
from picowatch.catalog.parts import ASSETS
from picowatch.catalog.recognise import ARTICLES, alike, named, recognise
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, FLOWS, UNETS
from picowatch.families.row import DEMO
from picowatch.files.names import SKIPPED_FOLDERS
from picowatch.files.safe_paths import is_folder
from picowatch.recipe.installed import BAKED_WORDS
from picowatch.recipe.inventory import DEMO_CUTOUT, DEMO_FIND, DEMO_UPSCALER
from picowatch.recipe.written import NEVER_IN_NAMES, invisible
from picowatch.streams import harmless

log = logging.getLogger(__name__)

# The models in the package: their names, their names in messages, and their files.
EMBEDDED: dict[Kind, tuple[str, str, Path]] = {
    "checkpoint": (DEMO, "the embedded demo model", ASSETS / "demo"),
    "upscaler": (DEMO_UPSCALER.name, "the embedded upscaler", ASSETS / "demo-compact.safetensors"),
    "cutout": (DEMO_CUTOUT, "the embedded cutout model", ASSETS / "demo-cutout.safetensors"),
    "controlnet": ("demo-sketch", "the embedded ControlNet", ASSETS / "demo-sketch.safetensors"),
    "segmentation": (DEMO_FIND, "the embedded segmentation model", ASSETS / "demo-find"),
}
EMBEDDED_NAMES = frozenset(name for name, *_ in EMBEDDED.values())

SAFETENSORS = (".safetensors", ".sft")  # Black Forest Labs first used the second
_UNFINISHED = {".part", ".partial", ".crdownload", ".download", ARIA2, ".incomplete", ".tmp"}
_ENDINGS = {*SAFETENSORS, GGUF} | _UNFINISHED | PICKLE_ENDINGS
_ONNX = ".onnx"  # rembg's models are such files: they are refused with a remedy, not ignored
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder that may be a model."""

    root: Path  # the folder of its kind
    name: str
    kind: Kind
    path: Path
    layout: Layout
    signature: Signature  # names, sizes and mtimes of its files; () for a dangling link

    @property
    def place(self) -> str:
        """The name in messages: the file's, in other programs' folders with the folder's."""
        if self.root.name == FOLDERS[self.kind]:
            return printable(self.path.name)
        return printable(self.path.relative_to(self.root.parent).as_posix())

    def refused(self, reason: str, *, may_pass: bool = False) -> Refused:
        """Return the candidate as refused, named with its ending: "old.ckpt"."""
        name = self.name
        if self.layout == "file" and not name.endswith(self.path.suffix):
            name += self.path.suffix
        return Refused(
            name=printable(name), kind=self.kind, path=self.path, reason=reason, may_pass=may_pass
        )


def candidates(root: Path, kind: Kind, name: str = "") -> Iterator[Candidate]:
    """Yield files and folders below a kind's folder that may be models, or that `name` may mean.

    Links are followed, since users link the model stores of other programs. Each folder is entered
    once, through links only after all others, so circles of links end and names stay the same.
    Names that begin with ".", other endings and the contents of recycle bins are skipped without
    examining them: on a share, each call takes a millisecond.
    """
    entered: set[str] = set()
    endings = _ENDINGS | ({_ONNX} if kind == "cutout" else set())
    waiting, links = deque([root]), deque[Path]()
    while waiting or links:
        folder = (waiting or links).popleft()
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
        except OSError:  # the folder itself is refused, since its models cannot be listed
            yield Candidate(root, _below(root, folder) or root.name, kind, folder, "folder", ())
            continue
        if real in entered:
            continue
        entered.add(real)
        downloading = {child.removesuffix(ARIA2) for child, *_ in children if child.endswith(ARIA2)}
        for child, linked, inner in children:
            path = folder / child
            if child in downloading or (name and not _may_be(_below(root, path), name)):
                continue
            inner = inner or (linked and is_folder(path))
            if inner and child.lower() in SKIPPED_FOLDERS:
                continue
            is_part = kind in folders.PART_FOLDERS and folders.is_part_folder(path)
            if inner and not (is_part or has_index(path)):
                (links if linked else waiting).append(path)
            elif inner:
                yield _candidate(root, kind, path, "folder")
            elif path.suffix.lower() in endings or (linked and not os.path.exists(path)):  # noqa: PTH110  (never raises)
                yield _candidate(root, kind, path, "file")


def _candidate(root: Path, kind: Kind, path: Path, layout: Layout) -> Candidate:
    """Return a candidate, named by its path below its kind's folder without .safetensors."""
    name = _below(root, path)
    if layout == "file" and path.suffix.lower() in SAFETENSORS:
        name = name[: -len(path.suffix)]
    try:
        files = folder_files.folder_files(path) if layout == "folder" else {"": path}
        stats = [(own, file.stat()) for own, file in files.items()]
        if layout == "file" and kind == "checkpoint":  # A1111 has a config beside it
            with suppress(OSError):
                stats.append(("config", path.with_suffix(".yaml").stat()))
    except OSError:
        stats = []
    signature = tuple((own, status.st_size, status.st_mtime_ns) for own, status in stats)
    return Candidate(root, name, kind, path, layout, signature)


def _below(root: Path, path: Path) -> str:
    return str(path)[len(str(root)) + 1 :]


def _may_be(path: str, name: str) -> bool:
    """Return whether a file or folder may have this name, or contain what has it."""
    return path == name or path.startswith(f"{name}.") or name.startswith(f"{path}/")


def printable(name: str) -> str:
    """Return the name with bytes that are not UTF-8 as \\xNN and invisible characters escaped."""
    return harmless(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def without_ending(name: str) -> str:
    """Return a refused file's name as in a recipe: without .ckpt, .safetensors.part and such."""
    path = Path(name)
    while path.suffix.lower() in _ENDINGS:
        path = path.with_suffix("")
    return path.as_posix()


def entry_of(candidate: Candidate, recognised: Callable[[Path], Recognised]) -> Model | Refused:
    """Return the candidate as a model of its folder's kind, or refused with the reason."""
    try:
        _check_name(candidate)
        found = _recognised(candidate.path, candidate.kind, recognised)
        if found.kind != candidate.kind:
            right = folders_of(candidate.root.parent, found.kind)[0].name
            raise ModelRefused(
                f"is {ARTICLES[found.kind]}, not {ARTICLES[candidate.kind]}: "
                f"move it to models/{right}/."
            )
        return _model(candidate.name, candidate.path, found)
    except ModelRefused as error:
        return candidate.refused(f"{candidate.place} {error.message}", may_pass=_is_of_disk(error))
    except OSError as error:  # it may be gone since the scan found it
        reason = f"{candidate.place} cannot be read: {error.strerror or error}."
        return candidate.refused(reason, may_pass=True)
    except Exception as error:  # an odd file must not end every command
        log.debug("%s cannot be recognised", candidate.path, exc_info=True)
        reason = f"{candidate.place} is damaged, or of a kind that picowatch does not know"
        return candidate.refused(f"{reason} ({type(error).__name__}: {error}). Get it again.")


def _is_of_disk(error: BaseException | None) -> bool:
    """Return whether an error was caused by a permission or a disk."""
    return error is not None and (isinstance(error, OSError) or _is_of_disk(error.__cause__))


def _check_name(candidate: Candidate) -> None:
    """Raise ModelRefused for what can be refused by its name, before anything is opened."""
    ending = candidate.path.suffix.lower()
    if not candidate.signature:
        raise ModelRefused("cannot be read: its link leads nowhere, or access is denied.")
    if hidden := NEVER_IN_NAMES.search(candidate.name):
        not_utf8 = "\udc80" <= hidden[0] <= "\udcff"
        what = "that is not UTF-8" if not_utf8 else f"with {invisible(hidden[0])}"
        raise ModelRefused(f"has a name {what}: rename it.")
    if candidate.kind == "lora" and any(mark in candidate.name for mark in "<:>"):
        raise ModelRefused("has a name with <, : or >, so no prompt can name it: rename it.")
    if candidate.kind == "vae" and candidate.name.casefold() in BAKED_WORDS:
        raise ModelRefused("has a name that means the checkpoint's own VAE: rename it.")
    if ending in _UNFINISHED:
        raise ModelRefused("is an unfinished download.")
    if ending == GGUF and candidate.kind != "checkpoint":
        raise ModelRefused("is a GGUF file: picowatch reads only transformers from such files.")
    if ending == _ONNX:
        raise ModelRefused(
            "is an ONNX file, which picowatch does not read: get the .pth file of the same model, "
            "and convert it with `picowatch convert`."
        )
    if ending in PICKLE_ENDINGS and candidate.kind == "segmentation":
        raise ModelRefused(IS_PICKLE)
    if ending in PICKLE_ENDINGS:
        raise ModelRefused(
            "is a pickle file, which can run code when it is opened: get it as .safetensors, or "
            "convert it with `picowatch convert`, which runs none."
        )


@cache
def embedded(kind: Kind) -> Model:
    """Return the model of this kind in the package."""
    name, _, path = EMBEDDED[kind]
    return _model(name, path, _recognised(path, kind, lambda path: recognise(read_header(path))))


def _recognised(path: Path, kind: Kind, of_file: Callable[[Path], Recognised]) -> Recognised:
    if not is_folder(path):
        return of_file(path)
    if folders.is_part_folder(path):
        return folders.recognise_part_folder(path, kind)
    return folders.recognise_checkpoint_folder(path)


def _model(name: str, path: Path, found: Recognised) -> Model:
    folder, is_checkpoint = is_folder(path), found.kind == "checkpoint"
    layout: Layout = "folder" if folder else "file"
    told = named(found, name, layout)
    files = folder_files.folder_files(path).values() if folder else [path]
    silent = is_checkpoint and found.family in UNETS and not (folder or found.prediction)
    missing = ""
    if folder and is_checkpoint and found.family in FLOWS and folders.only_lends(path):
        missing = (
            f"{path.name}/ has no weights in transformer/: it only completes transformer files. To "
            "render with it, copy the whole folder."
        )
    model = Model(
        name=name,
        layout=layout,
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        by_name=told != found or bool(alike(found, layout)),
        velocity_beside=silent and folder_files.says_velocity(path.with_suffix(".yaml")),
        missing=missing,
        **asdict(told),
    )
    if not is_checkpoint:
        return model
    return replace(
        model,
        others=tuple(
            replace(model, name=f"{name} as {own or FAMILIES[told.family].name}", variant=own)
            for own in dict.fromkeys([found.variant, *alike(found, layout)])
            if own != told.variant
        ),
    )
