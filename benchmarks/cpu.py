"""The whole CPU table in one run, ours and the peers' by turns, into RESULTS.md.

    python -m benchmarks.cpu [--rows folder,full] [--rounds 3] [--folder DIR] [--xl-size 512]

Some 20 minutes on two quiet cores; it says which row runs and how long that takes. DIR decides
which disk is measured; without it a temporary folder is taken. `--small` only proves that the
script works: few, small pictures, the demo model everywhere, and nothing into RESULTS.md.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import against_peers, alone
from benchmarks.jobs import DEMO, full_size, tiny_xl
from benchmarks.measuring import RESULTS, Section
from benchmarks.plan import Plan, Row, add_shared_flags, choose, measure_all, own_command, temporary

ROWS = (
    Row("folder", 6, against_peers.folder_row),
    Row("full", 3, against_peers.full_row),
    Row("cpp", 6, against_peers.cpp_row),
    Row("xl", 20, against_peers.xl_row),
    Row("xlcpp", 45, against_peers.xl_cpp_row),
    Row("first", 2, against_peers.first_row),
    Row("waiting", 3, alone.waiting_row),
    Row("flat", 2, alone.flat_row),
    Row("idle", 1.5, alone.idle_row),
    Row("switching", 2, alone.switching_row),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The whole CPU table, into RESULTS.md.")
    add_shared_flags(parser, ROWS)
    parser.add_argument("--xl-size", type=int, default=512, help="side of Stable Diffusion XL's")
    parser.add_argument("--small", action="store_true", help="only prove that it works")
    options = parser.parse_args(arguments)
    try:
        rows = choose(ROWS, options.rows)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if options.small and options.results is None:
        parser.error("--small needs --results: its figures say nothing")
    section = Section("The CPU table", own_command("benchmarks.cpu"))
    with temporary(options.folder, options.cache) as folder:
        make = partial(Plan, folder=folder, rounds=options.rounds, device="cpu", section=section)
        plan = small(make, folder) if options.small else usual(make, options.xl_size)
        well = measure_all(rows, plan)
    section.write(options.results or RESULTS)
    return 0 if well else 1


def usual(make: "partial[Plan]", xl_size: int) -> Plan:
    """What the goals are about."""
    return make(
        steps=24,
        pictures=64,
        size=128,
        large=full_size,
        large_size=256,
        xl_size=xl_size,
        large_steps=(2, 6),
        recipes=10_000,
        saves=150,
        idle_seconds=60.0,
        published=100_000,
    )


def small(make: "partial[Plan]", folder: Path) -> Plan:
    """As little of everything as shows that the script works."""
    return make(
        steps=2,
        pictures=3,
        size=64,
        large=lambda number: DEMO,
        large_size=64,
        large_steps=(1, 3),
        recipes=30,
        saves=2,
        idle_seconds=0.5,
        published=1500,
        xl=lambda: tiny_xl(folder / "toy"),
        xl_size=64,
    )


if __name__ == "__main__":
    sys.exit(main())
