"""`picowatch run --once` each time that a line comes in, in a new process that faketime may date.

Python and picowatch are imported once, so thirty days take seconds.
"""

import os
import sys
from pathlib import Path

from tests.house import House


def main() -> None:
    """Answer each line with the exit code of a run in the folder that is named by the argument."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for _ in sys.stdin:
        if not (child := os.fork()):
            os._exit(House(Path(sys.argv[1])).run_once())
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    main()
