"""Every error a user can see, as one tree. Imports nothing of ours.

PicowatchError
├── SettingsInvalid            exit 2
├── OutboxInUse                exit 3
│   └── OutboxInUseByMake      … by a `picowatch make`, which lets go of it when it is done
├── LedgerCorrupt              the ledger's file is damaged; a new one is made from the pictures
├── RecipeInvalid              (recipe/messages/problems.py: one save's problems, with their places)
├── ModelRefused               a model file that cannot be used, and why
├── PictureUnreadable          a picture without metadata that we can read
├── RenderFailed               the engine could not make these images; it lives on
├── EngineDied                 the engine's process ended in the middle of a batch
└── EngineStopped              the engine was closed on purpose; the images go back to the queue
"""


class PicowatchError(Exception):
    """A failure a user can see: what happened, and what to do about it.

    `message` says what and why in one or more sentences; `remedy`, where there is one, says
    what to do. Together they read as one text.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class SettingsInvalid(PicowatchError):
    """picowatch.yaml, an environment variable or a flag holds something we cannot use."""

    exit_code = 2


class OutboxInUse(PicowatchError):
    """Another picowatch works with this outbox."""

    exit_code = 3


class OutboxInUseByMake(OutboxInUse):
    """A `picowatch make` without a daemon works with this outbox, until its recipes are done."""


class LedgerCorrupt(PicowatchError):
    """The ledger's file is damaged: not what SQLite wrote, or only a part of it."""


class ModelRefused(PicowatchError):
    """A model file that cannot be used; the message says what it is."""


class PictureUnreadable(PicowatchError):
    """A picture without metadata that we can read."""


class RenderFailed(PicowatchError):
    """The engine could not make these images; the engine itself lives on.

    `trace` holds the engine's traceback for `--debug` and the log file; it is never shown to
    a user unasked.
    """

    def __init__(self, message: str, remedy: str = "", trace: str = "") -> None:
        super().__init__(message, remedy)
        self.trace = trace


class EngineDied(PicowatchError):
    """The engine's process ended in the middle of a batch; the message says how."""


class EngineStopped(PicowatchError):
    """The engine was closed on purpose; what it worked on goes back to the queue."""
