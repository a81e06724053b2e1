"""Fuzz for minutes, guided by coverage: `python -m tests.fuzz.run --minutes 10`.

Each target runs in a process of its own under atheris (libFuzzer for Python; Linux only), its
share of the time long. What is found is kept in build/fuzz/, with the corpus that later runs
start from. Exit code 1 if anything was found.
"""

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
# Of one input, on a machine that does other things too, with counters in every line.
SECONDS = 10
MEGABYTES = 1024
MAX_BYTES = 4096
NO_ATHERIS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one target or all; 0 nothing found, 1 something, 2 atheris is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (10)")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give a finding to its target")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.replay:
        return _replay(options.target, options.replay)
    if options.child:
        _fuzz(options.target, options.child)
    try:
        importlib.import_module("atheris")
    except ImportError:
        _say("atheris is missing (Linux only): pip install atheris")
        return NO_ATHERIS
    from tests.fuzz.targets import TARGETS

    names = [options.target] if options.target else list(TARGETS)
    found = [_run(name, 60 * options.minutes / len(names)) for name in names]
    return 1 if any(found) else 0


def _replay(target: str, file: Path) -> int:
    """The target once, on these bytes, without atheris."""
    from tests.fuzz.targets import TARGETS

    TARGETS[target](file.read_bytes())
    return 0


def _run(target: str, seconds: float) -> bool:
    """Fuzz a target in a process of its own; tells what came out and gives whether it failed."""
    findings = FOLDER / "findings" / target
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    child = [sys.executable, "-m", "tests.fuzz.run", "--target", target, "--child", str(seconds)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, errors="replace")
    executions = [int(number) for number in re.findall(r"(?m)^#(\d+)\t", done.stderr)]
    covered = re.findall(r"\bcov: (\d+)", done.stderr)
    _say(
        f"{target:24}{max(executions, default=0):>12,} executions"
        f"{covered[-1] if covered else '0':>8} edges{'  FAILED' if done.returncode else ''}"
    )
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line[:1] != "#"]
        _say("\n".join(line[:200] for line in told[-40:]))
        for file in sorted(set(findings.iterdir()) - before):
            _say(f"again: python -m tests.fuzz.run --target {target} --replay {file}")
    return done.returncode != 0


def _fuzz(target: str, seconds: float) -> None:
    """This process becomes the fuzzer, and ends with it."""
    atheris = importlib.import_module("atheris")
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
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words()))
    arguments = {
        "max_total_time": int(seconds) or 1,
        "dict": dictionary,
        "artifact_prefix": f"{FOLDER / 'findings' / target}/",
        "timeout": SECONDS,
        "rss_limit_mb": MEGABYTES,
        "max_len": MAX_BYTES,
        "print_final_stats": 1,
    }
    flags = [f"-{name}={value}" for name, value in arguments.items()]
    atheris.Setup([target, *flags, str(corpus), str(starts)], TARGETS[target])
    atheris.Fuzz()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
