"""Files below a folder: only the intended bytes are copied and deleted."""

import hashlib
from pathlib import Path
from typing import IO

import pytest

from picowatch.files.atomic import write_atomically
from picowatch.files.safe_paths import OtherBytes, checked_blocks, unlink_below


def test_other_bytes_than_those_expected_are_not_copied(tmp_path: Path) -> None:
    """The difference is known only at the end."""
    (tmp_path / "a.png").write_bytes(b"another picture")
    digest = hashlib.sha256(b"a picture").hexdigest()
    with pytest.raises(OtherBytes):
        write_atomically(tmp_path / "copy", checked_blocks(tmp_path, "a.png", digest))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


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
