"""Lines that are not prompts, and parts of prompts that are valid, but hardly what was meant."""

import re
from collections.abc import Iterator, Mapping

from picowatch.recipe.messages.problems import shown

FENCE = "``` marks a text in chats and web pages. Delete the lines that contain it."
MERGED = "a merge has left both versions here. Keep one, and delete the lines that Git added."
# Patterns, and what is said of what they find: {0} is all of it, {1} its first group.
_NO_PROMPT = {
    r"\A```": FENCE,
    # Also InvokeAI's prompts, and Midjourney's in a chat.
    r"\A(?:(?:\S*/)?(?:sd|sd-cli|sd\.exe|python3?|invoke\.py|txt2img\.py)|[$>])"
    r"(?=\s(?:.*\s)?--?[A-Za-z])|\Aecho\s(?=.*>)|\A/imagine\b(?:\s*prompt:?)?"
    r"|\A(?:invoke|dream)>": (
        "'{0}' begins a command line. Write the prompt first, and then its flags: a corgi "
        "--steps 30 --width 512."
    ),
    r"\A//": "'//' does not begin a comment: # does, in a line of its own.",
    r"\A(?:<{7}|={7}|>{7})(?:\s.*)?\Z": MERGED,
    r"(?i)(\bnegative[ _]prompt|\Anegative): *(.*)": (
        "'{1}:' inside a prompt would be part of its text. Write --negative_prompt {2} after "
        "the prompt."
    ),
}
# What begins with a sign goes on after _PLAIN.
_PLAIN = "'{0}' is drawn as plain text"
_UNLIKELY = {
    r"\A\s*(?:[“„«][^“”„«»]*[”“»]|\"[^\"]*\")\s*\Z": (
        "the quotes around the prompt are part of it. Remove them if they are not meant."
    ),
    r"(\([^()\[\]:]{1,200}:\s*\d{1,2}),(\d{1,3}\s*\))": (
        ": a weight has a decimal point. Write {1}.{2}."
    ),
    # For wildcards, as people write them who know other programs' syntax.
    r"(?<!\\)\((\w[^()\[\]{}|:]*(?:\|[^()\[\]{}|:]+)+)\)": (
        ", with more weight. To draw one of them at random, write {{{1}}}."
    ),
    r"(?<!\\)\{[^{}|]*\|[^{}]*\Z": (
        ": its brace is never closed. To draw one of them at random, close it."
    ),
    r"(?<!\w)(\w+)::(-?\d[\d.]{0,5})(?![\d.\s]*\])": (
        ": it is a weight of Midjourney. Write ({1}:1.2)."
    ),
    r"(?<!\w)(?=\w*[a-z])\w+\+\+(?=[\s,]|\Z)|\([^()]{1,200}\)(?:\d\.\d+|\++)"
    r"|\)\.(?:blend|and)\(": (": it is a weight of InvokeAI. Write (word:1.2)."),
    r"(?<!\{)\{{2,9}([^{}|]{1,200})\}{2,9}": (
        "'{0}' is drawn without weight: braces are a weight of NovelAI. Write ({1}:1.15)."
    ),
    r"(?<!\\)\[([^\[\](){}|]{0,200}:)(\d\d) ?%\]": (
        ": a share of the steps is from 0 to 1. Write [{1}0.{2}]."
    ),
    r"(?<!\\)\[(\w[^\[\](){}|:]{0,99}:(?=[^\]]{0,99}[^\W\d])[^\[\](){}|:]{1,99})\]": (
        ": it does not say when to change. Write [{1}:0.5]."
    ),
    r"(?<!\\)\([^()\[\]:]{1,200}:\s*(?:[5-9]|\d\d)(?:\.\d*)?\s*\)": (
        "the weight of '{0}' distorts the picture: from 0.7 to 1.4 are usual."
    ),
    r"(?<!\\)(\([^()\[\]]{1,200}?):(\s*\d?\.\d+)(?=\s*:\s*[\d.]+\s*\))": (
        "'{0}' has a second weight after it, and the first is drawn as text. Keep one."
    ),
    r"https?://\S+": (
        ": picowatch downloads nothing. Save the picture beside the recipe, and name it in image."
    ),
    r"\$\([^()]{0,200}\)|(?<![\w$])\$[A-Z_]{2,}": (
        ": no shell reads this file. Use double quotes in the command that writes it."
    ),
    r"\\n(?=\s|[A-Za-z]+:)": ". printf writes line breaks; echo does not.",
    r"\A(?:\d{1,3}[.)]|[-*•])\s": (
        "'{0}' is drawn as part of the prompt. Remove the numbers and bullets of lists."
    ),
    r"(?im)^(?:Negative prompt:|Steps:? \d+,).*": ". Write fields, in YAML.",
    r"(?i)(?:(?<=[ ,])/?|\A/)(?:steps|cfg|cfg[ _]scale|seed)[ :=]{1,3}\d+(?![\w.])": (
        ". Write it as a field in YAML, or in a .txt recipe as a flag."
    ),
    r"\A[^{}|\[\]()]*\w \| \w[^{}\[\]()]*\Z": (
        ". To draw one of them at random, write {{a|b}}; for a picture of each, write a sweep."
    ),
    r"(?<!\S)--([A-Za-z][\w-]*)(?=[ =]|\Z)": (
        ": flags are for the lines of .txt files. Write {1} as a field of its own."
    ),
}
_BRACKETS = re.compile(r"\\.|[()\[\]]", re.DOTALL)


def _said(text: str, said: Mapping[str, str]) -> Iterator[str]:
    for pattern, words in said.items():
        for found in re.finditer(pattern, text):
            parts = (found[0], *found.groups(""))
            words = _PLAIN + words if words[0] in ":,." else words
            yield words.format(*(shown(part.strip()) for part in parts))


def why_no_prompt(line: str) -> str:
    """Return the message about a line that is not a prompt; "" for a prompt."""
    return next(_said(line, _NO_PROMPT), "")


def probable_mistakes(text: str) -> Iterator[str]:
    """Yield a sentence for each part that is hardly meant; the picture is drawn as written."""
    yield from _said(text, _UNLIKELY)
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in opened:
            opened[bracket[0]].append(bracket.start())
        elif starts := opened.get({")": "(", "]": "["}.get(bracket[0], "")):
            starts.pop()
    for sign, starts in opened.items():
        if starts:
            yield (
                f"the bracket of '{shown(text[starts[0] :], 30)}' is never closed, so everything "
                f"after it gets {'more' if sign == '(' else 'less'} weight. Close it, or write "
                f"\\{sign} for the character."
            )
