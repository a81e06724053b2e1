"""How `--help` looks: short lines, headings in bold, examples at the end."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

_WIDEST = 100
_EXAMPLES = [
    ("picowatch init pictures && cd pictures", "folders, settings, example recipes"),
    ("picowatch run", "save recipes in inbox/, look into outbox/"),
    ("picowatch make corgi.yaml", "one recipe, without `run` or beside it"),
]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The format of argparse, with headings in bold."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=_width())

    def start_section(self, heading: str | None) -> None:
        """Implement `argparse.HelpFormatter.start_section`."""
        super().start_section(bold(heading) if heading else heading)


def overview(description: str, groups: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """The help of picowatch itself."""
    lines = [f"{bold('usage:')} picowatch COMMAND …", "", *_wrapped(description), ""]
    for heading, commands in groups.items():
        lines += [bold(heading), *_table(commands), ""]
    lines += [bold("Examples"), *_stacked(_EXAMPLES), ""]
    lines += _wrapped(
        "`picowatch COMMAND --help` has a command's flags, with examples; `picowatch --version` "
        "the version. Exit codes: docs/commands.md."
    )
    return "\n".join(lines) + "\n"


def examples(lines: Sequence[tuple[str, str]]) -> str:
    """The end of a command's help."""
    return "\n".join([f"{bold('examples')}:", *_stacked(lines)])


def bold(text: str) -> str:
    """Bold where a person reads it on a terminal that knows it: it keeps the theme's colour.

    NO_COLOR: https://no-color.org
    """
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb")
    return text if is_plain or not sys.stdout.isatty() else f"\x1b[1m{text}\x1b[0m"


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST) - 1


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width())


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names, and beside them what they do."""
    lines = []
    for name, text in rows:
        lines += textwrap.wrap(
            text, _width(), initial_indent=f"  {name:<11} ", subsequent_indent=" " * 14
        )
    return lines


def _stacked(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines to copy, and after each what it does, below it where it does not fit."""
    pairs = [*rows]
    column = max(len(line) for line, _ in pairs) + 4
    if column + max(len(text) for _, text in pairs) + 2 > _width():
        return [part for line, text in pairs for part in (f"  {line}", f"      # {text}")]
    return [f"  {line:<{column - 2}}# {text}" for line, text in pairs]
