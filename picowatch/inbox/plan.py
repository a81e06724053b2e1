"""What is to be done with the files of the inbox: read, forgotten, or left alone.

A file is read if:

1. the ledger does not know it, or a command wants it read;
2. its size or time, or that of a file beside a dropped picture, is another than in the ledger;
3. it may have other bytes at the same size and time: its inode or ctime has moved, it was young
   when it was read, or it is in another inbox now. Then it is a save only if its bytes are others;
4. it was refused for something outside its bytes, or its template is another now.

Dropped pictures, also those that may be renamed, are left alone until their template can be used.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from picowatch.files.names import natural_key
from picowatch.inbox.names import PICTURES_NAME, folders_above, is_dropped, is_template
from picowatch.inbox.settle import BYTES, LACKED, NEW, TEMPLATE, WANTED, Pending
from picowatch.ledger.rows import BESIDE, KnownRecipe, SizeAndTime


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the inbox found."""

    files: Mapping[str, SizeAndTime]  # recipes, templates and dropped pictures
    inbox_id: str
    present: Collection[str] = ()  # known files that are there, but no requests any more
    # The digest of each template that was read, and the pictures that it names and does not edit.
    named: Mapping[str, tuple[str, Collection[str]]] = field(default_factory=dict)
    young: Collection[str] = ()  # that may have been written since they were read
    templates: Mapping[str, str] | None = None  # of the last look at all, if this is at some files
    # What was refused for something outside its bytes is read again, not only what is pending so.
    rereads: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What differs from the ledger, in the order of the files' times, deletions last."""

    pending: Mapping[str, Pending]
    templates: Mapping[str, str]  # digests, by folder; "" for what cannot be used
    seen: Collection[str]  # with the ledger's size and time in an inbox that is another folder now


def plan(
    found: Found, known: Mapping[str, KnownRecipe], pending: Mapping[str, Pending], now: float
) -> Plan:
    """Compare what was found with the ledger. What is `pending` in this version stays as it is."""
    templates = _usable_templates(found, known) if found.templates is None else found.templates
    named = {path.rpartition("/")[0]: names for path, (_, names) in found.named.items()}
    differing: dict[str, str] = {}
    seen, unread = [], set[tuple[int, ...]]()
    for path, version in found.files.items():
        row, template = known.get(path), ""
        is_unchanged = row and row.is_accepted_as(version, found.inbox_id)
        if is_unchanged and path not in found.young and not is_template(path):
            continue  # almost all files
        if is_dropped(path):
            folder = template_folder(path, templates)
            template = templates.get(folder, "")
            if not template or path in named.get(folder, ()):
                unread |= {version[:2]} if not (template or row) else set()
                continue
        before = pending.get(path)
        rereads = found.rereads or (before is not None and before.why == LACKED)
        if why := _why_read(path, row, found, template, rereads=rereads):
            differing[path] = why
        elif row and row.inbox_id != found.inbox_id:
            seen.append(path)
    noted: dict[str, Pending] = {}
    for path in _by_time(differing, found, pending):
        row, why = known.get(path), differing[path]
        digest = row.digest if row and why == BYTES else ""
        version = found.files[path]
        is_new = row is None or not version.is_of_same_file(row.size_and_time)
        differs = Pending(path, version, why, is_new, now, now, digest)
        noted[path] = differs.after(pending.get(path))
    for path in [path for path in known if path not in found.files]:
        row = known[path]
        is_unread = is_dropped(path) and row.size_and_time[:2] in unread
        if path not in found.present and row.inbox_id == found.inbox_id and not is_unread:
            noted[path] = Pending(path, None, "", False, now, now).after(pending.get(path))
    return Plan(noted, templates, seen)


def template_folder(path: str, templates: Mapping[str, str]) -> str:
    """Return the folder of the template that applies to a path, or ""."""
    return next((folder for folder in folders_above(path) if folder in templates), "")


def _why_read(
    path: str, row: KnownRecipe | None, found: Found, template: str, *, rereads: bool
) -> str:
    """Return why a file is to be read; "" if it is not."""
    version = found.files[path]
    if not version.size:
        return ""  # it is not ready yet
    if row is None:
        return NEW
    if row.reread:
        return WANTED
    if why := version.what_differs(row.size_and_time):
        return why if row.inbox_id == found.inbox_id or row.outcome != "accepted" else BYTES
    if row.outcome == "refused" and version.sidecars != row.size_and_time.sidecars:
        return BESIDE  # what was wrong may be gone
    if row.outcome == "refused" and row.template != template:
        return TEMPLATE
    if row.outcome == "refused" and row.waits and rereads:
        return LACKED
    is_unread = row.outcome == "accepted" and is_template(path) and path not in found.named
    is_unsure = is_unread or path in found.young or version.moved_since(row.size_and_time)
    return BYTES if is_unsure else ""


def _usable_templates(found: Found, known: Mapping[str, KnownRecipe]) -> dict[str, str]:
    """Return the digests of templates by their folders; "" for what cannot be used now."""
    there = {}
    alike = [path for path in (*found.files, *known) if path.endswith(PICTURES_NAME)]
    for path in filter(is_template, alike):
        row, version = known.get(path), found.files.get(path)
        digest = ""
        if row and version and row.outcome == "accepted":
            is_read = found.named.get(path, ("",))[0] == row.digest  # else it is, for what it names
            if is_read and not version.written_since(row.size_and_time):
                digest = row.digest
        there[path.removesuffix(f"/{PICTURES_NAME}")] = digest
    return there


def _by_time(differing: Collection[str], found: Found, pending: Mapping[str, Pending]) -> list[str]:
    """Return the paths by their times, also from before the first scan; what is pending first."""

    def time_of(path: str) -> int:
        return found.files[path].mtime_ns

    before = [path for path in differing if path in pending]
    new = sorted((path for path in differing if path not in pending), key=time_of)
    groups = (sorted(paths, key=natural_key) for _, paths in groupby(new, time_of))
    return before + [path for group in groups for path in group]
