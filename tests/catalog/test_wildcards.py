"""Wildcard files: names, lines, limits."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog, wildcards
from tests.recipe.reading import messages


def write(models: Path, name: str, content: bytes) -> None:
    path = models / "wildcards" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_recipes_know_each_file_by_its_path_without_ending(tmp_path: Path) -> None:
    """One choice a line; comments, empty lines and a byte order mark do not count.

    Large lists cost nothing at the next save: only a changed file is read again.
    """
    catalog = Catalog(tmp_path)
    write(tmp_path, "animal.txt", b"\xef\xbb\xbfcorgi\n\n  cat  \r\n# a comment\nshiba inu")
    write(tmp_path, "places/v1.5 city.TXT", "Zürich\n".encode())
    write(tmp_path, "places/notes.md", b"no")
    write(tmp_path, ".hidden.txt", b"no")
    first = catalog.inventory().wildcards
    assert first == {"animal": ("corgi", "cat", "shiba inu"), "places/v1.5 city": ("Zürich",)}
    write(tmp_path, "animal.txt", b"dog")
    second = catalog.inventory().wildcards
    assert second["animal"] == ("dog",)
    assert second["places/v1.5 city"] is first["places/v1.5 city"]


def test_a_file_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a recipe that names it says why; all together have a limit, too."""
    for limit, most in (("MAX_FILE_BYTES", 1000), ("MAX_BYTES", 1020), ("MAX_LINES", 3)):
        monkeypatch.setattr(wildcards, limit, most)
    write(tmp_path, "a.txt", b"1\n2\n3")
    write(tmp_path, "b.txt", b"4")
    write(tmp_path, "latin.txt", "Zürich".encode("latin-1"))
    write(tmp_path, "large.txt", b"x" * 1001)
    write(tmp_path, "more.txt", b"x" * 10)
    found = Catalog(tmp_path).inventory()
    assert found.wildcards == {"a": ("1", "2", "3")}
    assert found.refused_as("wildcard") == {
        "b": "b.txt exceeds the limit of 3 lines of wildcards.",
        "large": "large.txt has 1,001 bytes; the limit is 1,000.",
        "latin": "latin.txt is not UTF-8: save it as UTF-8.",
        "more": "more.txt exceeds the limit of 1,020 bytes of wildcards.",
    }


def test_a_pack_or_a_weight_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    """Nothing of dynamicprompts' further grammar is drawn as words."""
    write(tmp_path, "all.yaml", b"hats: [a, b]")
    write(tmp_path, "shoes.txt", b"boots\n  2::sandals\n")
    write(tmp_path, "socks.txt", b"# 1::a\nred {long|0.5::short} socks\n")
    write(tmp_path, "times.txt", b"std::vector\n12:30 [a|2::b]\n")
    found = Catalog(tmp_path).inventory()
    assert found.wildcards == {"times": ("std::vector", "12:30 [a|2::b]")}
    for name, message in {
        "hats": "all.yaml is not read: write each of its lists into a .txt file, with a choice",
        "shoes": "shoes.txt has a weight in line 2, '2::'. To have a choice drawn more often",
        "socks": "socks.txt has a weight in line 2, '0.5::'. To have a choice drawn more often",
    }.items():
        (said,) = messages(f"prompt: __{name}__", inventory=found)
        assert message in said
