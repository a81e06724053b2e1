"""`picowatch make`: its engine, if it needs one, starts first; the rest is imported meanwhile."""

import json
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from picowatch.engine.process.command import EarlyEngine
from picowatch.errors import PicowatchError

if TYPE_CHECKING:
    from picowatch.settings import Settings

_USUAL_OUTBOX = Path("outbox")


def main(options: Namespace, load: "Callable[[], Settings]") -> int:
    with closing(EarlyEngine()) as early:
        # Reading the settings takes imports that the engine need not wait for.
        if _is_free((options.outbox or _USUAL_OUTBOX) / ".picowatch"):
            early.start()
        try:
            settings = load()
        except PicowatchError as error:
            if not options.json:
                raise
            found = {"done": False, "errors": [error.with_remedy], "recipes": []}
            print(json.dumps(found, indent=1))
            return error.exit_code
        if _renders_here(settings):
            early.start()
        else:
            early.close()
        from picowatch.commands.requests import make

        return make(
            settings,
            options.files,
            early.make_engine,
            name=options.name or "",
            remove=options.rm,
            as_json=options.json,
        )


def _renders_here(settings: "Settings") -> bool:
    """Whether an engine is needed, as far as can be seen at once.

    If this is wrong, the engine starts later, or is ended unused.
    """
    from picowatch.settings import LocalSettings

    is_local = isinstance(settings.executor, LocalSettings)
    return _is_free(settings.state_folder) and is_local and settings.inbox.is_dir()


def _is_free(state_folder: Path) -> bool:
    """Whether probably no daemon is running: who runs has written its number into the lock.

    To ask the lock itself takes imports that the engine need not wait for.
    """
    try:
        return (state_folder / "lock").stat().st_size == 0
    except OSError:
        return True
