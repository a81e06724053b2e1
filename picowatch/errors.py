"""All errors of picowatch, as two trees. Imports no other module of picowatch.

Errors that people read. Each class has an exit code, for when it ends a command, and a usual
remedy, for when the error itself has none:

PicowatchError
├── CommandFailed            a command cannot do what was requested
├── SettingsInvalid          a setting, a variable or a flag cannot be used: exit code 2
├── OutboxInUse              another picowatch is already using the outbox: exit code 3
│   └── OutboxInUseByMake    … a `picowatch make`, until its recipes are done
├── LedgerCorrupt            the ledger's file is damaged; a new one is built from the pictures
├── RecipeInvalid            one save's problems, with their positions (recipe/messages/problems.py)
├── QueueFull                a folder has as many images queued as it may (ledger/accept.py)
├── FileUnreadable           a file in the inbox cannot be read (inbox/folder.py)
├── ModelRefused             a model file that cannot be used; the message says what it is
│   └── ModelChanged         … because it was written or deleted while it was read
├── PictureUnreadable        a picture cannot be used, or has no metadata that can be read
│   └── NothingSaid          … or lacks a prompt that says what to do with it (recipe/reading.py)
├── RenderFailed             the engine could not render these images, but goes on
├── EngineDied               the engine's process ended in a batch; the message says how
│   ├── EngineCannotStart    … before it was ready for one (engine/protocol.py)
│   └── EngineLost           … because its machine is gone (engine/protocol.py)
└── EngineStopped            the engine was closed on purpose; the images are queued again

Exceptions that nobody sees, because one part of picowatch raises them for another to catch:

ControlFlow
├── Ended                    picowatch is ending (files/essential.py)
│   └── CommitUnknown        … because a commit may be written or not (ledger/ledger.py)
├── FolderAway               a folder is gone, or another one is in its place (files/atomic.py)
├── FileChanged              a file in the inbox is being written (inbox/folder.py)
├── OtherBytes               a file holds other bytes than those expected (files/safe_paths.py)
├── SheetTooLarge            too many pictures for a contact sheet (outbox/sheets.py)
├── NotHashed                a save needs a model's hash first (daemon/model_hashes.py)
└── ValueInvalid             one value in a recipe: its text becomes a problem of RecipeInvalid
    ├── NotInstalled         no model of this name (recipe/installed.py)
    │   └── NoneOfThisName       not even one that is refused (recipe/installed.py)
    ├── NoLines              no line of a wildcard can be drawn (recipe/prompts/wildcards.py)
    └── SamplerUnknown       no sampler of this name (recipe/samplers.py)
"""

import sys
from shlex import quote
from typing import Self

# docs/commands.md explains them.
SUCCEEDED, FAILED, INVALID, IN_USE, PAUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class PicowatchError(Exception):
    """A failure that users see: what happened, and what to do about it.

    `message` says what and why, `remedy` what to do; together they read as one text. `trace` is an
    engine's traceback, for `--debug` and the log file alone.
    """

    exit_code = FAILED
    usual_remedy = ""

    def __init__(self, message: str, remedy: str = "", trace: str = "") -> None:
        super().__init__(message, remedy, trace)
        self.message = message
        self.remedy = remedy
        self.trace = trace

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    @property
    def with_remedy(self) -> str:
        """The text, with the usual remedy where it has none of its own."""
        return f"{self.message} {self.remedy or self.usual_remedy}".strip()


class CommandFailed(PicowatchError):
    usual_remedy = "With --debug it shows where."


class SettingsInvalid(PicowatchError):
    exit_code = INVALID
    usual_remedy = "docs/settings.md lists every setting."


class OutboxInUse(PicowatchError):
    exit_code = IN_USE
    usual_remedy = "Stop it first, or use another --outbox."


class OutboxInUseByMake(OutboxInUse):
    usual_remedy = "Wait for it, or use another --outbox."


class LedgerCorrupt(PicowatchError):
    usual_remedy = "Run `picowatch run`: it builds a new ledger from the pictures in the outbox."


class ModelRefused(PicowatchError):
    usual_remedy = "`picowatch models` lists what is installed, and what was refused and why."


class ModelChanged(ModelRefused):
    """A model file was written or deleted while it was read."""


class PictureUnreadable(PicowatchError):
    usual_remedy = "Use a picture as picowatch wrote it."

    @classmethod
    def by_system(cls, picture: str, error: OSError) -> Self:
        """Return what the system's refusal to read a picture means."""
        remedy = "Allow it with `chmod a+r`." if isinstance(error, PermissionError) else ""
        return cls(f"{picture} cannot be read: {error.strerror}.", remedy)


class RenderFailed(PicowatchError):
    usual_remedy = "`picowatch doctor` checks the engine."


class EngineDied(PicowatchError):
    usual_remedy = "`picowatch doctor` checks the engine."


class EngineStopped(PicowatchError):
    usual_remedy = "Start picowatch again: the images are still queued."


class ControlFlow(Exception):
    """An exception that one part of picowatch raises for another to catch."""


class ValueInvalid(ControlFlow, ValueError):
    """A value in a recipe cannot be used; the text says why, and it or `remedy` says what to do."""

    remedy = ""


DISTRIBUTION = "picowatch-diffusion"  # `picowatch` in the package index is another program


def install_command(extra: str) -> str:
    """Return the command that adds an extra of pyproject.toml to the installed package.

    It also works for a checkout: pip finds the package, and fetches only what the extra adds.
    """
    return f"{quote(sys.executable)} -m pip install '{DISTRIBUTION}[{extra}]'"
