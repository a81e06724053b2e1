"""The command line: finds the command, turns errors into texts and exit codes.

Each command is a module of `commands/` with a function `main`; what it takes is in `arguments.py`.
Only the module that is needed is imported, so that `--help`, `status` and `check` answer at once.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from picowatch import __version__, streams
from picowatch.commands.arguments import EXAMPLES, add_arguments, home_path
from picowatch.commands.help import HelpFormatter, examples, overview
from picowatch.errors import FAILED, INTERRUPTED, INVALID, SUCCEEDED, PicowatchError

if TYPE_CHECKING:
    from picowatch.settings import Settings

# Each command, its module and its line in the help.
COMMANDS = {
    "run": ("run", "Watch the inbox and render recipes until Ctrl-C or SIGTERM."),
    "make": ("make", "Put recipes into the inbox, wait, and print the paths of their pictures."),
    "check": ("check", "Validate recipes and list the images they would render."),
    "show": ("show", "Print a picture's recipe as YAML, ready for the inbox."),
    "models": ("models", "List installed models, and refused files with the reason."),
    "convert": ("convert", "Write pickled models (.pth, .ckpt) as .safetensors; runs no code."),
    "status": ("status", "Show what is rendering and what is queued."),
    "pause": ("control", "Render nothing until `resume`; images in progress are finished."),
    "resume": ("control", "Continue after `pause`."),
    "retry": ("control", "Try failed images again, of the given recipes or of all."),
    "cancel": ("control", "Cancel the queued images of a recipe, a folder or a 'glob*'."),
    "delete": ("control", "Delete pictures, also from the gallery; they are not rendered again."),
    "doctor": ("doctor", "Check the machine and time a test image: OK or a remedy."),
    "schema": ("schema", "Print the JSON Schema that editors use to check recipes."),
    "init": ("init", "Create the folders, a commented picowatch.yaml and example recipes."),
}
# As `--help` shows them.
GROUPS = {
    "Begin": ("init", "run", "doctor"),
    "Recipes": ("make", "check", "show"),
    "While it runs": ("status", "pause", "resume", "cancel", "retry"),
    "Pictures": ("delete",),
    "Models": ("models", "convert"),
    "Editors": ("schema",),
}
# Words of other command lines, and what to say to them.
_DELETE = "`picowatch delete` deletes pictures, `picowatch cancel` cancels queued images."
_STOP = "Press Ctrl-C where `picowatch run` runs, or stop its service: systemctl stop picowatch."
_OTHER_WORDS = {
    **dict.fromkeys(("rm", "del", "remove"), _DELETE),
    **dict.fromkeys(("stop", "quit", "exit", "kill"), _STOP),
    **dict.fromkeys(("list", "ls", "queue", "ps"), "Did you mean 'status'?"),
    **dict.fromkeys(("start", "watch", "serve", "daemon"), "Did you mean 'run'?"),
    **dict.fromkeys(("generate", "render"), "Did you mean 'make'?"),
    **dict.fromkeys(("validate", "lint"), "Did you mean 'check'?"),
}
# Modules whose commands must work beside a daemon that runs on with the settings it has.
_ONLY_FOLDERS = ("status", "control")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ALONE = ("-h", "--help", "-V", "--version")
_DESCRIPTION = "Save a recipe, find its pictures: a hot folder for Stable Diffusion."
_FOLDERS = ("inbox", "outbox", "models")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (docs/commands.md)."""
    streams.open_closed()
    try:
        return _main(sys.argv[1:] if arguments is None else [*arguments])
    finally:
        streams.finish(sys.stdout)
        streams.finish(sys.stderr)


def _main(words: Sequence[str]) -> int:
    parser, commands = parsers()
    if not words:
        parser.print_help()
        return SUCCEEDED
    try:
        return _run(_parsed(parser, commands, words))
    except KeyboardInterrupt:
        return INTERRUPTED


def _parsed(
    parser: argparse.ArgumentParser,
    commands: dict[str, argparse.ArgumentParser],
    words: Sequence[str],
) -> argparse.Namespace:
    """The options of the command; ends the process if they cannot be understood."""
    if words[0] == "help":
        words = [*words[1:2], "--help"]
    if words[0].startswith("-") and words[0] not in _ALONE:
        flag = words[0].partition("=")[0]
        takers = [name for name, own in commands.items() if flag in own._option_string_actions]
        if not takers:
            parser.error(f"There is no {flag!r}. Did you mean '--help' or '--version'?")
        example = "status" if "status" in takers else takers[0]
        parser.error(f"{flag} comes after a command, as in `picowatch {example} {flag}`.")
    if not words[0].startswith("-") and words[0] not in commands:
        other = _OTHER_WORDS.get(words[0])
        meant = f" {other}" if other else _near(words[0], commands)
        parser.error(f"There is no command {words[0]!r}.{meant}")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        own = commands[options.command]
        flags = [flag for action in own._actions for flag in action.option_strings]
        own.error(f"It takes no {unknown[0]!r}.{_near(unknown[0].partition('=')[0], flags)}")
    return options


