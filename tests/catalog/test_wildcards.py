"""Wildcard files: names, lines, limits."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog, wildcards
from tests.recipe.reading import hash_of, messages, read_one


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


PACK = b"""
# As dynamicprompts' docs/SYNTAX.md shows it.
clothing:
  - T-shirt
  - 2::Pants
  - no
  - |
    # Usage: __clothing__
    long,
    red socks
  - {text: Shoes, weight: 1.5}
artists:
  finnish: [Akseli Gallen-Kallela, Eero J\xc3\xa4rnefelt]
  new dutch:
    - '{Piet|Pit} Mondrian'
  1234: 5678
"""


def test_a_yaml_pack_holds_a_wildcard_for_each_list(tmp_path: Path) -> None:
    """Their names are the keys that lead to them, whatever the file is called."""
    write(tmp_path, "packs/any.yaml", PACK)
    write(tmp_path, "hats.yml", b"- cap\n- fez\n")
    write(tmp_path, "artists/finnish.txt", b"Helene Schjerfbeck")
    found = Catalog(tmp_path).inventory()
    assert found.wildcards == {
        "clothing": ("T-shirt", "2::Pants", "no", "long, red socks", "1.5::Shoes"),
        "artists/finnish": ("Helene Schjerfbeck",),
        "artists/new dutch": ("{Piet|Pit} Mondrian",),
        "hats": ("cap", "fez"),
    }
    assert found.refused_as("wildcard")["artists/1234"] == (
        "packs/any.yaml, line 16: a wildcard is a list of texts."
    )
    recipe = read_one("prompt: a __artists/new dutch__\nseed: 0", inventory=found)
    (request,) = recipe.image_requests(hash_of)
    assert request.prompt in ("a Piet Mondrian", "a Pit Mondrian")


def test_what_a_pack_lacks_or_holds_is_reported_with_its_file(tmp_path: Path) -> None:
    """The name of a wildcard does not say it."""
    write(tmp_path, "a.yaml", b"hats:\n  - a hat\nlist:\n  - [a]\nempty: []\n")
    write(tmp_path, "b.yaml", b"caps:\n - {a|b} c\n")
    found = Catalog(tmp_path).inventory()
    (message,) = messages("prompt: __list__", inventory=found)
    assert "a.yaml, line 4: a wildcard is a list of texts." in message
    assert messages("prompt: __empty__", inventory=found) == [
        "the wildcard file models/wildcards/a.yaml has no lines."
    ]
    (message,) = messages("prompt: __caps__", inventory=found)
    assert " A pack of wildcards is missing: b.yaml cannot be used: line 2: " in message


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"a: &a [x]\n"
        + b"".join(b"k%d: &k%d [*k%d, *k%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40)),
        b"a: !!python/object/apply:os.system [ls]",
        b"a: [x]\n" * 60_000,
        b"x" * 1_000_001,
    ],
    ids=["lists", "bomb", "code", "many", "large"],
)
def test_a_hostile_pack_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """None of its wildcards is used, and all others are."""
    write(tmp_path, "evil.yaml", content)
    write(tmp_path, "good.txt", b"a")
    found = Catalog(tmp_path).inventory()
    assert found.wildcards == {"good": ("a",)}
    assert found.refused_as("wildcard")["evil.yaml"].startswith("evil.yaml ")
