"""Bytes to text, whatever editor wrote them."""

import codecs

import pytest

from picowatch.recipe.read.decoding import is_empty
from picowatch.recipe.reading import DefaultsFile, read_recipes
from tests.recipe.reading import (
    INVENTORY,
    check_refused,
    check_said,
    check_warned,
    read,
    read_one,
    refused,
)

TEXT = "prompt: ein Corgi, 猫 🐶\nsteps: 3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_what_editors_write_is_read(encoding: str) -> None:
    for ending in ("\n", "\r\n", "\r"):
        mark = "\ufeff" if "16" in encoding else ""
        recipe = read_one((mark + TEXT.replace("\n", ending)).encode(encoding))
        assert (recipe.prompt, recipe.steps) == ("ein Corgi, 猫 🐶", 3)


def test_marks_of_files_that_were_joined_are_no_text() -> None:
    """`cat a.txt b.txt` leaves a mark at the beginning of a line; elsewhere it is a character."""
    joined = "".join(f"\ufeff{line}\n" for line in ("a corgi", "# a comment", "a \ufeffcat"))
    assert [recipe.prompt for recipe in read(joined, "a.txt")] == ["a corgi", "a \ufeffcat"]
    assert len(read("\ufeffprompt: a\n\ufeff---\nprompt: b\n\ufeffsteps: 3\n")) == 2


@pytest.mark.parametrize("code", [0xA0, 0x202F, 0x3000])
def test_spaces_of_web_pages_and_keyboards_are_spaces(code: int) -> None:
    space = chr(code)
    text = f"-{space}prompt:{space}a{space}cat\n{space}{space}hires:\n{space * 4}scale:{space}3\n"
    recipe = read_one(text)
    assert (recipe.prompt, recipe.hires and recipe.hires.scale) == ("a cat", 3)
    check_refused(f"prompt: a\nsteps:{space}x", "steps must be … from 1 to 150, not 'x'.")


@pytest.mark.parametrize(
    ("encoding", "called"),
    [("cp1252", "Windows-1252"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16")],
)
def test_encodings_without_a_mark_are_read_with_a_warning(encoding: str, called: str) -> None:
    """Whatever kind of file it is, and in a folder's defaults."""
    warning = f"{{}} is not UTF-8: it was read as {called}. If letters are wrong, save it as UTF-8."
    for name, text in {
        "a.yaml": "prompt: für “3 €”",
        "a.json": '{"prompt": "für “3 €”"}',
        "a.txt": "für “3 €”",
        "a.csv": "prompt\nfür “3 €”\n",
    }.items():
        recipe = read_one(text.encode(encoding), name)
        assert recipe.prompt == "für “3 €”"
        check_warned(recipe, warning.format(name))
    defaults = DefaultsFile("_defaults.yaml", "negative: trüb".encode(encoding))
    (recipe,) = read_recipes("a.txt", b"a", INVENTORY, [defaults])
    assert recipe.negative_prompt == "trüb"
    check_warned(recipe, warning.format("_defaults.yaml"))


def test_any_other_encoding_is_refused_with_the_first_bad_bytes_position() -> None:
    """Lines are counted as the editor counts them; damaged UTF-8 is no Windows-1252."""
    for ending in ("\n", "\r\n", "\r"):
        (problem,) = refused(f"prompt: a{ending}# fü".encode() + b"\xfcr").problems
        assert (problem.line, problem.column, problem.source_line) == (2, 5, "# fü\\xfcr")
        check_said([problem.message], "the byte 0xfc is not UTF-8. Save it as UTF-8 …")
    check_refused(b"prompt: \x81", "the byte 0x81 is not UTF-8. Save it as UTF-8 …")
    cut_off = codecs.BOM_UTF16_LE + "prompt: a".encode("utf-16-le") + b"\xd8"
    check_refused(cut_off, "this is incomplete UTF-16, although … Save it as UTF-8 …")


def test_characters_that_nobody_sees_are_refused() -> None:
    """With their position; a tab is no such character."""
    for character, called in {
        "\0": "the NUL character (U+0000)",
        "\x1b": "the invisible character U+001B",
        "\x85": "the invisible character U+0085",
        "\u2028": "the invisible character U+2028 (line separator)",
    }.items():
        for name in ("corgi.yaml", "corgi.json", "corgi.csv", "corgi.txt"):
            (problem,) = refused(f"# \t\n# a{character}b\n", name).problems
            assert (problem.line, problem.column) == (2, 4)
            assert problem.message == f"{called} is not allowed in a recipe. Delete it."


def test_a_file_over_a_mebibyte_is_refused_before_it_is_read() -> None:
    too_long = "the file is too long: a recipe may have up to 1,048,576 bytes. Split it …"
    check_refused(b"#" * (1024 * 1024 + 1), too_long)
    for end in (b"\n", b"\r", b"\r\n"):
        check_refused(end * 40_001, "the file has more than 40,000 lines. Split it into several …")
    assert read(b"#" * (1024 * 1024)) == []


def test_an_empty_file_is_not_ready_yet() -> None:
    """It has only a byte order mark and white space."""
    utf8, utf16 = codecs.BOM_UTF8, codecs.BOM_UTF16_LE
    for content in (b"", b" \r\n\t", utf8, utf8 + b"\n", utf16 + b"\n\0"):
        assert is_empty(content)
        assert read(content) == []
