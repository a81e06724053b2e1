"""The command line: finds the command, turns errors into texts and exit codes.

Only the command's module is imported: `--help`, `status` and errors about flags come at once.
"""

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from textwrap import fill
from typing import Any, NoReturn

from picowatch import __version__, errors, sources, streams
from picowatch.commands import COMMANDS, home_path

_SHARED = (
    ("--inbox", "DIR", "folder of recipes (inbox)"),
    ("--outbox", "DIR", "folder of pictures (outbox)"),
    ("--models", "DIR", "folder of models (models)"),
    ("--settings", "FILE", "settings file (picowatch.yaml)"),
)
_BEGIN = {
    "picowatch init pictures && cd pictures": "folders, settings, example recipes",
    "picowatch run": "save recipes in inbox/, find pictures in outbox/",
    "picowatch make corgi.yaml": "one recipe, with or without a running picowatch",
}
_OTHER_WORDS = {
    "start": " `picowatch run` watches the inbox.",
    "stop": " Ctrl-C ends `picowatch run`; `picowatch pause` lets it wait.",
}
_DESCRIPTION = "Save a recipe, find its pictures: a hot folder for Stable Diffusion."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (docs/commands.md)."""
    streams.open_closed()
    try:
        words = sys.argv[1:] if arguments is None else [*arguments]
        parser, commands = parsers()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks what may come next
            import argcomplete

            argcomplete.autocomplete(parser)
        if not words:
            parser.print_help()
            return errors.SUCCEEDED
        return _run(_parsed(parser, commands, words))
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    finally:
        streams.finish(sys.stdout)
        streams.finish(sys.stderr)


def _parsed(
    parser: argparse.ArgumentParser,
    commands: dict[str, argparse.ArgumentParser],
    words: Sequence[str],
) -> argparse.Namespace:
    """Return the command's options; end the process if they cannot be understood."""
    if words[0] == "help":
        words = [*words[1:2], "--help"]
    if words[0] not in (*commands, "-h", "--help", "-V", "--version"):
        if words[0].startswith("-"):
            parser.error("flags come after a command, as in `picowatch status --outbox DIR`")
        meant = _OTHER_WORDS.get(words[0]) or _near(words[0], commands)
        parser.error(f"There is no command {words[0]!r}.{meant}")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        own = commands[options.command]
        flag = unknown[0].partition("=")[0]
        meant = _near(flag, own._option_string_actions) or _setting_meant(flag)
        own.error(f"It takes no {unknown[0]!r}.{meant}")
    return options


def _setting_meant(flag: str) -> str:
    """Return where to write the setting that a flag names; "" if no setting has such a name."""
    from picowatch.recipe.messages.suggestions import closest
    from picowatch.settings.settings import Settings

    name = closest(flag.strip("-").replace("-", "_"), Settings.model_fields)
    if not (flag.startswith("--") and name):
        return ""
    variable = sources.PREFIX + name.upper()
    return f" {name} is a setting: write '{name}: …' into {sources.FILE_NAME}, or set {variable}."


def _near(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that may have been meant, or ""."""
    from picowatch.recipe.messages.suggestions import did_you_mean

    return f" {did_you_mean(word, known)}".rstrip()


def _run(options: argparse.Namespace) -> int:
    """Run the command; an error becomes a text and an exit code."""
    code: int = errors.SUCCEEDED
    if sources.other_variables(os.environ):  # else nothing is imported
        from picowatch.settings.settings import unknown_variables

        for words in unknown_variables(os.environ):
            streams.print_error(f"picowatch: {words}")
    try:
        if (encoding := sys.getfilesystemencoding()) != "utf-8":  # as the lists write names
            words = f"This environment reads the names of files as {encoding}; picowatch, as UTF-8."
            raise errors.SettingsInvalid(words, "Set PYTHONUTF8=1, or LC_ALL=C.UTF-8.")
        name = COMMANDS[options.command].module or options.command
        module = import_module(f"picowatch.commands.{name}")
        code = module.main(options, lambda: _load(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
        return code
    except Exception as error:  # or a bug: a text for people, the traceback with --debug
        if options.debug:
            raise
        streams.print_error(f"picowatch: {_in_words(error)}")
        return error.exit_code if isinstance(error, errors.PicowatchError) else errors.FAILED


def _in_words(error: Exception) -> str:
    if isinstance(error, errors.PicowatchError):
        return error.with_remedy
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write: {error.strerror}. Free some space."
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of os.getcwd
        return "The working directory was deleted or replaced. Change to your folder again."
    unexpected = f"unexpected error: {type(error).__name__}: {error}"
    return f"{unexpected}. Run it again with --debug and report the output."


class _Parser(argparse.ArgumentParser):
    def __init__(self, description: str, examples: dict[str, str], **more: Any) -> None:
        lines = [f"  {line}\n      # {words}" for line, words in examples.items()]
        super().__init__(
            description=fill(description, max(11, shutil.get_terminal_size().columns - 2)),
            epilog="\n".join(["examples:", *lines]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, how to call the command, and where to find help."""
        if "arguments are required: " in message:  # it names them, but does not explain them
            own = (action for action in self._actions if not action.option_strings)
            message = f"It needs {'; '.join(f'{each.metavar}: {each.help}' for each in own)}"
        words = message if message.endswith((".", "?")) else f"{message}."
        streams.print_error(f"{self.prog}: {words}\n")
        self.print_usage(sys.stderr)
        streams.print_error(f"\n`{self.prog} --help` explains it, with examples.")
        sys.exit(errors.INVALID)


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and those of its commands."""
    parser = _Parser(_DESCRIPTION, _BEGIN, prog="picowatch", usage="picowatch COMMAND …")
    parser.add_argument("-V", "--version", action="version", version=f"picowatch {__version__}")
    added = parser.add_subparsers(
        title="commands", metavar="COMMAND", prog="picowatch", parser_class=_Parser
    )
    commands: dict[str, argparse.ArgumentParser] = {}
    for name, command in COMMANDS.items():
        own = added.add_parser(
            name, help=command.summary, description=command.summary, examples=command.examples
        )
        own.set_defaults(command=name)
        for argument in command.arguments:
            if isinstance(argument, list):
                group = own.add_mutually_exclusive_group()
                for flag, values in argument:
                    group.add_argument(flag, **values)
            else:
                own.add_argument(argument[0], **argument[1])
        shared = own.add_argument_group("every command")
        for flag, metavar, words in _SHARED if name != "init" else ():
            shared.add_argument(flag, type=home_path, metavar=metavar, help=words)
        shared.add_argument("--debug", action="store_true", help="show tracebacks")
        called = [f"{own.prog} [FLAG]…"]
        for action in own._actions:
            if not action.option_strings:
                word = f"{action.metavar}{'…' if action.nargs in ('+', '*') else ''}"
                called.append(f"[{word}]" if action.nargs in ("?", "*") else word)
        own.usage = " ".join(called)
        commands[name] = own
    return parser, commands


def _load(options: argparse.Namespace) -> Any:
    """Return the settings, or the folders, which need no pydantic."""
    flags = {name: getattr(options, name, None) for name in (*sources.FOLDERS, "log_format")}
    flags = {name: value for name, value in flags.items() if value is not None}
    # These must work even if a running daemon's settings file is invalid by now.
    if options.command == "status" or COMMANDS[options.command].module == "control":
        return sources.folders(flags, os.environ, options.settings)
    from picowatch.settings.settings import load_settings

    return load_settings(flags, os.environ, options.settings)
