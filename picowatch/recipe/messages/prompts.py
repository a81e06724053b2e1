"""Warnings about parts of a prompt that are valid, but hardly what was meant."""

import re
from collections.abc import Iterator

from picowatch.recipe.messages.problems import shown

# Each pattern, what is said of it, and what to do; {0} is what was found, {1} its first group.
_PATTERNS = {
    r"\A\s*(?:[“„«][^“”„«»]*[”“»]|\"[^\"]*\")\s*\Z": (
        "the quotes around the prompt are part of it. Remove them if they are not meant."
    ),
    r"(\([^()\[\]:]{1,200}:\s*\d{1,2}),(\d{1,3}\s*\))": (
        "'{0}' is used as literal text, because a weight has a decimal point. For the weight, "
        "write {1}.{2}."
    ),
    # For wildcards, as people write them who know other programs' syntax.
    r"(?<!\\)\((\w[^()\[\]{}|:]*(?:\|[^()\[\]{}|:]+)+)\)": (
        "'{0}' is drawn as these words, with more weight. For one of them at random, write {{{1}}}."
    ),
    r"(?<!\\)\{[^{}|]*\|[^{}]*\Z": (
        "the brace of '{0}' is never closed, so it is drawn as these words. For one of them at "
        "random, close it."
    ),
    r"(\w[\w -]{0,40})::(-?\d[\d.]{0,5})(?![\d.\s]*\])": (
        "'{0}' is drawn as these words: it is a weight of Midjourney. Write ({1}:1.2)."
    ),
    r"\w{2,40}\+\+(?=[\s,]|\Z)|\([^()]{1,200}\)(?:\d\.\d+|\++)|\)\.(?:blend|and)\(": (
        "'{0}' is drawn as these words: it is a weight of InvokeAI. Write (word:1.2)."
    ),
    r"https?://\S+": (
        "'{0}' is drawn as these words: picowatch downloads nothing. Save the picture beside the "
        "recipe, and name it in image."
    ),
    r"\$\([^()]{0,200}\)|(?<!\w)\$[A-Z_]{2,}": (
        "'{0}' is drawn as these words: no shell reads this file. A command that writes it can "
        "replace them, in double quotes."
    ),
    r"\\n(?=\s|[A-Za-z]+:)": (
        "'{0}' is drawn as these characters. printf writes line breaks, where echo does not."
    ),
    r"\A(?:\d{1,3}[.)]|[-*•])\s": (
        "'{0}' is drawn as a part of the prompt. Remove the numbers and bullets of lists."
    ),
    r"(?m)^Steps[ ]\d+,.*": (
        "'{0}' is drawn as these words. A setting has a colon: Steps: 20, Sampler: Euler a."
    ),
}
_COMPILED = {re.compile(pattern): words for pattern, words in _PATTERNS.items()}
_BRACKETS = re.compile(r"\\.|[()\[\]]", re.DOTALL)


def probable_mistakes(text: str) -> Iterator[str]:
    """Yield a sentence for each part that is hardly meant; the picture is drawn as written."""
    for pattern, words in _COMPILED.items():
        for found in pattern.finditer(text):
            yield words.format(*(shown(part.strip()) for part in (found[0], *found.groups())))
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
