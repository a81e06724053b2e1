"""What is kept of a process's standard error."""

import subprocess
import sys

from picowatch.engine.process.last_words import LastWords
from tests.engine.requests import PATIENCE

SPEECH = "import sys; sys.stderr.write('first words ' + 'no line ends ' * 500_000 + 'last words')"


def test_the_end_is_kept_of_megabytes_without_a_line_end() -> None:
    """Progress bars write like this for months; the daemon's memory stays small."""
    with subprocess.Popen([sys.executable, "-c", SPEECH], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        words = LastWords(process.stderr)
        words.wait(PATIENCE)
    (line,) = words.lines()
    assert line.endswith("last words")
    assert len(line) < 20_000


def test_waiting_ends_though_somebody_holds_the_pipe() -> None:
    """As a process does that the engine started and that outlives it."""
    command = [sys.executable, "-c", "import sys; print('here', file=sys.stderr); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None and process.stdin is not None
        words = LastWords(process.stderr)
        words.wait(0.01)
        assert process.poll() is None
        process.stdin.close()
        words.wait(PATIENCE)
    assert words.lines() == ["here"]
