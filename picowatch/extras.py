"""How the optional parts of picowatch are installed into the environment that runs it."""

import sys
from pathlib import Path
from shlex import quote

DISTRIBUTION = "picowatch-diffusion"  # `picowatch` in the package index is another program


def install_command(extra: str) -> str:
    """Adds an extra of pyproject.toml, from the checkout if it is one that runs.

    Elsewhere the name is enough, although no index may have it: pip finds what is installed, and
    only fetches what the extra adds. In a checkout, `-e` keeps its code the one that runs.
    """
    pip = f"{quote(sys.executable)} -m pip install"
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").exists():
        return f"cd {quote(str(checkout))} && {pip} -e '.[{extra}]'"
    return f"{pip} '{DISTRIBUTION}[{extra}]'"
