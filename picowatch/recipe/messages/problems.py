"""Mistakes in a save, their positions, and the text of its error file.

A rule about values yields a `Finding`: the field, the message, the value to use instead. A
`Reporter` decides what it means. About a value of the recipe itself it is a mistake. Values that
somebody else chose are replaced, with a warning: those of a picture or of another program's text,
and those of a folder's defaults that only the checkpoint rules out.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final, NoReturn

from rich.cells import cell_len

from picowatch.errors import PicowatchError
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.written import Layer, Origin, Position, Source, find_in
from picowatch.streams import harmless, harmless_lines

CLOSING = "Nothing in this file was run. Fix it and save again."
PICTURE_CLOSING = "This picture was not rendered; others are. Fix the file above and save it again."
MAX_SHOWN = 50
MAX_KEPT = 1000
MAX_MESSAGE = 600
EXCERPT_WIDTH = 100

_PLACE = attrgetter("file", "line", "column")  # of a problem
NOTHING: Final = object()
NOWHERE = Position(Source("", ""), 0, 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, and what to do."""

    file: str  # relative to the inbox
    line: int  # from 1; 0 is the whole file, for instance a picture, which has no lines
    column: int  # from 1
    source_line: str  # the line's text
    width: int  # the number of its characters that are wrong
    message: str


class RecipeInvalid(PicowatchError):
    """A save that cannot be run; `problems` are all its mistakes in order, its text in one line."""

    usual_remedy = "Fix the file and save it again."

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(_briefly(self.problems)))


class Problems:
    """Collects the mistakes of one save, each position and message once."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, position: Position, message: str) -> None:
        """Add a mistake. Raises RecipeInvalid with the MAX_KEPT-th: a file may be hostile."""
        source, number, column = position.source, position.line, position.column
        message = message if len(message) < MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
        message += position.note
        line = source.line(number)
        problem = Problem(source.name, number, column, line, position.width, message)
        self._found[problem] = None
        if len(self._found) >= MAX_KEPT:
            raise RecipeInvalid(self.found)

    @contextmanager
    def gathered(self, goes_on: bool = False) -> Iterator[None]:
        """Add all mistakes found so far to a RecipeInvalid that is raised inside."""
        try:
            yield
        except RecipeInvalid as invalid:
            self.take(invalid.problems)
            if not goes_on:  # other files may have mistakes, too
                raise RecipeInvalid(self.found) from None

    def take(self, found: Iterable[Problem]) -> None:
        """Add the mistakes of another file that this one depends on."""
        self._found.update(dict.fromkeys(found))

    @property
    def found(self) -> list[Problem]:
        """All mistakes, in the order of the files."""
        return sorted(self._found, key=_PLACE)

    def raise_if_any(self) -> None:
        if self._found:
            raise RecipeInvalid(self.found)


@dataclass(frozen=True, slots=True)
class Finding:
    """A value that cannot be used, why, and what to do about it."""

    field: str
    message: str
    remedy: str = ""
    # Used if somebody else chose the value; with NOTHING the recipe is refused in any case.
    instead: Any = NOTHING
    of_checkpoint: bool = True  # another checkpoint could use the value
    position: Position | None = None  # where to point, if not at the field's value
    used: str = ""  # the part of a prompt that a warning names instead of the value

    @property
    def error(self) -> str:
        """The message for the person who wrote the value."""
        return f"{self.message} {self.remedy}".rstrip()

    @property
    def warning(self) -> str:
        """The message for a person who did not write the value."""
        name = self.used if self.field.endswith("prompt") else self.instead
        if not isinstance(name, str | int | float) or not name:
            return f"{self.message} It was ignored."
        value = shown(f"{name:g}" if isinstance(name, float) else str(name))
        return f"{self.message} {value} is used instead."


@dataclass(frozen=True, slots=True)
class Reporter:
    """Decides about the findings of one layer; a field that it lacks is reported at `position`."""

    layer: Layer
    problems: Problems
    position: Position = NOWHERE
    warnings: list[str] = field(default_factory=list)

    def replaces(self, finding: Finding) -> bool:
        """Return whether the value instead is used, with a warning; otherwise it is an error."""
        position = finding.position or self.position_of(finding.field)
        origin = self.origin_of(finding.field)
        is_folders = origin is Origin.FOLDER and finding.of_checkpoint
        if finding.instead is not NOTHING and (origin is Origin.FOREIGN or is_folders):
            self.warnings.append(finding.warning + position.note)
            return True
        self.problems.add(position, finding.error)
        return False

    def wrong(
        self,
        name: str,
        message: str,
        instead: Any = NOTHING,
        position: Position | None = None,
        remedy: str = "",
    ) -> bool:
        """Decide as `replaces` does, about a value that no checkpoint could use."""
        return self.replaces(Finding(name, message, remedy, instead, False, position))

    def origin_of(self, name: str) -> Origin:
        written = self.layer.get(name) or self.layer.get(name.partition(".")[0])
        return written.origin if written else Origin.OWN

    def position_of(self, name: str) -> Position:
        """Return the position of a field's value, or for a missing part that of its mapping."""
        while name:
            if written := find_in(self.layer, name):
                return written.error_position
            name = name.rpartition(".")[0]
        return self.position


