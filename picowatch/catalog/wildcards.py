"""Wildcard files below models/wildcards: .txt with one choice per line, and YAML with many.

The YAML is that of dynamicprompts and A1111's extensions, which call such a file a pack. Source:
https://github.com/adieyal/dynamicprompts, docs/SYNTAX.md and wildcards/collection/structured.py.
A list of texts is a wildcard, named by the keys above it, joined by "/", whatever the file's name
is. A file that is only a list is a wildcard with the file's name.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from picowatch.recipe.messages.problems import Problems, RecipeInvalid, shown
from picowatch.recipe.prompts.wildcards import PACK_ENDINGS, with_whole_names
from picowatch.recipe.read.nodes import compose
from picowatch.recipe.written import FORBIDDEN, NEVER_IN_NAMES, Source, Written, invisible, number

FOLDER = "wildcards"
MAX_FILE_BYTES = 5_000_000
MAX_PACK_BYTES = 1_000_000  # YAML takes longer to read
MAX_BYTES = 20_000_000
MAX_LINES = 300_000  # of all files together: each takes some 70 bytes besides its text


@dataclass(frozen=True, slots=True)
class FoundWildcards:
    """The wildcards that recipes may draw from, of one file or of all.

    `lines` maps the names of wildcards to their lines, `packs` the names of those in YAML files to
    the file, and `refused` the names of wildcards and files that cannot be used to the reason. A
    name is the path below the folder with "/", without ending; in a YAML file it is the keys.
    """

    lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    packs: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class WildcardFiles:
    """The files in models/wildcards, each read again only when its size or time changed."""

    def __init__(self, models: Path) -> None:
        self._root = models / FOLDER
        self._read: dict[Path, tuple[tuple[int, int], FoundWildcards]] = {}

    def scan(self) -> FoundWildcards:
        """Return all wildcards. Of two with one name, .txt files count first, then by name."""
        found = FoundWildcards()
        total = lines = 0
        for path in self._files():
            relative = path.relative_to(self._root).as_posix()
            name = relative.removesuffix(path.suffix)
            try:
                status = path.stat()
                total += status.st_size
                if total > MAX_BYTES:
                    raise ValueError(f"exceeds the limit of {MAX_BYTES:,} bytes of wildcards.")
                signature = status.st_size, status.st_mtime_ns
                seen, pack = self._read.get(path, ((-1, -1), FoundWildcards()))
                if seen != signature:
                    pack = _read(path, relative, name, status.st_size)
                lines += sum(map(len, pack.lines.values()))
                if lines > MAX_LINES:
                    raise ValueError(f"exceeds the limit of {MAX_LINES:,} lines of wildcards.")
                self._read[path] = signature, pack
                _add(found, pack)
            except (OSError, ValueError) as error:
                why = f"cannot be read: {error.strerror}." if isinstance(error, OSError) else error
                found.refused[relative if _is_pack(path) else name] = f"{path.name} {why}"
        return replace(found, lines=with_whole_names(found.lines))

    def _files(self) -> list[Path]:
        """Return the files by name, .txt first, without names that no recipe could contain.

        Links to folders are not followed: circles of them would never end.
        """
        found = [
            Path(folder) / name
            for folder, _, names in os.walk(self._root)
            for name in names
            if name.lower().endswith((".txt", *PACK_ENDINGS)) and not name.startswith(".")
        ]
        found = [
            path
            for path in found
            if path.is_file() and not NEVER_IN_NAMES.search(str(path.relative_to(self._root)))
        ]
        return sorted(found, key=lambda path: (_is_pack(path), path))


def _is_pack(path: Path) -> bool:
    return path.name.lower().endswith(PACK_ENDINGS)


def _add(found: FoundWildcards, pack: FoundWildcards) -> None:
    for name, lines in pack.lines.items():
        if name not in found.lines:
            found.lines[name] = lines
            if name in pack.packs:
                found.packs[name] = pack.packs[name]
    for name, reason in pack.refused.items():
        found.refused.setdefault(name, reason)


def _read(path: Path, relative: str, name: str, size: int) -> FoundWildcards:
    """Return the wildcards of a file. ValueError says, after the file's name, what is wrong.

    Lines are stripped; empty ones and those that begin with "#" do not count.
    """
    limit = MAX_PACK_BYTES if _is_pack(path) else MAX_FILE_BYTES
    if size > limit:
        raise ValueError(f"has {size:,} bytes; the limit is {limit:,}.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # line breaks become "\n" alone
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8: save it as UTF-8.") from error
    found = FORBIDDEN.search(text.replace("\n", " "))
    if found:  # no recipe may contain it, so no wildcard may
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"contains {invisible(found[0])} in line {line}: delete it.")
    if _is_pack(path):
        return _pack(relative, name, text)
    stripped = (line.strip() for line in text.split("\n"))
    return FoundWildcards({name: tuple(filter(_counts, stripped))})


def _counts(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _pack(file: str, name: str, text: str) -> FoundWildcards:
    problems = Problems()
    try:
        documents = compose(Source(file, text), problems)
        problems.raise_if_any()
    except RecipeInvalid as invalid:
        first = invalid.problems[0]
        raise ValueError(f"cannot be used: line {first.line}: {first.message}") from None
    pack = FoundWildcards()
    for document in documents:
        _take(document, name, (), pack, file)
    return pack


def _take(node: Written, name: str, keys: tuple[str, ...], pack: FoundWildcards, file: str) -> None:
    name = "/".join(keys) or name
    if isinstance(node.value, dict):
        for text, value in node.pairs:
            if text and not NEVER_IN_NAMES.search(text):
                _take(value, name, (*keys, text), pack, file)
        return
    lines = [_line(element) for element in node.parts]
    if isinstance(node.value, tuple) and None not in lines:
        pack.lines.setdefault(name, tuple(line for line in lines if line))
        pack.packs[name] = file
        return
    wrong = next((e for e, line in zip(node.parts, lines, strict=True) if line is None), node)
    pack.refused.setdefault(
        name, f"{shown(file)}, line {wrong.position.line}: a wildcard is a list of texts."
    )


def _line(element: Written) -> str | None:
    """Return an element as a line; None if it is no choice."""
    if element.value is None or isinstance(element.value, str):
        return _joined(element.text)
    if not isinstance(element.value, dict):
        return None
    values = {name: value.text for name, value in element.pairs}
    text = values.get("text") or values.get("content")
    weight = values.get("weight", "1")
    return f"{weight}::{_joined(text)}" if text and number(weight) is not None else None


def _joined(text: str) -> str:
    """Return several lines as one, without their comments."""
    return " ".join(filter(_counts, (line.strip() for line in text.split("\n"))))
