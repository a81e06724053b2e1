"""`picowatch run` with an engine process that draws digests.

python -m tests.daemon.on_digests FOLDER [SETTING=VALUE…]
"""

import sys
from pathlib import Path

from picowatch.commands.run import RESTART, run
from picowatch.daemon import daemon
from picowatch.engine.child import ChildEngine
from picowatch.settings import load_settings
from tests.digest_renderer import DigestRenderer


def main(folder: Path, *values: str) -> int:
    # Deaths come at random here, so five in a row with one image in progress mean nothing.
    daemon.MAX_DAEMON_DEATHS = 10_000
    folders = {name: folder / name for name in ("inbox", "outbox", "models")}
    given = dict(value.split("=") for value in values)
    settings = load_settings({**folders, "settle_seconds": 0.1, "batch_size": 3, **given}, {})
    code = RESTART
    while code == RESTART:
        code = run(
            settings,
            once=False,
            make_engine=lambda options: ChildEngine(options, DigestRenderer),
        )
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
