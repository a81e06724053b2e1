"""Fuzz for minutes, guided by coverage: `python -m tests.fuzz.run --minutes 10`.

Each target runs in a process of its own under atheris (libFuzzer for Python; Linux only), its
share of the time long. What is found is kept in build/fuzz/, with the corpus that later runs
start from. Exit code 1 if anything was found.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
# Of one input, on a machine that does other things too, with counters in every line.
SECONDS = 10
MEGABYTES = 1024
MAX_BYTES = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one target or all; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (10)")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give a finding to its target")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _fuzz(options.target, options.child)
    from tests.fuzz.targets import TARGETS

    if options.replay:  # without atheris
        TARGETS[options.target](options.replay.read_bytes())
        return 0
    if find_spec("atheris") is None:
        sys.exit("atheris is missing (Linux only): pip install atheris")
    names = [options.target] if options.target else list(TARGETS)
    found = [_run(name, 60 * options.minutes / len(names)) for name in names]
    return 1 if any(found) else 0


def _run(target: str, seconds: float) -> bool:
    """Fuzz a target in a process of its own; tells what came out and gives whether it failed."""
    findings = FOLDER / "findings" / target
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    child = [sys.executable, "-m", "tests.fuzz.run", "--target", target, "--child", str(seconds)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, errors="replace")
    tried, edges = (re.findall(r"(?m)^#(\d+)\t.*?\bcov: (\d+)", done.stderr) or [("0", "0")])[-1]
    failed = "  FAILED" if done.returncode else ""
    print(f"{target:24}{int(tried):>12,} executions{edges:>8} edges{failed}", flush=True)
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line[:1] != "#"]
        print(*(line[:200] for line in told[-40:]), sep="\n")
        for file in sorted(set(findings.iterdir()) - before):
            print(f"again: python -m tests.fuzz.run --target {target} --replay {file}")
    return done.returncode != 0


def _fuzz(target: str, seconds: float) -> None:
    """This process becomes the fuzzer, and ends with it."""
    atheris = import_module("atheris")
    # Pillow's readers, too: what a picture's bytes lead to happens there.
    with atheris.instrument_imports(include=["picowatch", "PIL"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import seeds, words

    corpus, starts = FOLDER / "corpus" / target, FOLDER / "seeds" / target
    for folder in (corpus, starts):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (starts / f"{number:03}").write_bytes(seed)
    dictionary = FOLDER / "dictionary.txt"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words())
    dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
    arguments = {
        "max_total_time": int(seconds) or 1,
        "dict": dictionary,
        "artifact_prefix": f"{FOLDER / 'findings' / target}/",
        "timeout": SECONDS,
        "rss_limit_mb": MEGABYTES,
        "max_len": MAX_BYTES,
    }
    flags = [f"-{name}={value}" for name, value in arguments.items()]
    atheris.Setup([target, *flags, str(corpus), str(starts)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
