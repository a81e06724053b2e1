"""The whole GPU table with its peers in one run, into RESULTS.md: `make bench-gpu`.

    python -m benchmarks.gpu [--rows step,queue] [--rounds 3]
    python -m benchmarks.gpu --minutes 10 --out DIR

The second form is for a card that is there for a short while: see benchmarks/card.py.

With `--device cpu --size 64 --steps 2 --pictures 3 --checkpoint demo --results FILE` it only
proves that it works; figures of a CPU never go into RESULTS.md. There are no goals then.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import against_peers, alone, gpu_rows
from benchmarks.card import run_parts
from benchmarks.jobs import DEMO, full_size
from benchmarks.measuring import RESULTS, Section
from benchmarks.plan import Plan, Row, add_shared_flags, choose, measure_all, own_command, temporary

DEMO_SIDE = 128
ROWS = (
    Row("step", 12, gpu_rows.step_row),
    Row("queue", 10, gpu_rows.queue_row),
    Row("memory", 3, gpu_rows.memory_row),
    Row("first", 2, against_peers.first_row),
    Row("switching", 2, alone.switching_row),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The whole GPU table, into RESULTS.md.")
    add_shared_flags(parser, ROWS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=128, help="in the full queue")
    parser.add_argument("--checkpoint", choices=["full", "demo"], default="full")
    parser.add_argument("--minutes", type=float, help="run the parts of benchmarks/card.py instead")
    parser.add_argument("--out", type=Path, default=Path("card"), help="where the parts write")
    options = parser.parse_args(arguments)
    if options.minutes:
        parts = options.rows.split(",") if options.rows else []
        return run_parts(parts, options.minutes, options.device, options.out)
    try:
        rows = choose(ROWS, options.rows)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    on_gpu = options.device.startswith("cuda")
    if not on_gpu and options.results is None:
        parser.error("without a GPU --results has to name a file of its own")
    section = Section("The GPU table", own_command("benchmarks.gpu"), card() if on_gpu else "")
    with temporary(options.folder, options.cache) as folder:
        plan = Plan(
            folder=folder,
            rounds=options.rounds,
            steps=options.steps,
            pictures=options.pictures,
            device=options.device,
            size=min(DEMO_SIDE, options.size),
            large=full_size if options.checkpoint == "full" else lambda number: DEMO,
            large_size=options.size,
            large_steps=(options.steps, 3 * options.steps),
            recipes=0,
            saves=0,
            idle_seconds=0.0,
            published=0,
            section=section,
        )
        well = measure_all(rows, plan)
    section.write(options.results or RESULTS)
    return 0 if well else 1


def card() -> str:
    """The GPU and its driver, as a sentence."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    cards = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    return f"GPU and driver: {'; '.join(cards)}."


if __name__ == "__main__":
    sys.exit(main())
