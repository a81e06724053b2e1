"""Plays many random scripts; a failure is shortened and printed.

    python -m tests.meetings.run --actions 1000000 --seed 0 [--jobs 2] [--length 60]

Exit code 1 if anything was found.
"""

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from tests.meetings.play import Script, play, script_of

SHRINKS = 400  # plays that making one shorter may take


def kind(finding: str) -> str:
    """Return a finding without names and numbers, which is equal for findings of one kind."""
    return re.sub(r"'[^']*'|\S*\.(?:yaml|txt|png)\S*|\d+", "#", finding)[:80]


def shorter(script: Script, finding: str) -> Script:
    """Return the script without what the finding does not need."""
    plays = 0

    def finds(other: Script) -> bool:
        nonlocal plays
        plays += 1
        return plays <= SHRINKS and any(kind(one) == kind(finding) for one in play(other))

    return shrink(script, finds)


def shrink(script: Script, finds: Callable[[Script], bool]) -> Script:
    """Return fewer actions that still give the finding (Zeller's delta debugging)."""
    size = max(1, len(script.actions) // 2)
    while size:
        start, before = 0, script
        while start < len(script.actions):
            left = script.actions[:start] + script.actions[start + size :]
            fewer = replace(script, actions=left)
            if finds(fewer):
                script = fewer
            else:
                start += size
        if size > 1 or script is before:
            size //= 2
    return script


def play_one(task: tuple[int, int]) -> tuple[int, list[str], Counter[str]]:
    seed, length = task
    counts: Counter[str] = Counter()
    return seed, play(script_of(seed, length), counts), counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Let features meet at random.")
    parser.add_argument("--actions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first script")
    parser.add_argument("--length", type=int, default=60, help="actions of a script")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep-going", action="store_true", help="after a failure, too")
    options = parser.parse_args()
    began, failed = time.monotonic(), 0
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    scripts = -(-options.actions // options.length)
    tasks = [(seed, options.length) for seed in range(options.seed, options.seed + scripts)]
    with multiprocessing.Pool(options.jobs) as pool:
        for seed, findings, some in pool.imap_unordered(play_one, tasks):
            counts += some
            counts["scripts"] += 1
            if findings:
                failed += 1
                if kind(findings[0]) not in seen:
                    seen.add(kind(findings[0]))
                    print(f"seed {seed}: {findings[:3]}", flush=True)
                    print(shorter(script_of(seed, options.length), findings[0]), flush=True)
                if not options.keep_going:
                    break
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{told}\n{failed} scripts failed after {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets have an order of their own, else
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.meetings.run", *sys.argv[1:]])
    sys.exit(main())
