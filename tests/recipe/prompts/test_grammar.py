"""A1111's prompt grammar, and what prompts must not contain."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.recipe.prompts.editing import parse_edits
from picowatch.recipe.prompts.grammar import (
    embedding_words,
    lora_tags,
    parse_attention,
    plain_prompt,
    without_loras,
)
from tests.recipe.reading import check_refused, check_said, read_one, refused

SMALLER = 1 / 1.1

# What A1111's parser gives; -1 marks a chunk break.
A1111 = [
    ("normal text", [("normal text", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("[a]", [("a", SMALLER)]),
    ("(a:1.2)", [("a", 1.2)]),
    ("(a:-1)", [("a", -1.0)]),
    ("(a:1.2", [("a:1.2", 1.1)]),
    ("", [("", 1.0)]),
    ("(a BREAK b:1.2)", [("a", 1.2), ("BREAK", -1.2), ("b", 1.2)]),
    ("(((a", [("a", 1.3310000000000004)]),
    ("(a:b:1.2)", [("a:b", 1.2)]),
    ("a\nb (c)", [("a\nb ", 1.0), ("c", 1.1)]),
    ("a  BREAK  BREAK b", [("a", 1.0), ("BREAK", -1.0), ("", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
    (r"a \(literal\] \\", [(r"a (literal] " + "\\", 1.0)]),
    ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
     [("a ", 1.0), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1),
      ("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641000000000006), (".", 1.1)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "pieces"), A1111)
def test_weights_are_exactly_a1111s(text: str, pieces: list[tuple[str, float]]) -> None:
    """The same pieces and the same floats, to the last bit."""
    assert parse_attention(text) == pieces


@given(st.text("()[]:\\.1aB REAK|"))
def test_any_text_can_be_weighed(text: str) -> None:
    assert parse_attention(text)


OBJECT = '{"a": "b (c:1.2) [d:e:0.5] {f|g} <lora:h:1> __i__", "n": [1, "2", true]}'


@pytest.mark.parametrize(
    "written",
    [
        f"prompt: '{OBJECT}'",
        f"prompt: {OBJECT}",
        "prompt:\n  a: b (c:1.2) [d:e:0.5] {f|g} <lora:h:1> __i__\n  n: [1, '2', true]",
    ],
)
def test_a_prompt_that_is_a_json_object_is_taken_as_it_is(written: str) -> None:
    """Ideogram 4 was trained on such prompts; a mapping in YAML means the same."""
    recipe = read_one(written)
    assert (recipe.prompt, recipe.loras) == (OBJECT, ())
    assert plain_prompt(OBJECT) == OBJECT
    assert parse_attention(OBJECT) == [(OBJECT, 1.0)]
    assert parse_edits(OBJECT) == (OBJECT,)
    assert not recipe.warnings


NO_LORA = "is not a LoRA with one weight from -10 to 10. Write one like <lora:name:0.8>."
NO_WEIGHT = "is not a number from -100 to 100. Write one like (word:1.2)."
DYNAMIC = "is dynamicprompts' syntax, which is not supported. …"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        *((f"a {tag} corgi", f"{tag} {NO_LORA}")
          for tag in ("<lora:a:strong>", "<lora::1>", "<lora:a:0.8:0.5>", "<lora:a:lbw=MIDD>",
                      "<lora:a:11>", "<lora:a:-inf>", "<lora:a:nan>")),
        ("a <hypernet:x:1>", "<hypernet:x:1> is not supported. For a LoRA write <lora:name:0.8>."),
        ("a cat AND a dog", "AND (composing prompts) is not supported. Write 'and' in lower …"),
        ("a (cat:1.2.3)", f"the weight '1.2.3' {NO_WEIGHT}"),
        ("a (cat:1000)", f"the weight '1000' {NO_WEIGHT}"),
        ("a __colour__ hat", "no wildcard file 'colour.txt' in models/wildcards. Write that …"),
        ("a {3-2$$x|y} hat", "{3-2$$…} cannot be drawn: the first number must not be above …"),
        ("${ a : red } hat", f"${{ a : {DYNAMIC}"),
        ("${a=!{x|y}} hat", f"${{a= {DYNAMIC}"),
        ("a __@colour__", f"__@colour__ {DYNAMIC}"),
        ("a {@red|blue}", f"{{@red| {DYNAMIC}"),
        ("__hat(in=red)__", f"__hat(in=red)__ {DYNAMIC}"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name_and_position(prompt: str, message: str) -> None:
    for start in ("prompt: ", "prompt: a\nnegative_prompt: "):
        problem = refused(f"{start}'{prompt}'").problems[0]
        check_said([problem.message], message)
        assert problem.source_line[problem.column - 1 :][: problem.width] == f"'{prompt}'"


@pytest.mark.parametrize(
    "prompt",
    [
        "(a:1.2), [b], BREAK, c",
        "long_hair, _a_, a__b, ____, snake_case_name",
        "smile :}, {a}, } and {",
        r"\{a|b\} \[a|b\] \[a:b:0.5\]",
        "[a:b], a|b, 16:9, [(a:1.2)]",
        "[cat|dog], [cat:(dog:1.2):0.5], [(cat:1.2):8], [cat::1.]",
        "a and b, ANDROID, BAND",
        "a < b > c <3",
        r"\<lora:x:1> \__x__ \\\{a|b\} \${a} \__@b__",
    ],
)
def test_what_only_looks_like_it_is_left_alone(prompt: str) -> None:
    quoted = prompt.replace("'", "''")
    assert read_one(f"prompt: '{quoted}'").prompt == prompt


def test_prompts_out_of_all_reason_are_refused() -> None:
    """A thousand open brackets would take forever; PNG readers accept a megabyte of text."""
    check_refused(f"prompt: '{'(' * 1000}'", "more than 100 brackets are open here.")
    too_long = "a prompt of 20,001 characters; the limit is 20,000."
    for start in ("prompt: ", "prompt: a\nnegative_prompt: "):
        read_one(start + "a" * 20_000)
        check_refused(start + "a" * 20_001, too_long)


def test_neither_tags_nor_wildcards_backslashes_are_encoded() -> None:
    """Backslashes before brackets belong to A1111's grammar; a tag without a weight weighs 1."""
    text = "a <lora:x:0.8>b<LORA: y >, <lora:z:-.5>"
    assert without_loras(text) == "a b, "
    assert [(t.name, t.weight) for t in lora_tags(text)] == [("x", 0.8), ("y", 1), ("z", -0.5)]
    assert plain_prompt(r"a <lora:x> \{b\|c\} \(d\) \\{ \_ \<lora:y>") == (
        r"a  {b|c} \(d\) \\{ _ <lora:y>"
    )


