"""How picowatch starts another process of its own."""

import sys
from pathlib import Path


def python_command(program: str, *arguments: str | int) -> list[str]:
    """A command that calls `main` of a module with these arguments.

    -P keeps the user's folder off the path: a torch.py in it would be imported instead of torch.
    The package's own parent comes last, because an installed package is found without it.
    """
    root = str(Path(__file__).absolute().parents[3])
    code = f"import sys; sys.path.append({root!r}); from {program} import main; main(*{arguments})"
    return [sys.executable, "-P", "-c", code]
