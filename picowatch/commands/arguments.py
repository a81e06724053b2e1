"""What each command takes, with examples. Imports no command.

The commands' own imports take up to a second; `--help` and a mistyped flag do without them.
"""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("recipe", "defaults", "settings")  # of schemas


def add_arguments(parser: ArgumentParser, command: str) -> None:
    """Give the parser of this command its flags and words."""
    _OF_COMMANDS[command](parser)


def path(text: str) -> Path:
    """An unset variable of a script is no path: `Path("")` is the working folder."""
    if not text:
        raise ArgumentTypeError("it is empty")
    return Path(text)


def home_path(text: str) -> Path:
    """Shells leave `--outbox=~/pictures` as it is: a folder called `~` would be made."""
    try:
        return path(text).expanduser() if text.startswith("~") else path(text)
    except RuntimeError as error:
        raise ArgumentTypeError(f"{text!r}: this user has no home folder") from error


def _run(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="render what is in the inbox now, then exit"
    )
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--quiet", action="store_true", help="show only warnings and errors")
    how_much.add_argument("--verbose", action="store_true", help="show and log every detail")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="format of log and console lines"
    )


def _make(parser: ArgumentParser) -> None:
    _words(parser, "files", "FILE", help="recipe files; - is standard input")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--name",
        help="name of the recipe in the inbox, and of its pictures' folder; may have folders",
    )
    parser.add_argument(
        "--rm", action="store_true", help="remove the recipes from the inbox in the end"
    )


def _check(parser: ArgumentParser) -> None:
    _words(parser, "files", "FILE", help="recipe files")
    parser.add_argument("--json", action="store_true", help="print every resolved field as JSON")


def _show(parser: ArgumentParser) -> None:
    _words(parser, "pictures", "PICTURE", help="pictures with metadata")
    parser.add_argument("--all", action="store_true", help="print fields with defaults, too")
    parser.add_argument("--json", action="store_true", help="print all metadata as JSON")


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _convert(parser: ArgumentParser) -> None:
    _words(parser, "files", "FILE", help="pickled models")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def _status(parser: ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    how.add_argument("--watch", action="store_true", help="keep updating until Ctrl-C")
    how.add_argument(
        "--check",
        action="store_true",
        help="for health checks: test that it is running and notices new files",
    )


def _none(parser: ArgumentParser) -> None:
    pass


def _retry(parser: ArgumentParser) -> None:
    _words(parser, "recipes", "RECIPE", nargs="*", help="recipes in the inbox (all)")


def _cancel(parser: ArgumentParser) -> None:
    _words(parser, "recipes", "RECIPE", help="recipes, folders or 'globs*'")


def _of_pictures(parser: ArgumentParser) -> None:
    _words(parser, "pictures", "PICTURE", help="pictures in the outbox")


def _schema(parser: ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        choices=KINDS,
        default="recipe",
        metavar="KIND",
        help="recipe, defaults or settings (recipe)",
    )
    parser.add_argument(
        "--installed", action="store_true", help="include the names of installed models"
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="write to a file")


def _init(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=path, default=Path(), metavar="DIR", help="where (here)"
    )


def _words(parser: ArgumentParser, name: str, shown: str, nargs: str = "+", **more: Any) -> None:
    parser.add_argument(name, nargs=nargs, type=path, metavar=shown, **more)


_OF_COMMANDS: dict[str, Callable[[ArgumentParser], None]] = {
    "run": _run,
    "make": _make,
    "check": _check,
    "show": _show,
    "models": _json,
    "convert": _convert,
    "status": _status,
    "pause": _none,
    "resume": _none,
    "retry": _retry,
    "cancel": _cancel,
    "delete": _of_pictures,
    "doctor": _json,
    "schema": _schema,
    "init": _init,
}

# Lines to copy, each with what it does.
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "run": [
        ("picowatch run", "watch ./inbox, show progress"),
        ("picowatch run --once", "render what is there, then exit: for cron"),
        ("picowatch run --quiet --log-format json", "for a service"),
    ],
    "make": [
        ("picowatch make corgi.yaml", "prints outbox/corgi/0001-….png"),
        ("echo 'a red circle' | picowatch make --rm -", "leaves no recipe behind"),
        ("picowatch make --json --name ads/may ad.yaml", "seeds, sizes and errors for a script"),
    ],
    "check": [
        ("picowatch check inbox/*.yaml", "mistakes, and what would be rendered"),
        ("picowatch check --json corgi.yaml", "every field of every image"),
    ],
    "show": [
        ("picowatch show outbox/corgi/0001-7.png", "its recipe"),
        ("picowatch show photo.png > inbox/again.yaml", "of A1111, ComfyUI and others, too"),
    ],
    "models": [("picowatch models", "what is installed, and what was refused")],
    "convert": [("picowatch convert models/upscalers/4x.pth", "writes 4x.safetensors beside it")],
    "status": [
        ("picowatch status", "what is running, the queue, the last errors"),
        ("picowatch status --watch", "the same, until Ctrl-C"),
        ("picowatch status --check", "exit code 1 unless it is well: for health checks"),
    ],
    "pause": [("picowatch pause", "finish what is in progress, then render nothing")],
    "resume": [("picowatch resume", "continue after a pause")],
    "retry": [
        ("picowatch retry", "all failed images"),
        ("picowatch retry inbox/corgi.yaml", "those of one recipe"),
    ],
    "cancel": [
        ("picowatch cancel inbox/night/a.yaml", "the queued images of a recipe"),
        ("picowatch cancel night", "… of a folder"),
        ("picowatch cancel 'draft*'", "… of all recipes that match"),
    ],
    "delete": [("picowatch delete outbox/corgi/0002-8.png", "also from the gallery")],
    "doctor": [("picowatch doctor", "include its output in bug reports")],
    "schema": [
        ("picowatch schema --installed --output recipe.json", "for an editor's completion"),
    ],
    "init": [("picowatch init pictures", "then: cd pictures && picowatch run")],
}
