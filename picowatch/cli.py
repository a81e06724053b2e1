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
from typing import Any

from picowatch import __version__
from picowatch.errors import FAILED, INTERRUPTED, PicowatchError
from picowatch.settings import FOLDERS, Settings, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code (interface.md, "Commands")."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except PicowatchError as error:
        if options.debug:
            raise
        _say(f"picowatch: {error.with_remedy}")
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
            f"picowatch: unexpected error: {type(error).__name__}: {error}. "
            "Run it again with --debug and report the output."
        )
        return FAILED


def _say(text: str) -> None:
    """An error on the terminal, in which nothing of a stranger's file steers it."""
    from picowatch.recipe.messages.problems import harmless_lines

    print(harmless_lines(text), file=sys.stderr)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Each command with its arguments, in the order of the help."""
    found: dict[str, argparse.ArgumentParser] = {}
    _parser(found)
    return found


def _parser(found: dict[str, argparse.ArgumentParser] | None = None) -> argparse.ArgumentParser:
    """The whole command line; `found` gets each command's part."""
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
        added.set_defaults(command=command, name=name)
        if found is not None:
            found[name] = added
        return added

    run = add("run", _run, "Watch the inbox and render recipes until Ctrl-C or SIGTERM.")
    run.add_argument(
        "--once", action="store_true", help="render what is in the inbox now, then exit"
    )
    how_much = run.add_mutually_exclusive_group()
    for name, words in (
        ("quiet", "show only warnings and errors"),
        ("verbose", "show and log every detail"),
    ):
        how_much.add_argument(
            f"--{name}", dest="verbosity", action="store_const", const=name, help=words
        )
    run.set_defaults(verbosity="normal")
    run.add_argument(
        "--log-format", choices=("text", "json"), help="format of log and console lines"
    )
    make = add(
        "make", _make, "Put recipes into the inbox, wait, and print the paths of their pictures."
    )
    make.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recipe files; recipe files; - is standard input",
    )
    check = add("check", _check, "Validate recipes and list the images they would render.")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="print every resolved field as JSON")
    show = add("show", _show, "Print a picture's recipe as YAML, ready for the inbox.")
    show.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    show.add_argument("--json", action="store_true", help="print all metadata as JSON")
    models = add("models", _models, "List installed models, and refused files with the reason.")
    models.add_argument("--json", action="store_true", help="print JSON")
    status = add("status", _status, "Show what is rendering and what is queued.")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    how.add_argument("--watch", action="store_true", help="keep updating until Ctrl-C")
    how.add_argument(
        "--check",
        action="store_true",
        help="for health checks: test that it is running and notices new files",
    )
    add("pause", _steer, "Render nothing until `resume`; images in progress are finished.")
    add("resume", _steer, "Continue after `pause`.")
    retry = add("retry", _steer, "Try failed images again, of the given recipes or of all.")
    retry.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE")
    cancel = add("cancel", _steer, "Cancel the queued images of a recipe, a folder or a 'glob*'.")
    cancel.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE")
    doctor = add("doctor", _doctor, "Check the machine and time a test image: OK or a remedy.")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    schema = add("schema", _schema, "Print the JSON Schema that editors use to check recipes.")
    schema.add_argument(
        "kind",
        nargs="?",
        choices=("recipe", "defaults", "settings"),
        default="recipe",
        metavar="KIND",
        help="recipe, defaults or settings (recipe)",
    )
    schema.add_argument(
        "--installed", action="store_true", help="include the names of installed models"
    )
    schema.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
    _add_bench_flags(add("bench", _bench, "Measure how fast this machine renders."))
    init = add("init", _init, "Create the folders, a commented picowatch.yaml and example recipes.")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR")
    return parser


def _add_bench_flags(bench: argparse.ArgumentParser) -> None:
    numbers: dict[str, Any] = {"nargs": "+", "type": int, "metavar": "N"}
    bench.add_argument("--steps", default=[24], help="numbers of steps (24)", **numbers)
    bench.add_argument(
        "--sizes", nargs="+", default=[], metavar="WxH", help="sizes (the checkpoint's own)"
    )
    bench.add_argument("--batches", default=[1, 2, 4, 8], help="batch sizes (1 2 4 8)", **numbers)
    bench.add_argument("--checkpoint", metavar="NAME", help="as in a recipe")
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="also draw a plot (needs matplotlib)"
    )


def _settings(options: argparse.Namespace) -> Settings:
    names = (*FOLDERS, "log_format")
    flags = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return load_settings(flags, os.environ, options.settings)


def _run(options: argparse.Namespace) -> int:
    from picowatch.commands.run import run

    if options.debug or options.verbosity == "verbose":
        logging.getLogger("picowatch").setLevel(logging.DEBUG)
    return run(_settings(options), once=options.once, verbosity=options.verbosity)


def _make(options: argparse.Namespace) -> int:
    from picowatch.commands.make import make

    return make(_settings(options), options.files)


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
    from picowatch.commands.status import check, status, watch

    if options.check:
        return check(_settings(options))
    if options.watch:
        return watch(_settings(options).outbox)
    return status(_settings(options).outbox, as_json=options.json)


def _steer(options: argparse.Namespace) -> int:
    from picowatch.commands.steer import steer

    return steer(_settings(options), options.name, getattr(options, "recipes", ()))


def _doctor(options: argparse.Namespace) -> int:
    from picowatch.commands.doctor import doctor

    return doctor(lambda: _settings(options), as_json=options.json)


def _schema(options: argparse.Namespace) -> int:
    from picowatch.commands.schema import schema

    return schema(
        _settings(options), options.kind, installed=options.installed, output=options.output
    )


def _bench(options: argparse.Namespace) -> int:
    from picowatch.commands.bench import Asked, bench

    asked = Asked(options.steps, options.sizes, options.batches, options.checkpoint)
    return bench(_settings(options), asked, as_json=options.json, plot=options.plot)


def _init(options: argparse.Namespace) -> int:
    from picowatch.commands.init import init

    return init(options.folder)
