"""Another program's settings as fields of a recipe, with warnings about the rest."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from picowatch.recipe.converters import MAX_SEED
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS
from picowatch.recipe.messages.other_programs import OFF_WORDS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.prompts.grammar import DYNAMIC, is_json
from picowatch.recipe.prompts.wildcards import Template
from picowatch.recipe.read.decoding import unix_line_ends
from picowatch.recipe.written import FORBIDDEN, Entry, Position, plain_number, written_at

# Programs with longer seeds draw noise on the CPU, where torch uses the lower 32 bits.
_LONG_SEED = re.compile(r"[0-9]{10,20}")
_WILDCARD = re.compile(r"\\.|\{|__", re.DOTALL)
_BRACKET = re.compile(r"(?<!\\)[\[\]]")
# The exceptions that a damaged or hostile file may cause in code that expects a good file.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)


def visible(text: str) -> str:
    """Return the text as a recipe can hold it: with "\\n" as line ends, and nothing invisible."""
    text = unix_line_ends(text)
    return FORBIDDEN.sub(lambda sign: " " if sign[0].isspace() else "", text).rstrip("\n")


def final(prompt: str) -> str:
    """Escape wildcards in a picture's prompt, and what is like them: they were drawn already."""
    if is_json(prompt) or not (Template(prompt, {}).is_drawn or DYNAMIC.search(prompt)):
        return prompt
    return _WILDCARD.sub(lambda m: m[0] if m[0][0] == "\\" else f"\\{m[0]}", prompt)


class ForeignSettings:
    """The fields of a recipe that another program's settings give, with warnings.

    `missed` are warnings about fields that were not found, unless another source gives them.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missed: dict[str, str] = {}
        self.warnings: list[str] = []

    def put(self, field: str, value: object, name: str = "") -> None:
        """Set a field's value, unless it is None; another value stays, with a warning."""
        if value is None:
            return
        if not isinstance(value, str | int | float):
            raise TypeError(field)
        if isinstance(value, float):
            text = plain_number(value)
        else:
            text = str(value).lower() if isinstance(value, bool) else visible(str(value))
        if field in ("seed", "variation_seed"):
            text = self._seed_of_32_bits(text)
        first = self.values.setdefault(field, text)
        if first != text and text.casefold() not in OFF_WORDS:
            self.warn(f"{shown(name or field)} is given twice; {shown(first)} is used.")

    def _seed_of_32_bits(self, text: str) -> str:
        """Return the seed below 2^32 that gives the same noise."""
        if not _LONG_SEED.fullmatch(text) or not MAX_SEED < int(text) < 2**64:
            return text
        seed = int(text) % (MAX_SEED + 1)
        self.warn(
            f"the seed {text} has more than 32 bits; {seed} is used instead, which gives the same "
            "noise on a CPU."
        )
        return str(seed)

    def put_lora(self, name: object, weight: object) -> None:
        """Add a LoRA with its weight; 1 if it has none."""
        if isinstance(name, str) and name and name.casefold() != "none":
            self.values.setdefault("loras", {})[name] = 1 if weight is None else weight

    def put_prompt(self, field: str, text: str, embedding: re.Pattern[str]) -> None:
        """Set a prompt in which brackets mean nothing; `embedding` has a group for bare names."""
        names = [found[1] or "" for found in embedding.finditer(text)]
        if names:
            self.values[EMBEDDINGS] = ",".join([self.values.get(EMBEDDINGS, ""), *names])
        text = visible(embedding.sub(lambda found: found[1] or "", text))
        if text or field == "prompt":
            self.values[field] = _BRACKET.sub(r"\\\g<0>", text)

    def miss_start_image(self) -> None:
        self.warn("the start image is not inside the picture; 'image: …' in the recipe names one.")

    def leave_out(self, name: str, value: object) -> None:
        """Warn that a setting is ignored, unless its value means off."""
        if value is not None and str(value).strip().casefold() not in OFF_WORDS:
            self.warn(left_out(f"{name}: {value}"))

    def warn(self, message: str) -> None:
        if message and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(message)

    def _missed(self, said: Collection[str], given: Collection[str]) -> Iterator[str]:
        """Yield the warnings about what nothing gives; a given prompt has all of its texts."""
        for missed, warning in self.missed.items():
            if missed not in said and missed.partition(" ")[0] not in given:
                yield warning

    def entry(self, position: Position, given: Collection[str] = ()) -> Entry:
        """Return the fields as an entry, all at one position, without the `given` ones."""
        hidden = {name: self.values.get(name, "") for name in (CHECKPOINT_HASH, EMBEDDINGS)}
        said = {*filter(self.values.get, self.values), *given}
        said |= {"size"} if {"width", "height"} <= said else set()
        if hidden[CHECKPOINT_HASH] and "checkpoint" not in said:
            self.warn(
                f"The model with the hash {shown(hidden[CHECKPOINT_HASH])} has no name; the "
                "default checkpoint is used. Write its name in models/checkpoints as 'Model: …' "
                "(in a recipe, 'checkpoint: …')."
            )
        return Entry(
            {
                field: written_at(position, value)
                for field, value in self.values.items()
                if field not in {*hidden, *given}
            },
            position,
            (*self._missed(said, given), *self.warnings),
            by_another_program=True,
            checkpoint_hash=hidden[CHECKPOINT_HASH],
            embeddings=hidden[EMBEDDINGS],
        )
