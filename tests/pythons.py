"""The tests that need no torch, on this machine's oldest Python of each version from 3.11 on.

`make test-pythons`: each Python gets its own environment, without torch, diffusers and
transformers. PYTHONS="3.11.2 3.11.7" selects only these.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
ENVIRONMENTS = PROJECT / ".venv/pythons"
CONSTRAINTS = PROJECT / "constraints.txt"
# What is below the engine, and the daemon with the engine of the tests.
TESTS = (
    *("catalog", "files", "inbox", "ledger", "metadata", "outbox", "recipe"),
    *("daemon/test_what_a_save_means.py", "commands/test_help.py"),
    *("test_architecture.py", "test_errors.py", "test_settings.py"),
)
NEED_TORCH = ("catalog/test_parts.py",)
PACKAGES = """
    argcomplete numpy pillow psutil pydantic pyyaml rich safetensors watchdog
    gguf hypothesis jsonschema pillow-heif prometheus-client sd-parsers
    pytest pytest-timeout pytest-xdist
"""
# Prints the version, if it is one that picowatch supports.
ABOUT = """
import platform, sys
final = sys.version_info >= (3, 11) and sys.version_info.releaselevel == "final"
if final and platform.python_implementation() == "CPython":
    print(platform.python_version())
"""


def pythons() -> dict[str, Path]:
    """Return each version that is installed, by pyenv or in the system, with its interpreter."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found: dict[str, Path] = {}
    for folder in (*pyenv.glob("versions/*/bin"), Path("/usr/local/bin"), Path("/usr/bin")):
        for program in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", program.name):
                told = subprocess.run([program, "-c", ABOUT], capture_output=True, text=True)
                found.setdefault(told.stdout.strip(), program)
    found.pop("", None)
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def environment(version: str, python: Path) -> Path:
    """Return the Python of an environment, which is made again when the packages change."""
    folder = ENVIRONMENTS / version
    ready, wanted = folder / ".ready", hashlib.sha256(CONSTRAINTS.read_bytes())
    wanted.update(PACKAGES.encode())
    own = folder / "bin/python"
    if not ready.is_file() or ready.read_text() != wanted.hexdigest():
        # Debian's Python has no pip of its own: this one's pip installs into it.
        call(python, "-m", "venv", "--clear", "--without-pip", folder)
        pip = (sys.executable, "-m", "pip", "--python", own, "install", "--quiet")
        call(*pip, "--only-binary", ":all:", "--constraint", CONSTRAINTS, *PACKAGES.split())
        ready.write_text(wanted.hexdigest())
    return own


def call(*command: str | Path) -> None:
    subprocess.run(command, cwd=PROJECT, check=True)


def main() -> int:
    found, named = pythons(), os.environ.get("PYTHONS", "").split()
    if missing := set(named) - found.keys():
        print(f"not installed: {', '.join(sorted(missing))}; there are {', '.join(found)}")
        return 1
    chosen = [f"tests/{test}" for test in TESTS]
    chosen += [f"--ignore=tests/{file}" for file in NEED_TORCH]
    oldest = {version.rpartition(".")[0]: version for version in reversed(found)}
    failed, tried = [], named or sorted(oldest.values(), key=[*found].index)
    for version in tried:
        print(f"Python {version} ({found[version]})", flush=True)
        try:
            own = environment(version, found[version])
            options = ("-q", "-m", "not heavy", "-n", "2", "-p", "no:cacheprovider")
            call(own, "-m", "pytest", *options, *chosen)
        except subprocess.CalledProcessError:  # it has said why
            failed.append(version)
    print(f"FAILED on {', '.join(failed)}" if failed else f"passed on {', '.join(tried)}")
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
