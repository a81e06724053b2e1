"""How well "seconds left" holds: a real run's status against what was really left.

python -m benchmarks.time_left                    # 40 pictures of the demo model
python -m benchmarks.time_left --recipes 5 --count 16 --record
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import RESULTS, Goal, Section, measured, percentile

LOOK_SECONDS = 0.1
FROM_PICTURE = 2  # the first one's time is not known before it
# Less is not worth a judgement: the status is written once a second.
LEAST_LEFT = 3.0
PATIENCE = 900.0
GOAL = Goal("at most", 0.2)


class Estimate(NamedTuple):
    """What a status said, and when."""

    at: float
    seconds_left: float
    done: int


def main() -> None:
    """Prints how far the estimates were off; `--record` writes it down."""
    options = parsed_arguments()
    with tempfile.TemporaryDirectory() as folder:
        estimates, end = observed(Path(folder), options.recipes, options.count)
    errors = errors_of(estimates, end)
    if not errors:
        sys.exit("Too short a run: nothing could be judged. Ask for more pictures.")
    section = Section("Seconds left", f"python -m benchmarks.time_left {' '.join(sys.argv[1:])}")
    kind = f"{options.recipes} recipes of {options.count} pictures, demo model, 24 steps"
    section.add(
        [
            measured(f"{kind}: median error", [statistics.median(errors)], "", GOAL),
            measured("the error that nine of ten stay below", [percentile(errors, 0.9)], ""),
            measured("the largest error", [max(errors)], ""),
        ]
    )
    section.note(f"{len(errors)} estimates, each against the time that was really left then.")
    if options.record:
        section.write(RESULTS)


def observed(folder: Path, recipes: int, count: int) -> tuple[list[Estimate], float]:
    """Every estimate of a run, and when its last picture was done."""
    inbox, status = folder / "inbox", folder / "outbox/.picowatch/status.json"
    inbox.mkdir()
    for number in range(recipes):
        text = f"prompt: a corgi\nseed: {100 * number}\ncount: {count}\n"
        (inbox / f"{number}.yaml").write_text(text)
    command = [sys.executable, "-m", "picowatch", "run", "--quiet"]
    command += [f"--inbox={inbox}", f"--outbox={folder / 'outbox'}"]
    estimates: list[Estimate] = []
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    with subprocess.Popen(command) as daemon:
        try:
            done = 0
            while done < recipes * count:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    sys.exit("picowatch did not render its pictures.")
                pause.wait(LOOK_SECONDS)
                with suppress(OSError, ValueError):
                    done = note(json.loads(status.read_text()), estimates)
            return estimates, (status.parent.parent / "images.jsonl").stat().st_mtime
        finally:
            daemon.terminate()


def note(status: dict[str, object], estimates: list[Estimate]) -> int:
    """Keep what a new status says; gives how many pictures are done."""
    images = status["images"]
    assert isinstance(images, dict)
    at, left = float(str(status["updated"])), status.get("all_seconds_left")
    if isinstance(left, int | float) and (not estimates or estimates[-1].at != at):
        estimates.append(Estimate(at, float(left), images["done"]))
    return int(images["done"])


def errors_of(estimates: list[Estimate], end: float) -> list[float]:
    """How far each estimate is off, as a share of what was really left."""
    judged = [one for one in estimates if one.done >= FROM_PICTURE and end - one.at >= LEAST_LEFT]
    return [abs(one.at + one.seconds_left - end) / (end - one.at) for one in judged]


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", type=int, default=4)
    parser.add_argument("--count", type=int, default=10, help="pictures of each")
    parser.add_argument("--record", action="store_true", help=f"write it to {RESULTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