EMBEDDINGS = ("neg/EasyNegative", "bad-hands", "bad-hands-5", "by bad artist", "x (y)")


def test_embeddings_are_called_by_their_names_as_whole_words() -> None:
    """In any case, the longest name first, never in the middle of a word."""
    for text, words in {
        "easynegative, bad": {"easynegative": "neg/EasyNegative"},
        "a BAD-HANDS-5": {"BAD-HANDS-5": "bad-hands-5"},
        "(by bad artist:0.8)": {"by bad artist": "by bad artist"},
        "embedding:bad-hands": {"embedding:bad-hands": "bad-hands"},
        "embedding:x (y).pt, x (y).pt": {"embedding:x (y).pt": "x (y)", "x (y)": "x (y)"},
        "neg/EasyNegative x": {"neg/EasyNegative": "neg/EasyNegative"},
        "easynegatives, bad-hands-6, not-bad-hands, _easynegative": {},
    }.items():
        found = embedding_words(text, EMBEDDINGS)
        assert {text[start:end]: name for start, end, name in found} == words
    assert embedding_words("k\u0131z, K\u0130Z, KIZ", ("kiz",)) == [(10, 13, "kiz")]  # Turkish
    for text, name in product(("\u00e9t\u00e9", "e\u0301te\u0301"), repeat=2):  # composed or not
        assert embedding_words(text, (name,)) == [(0, len(text), name)]
    assert [name for *_, name in embedding_words("x, b/x", ("a/x", "b/x"))] == ["a/x", "b/x"]
