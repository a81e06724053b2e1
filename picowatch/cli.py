"""The command line: parses arguments, builds the parts, turns errors into texts and exit codes.

Parts are imported by the command that needs them, so that `--help`, `status` and `check` answer
at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from picowatch import __version__
from picowatch.errors import PicowatchError
from picowatch.settings import FOLDERS, Settings, load_settings

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code (interface.md, "Commands")."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except PicowatchError as error:
        if options.debug:
            raise
        _say(f"picowatch: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a bug of ours: still a text for people, the rest with --debug
        if options.debug:
            raise
        _say(
            f"picowatch: something went wrong that should not: {type(error).__name__}: {error}. "
            "Run it again with --debug and report what it prints."
        )
        return 1


def _say(text: str) -> None:
    """An error on the terminal, in which nothing of a stranger's file steers it."""
    from picowatch.recipe.problems import harmless_lines

    print(harmless_lines(text), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, parents=[shared])
        added.set_defaults(command=command)
        return added

    run = add("run", _run, "Watch the inbox and make pictures until Ctrl-C or SIGTERM.")
    run.add_argument("--once", action="store_true", help="do what is in the inbox now, then end")
    check = add("check", _check, "Validate recipes and list the images they would make.")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="every resolved field, as JSON")
    show = add("show", _show, "Print the recipe of a picture, ready for the inbox.")
    show.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    show.add_argument("--json", action="store_true", help="all that is recorded, as JSON")
    models = add("models", _models, "List what is installed, and what was refused and why.")
    models.add_argument("--json", action="store_true", help="as JSON")
    status = add("status", _status, "Say what runs and what waits.")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument(
        "--check", action="store_true", help="for health checks: prove that it runs and hears"
    )
    retry = add("retry", _retry, "Try failed images again, of one recipe or of all.")
    retry.add_argument("recipe", nargs="?", type=Path, metavar="RECIPE")
    init = add("init", _init, "Make the folders, a commented picowatch.yaml and example recipes.")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    flags = {name: value for name in FOLDERS if (value := getattr(options, name)) is not None}
    return load_settings(flags, os.environ, options.settings)


def _run(options: argparse.Namespace) -> int:
    from picowatch.commands.run import run

    if options.debug:
        logging.getLogger("picowatch").setLevel(logging.DEBUG)
    return run(_settings(options), once=options.once)


def _check(options: argparse.Namespace) -> int:
    from picowatch.commands.check import check

    return check(_settings(options), options.files, as_json=options.json)


def _show(options: argparse.Namespace) -> int:
    from picowatch.commands.show import show

    return show(options.pictures, as_json=options.json)


def _models(options: argparse.Namespace) -> int:
    from picowatch.commands.models import models

    return models(_settings(options), as_json=options.json)


def _status(options: argparse.Namespace) -> int:
    from picowatch.commands.status import check, status

    if options.check:
        return check(_settings(options))
    return status(_settings(options).outbox, as_json=options.json)


def _retry(options: argparse.Namespace) -> int:
    from picowatch.commands.steer import steer

    return steer(_settings(options), "retry", options.recipe)


def _init(options: argparse.Namespace) -> int:
    from picowatch.commands.init import init

    return init(options.folder)
