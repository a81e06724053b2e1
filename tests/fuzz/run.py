"""Fuzz for minutes, guided by coverage: `python -m tests.fuzz.run 10`.

Each target runs in a process of its own under atheris (libFuzzer for Python; Linux only), its
share of the time long. What is found is kept in build/fuzz/, with the corpus that later runs
start from, and is tried again by `python -m tests.fuzz.run TARGET FILE`. Exit code 1 if anything
was found.
"""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
# Of one input, on a machine that does other things too, with counters in every line.
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=4096")


def main(minutes: str = "10") -> int:
    from tests.fuzz.targets import TARGETS

    found = [_run(name, int(60 * float(minutes) / len(TARGETS)) or 1) for name in TARGETS]
    return 1 if any(found) else 0


def _run(target: str, seconds: int) -> bool:
    """Fuzz a target in a process of its own; tells what came out and gives whether it failed."""
    child = [sys.executable, "-m", "tests.fuzz.run", target, f"-max_total_time={seconds}"]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, errors="replace")
    tried, edges = (re.findall(r"(?m)^#(\d+)\t.*?\bcov: (\d+)", done.stderr) or [("0", "0")])[-1]
    failed = "  FAILED" if done.returncode else ""
    print(f"{target:24}{int(tried):>12,} executions{edges:>8} edges{failed}", flush=True)
    if failed:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line[:1] != "#"]
        print(*(line[:200] for line in told[-40:]), sep="\n")  # the last names the finding
    return bool(failed)


def fuzz(target: str, argument: str) -> None:
    """Become libFuzzer, which takes a flag or a file, and end with it."""
    atheris = import_module("atheris")
    # Pillow's readers, too: what a picture's bytes lead to happens there.
    with atheris.instrument_imports(include=["picowatch", "PIL"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import seeds, words

    folders = [FOLDER / kind / target for kind in ("corpus", "seeds", "findings")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (folders[1] / f"{number:03}").write_bytes(seed)
    dictionary = FOLDER / "dictionary.txt"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words())
    dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
    flags = (*LIMITS, f"-dict={dictionary}", f"-artifact_prefix={folders[2]}/", argument)
    corpora = map(str, folders[:2]) if argument.startswith("-") else ()
    atheris.Setup([target, *flags, *corpora], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit((fuzz if len(sys.argv) > 2 else main)(*sys.argv[1:]))
