"""How this machine's pip reaches its packages, for a build that must go the same way."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

# Only what says where packages come from, and by whom a server is trusted.
ROUTES = {
    "cert", "extra-index-url", "find-links", "index-url", "no-index", "proxy", "trusted-host",
}  # fmt: skip


@dataclass(frozen=True)
class PipRoutes:
    """The text of a pip.conf, and the files and folders of this machine that it names."""

    config: str
    paths: tuple[Path, ...]


def pip_routes() -> PipRoutes:
    """What pip's files and environment say; the environment beats the files."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    return routes_in(listed)


def routes_in(listed: str) -> PipRoutes:
    """The same from the words of `pip config list`."""
    lines = re.findall(r"^(\S+?)\.([\w-]+)='?(.*?)'?$", listed, re.MULTILINE)
    lines.sort(key=lambda line: line[0] == ":env:")
    values = {name: ast.literal_eval(f"'{value}'") for _, name, value in lines if name in ROUTES}
    config = "[global]\n" + "".join(
        f"{name} = {' '.join(value.split())}\n" for name, value in sorted(values.items())
    )
    words = [word for value in values.values() for word in value.split()]
    return PipRoutes(config, tuple(sorted({path for word in words if (path := _path(word))})))


def _path(word: str) -> Path | None:
    """What a build must be lent for this word of the configuration."""
    if word.startswith("/"):
        return Path(word)
    if word.startswith("file:///"):
        # An index of files names them relatively, beside its own folder.
        return Path(unquote(urlparse(word).path)).parent
    return None
