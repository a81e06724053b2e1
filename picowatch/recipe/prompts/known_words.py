"""The words of a prompt that a checkpoint was never taught, where that is known."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.prompts.grammar import BREAK, without_loras

_WORD = re.compile(r"(?<!\w)[^\W\d_]{2,}(?!\w)")
_WILDCARD = re.compile(r"__[^\s_][\w/.*~@-]*?__")
# ComfyUI's way to name an embedding: if none has the name, another warning says so.
_EMBEDDING = re.compile(r"(?<![\w-])embedding:[^\s,()\[\]:<>{}|]*", re.IGNORECASE)
# Words that show nothing: no picture is worse for them.
_CONNECTING = {
    "an", "and", "are", "as", "be", "by", "for", "from", "has", "have", "he", "her", "his", "is",
    "it", "its", "my", "one", "or", "our", "she", "some", "that", "the", "their", "there",
    "these", "they", "this", "those", "very", "was", "were", "who", "your",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownWords:
    """All `words` that a checkpoint was taught, in lower case, and the `subjects` among them."""

    subjects: tuple[str, ...]
    words: frozenset[str]

    def and_names(self, names: Sequence[str]) -> "KnownWords":
        """Return the words together with those in these names of embeddings."""
        return replace(self, words=self.words.union(*map(_words, names))) if names else self

    def unknown_in(self, prompt: str) -> Iterator[str]:
        """Yield the prompt's unknown words, in lower case."""
        text = _WILDCARD.sub(" ", without_loras(prompt)).replace(BREAK, " ")
        text = _EMBEDDING.sub(" ", text)
        for word in _words(text):
            if word not in self.words and word not in _CONNECTING:
                yield word


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def unknown_words(checkpoint: str, known: KnownWords, unknown: Iterable[str]) -> str:
    """Return the warning about unknown words."""
    words = listed([f"'{shown(word, 30)}'" for word in dict.fromkeys(unknown)], most=5)
    return (
        f"the {shown(checkpoint)} model does not know {words}; it knows "
        f"{listed(known.subjects, most=len(known.subjects))}."
    )
