"""Files below a folder: only the intended bytes are copied and deleted."""

from pathlib import Path
from typing import IO

from picowatch.files.inside import unlink_below


def test_only_the_file_that_is_meant_is_deleted(tmp_path: Path) -> None:
    """Other bytes, and a file that is saved during the comparison, stay."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def save_again(file: IO[bytes]) -> bool:
        path.write_text("new text")
        return True

    assert not unlink_below(tmp_path, "a.txt", lambda file: False)
    assert not unlink_below(tmp_path, "a.txt", save_again)
    assert path.read_text() == "new text"
    assert unlink_below(tmp_path, "a.txt", lambda file: file.read() == b"new text")
    assert not path.exists()