def refuse(position: Position, message: str) -> NoReturn:
    """Raise RecipeInvalid with a mistake after which nothing else can be checked."""
    problems = Problems()
    problems.add(position, message)
    raise RecipeInvalid(problems.found)


def closing_of(invalid: RecipeInvalid, recipe: str) -> str:
    """Return the last line of an error file; mistakes may be in another file: `_defaults.yaml`."""
    found = {problem.file for problem in invalid.problems}
    others = sorted(found - {recipe})
    if not others:
        return CLOSING
    folders = sorted({file.rpartition("/")[0] for file in found})
    # Mistakes below a template concern only the pictures of its folder.
    is_below = not any(map(recipe.startswith, folders))
    files = " and ".join(map(harmless, others))
    own = harmless(recipe)
    where = listed([*map(harmless, folders)]) if is_below else own
    return f"Nothing in {where} was run. Fix {files}, then save {own} again."


def error_text(invalid: RecipeInvalid, inbox: str = "inbox", closing: str = CLOSING) -> str:
    """Return the text of an error file: every problem with its position, then what to do.

    `inbox` is the folder of the files as users know it, "" if the problems' paths include it.
    """
    different, left = _different(invalid.problems)
    paragraphs = [_paragraph(problem, inbox) for problem in different]
    paragraphs += [f"… and {left}.\n"] if left else []
    return "\n".join([*paragraphs, closing + "\n"])


def shown(value: str, limit: int = 60) -> str:
    """Return a value as messages quote it: escaped, on one line, cut when it is long."""
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    return harmless(cut)


def _briefly(problems: Sequence[Problem]) -> Iterator[str]:
    file, (different, left) = None, _different(problems)
    for problem in different:
        head = _head(problem, "inbox")
        if problem.file == file:
            head = head.removeprefix(harmless(f"inbox/{file}")).removeprefix(", ")
        file = problem.file
        message = " ".join(harmless_lines(problem.message).split("\n"))
        yield f"{head}: {message}" if head else message
    if left:
        yield f"and {left}"


def _different(problems: Sequence[Problem]) -> tuple[list[Problem], str]:
    """Return each message once, with its other lines, and in words how many more there are."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.file, problem.message), []).append(problem)
    different: list[Problem] = []
    at_least = "at least " if len(problems) >= MAX_KEPT else ""
    for first, *others in alike.values():
        if others:
            lines = [str(line) for line in sorted({problem.line for problem in others})]
            also = f"(Also on line{'s' * (len(lines) > 1)} {listed(lines)}.)"
            first = replace(first, message=f"{first.message}\n{also}")
        different.append(first)
    left = len(different) - MAX_SHOWN
    return sorted(different, key=_PLACE)[:MAX_SHOWN], f"{at_least}{left} more" if left > 0 else ""


def _paragraph(problem: Problem, inbox: str) -> str:
    head, message = _head(problem, inbox), harmless_lines(problem.message)
    if not problem.line:
        return f"{head}\n\n{message}\n"
    # The source line is cut around the problem's column, and has carets below it.
    line, start = problem.source_line, problem.column - 1
    left = max(0, min(start - EXCERPT_WIDTH // 2, len(line) - EXCERPT_WIDTH))
    right = left + EXCERPT_WIDTH
    gutter = f"    {problem.line} | {'…' if left else ''}{harmless(line[left:start])}"
    wrong = harmless(line[start : min(start + problem.width, right)])
    after = harmless(line[start:right][len(line[start : start + problem.width]) :])
    end = "…" if right < len(line) else ""
    carets = " " * cell_len(gutter) + "^" * max(1, cell_len(wrong))
    return f"{head}\n\n{gutter}{wrong}{after}{end}".rstrip() + f"\n{carets}\n{message}\n"


def _head(problem: Problem, inbox: str) -> str:
    place = f", line {problem.line}, column {problem.column}" if problem.line else ""
    return harmless(f"{inbox}/{problem.file}{place}" if inbox else f"{problem.file}{place}")
