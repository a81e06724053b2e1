"""How this machine's pip reaches its packages, for a build that must go the same way."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote, urlparse

# Only what says where packages come from, and by whom a server is trusted.
ROUTES = {
    "cert", "extra-index-url", "find-links", "index-url", "no-index", "proxy", "trusted-host",
}  # fmt: skip


class QuietHandler(SimpleHTTPRequestHandler):
    """Files below a folder, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve_routes(base: Path, served: Path) -> Iterator[str]:
    """The text of a pip.conf for a build on a base, on this machine's network.

    It names folders of this machine as those of a server, which runs meanwhile and shows what
    `served` links to. A file with certificates becomes the base's.
    """
    served.mkdir()
    handler = partial(QuietHandler, directory=str(served))
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        config, paths = routes_in(listed, f"http://127.0.0.1:{server.server_port}")
        for path in sorted(filter(Path.exists, paths)):
            link, copy = (root / path.relative_to("/") for root in (served, base))
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
            if path.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)  # what it links to may be this machine's
                shutil.copy(path, copy)
        Thread(target=server.serve_forever).start()
        try:
            yield config
        finally:
            server.shutdown()


def routes_in(listed: str, server: str) -> tuple[str, set[Path]]:
    """A pip.conf from the words of `pip config list`, and what it needs of this machine.

    The environment beats the files.
    """
    lines = re.findall(r"^(\S+?)\.([\w-]+)='?(.*?)'?$", listed, re.MULTILINE)
    lines.sort(key=lambda line: line[0] == ":env:")
    values = {name: ast.literal_eval(f"'{value}'") for _, name, value in lines if name in ROUTES}
    config, paths = "[global]\n", set()
    for name, value in sorted(values.items()):
        words = value.split()
        for place, word in enumerate(words):
            path = (
                Path(unquote(urlparse(word).path)) if word.startswith(("/", "file:///")) else None
            )
            if path and name != "cert":
                words[place] = server + quote(str(path))
                # An index of files names them relatively, beside its own folder.
                path = path.parent if word.startswith("file:") else path
            paths |= {path} if path else set()
        config += f"{name} = {' '.join(words)}\n"
    return config, paths
