"""The language server of VS Code and Neovim, where it is installed, with what `init` writes.

npm install -g yaml-language-server
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.commands.picowatch import PROJECT, picowatch

SECONDS = 60.0
MODELINE = "# yaml-language-server: $schema=.schema/recipe.json\n"


class Editor:
    """Speaks the language server protocol, just enough of it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = {"validate": True, "completion": True, "hover": True} | settings
        self._settings["schemaStore"] = {"enable": False}
        self._said: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._process = subprocess.Popen(
            ["yaml-language-server", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        threading.Thread(target=self._listen, daemon=True).start()
        folders = [{"uri": folder.as_uri(), "name": "pictures"}]
        self.ask(
            "initialize",
            processId=None,
            rootUri=folder.as_uri(),
            workspaceFolders=folders,
            capabilities={"workspace": {"configuration": True}},
        )
        self._say(method="initialized", params={})
        changed = {"settings": {"yaml": self._settings}}
        self._say(method="workspace/didChangeConfiguration", params=changed)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, file: str, text: str) -> list[str]:
        """What the server finds wrong with the file, with the lines' numbers."""
        uri = (self._folder / file).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._say(method="textDocument/didOpen", params={"textDocument": document})
        while True:
            told = self._next()
            found = told.get("params", {})
            is_it = told.get("method") == "textDocument/publishDiagnostics" and found["uri"] == uri
            if is_it:
                return [
                    f"{problem['range']['start']['line'] + 1}: {problem['message']}"
                    for problem in found["diagnostics"]
                ]

    def complete(self, file: str, line: int, column: int) -> list[str]:
        """What could stand there."""
        answer = self.ask("textDocument/completion", **self._place(file, line, column))
        return [proposal["label"] for proposal in answer["items"]]

    def hover(self, file: str, line: int, column: int) -> str:
        """What is said of what stands there."""
        answer = self.ask("textDocument/hover", **self._place(file, line, column))
        return str(answer["contents"]["value"])

    def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._say(id=self._number, method=method, params=params)
        while True:
            told = self._next()
            if told.get("id") == self._number and "method" not in told:
                return told["result"]

    def _place(self, file: str, line: int, column: int) -> dict[str, Any]:
        return {
            "textDocument": {"uri": (self._folder / file).as_uri()},
            "position": {"line": line - 1, "character": column - 1},
        }

    def _next(self) -> dict[str, Any]:
        told = self._said.get(timeout=SECONDS)
        if told.get("method") == "workspace/configuration":
            wanted = [self._settings if one.get("section") == "yaml" else {}
                      for one in told["params"]["items"]]  # fmt: skip
            self._say(id=told["id"], result=wanted)
        elif "id" in told and "method" in told:
            self._say(id=told["id"], result=None)
        return told

    def _say(self, **message: Any) -> None:
        assert self._process.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream
        while header := stream.readline():
            length = int(header.split(b":")[1])
            while stream.readline().strip():
                pass
            self._said.put(json.loads(stream.read(length)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not shutil.which("yaml-language-server"):
        pytest.skip("yaml-language-server is not installed")
    picowatch(tmp_path, "init")
    return tmp_path


@pytest.fixture
def editor(folder: Path) -> Iterator[Editor]:
    editor = Editor(folder, {})
    yield editor
    editor.close()


def test_it_finds_nothing_wrong_with_what_init_writes(folder: Path, editor: Editor) -> None:
    """Nor with the spellings that picowatch by_another_program."""
    for file in [*folder.glob("*.yaml"), *(folder / "inbox").rglob("*.yaml")]:
        assert editor.open(str(file.relative_to(folder)), file.read_text()) == [], file
    forgiven = "prompt: a\nsampler: euler_a\ncfg: 3\nseed: -1\nexact: yes\nloras: {ink: '0.5'}\n"
    assert editor.open("inbox/forgiven.yaml", MODELINE + forgiven) == []
    anchors = "- &base {prompt: a, steps: 3}\n- <<: *base\n  seed: 2\n"
    assert editor.open("inbox/anchors.yaml", MODELINE + anchors) == []


MISTAKES = {
    "stesp: 3": "3: Property stesp is not allowed.",
    "steps: 300": "3: Value is above the maximum of 150.",
    "width: 500": "3: Value is not divisible by 8.",
    "size: large": "3: A size is like 512x768, or picture.",
    "sweep: {stesp: [1, 2]}": "3: Property stesp is not allowed.",
    "hires: {scale: 9}": "3: Value is above the maximum of 4.",
}


def test_it_underlines_mistakes(editor: Editor) -> None:
    """In the line they are in, in words that help."""
    for number, (line, said) in enumerate(MISTAKES.items()):
        found = editor.open(f"inbox/{number}.yaml", f"{MODELINE}prompt: a\n{line}\n")
        assert found == [said]


def test_it_completes_and_explains(editor: Editor) -> None:
    """Fields by their first names, and the values there are."""
    editor.open("inbox/a.yaml", f"{MODELINE}prompt: a\nsampler: \nsteps: 3\n\n")
    fields = editor.complete("inbox/a.yaml", 5, 1)
    assert {"negative_prompt", "cfg_scale", "hires", "from"} <= set(fields)
    assert "cfg" not in fields
    assert {"DPM++ 2M Karras", "Euler a"} <= set(editor.complete("inbox/a.yaml", 3, 10))
    assert "Denoising steps." in editor.hover("inbox/a.yaml", 4, 2)


def test_the_settings_in_the_docs_spare_the_first_line(folder: Path) -> None:
    """For recipes, defaults and settings, each its own schema."""
    page = (PROJECT / "docs/editors.md").read_text()
    settings = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])
    editor = Editor(folder, {"schemas": settings["yaml.schemas"]})
    try:
        missing = editor.open("inbox/pets/a.yaml", "steps: 3\n")
        assert missing == ['1: Missing property "prompt".']
        assert editor.open("inbox/pets/_defaults.yaml", "steps: 3\n") == []
        assert editor.open("inbox/_defaults.yaml", "stesp: 3\n") == [
            "1: Property stesp is not allowed."
        ]
        assert editor.open("picowatch.yaml", "settle: 3\n") == [
            "1: Property settle is not allowed."
        ]
    finally:
        editor.close()
