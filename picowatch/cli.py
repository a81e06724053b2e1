"""The command line: finds the command, turns errors into texts and exit codes.

Each command is a module of `commands/` with two functions: `add_arguments`, and `main`, which runs
it. Only the module that is needed is imported, so that `--help`, `status` and `check` answer at
once.
"""

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from picowatch import __version__
from picowatch.errors import FAILED, INTERRUPTED, PicowatchError
from picowatch.settings import FOLDERS, Settings, load_settings

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
    "doctor": ("doctor", "Check the machine and time a test image: OK or a remedy."),
    "schema": ("schema", "Print the JSON Schema that editors use to check recipes."),
    "bench": ("bench", "Measure how fast this machine renders."),
    "init": ("init", "Create the folders, a commented picowatch.yaml and example recipes."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (interface.md, "Commands")."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(parsers(words)[0].parse_args(words))
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    """Run the command; an error becomes a text and an exit code."""
    try:
        code: int = _module(options.command).main(options, lambda: _settings(options))
        return code
    except PicowatchError as error:
        if options.debug:
            raise
        _print_error(f"picowatch: {error.with_remedy}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a bug of ours: still a text for people, the rest with --debug
        if options.debug:
            raise
        _print_error(
            f"picowatch: unexpected error: {type(error).__name__}: {error}. "
            "Run it again with --debug and report the output."
        )
        return FAILED


def _print_error(text: str) -> None:
    """Nothing from a stranger's file may control the terminal."""
    from picowatch.recipe.messages.problems import harmless_lines

    print(harmless_lines(text), file=sys.stderr)


def _module(command: str) -> ModuleType:
    return import_module(f"picowatch.commands.{COMMANDS[command][0]}")


def parsers(
    words: Collection[str] = COMMANDS,
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands.

    Only commands among the `words` get their arguments: adding them imports the module.
    """
    parser = argparse.ArgumentParser(
        prog="picowatch",
        description="Save a recipe, find its pictures: a hot folder for Stable Diffusion.",
    )
    parser.add_argument("--version", action="version", version=f"picowatch {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--inbox", type=Path, help="folder of recipes (inbox)")
    shared.add_argument("--outbox", type=Path, help="folder of pictures (outbox)")
    shared.add_argument("--models", type=Path, help="folder of checkpoints (models)")
    shared.add_argument("--settings", type=Path, help="settings file (picowatch.yaml)")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}
    for name, (_, summary) in COMMANDS.items():
        own = added.add_parser(name, help=summary, description=summary, parents=[shared])
        own.set_defaults(command=name)
        if name in words:
            _module(name).add_arguments(own)
        commands[name] = own
    return parser, commands


def _settings(options: argparse.Namespace) -> Settings:
    names = (*FOLDERS, "log_format")
    flags = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return load_settings(flags, os.environ, options.settings)