def _near(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """The known word that may have been meant."""
    from difflib import get_close_matches

    near = get_close_matches(word, [*known], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _run(options: argparse.Namespace) -> int:
    """Run the command; an error becomes a text and an exit code."""
    code: int = SUCCEEDED
    try:
        code = _module(options.command).main(options, lambda: _settings(options))
        sys.stdout.flush()
        return code
    except PicowatchError as error:
        if options.debug:
            raise
        _print_error(f"picowatch: {error.with_remedy}")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
        return code
    except Exception as error:  # a bug of ours: still a text for people, the rest with --debug
        if options.debug:
            raise
        if isinstance(error, OSError) and error.errno in _FULL:
            _print_error(f"picowatch: cannot write: {error.strerror}. Free some space.")
            return FAILED
        _print_error(
            f"picowatch: unexpected error: {type(error).__name__}: {error}. "
            "Run it again with --debug and report the output."
        )
        return FAILED


def _print_error(text: str) -> None:
    """Nothing from a stranger's file may control the terminal."""
    from picowatch.streams import harmless_lines

    print(harmless_lines(text), file=sys.stderr)


def _module(command: str) -> ModuleType:
    return import_module(f"picowatch.commands.{COMMANDS[command][0]}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, how the command is called, and where help is."""
        words = message if message.endswith((".", "?")) else f"{message}."
        _print_error(f"{self.prog}: {words}\n")
        self.print_usage(sys.stderr)
        _print_error(f"\n`{self.prog} --help` explains it, with examples.")
        sys.exit(INVALID)


class _Overview(_Parser):
    def format_help(self) -> str:
        """Every command in its group, and a few lines to copy."""
        groups = {
            heading: [(name, COMMANDS[name][1]) for name in names]
            for heading, names in GROUPS.items()
        }
        return overview(_DESCRIPTION, groups)


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands."""
    parser = _Overview(prog="picowatch", usage="picowatch COMMAND …", formatter_class=HelpFormatter)
    parser.add_argument("-V", "--version", action="version", version=f"picowatch {__version__}")
    added = parser.add_subparsers(metavar="COMMAND", prog="picowatch", parser_class=_Parser)
    commands: dict[str, argparse.ArgumentParser] = {}
    for name, (_, summary) in COMMANDS.items():
        own = added.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=examples(EXAMPLES[name]),
            formatter_class=HelpFormatter,
        )
        own.set_defaults(command=name)
        add_arguments(own, name)
        _add_shared(own)
        own.usage = f"{own.prog} [FLAG]…{called_with(own)}"
        commands[name] = own
    return parser, commands


def called_with(parser: argparse.ArgumentParser) -> str:
    """The words after a command: ` FILE…`, ` [DIR]`."""
    words = ""
    for action in parser._actions:
        if not action.option_strings:
            many = "…" if action.nargs in ("+", "*") else ""
            word = f"{action.metavar}{many}"
            words += f" [{word}]" if action.nargs in ("?", "*") else f" {word}"
    return words


def _add_shared(parser: argparse.ArgumentParser) -> None:
    shared = parser.add_argument_group("every command")
    for flag, metavar, words in (
        ("--inbox", "DIR", "folder of recipes (inbox)"),
        ("--outbox", "DIR", "folder of pictures (outbox)"),
        ("--models", "DIR", "folder of models (models)"),
        ("--settings", "FILE", "settings file (picowatch.yaml)"),
    ):
        shared.add_argument(flag, type=home_path, metavar=metavar, help=words)
    shared.add_argument("--debug", action="store_true", help="show tracebacks")


def _settings(options: argparse.Namespace) -> "Settings":
    from picowatch.settings import load_folders, load_settings

    names = (*_FOLDERS, "log_format")
    flags = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if COMMANDS[options.command][0] not in _ONLY_FOLDERS:
        return load_settings(flags, os.environ, options.settings)
    settings, error = load_folders(flags, os.environ, options.settings)
    if error is not None:
        first, *others = error.message.splitlines()
        plural = "" if len(others) == 1 else "s"
        more = f" ({len(others)} more mistake{plural}.)" if others else ""
        _print_error(
            f"picowatch: {first}{more} `picowatch {options.command}` needs only the folders and "
            "continues."
        )
    return settings
