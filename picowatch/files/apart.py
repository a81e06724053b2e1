"""Programs for processes that work alone: whatever ends one harms nothing else."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])


def program(module: str, *arguments: str) -> list[str]:
    """Return the command that calls a module's `main`; nothing is imported from the work folder."""
    code = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import main; main()"
    return [sys.executable, "-P", "-c", code, _ROOT, *arguments]
