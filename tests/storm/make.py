"""`picowatch make` with an engine process that draws digests.

python -m tests.storm.make FOLDER RECIPE
"""

import sys
from pathlib import Path

from picowatch.commands.requests import make
from picowatch.engine.child import ChildEngine
from picowatch.errors import PicowatchError
from tests.storm.daemon import settings_of
from tests.storm.engine import DigestRenderer


def main(folder: Path, recipe: Path) -> int:
    try:
        return make(
            settings_of(folder, "max_attempts=1000"),
            [recipe],
            make_engine=lambda options: ChildEngine(options, DigestRenderer),
        )
    except PicowatchError as error:
        print(error.message, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
