"""A file is read only in the version that was quiet."""

from pathlib import Path

import pytest

from picowatch.inbox.files import FileChanged, size_and_time_of
from picowatch.inbox.reading import read


@pytest.mark.parametrize("path", ["a.txt", "photos/1.png"])
def test_what_is_written_after_it_was_quiet_is_not_read_yet(tmp_path: Path, path: str) -> None:
    """A writer may begin between the scan and the reading."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/_pictures.yaml").write_text("prompt: a corgi\n")
    (tmp_path / path).write_bytes(b"a corgi in the")
    noted = size_and_time_of(tmp_path, path)
    assert noted
    assert read(tmp_path, "", path, noted, None, is_new=True)
    (tmp_path / path).write_bytes(b"a corgi in the snow")
    with pytest.raises(FileChanged):
        read(tmp_path, "", path, noted, None, is_new=True)
