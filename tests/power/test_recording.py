"""What the recorder makes of strace's lines, where threads are in system calls at the same time."""

from pathlib import Path

from tests.power.disk import PowerCuts
from tests.power.operations import Sync
from tests.power.recording import read_trace


def test_a_descriptor_may_be_another_file_s_before_its_close_has_ended(tmp_path: Path) -> None:
    """The system gives the number to the next who opens, whichever call ends first."""
    run, trace = tmp_path / "run", tmp_path / "trace"
    (run / "outbox").mkdir(parents=True)
    lines = [
        f"10 openat(AT_FDCWD, {told(run / 'outbox/a')}, O_WRONLY|O_CREAT, 0666) = 3",
        "10 close(3 <unfinished ...>",
        f"11 openat(AT_FDCWD, {told(run / 'outbox/b')}, O_WRONLY|O_CREAT, 0666) = 3",
        "10 <... close resumed>) = 0",
        r'11 write(3, "\x41\x42", 2) = 2',
        "11 fsync(3) = 0",
    ]
    trace.write_text("\n".join(lines) + "\n")
    recording = read_trace(run, trace)
    assert PowerCuts(recording).whole().files == {"outbox/a": b"", "outbox/b": b"AB"}
    last = recording.operations[-1]
    assert isinstance(last, Sync)
    assert recording.names[last.inode] == {"b"}


def told(path: Path) -> str:
    """A path as `strace -xx` writes it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in str(path).encode()) + '"'
