"""Mistakes in a save, their positions, and the text of its error file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

from rich.cells import cell_len

from picowatch.errors import PicowatchError
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.written import Position
from picowatch.streams import harmless, harmless_lines

CLOSING = "Nothing in this file was run. Fix it and save again."
PICTURE_CLOSING = "This picture was not rendered; others are. Fix the file above and save it again."
MAX_SHOWN = 50
MAX_KEPT = 1000
MAX_MESSAGE = 600
EXCERPT_WIDTH = 100


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
        line = position.source.line(position.line)
        message = message if len(message) < MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
        message += position.note
        problem = Problem(
            position.source.name, position.line, position.column, line, position.width, message
        )
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
        return sorted(self._found, key=_place)

    def raise_if_any(self) -> None:
        if self._found:
            raise RecipeInvalid(self.found)


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
    return sorted(different, key=_place)[:MAX_SHOWN], f"{at_least}{left} more" if left > 0 else ""


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line, problem.column


def _paragraph(problem: Problem, inbox: str) -> str:
    head, message = _head(problem, inbox), harmless_lines(problem.message)
    if not problem.line:
        return f"{head}\n\n{message}\n"
    gutter = f"    {problem.line} | "
    text, carets = _excerpt(problem)
    return f"{head}\n\n{gutter}{text}".rstrip() + f"\n{' ' * len(gutter)}{carets}\n{message}\n"


def _head(problem: Problem, inbox: str) -> str:
    place = f", line {problem.line}, column {problem.column}" if problem.line else ""
    return harmless(f"{inbox}/{problem.file}{place}" if inbox else f"{problem.file}{place}")


def _excerpt(problem: Problem) -> tuple[str, str]:
    """Return the source line, cut around the problem's column, and the carets below it."""
    line, start = problem.source_line, problem.column - 1
    left = max(0, min(start - EXCERPT_WIDTH // 2, len(line) - EXCERPT_WIDTH))
    right = left + EXCERPT_WIDTH
    before = ("…" if left else "") + harmless(line[left:start])
    wrong = harmless(line[start : min(start + problem.width, right)])
    after = harmless(line[start:right][len(line[start : start + problem.width]) :])
    end = "…" if right < len(line) else ""
    return before + wrong + after + end, " " * cell_len(before) + "^" * max(1, cell_len(wrong))
