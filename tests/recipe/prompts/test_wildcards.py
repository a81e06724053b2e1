"""Wildcards: what they mean, how they are drawn, and what is refused."""

from dataclasses import replace
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.errors import ValueInvalid
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.prompts.wildcards import expand, parse
from tests.recipe.reading import DEMO, INVENTORY, check_refused, hash_of, read_one

WILDCARDS = {
    "colour": ("red", "green", "blue"),
    "animals/dogs": ("corgi", "__colour__ poodle"),
    "animals/cats": ("tabby",),
    "my hats": ("cap", "fez"),
    "\u00e9/\u092a\u0936\u0941": ("cow",),  # composed; with a sign for a vowel
}


def results(text: str) -> set[str]:
    nodes = parse(text, WILDCARDS)
    return {expand(nodes, WILDCARDS, f"prompt:{seed}") for seed in range(200)}


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("a {red|blue} hat", {"a red hat", "a blue hat"}),
        ("{2$$a|b|c}", {"a, b", "a, c", "b, a", "b, c", "c, a", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{2-$$a|b}", {"a, b", "b, a"}),
        ("{0$$a|b}", {""}),
        ("{2$$|$$a|b|c}", {f"{a}|{b}" for a, b in permutations("abc", 2)}),
        ("{1-2$$ | $$a|__animals/cats__}", {"a", "tabby", "a | tabby", "tabby | a"}),
        ("{2$$|a|b}", {", a", ", b", "a, ", "b, ", "a, b", "b, a"}),
        ("a {__colour__} hat", {"a red hat", "a green hat", "a blue hat"}),
        ("{ __animals/cats__ } {cat} {a __animals/cats__}", {"tabby {cat} {a tabby}"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{2$$__colour__}", {f"{a}, {b}" for a, b in permutations(["red", "green", "blue"], 2)}),
        ("__Animals/dogs__", {"corgi", "red poodle", "green poodle", "blue poodle"}),
        ("a__*__b {a|b", {"a__*__b {a|b"}),
        (r"\{a|b\} \__colour__", {r"\{a|b\} \__colour__"}),
        (r"{a\|b|a\}}", {r"a\|b", r"a\}"}),
        ("{red|[cat|dog] [a|{b}|{c|d}]}", {"red", "[cat|dog] [a|{b}|c]", "[cat|dog] [a|{b}|d]"}),
        ("{[a|b} [c|d]", {"[a [c|d]", "b [c|d]"}),
        ("[{cat|dog}:{a|b}:5]", {f"[{x}:{y}:5]" for x in ("cat", "dog") for y in "ab"}),
        (r"{\[a|b]}", {r"\[a", "b]"}),
        ("snake__case__name __\u201ccase\u201d__", {"snake__case__name __\u201ccase\u201d__"}),
        ("__my hats__ __my hats__", {f"{a} {b}" for a in ("cap", "fez") for b in ("cap", "fez")}),
        ("a__my hats__", {"acap", "afez"}),
        ("__\u00e9/\u092a\u0936\u0941__ __e\u0301/\u092a\u0936\u0941__", {"cow cow"}),
        ("for ${5|6} $ each", {"for $5 $ each", "for $6 $ each"}),
    ],
)
def test_wildcards_mean_what_dynamicprompts_means(text: str, possible: set[str]) -> None:
    assert results(text) == possible


def test_the_same_seed_draws_the_same_for_ever() -> None:
    """This holds on any machine and version of Python; a change would change old pictures."""
    nodes = parse("{a|b|c} __colour__ {2$$d|e|f} {1-2$$g|h} __animals/dogs__", WILDCARDS)
    assert [expand(nodes, WILDCARDS, f"prompt:{seed}") for seed in (0, 1, 2**32 - 1)] == [
        "c blue e, d g red poodle",
        "c blue f, e h red poodle",
        "a green d, f h, g corgi",
    ]
    assert expand(nodes, WILDCARDS, "negative_prompt:0") == "a red f, d h corgi"


@given(st.text("{}|$2-:_a~@()[]=\\ "), st.integers(0, 2**32 - 1))
def test_any_text_can_be_drawn_and_then_holds_no_wildcard(text: str, seed: int) -> None:
    """A drawn text stays the same when it is expanded again; no file `2` exists for `__2__`."""
    try:
        drawn = expand(parse(text, {}), {}, f"prompt:{seed}")
    except ValueInvalid:
        assert "__" in text
    else:
        assert parse(drawn, {}) == (drawn,)


def test_details_draw_apart_from_the_picture_and_from_each_other() -> None:
    """All combinations occur; a prompt that a detail takes from the picture is drawn as there."""
    detail = "{find: face, prompt: '{a|b}'}"
    recipe = read_one(
        f"prompt: '{{a|b}}'\ndetail: [{detail}, {detail}, {{find: hat, negative: '{{a|b}}'}}]\n"
        "seed: 0\ncount: 200",
        inventory=replace(INVENTORY, segmentations=("clipseg",)),
    )
    requests = recipe.image_requests(hash_of)
    drawn = {(r.prompt, *(d.prompt or d.negative_prompt for d in r.detail)) for r in requests}
    assert drawn == set(product("ab", repeat=4))
    assert {(r.unexpanded_prompt, r.unexpanded_negative_prompt) for r in requests} == {
        ("{a|b}", "")
    }
    alone = read_one("prompt: '{a|b}'\nseed: 0\ncount: 200").image_requests(hash_of)
    assert [r.prompt for r in requests] == [r.prompt for r in alone]


def test_what_cannot_be_drawn_is_refused_before_anything_is() -> None:
    refused = {"wildcard": {"c": "c.txt is not UTF-8."}}
    inventory = Inventory(demo=DEMO, wildcards={"a": (), "colour": ("red",)}, refused=refused)
    for prompt, message in {
        "__color__": "no … Did you mean 'colour'? Available: a and colour.",
        "__with space__": "no wildcard file 'with space.txt' in … Available: a and colour.",
        "__c__": "the wildcard file 'c' cannot be used: c.txt is not UTF-8.",
        "__a__": "the wildcard file models/wildcards/a.txt has no lines.",
        "__c*__": "'*' in 'c*' is not supported. Name one file, or … braces: {__colour__}.",
        "{0.5::a|b}": "the weight '0.5::' is not supported. … repeat it: {a|a|b}.",
        "{~a|b}": "{~a| is dynamicprompts' syntax, which is not supported. Write {a|b} or …",
        "__~colour__": "__~colour__ is dynamicprompts' syntax, which is not supported. …",
    }.items():
        check_refused(f"prompt: '{prompt}'", message, inventory=inventory)


ENDLESS = {f"w{n}": (" ".join([f"__w{n + 1}__"] * 100),) for n in range(9)} | {"w9": ("x",)}


@pytest.mark.parametrize(
    ("prompt", "wildcards", "message"),
    [
        ("a (x{:0.5|:0.6}.1)", {}, r"column 9: with seed 1 this becomes: a \(x:0\.\d\.1"),
        (
            "{a|a} __b__",
            {"b": ("__c__",)},
            r"column 9: no wildcard file 'c\.txt' in .* Available: b",
        ),
        ("__a__", {"a": ("{2::x|y}",)}, "a weight in braces, '2::', is not supported"),
        ("__a__", {"a": ("one AND two",)}, r"this becomes: one AND two AND \(composing"),
        ("__a__", {"a": ("<lora:y:1>",)}, r"this becomes: <lora:y:1> no LoRA 'y' in models/loras"),
        ("{<lora:x:1>|<lora:x>} <lora:x>", {}, "LoRA .x. is listed twice"),
        ("__a__", {"a": ("x __b__",), "b": ("y __a__",)}, "still contain wildcards after 20 draws"),
        ("__w0__", ENDLESS, "a text of more than 20,000 characters"),
    ],
)
def test_what_only_a_draw_can_show_is_an_error_with_its_position(
    prompt: str, wildcards: dict[str, tuple[str, ...]], message: str
) -> None:
    inventory = Inventory(demo=DEMO, loras=("x",), wildcards=wildcards)
    recipe = read_one(f"prompt: '{prompt}'\nseed: 1", inventory=inventory)
    with pytest.raises(RecipeInvalid, match=message):
        recipe.image_requests(hash_of)
