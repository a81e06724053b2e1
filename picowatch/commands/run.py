"""`picowatch run`: start watching, end at a signal, and say with which exit code."""

import logging
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.run import Mode
from picowatch.daemon.settings_file import SettingsFile
from picowatch.daemon.supervise import run_daemon
from picowatch.engine.process.child import ChildEngine
from picowatch.errors import FAILED, INTERRUPTED, SUCCEEDED
from picowatch.observers.console import Console, open_console
from picowatch.settings.settings import Settings
from picowatch.sources import FILE_NAME, FOLDERS
from picowatch.streams import finish

log = logging.getLogger("picowatch")

LAST_SECONDS = 0.5  # to leave things in order, where the end is overdue


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    if options.debug or options.verbose:
        logging.getLogger("picowatch").setLevel(logging.DEBUG)
    here = Path.cwd()  # asked once: it may be moved, or replaced by a backup
    path = here / (options.settings or FILE_NAME)

    def with_full_paths() -> Settings:
        settings = load()
        if os.path.lexists(path):
            options.settings = path
        # `model_copy` would have somebody name the models folder, which then must be there.
        vars(settings).update({name: here / getattr(settings, name) for name in FOLDERS})
        return check_folders(settings, waits=True)

    file, once = SettingsFile(path, with_full_paths), options.once
    shown = {"quiet": options.quiet, "verbose": options.verbose}
    return run(file.load(), once, **shown, settings_file=None if once else file)


def run(
    settings: Settings,
    once: bool,
    make_engine: MakeEngine = ChildEngine,
    *,
    quiet: bool = False,
    verbose: bool = False,
    settings_file: SettingsFile | None = None,
) -> int:
    """Watch until SIGTERM or Ctrl-C, or render once; return the exit code."""
    check_folders(settings, waits=not once)
    code = INTERRUPTED if once else SUCCEEDED
    with closing(open_console(settings.log_format, quiet=quiet, verbose=verbose)) as console:
        mode, leave = Mode(once=once), partial(_leave, console, code)
        result, interrupted = run_daemon(
            settings, make_engine, console, mode, settings_file, overdue=leave
        )
    if not once:
        return FAILED if result.reason else SUCCEEDED
    if result.summary and not quiet and settings.log_format == "text":
        with suppress(OSError):  # summary.txt has it, too
            print(result.summary)
        finish(sys.stdout)
    if interrupted:
        return INTERRUPTED
    return SUCCEEDED if result.succeeded else FAILED


def _leave(console: Console, code: int) -> None:
    """End in the middle of something that cannot be interrupted: the next start goes on with it."""

    def finish() -> None:
        log.info("interrupted in the middle of something; the next start continues it")
        console.close()

    # The disk and the terminal may be what is waited for: neither keeps it alive.
    try:
        last = threading.Thread(target=finish, daemon=True)
        last.start()
        last.join(LAST_SECONDS)
    finally:
        os._exit(code)
