"""Wildcard files: names, lines, limits."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog, wildcards
from picowatch.recipe.known import Known


def write(models: Path, name: str, content: bytes) -> Path:
    path = models / "wildcards" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def known(models: Path) -> Known:
    return Catalog(models).known()


def test_recipes_know_each_file_by_its_path_without_ending(tmp_path: Path) -> None:
    """One choice a line; comments, empty lines and a byte order mark do not count."""
    write(tmp_path, "animal.txt", b"\xef\xbb\xbfcorgi\n\n  cat  \r\n# a comment\nshiba inu")
    write(tmp_path, "places/v1.5 city.TXT", "Zürich\n".encode())
    write(tmp_path, "places/notes.md", b"no")
    write(tmp_path, ".hidden.txt", b"no")
    assert known(tmp_path).wildcards == {
        "animal": ("corgi", "cat", "shiba inu"),
        "places/v1.5 city": ("Zürich",),
    }


def test_no_folder_means_no_wildcards(tmp_path: Path) -> None:
    """The demo needs none."""
    assert known(tmp_path / "nowhere").wildcards == {}


def test_a_file_that_is_not_utf8_or_too_large_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe that names it is told why."""
    monkeypatch.setattr(wildcards, "MAX_FILE_BYTES", 1000)
    write(tmp_path, "latin.txt", "Zürich".encode("latin-1"))
    write(tmp_path, "large.txt", b"x" * 1001)
    found = known(tmp_path)
    assert found.wildcards == {}
    assert found.refused["latin"] == "latin.txt is not UTF-8: save it as UTF-8."
    assert found.refused["large"] == "large.txt has 1,001 bytes; 1,000 are the limit."


def test_all_files_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may link a whole collection."""
    monkeypatch.setattr(wildcards, "MAX_BYTES", 10)
    write(tmp_path, "a.txt", b"12345678")
    write(tmp_path, "b.txt", b"12345678")
    found = known(tmp_path)
    assert list(found.wildcards) == ["a"]
    assert "beyond 10 bytes of wildcards" in found.refused["b"]


def test_a_changed_file_is_read_again_and_others_are_not(tmp_path: Path) -> None:
    """Large lists cost nothing at the next save."""
    path = write(tmp_path, "a.txt", b"one")
    catalog = Catalog(tmp_path)
    first = catalog.known().wildcards["a"]
    assert catalog.known().wildcards["a"] is first
    path.write_bytes(b"three")
    assert catalog.known().wildcards["a"] == ("three",)
