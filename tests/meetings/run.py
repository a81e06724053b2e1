"""Plays many random scripts; a failure is shortened and printed.

    python -m tests.meetings.run --actions 1000000 --seed 0 [--jobs 2]

Exit code 1 if anything was found.
"""

import argparse
import multiprocessing
import os
import sys
from collections import Counter

from tests.meetings.play import LENGTH, Script, play, random_script, shorter


def play_one(seed: int) -> tuple[Script, list[str], Counter[str]]:
    script, counts = random_script(seed), Counter[str]()
    return script, play(script, counts), counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Let features meet at random.")
    parser.add_argument("--actions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first script")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    seeds = range(options.seed, options.seed - (-options.actions // LENGTH))
    with multiprocessing.Pool(options.jobs) as pool:
        for script, findings, some in pool.imap_unordered(play_one, seeds):
            counts += some
            if findings:
                print(f"seed {script.seed}: {findings[:3]}", flush=True)
                print(shorter(script))
                return 1
    print(f"{len(seeds)} scripts:", ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets have an order of their own, else
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.meetings.run", *sys.argv[1:]])
    sys.exit(main())
