"""Why files of the inbox are not taken, and files that were dropped into the outbox."""

import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from picowatch.errors import PictureUnreadable
from picowatch.files import names
from picowatch.files.names import RAW_ENDINGS, is_mask_name, is_other_picture_name
from picowatch.files.pictures import refuse_other_name
from picowatch.inbox.names import ARCHIVE_ENDINGS, ENDINGS, PICTURES_NAME, folders_above, is_dropped
from picowatch.inbox.scan import Scan
from picowatch.ledger import queries
from picowatch.ledger.ledger import Ledger
from picowatch.outbox.names import OWN_NAMES, ROTATED_LOG
from picowatch.outbox.problems import PROBLEM_ENDINGS
from picowatch.recipe.messages.suggestions import closest, did_you_mean

# Programs' temporary files come and go, a new file is empty at first, and a photo may come after
# its text: nothing is said of a file before it has been there for so many seconds.
PATIENCE = 10.0
EMPTY = "it is empty; nothing happens until it has content"
# Suffixes of what people drop into the outbox.
_DROPPED = {*ENDINGS, *ARCHIVE_ENDINGS, *names.ENDINGS, *names.OTHER_ENDINGS}
_USUAL = "upscale"  # what photos are dropped for most, in a folder that `init --with photos` makes


class Reasons:
    """Keeps what is said of files, and of `folders` that settings name, each with a setting."""

    def __init__(
        self, outbox: Path, ledger: Ledger, folders: Mapping[str, str], *, once: bool
    ) -> None:
        self._outbox, self._folders = outbox, folders
        self._ledger: Ledger | None = ledger
        self._patience = 0.0 if once else PATIENCE
        self._told: Mapping[str, str] = {}
        self.opened: set[str] = set()  # pictures that recipes named
        self.waits = False  # with some pictures, until what may name them is read

    def of(self, there: Scan, named: Collection[str], *, is_settled: bool) -> Mapping[str, str]:
        """Return why files are not taken, by their paths; templates name the pictures `named`."""
        wanted: Collection[str] = ()
        if there.pictures or any(map(is_mask_name, there.others)):
            if self._ledger:
                self.opened |= queries.named_pictures(self._ledger)
                self._ledger = None  # later pictures are opened
            wanted = {*self.opened, *named}
        found = why_not_run(there, wanted)
        unsure = set[str]() if is_settled else set(filter(is_dropped, found)) - self._told.keys()
        self.waits = bool(unsure)
        found = {path: why for path, why in found.items() if path not in unsure}
        self._told = {path: why for path, why in found.items() if self._is_due(there.root, path)}
        missing = without_folder(there.root, self._folders)
        return {**self._told, **dict(dropped_into(self._outbox, there)), **dict(missing)}

    def _is_due(self, root: str, path: str) -> bool:
        """Whether a file has been there for long enough, before which its program may rename it."""
        if path in self._told or not self._patience:
            return True
        try:
            status = os.lstat(f"{root}/{path}")  # its time of writing may be copied
            is_file = stat.S_ISREG(status.st_mode)
            return not is_file or abs(time.time() - status.st_ctime) >= self._patience
        except OSError:
            return False


def reason_of(reasons: Mapping[str, str], path: str) -> str:
    """Return why a path, or a folder above it, is not taken; "" if it is."""
    return next(filter(None, map(reasons.get, (path, *folders_above(path)))), "")


def why_not(outbox: Path, there: Scan, path: str) -> str:
    """Return why one file is not taken, `path` being below the inbox or `outbox/…`; "" if it is."""
    if why := reason_of(there.others, path):
        return why
    if path in there.found:  # to look at all others for each of thousands would take minutes
        return "" if there.found[path].size else EMPTY
    alone = replace(there, pictures=[path] if path in there.pictures else [])
    return {**dict(dropped_into(outbox, there)), **why_no_request(alone, ())}.get(path, "")


def why_not_run(there: Scan, named: Collection[str]) -> dict[str, str]:
    """Return why files are not taken, unless they are `named`; of pictures alike, of one."""
    empty = {path: EMPTY for path, version in there.found.items() if not version.size}
    others = {path: why for path, why in there.others.items() if path not in named}
    return empty | others | why_no_request(there, named)


def why_no_request(there: Scan, named: Collection[str]) -> dict[str, str]:
    """Return why pictures without a template are not used, once for each folder and format."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in there.pictures:
        if path not in named:
            ending = path.rpartition(".")[2].lower() if is_other_picture_name(path) else ""
            alike[path.rpartition("/")[0], ending].append(path)
    return {min(its): _why_no_request(there, min(its), len(its) - 1) for its in alike.values()}


def _why_no_request(there: Scan, path: str, more: int) -> str:
    also = f" ({more:,} more like it {'is' if more == 1 else 'are'} beside it)" if more else ""
    where = _where(there.templates, path.rpartition("/")[0])
    try:
        refuse_other_name(path)
    except PictureUnreadable as error:
        why = f"{error}"
        is_raw = path.lower().endswith(RAW_ENDINGS)
        return f"{why[0].lower()}{why[1:]}{also}{f' {where}' if is_raw else ''}"
    return f"a picture here is used only if a recipe names it{also}. {where}"


def _where(templates: Collection[str], folder: str) -> str:
    """Say which folder takes pictures; a folder with a similar name may be meant."""
    folders = [path.removesuffix(f"/{PICTURES_NAME}") for path in sorted(templates)]
    if not folders:
        return "`picowatch init --with photos` makes folders that resize, enlarge and edit pictures"
    called = {path.rpartition("/")[2].casefold(): path for path in folders}
    if meant := closest(folder.rpartition("/")[2], called):
        return f"Did you mean {called[meant]}/, which has a {PICTURES_NAME}?"
    usual = f"a folder with a {PICTURES_NAME}, such as inbox/{called.get(_USUAL, folders[0])}/"
    return f"To have it enlarged or edited, put it into {usual}"


def without_folder(root: str, folders: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the folders that settings name, and that are not there."""
    for folder, setting in folders.items():
        if not os.path.isdir(f"{root}/{folder}"):  # noqa: PTH112  (never raises)
            there: list[str] = []
            with suppress(OSError):
                there = [entry.name for entry in os.scandir(root) if entry.is_dir()]
            meant = did_you_mean(folder, there)
            what = f"there is no such folder in the inbox, though {setting} names it. {meant}"
            yield folder, what.rstrip(" .")


def dropped_into(outbox: Path, there: Scan) -> Iterator[tuple[str, str]]:
    """Yield recipes and pictures in the outbox itself, where there are only picowatch's files."""
    found: list[str] = []
    with suppress(OSError):
        # There are thousands of folders and error files.
        found = [name for name in os.listdir(outbox) if "." in name]  # noqa: PTH208
    for name in found:
        ending = f".{name.rpartition('.')[2].lower()}"
        if ending not in _DROPPED or name.endswith(PROBLEM_ENDINGS):
            continue
        is_own = name in OWN_NAMES or ROTATED_LOG.fullmatch(name)
        if not (is_own or name.startswith((".", "~", "#"))) and (outbox / name).is_file():
            is_recipe = ending in ENDINGS
            where = "Put it into inbox/" if is_recipe else _where(there.templates, "")
            yield f"outbox/{name}", f"this is where results appear. {where}"
