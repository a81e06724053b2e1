"""Finds all recipes and dropped pictures of the inbox, with their sizes and times."""

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.files.names import is_mask_name, natural_key, stem_of
from picowatch.files.safe_paths import leads_out
from picowatch.inbox import names
from picowatch.inbox.folder import (
    MISSING,
    FileChanged,
    FileUnreadable,
    InboxFolder,
    size_and_time_of,
)
from picowatch.inbox.read import names_in
from picowatch.ledger.rows import SizeAndTime

# A sync program may take a template away for a while.
TEXTS_STAY = "texts beside its pictures still belong to them and are not recipes"


def scan(
    root: Path, known: Collection[str], below: str = "", is_under_template: bool = False
) -> "Scan":
    """Find every recipe below `root`/`below`, with its size and time, and what is not taken.

    In a folder with a template for dropped pictures, and below it, pictures are found instead.
    `known` are paths of the ledger: a folder belongs to a template there until its deletion is
    accepted, because editors may move the file away for a moment.
    """
    there = Scan(str(root), known)
    there.look_into(below, is_under_template)
    return there


def pictures_under(inbox: InboxFolder, template: str) -> list[str]:
    """Return the dropped pictures of a template, without those that it names itself."""
    folder = template.rpartition("/")[0]
    dropped = filter(names.is_dropped, scan(inbox.root, (), folder, is_under_template=True).found)
    mine = {path for path in dropped if inbox.template_above(path) == template}
    with suppress(FileChanged, FileUnreadable, OSError):
        mine -= names_in(template, inbox.read(template))
    return sorted(mine, key=natural_key)


@dataclass(slots=True)
class Scan:
    """The result of `scan`."""

    root: str
    known: Collection[str]
    found: dict[str, SizeAndTime] = field(default_factory=dict)  # recipes and dropped pictures
    texts: set[str] = field(default_factory=set)  # of pictures that were requests
    others: dict[str, str] = field(default_factory=dict)  # not taken, with reasons; "." is the root
    pictures: list[str] = field(default_factory=list)  # without a template
    templates: list[str] = field(default_factory=list)  # all but one in the inbox itself

    @property
    def paths(self) -> list[str]:
        """All files that are taken or told of, and pictures that recipes may name."""
        return [*self.found, *self.others, *self.pictures]

    def owners(self, path: str) -> list[str]:
        """Return the dropped pictures that a text or mask belongs to, as a run takes it."""
        dropped = filter(names.is_dropped, self.found)
        beside = [picture for picture in dropped if path in names.sidecar_paths(picture)]
        return [] if path in self.found else sorted(beside)

    def look_into(self, below: str, is_under_template: bool) -> None:
        """Add the contents of a folder and of the folders below it."""
        listed: dict[str, None] = {}  # not the entries, which take four times the memory
        others: dict[str, bool] = {}  # links, devices, and folders, which are True
        try:
            # With the dot it has to be a folder that may be entered, too.
            with os.scandir(f"{self.root}/{below}/.") as entries:
                for entry in entries:
                    listed[entry.name] = None
                    if not entry.is_file(follow_symlinks=False):
                        others[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError as error:
            if error.errno not in MISSING:
                reason = f"the folder cannot be read ({error.strerror}); nothing is cancelled"
                self.others[below or "."] = reason
            return
        prefix = f"{below}/" if below else ""
        template = prefix + names.PICTURES_NAME
        if names.PICTURES_NAME in listed and (version := size_and_time_of(self.root, template)):
            self.found[template] = version
            is_under_template = bool(below)
            self.templates += [template] if below else []
        is_under_template |= template in self.known and bool(below)
        stems: Collection[str] = ()
        if is_under_template:
            dropped = [prefix + name for name in listed if names.may_be_dropped(name)]
            inbox = InboxFolder(Path(self.root))
            lower = {name.lower() for name in listed}
            for path in dropped:
                if size_and_time := size_and_time_of(self.root, path):
                    self.found[path] = inbox.with_sidecars(size_and_time, path, lower)
            stems = {stem_of(path) for path in dropped if path in self.found}
        texts = () if is_under_template else self._texts_of_dropped(prefix, listed)
        for name in listed:
            path = prefix + name
            if name in texts:
                self.texts.add(path)
                self.others[below] = f"it had a {names.PICTURES_NAME}; {TEXTS_STAY}"
            elif others.get(name):
                self._add_folder(name, path, is_under_template)
            elif name in others and (why := _why_no_file(self.root, path)):
                if names.why_not_taken(name) != "":
                    self.others[path] = why
            elif is_under_template:
                self._tell_of_other(name, path, stems)
            else:
                self._add_file(name, path)

    def _texts_of_dropped(self, prefix: str, listed: Collection[str]) -> Collection[str]:
        """Return the sidecars of pictures that were requests, if their template has gone."""
        others = [name for name in listed if not name.endswith(names.ENDINGS)]  # few of thousands
        dropped = [
            name for name in others if names.is_dropped(name) and prefix + name in self.known
        ]
        return {f"{stem_of(name)}{ending}" for name in dropped for ending in names.SIDECAR_ENDINGS}

    def _add_folder(self, name: str, path: str, is_under_template: bool) -> None:
        reason = names.why_not_searched(name)
        if reason is None and path.count("/") >= names.MAX_DEPTH:
            reason = f"folders are searched {names.MAX_DEPTH} levels deep"
        if reason is None:
            self.look_into(path, is_under_template)
        elif reason:
            self.others[path] = reason

    def _add_file(self, name: str, path: str) -> None:
        """Add a file that no template applies to."""
        is_known = path in self.known  # then its suffix says enough, for thousands in each scan
        is_recipe = (is_known and name.endswith(names.ENDINGS)) or names.is_recipe_name(name)
        if (is_recipe or is_known) and (found := size_and_time_of(self.root, path)):
            self.found[path] = found
        if is_recipe:
            return
        if reason := names.why_not_taken(name):
            self.others[path] = reason
        elif reason is None and names.is_dropped(name) and not is_mask_name(name):
            self.pictures.append(path)

    def _tell_of_other(self, name: str, path: str, stems: Collection[str]) -> None:
        """Say why a file is not taken under a template, whose pictures have these stems."""
        ends = (ending for ending in names.SIDECARS if name.lower().endswith(ending))
        own = {path[: -len(end)] + end for end in ends if path[: -len(end)] in stems}
        if path in self.found or path in own:
            return
        reason = names.why_not_taken(name, is_under_template=True)
        is_text = name.lower().endswith(names.ENDINGS) and name not in names.TEMPLATE_NAMES
        if reason is None and (is_text or is_mask_name(name)):
            reason = names.BELONGS_TO_NONE
        for meant in own:
            reason = f"its ending must be in small letters: rename it to {meant[-len(name) :]}"
        if reason:
            self.others[path] = reason


def _why_no_file(root: str, path: str) -> str | None:
    """Return why a link or device is not taken; None for a link to a file of the inbox."""
    try:
        mode = os.stat(f"{root}/{path}").st_mode  # noqa: PTH116  (as in folder.py)
    except OSError as error:
        is_away = error.errno in MISSING
        return "it is a link to something that is not there" if is_away else error.strerror
    if leads_out(Path(root), path):
        return "it is a link out of the inbox; put what it leads to in its place"
    if stat.S_ISDIR(mode):
        return "it is a link to a folder; linked folders are not searched"
    return None if stat.S_ISREG(mode) else "it is not a regular file"
