"""An entry's two prompts: what they may hold, what they name, and what each image draws."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import PROMPTS, Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import embedding_missing
from picowatch.recipe.prompts.grammar import (
    MAX_FOUND,
    Mistake,
    embedding_words,
    embeddings_in,
    lora_tags,
    split_loras,
    unsupported,
)
from picowatch.recipe.prompts.wildcards import (
    MAX_CHOSEN,
    MAX_LENGTH,
    PACK_ENDINGS,
    Choice,
    ExpansionFailed,
    FromFile,
    Nodes,
    SameLines,
    Template,
    found_in,
    lines_of,
    matching_files,
    parse,
)
from picowatch.recipe.resolve.installed import NoneOfThisName, NotInstalled, find_lora
from picowatch.recipe.resolve.loras import MAX_LORAS, named_twice, without_tags

# Of all images that wildcards are drawn for, or whose prompt is swept.
MAX_SIGNS_OF_ALL = 250_000
PROMPT, NEGATIVE = PROMPTS
_SIGNS = ("{", "|", "}", "__", *"()[]:<")
# What names an embedding, unless a wildcard does.
_OF_COMFYUI = re.compile(r"(?<![\w-])embedding:(?!__)[^\s,()\[\]:<>{}|]+")


class PromptFailed(ValueInvalid):
    """What was drawn for one image cannot be a prompt; `field` says which of the two."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def count_signs(text: str) -> int:
    """How many signs a prompt with wildcards has that each draw looks at; without any, none."""
    return count_all_signs(text) if "{" in text or "__" in text else 0


def count_all_signs(text: str) -> int:
    """The same of any prompt."""
    return sum(map(text.count, _SIGNS))


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """What one image is rendered from: both prompts without wildcards, and what they name."""

    prompt: str
    negative_prompt: str
    loras: Loras
    embeddings: tuple[str, ...]


class Prompts:
    """The prompts of an entry and its field `loras`, ready to be drawn for every seed.

    The tags of `swept` LoRAs are taken out, also those that wildcards draw: a sweep weighs them.
    """

    def __init__(
        self,
        prompt: str,
        negative_prompt: str,
        loras: Loras,
        inventory: Inventory,
        swept: Set[str] = frozenset(),
    ) -> None:
        self._templates = {
            PROMPT: Template(prompt, inventory.wildcards),
            NEGATIVE: Template(negative_prompt, inventory.wildcards),
        }
        self._loras = loras
        self._inventory = inventory
        self._swept = swept

    def named(self) -> list[tuple[str, str]]:
        """Kind and name of every LoRA and embedding named anywhere, drawn or not; sorted."""
        installed = self._inventory.embeddings
        found = {("lora", name) for name, _ in self._loras}
        for name, _ in split_loras(self._templates[PROMPT].text)[1]:
            found.add(("lora", find_lora(name, self._inventory)))
        for template in self._templates.values():
            words = embedding_words(split_loras(template.text)[0], installed)
            found |= {("embedding", name) for *_, name in words}
        return sorted(found)

    def refused_embeddings(self) -> list[str]:
        """Sentences about embeddings that the prompts seem to name, but that cannot be used.

        ComfyUI's `embedding:` says that one is named.
        """
        refused = self._inventory.refused_embeddings
        every = tuple(dict.fromkeys((*self._inventory.embeddings, *refused)))
        found, missing = set[str](), set[str]()
        for template in self._templates.values():
            words = embedding_words(template.text, every)
            found |= {name for *_, name in words if name not in self._inventory.embeddings}
            starts = {start for start, *_ in words}
            missing |= {
                one[0] for one in _OF_COMFYUI.finditer(template.text) if one.start() not in starts
            }
        cannot = [
            f"The prompt's '{name}' is used as plain words, because the embedding of that name "
            f"cannot be used. {refused[name]}"
            for name in sorted(found)
        ]
        return [*cannot, *map(embedding_missing, sorted(missing))]

    def drawn(self, seed: int) -> DrawnPrompts:
        """What the image with this seed is rendered from. Raises PromptFailed."""
        prompt, negative = (self._text(field, seed) for field in PROMPTS)
        prompt = without_tags(prompt, self._swept, self._inventory)
        installed = self._inventory.embeddings
        embeddings = embeddings_in(prompt, installed) | embeddings_in(negative, installed)
        loras = self._all_loras(prompt, seed)
        return DrawnPrompts(prompt, negative, loras, tuple(sorted(embeddings)))

    def _text(self, field: str, seed: int) -> str:
        template = self._templates[field]
        if not template.is_drawn:
            return template.text
        try:
            text = template.expand(seed, field)
        except ExpansionFailed as error:
            raise PromptFailed(field, f"this cannot be drawn: {error}.") from None
        for mistake in (*unsupported(text), *_lora_mistakes(field, text, self._inventory)):
            raise _failed_draw(field, seed, text, mistake.message)
        return text

    def _all_loras(self, prompt: str, seed: int) -> Loras:
        """Those of the field first, then those of the prompt in their order."""
        loras = dict(self._loras)
        for name, weight in split_loras(prompt)[1]:
            found = find_lora(name, self._inventory)
            if found in loras:
                raise _failed_draw(PROMPT, seed, prompt, named_twice(found))
            loras[found] = weight
        return tuple(loras.items())


def _failed_draw(field: str, seed: int, text: str, problem: str) -> PromptFailed:
    return PromptFailed(field, f"with seed {seed} this becomes: {shown(text, 200)}\n{problem}")


def mistakes_in(field: str, text: str, loras: Loras, inventory: Inventory) -> list[Mistake]:
    """What is wrong with a prompt as written, whatever is drawn: the first few, in order.

    The text itself with all its alternatives, the wildcard files that it reaches, and LoRAs.
    """
    if len(text) > MAX_LENGTH:
        message = f"a prompt of {len(text):,} characters; the limit is {MAX_LENGTH:,}."
        return [Mistake(0, 1, message)]
    nodes = parse(text, inventory.wildcards)
    found = [*unsupported(text), *_wildcard_mistakes(field, nodes, inventory)]
    tags = lora_tags(text)
    if len(tags) > MAX_LORAS:
        found.append(tags[MAX_LORAS].mistake(f"more than {MAX_LORAS} LoRAs here."))
    else:
        found += _lora_mistakes(field, text, inventory)
        found += _repeated_loras(text, nodes, loras, inventory) if field == PROMPT else ()
    return sorted(found, key=lambda mistake: mistake.offset)[:MAX_FOUND]


def _lora_mistakes(field: str, text: str, inventory: Inventory) -> Iterator[Mistake]:
    for tag in lora_tags(text):
        if field == NEGATIVE:
            message = (
                "a LoRA acts on the whole picture and cannot be used in negative_prompt. Put it "
                "into prompt, with a negative weight if it should have the opposite effect."
            )
            yield tag.mistake(message)
            continue
        try:
            find_lora(tag.name, inventory)
        except NoneOfThisName as error:
            yield tag.mistake(f"{error} Put its file there, or write the prompt without the tag.")
        except NotInstalled as error:
            yield tag.mistake(str(error))


def _repeated_loras(
    text: str, nodes: Nodes, loras: Loras, inventory: Inventory
) -> Iterator[Mistake]:
    """LoRAs named twice, where that is certain: a wildcard may choose one of its tags."""
    seen = {name for name, _ in loras}
    choices = [node for node in nodes if isinstance(node, Choice)]
    for tag in lora_tags(text):
        if any(c.offset <= tag.offset < c.offset + c.length for c in choices):
            continue
        try:
            found = find_lora(tag.name, inventory)
        except NotInstalled:
            continue
        if found in seen:
            yield tag.mistake(named_twice(found))
        seen.add(found)


def _wildcard_mistakes(field: str, parsed: Nodes, inventory: Inventory) -> Iterator[Mistake]:
    seen = set[str]()
    for node in found_in(parsed):
        if isinstance(node, Choice):
            if not node.low <= node.high <= MAX_CHOSEN:
                message = (
                    f"{{{node.low}-{node.high}$$…}} cannot be drawn: the first number must not be "
                    f"above the second, and the limit is {MAX_CHOSEN}."
                )
                yield Mistake(node.offset, node.length, message)
        elif node.name not in seen:
            seen.add(node.name)
            for message in islice(_file_mistakes(field, node.name, inventory), MAX_FOUND):
                yield Mistake(node.offset, len(node.written), message)


def _file_mistakes(field: str, name: str, inventory: Inventory) -> Iterator[str]:
    """What is wrong with the wildcard files that a name means, or that their lines name."""
    wildcards = inventory.wildcards
    waiting, seen = [(name, "")], {name}
    while waiting:
        name, within = waiting.pop()
        files = matching_files(name, wildcards)
        if not files:
            yield _no_wildcard(name, inventory) + within
        elif not lines_of(name, wildcards).nodes:
            yield f"the wildcard file {_path(files[0], inventory)} has no lines.{within}"
        for file in files:
            within = f" (in {_path(file, inventory)})"
            held = _held(SameLines((wildcards[file],)))
            yield from (message + within for message in held.mistakes)
            for tag in held.tags:
                yield from (m.message + within for m in _lora_mistakes(field, tag, inventory))
            waiting += [(inner, within) for inner in sorted(held.names - seen)]
            seen |= held.names


def _path(wildcard: str, inventory: Inventory) -> str:
    """The file that a wildcard's lines stand in."""
    file = inventory.wildcard_packs.get(wildcard, f"{wildcard}.txt")
    return f"models/wildcards/{shown(file)}"


@dataclass(frozen=True, slots=True)
class _Held:
    """What a wildcard file's lines hold: the files and the LoRA tags that they name, and mistakes.

    The mistakes are the first of what no prompt may hold.
    """

    names: frozenset[str]
    tags: tuple[str, ...]
    mistakes: tuple[str, ...]


@lru_cache(maxsize=256)
def _held(same: SameLines) -> _Held:
    """Looked for once in each file, however many prompts name it."""
    (lines,) = same.files
    names: set[str] = set()
    tags: dict[str, None] = {}
    messages: dict[str, None] = {}
    for line in lines:
        if any(sign in line for sign in ("[", "(", "<", "{", "__", "AND")):
            if len(messages) < MAX_FOUND:
                messages |= dict.fromkeys(mistake.message for mistake in unsupported(line))
            names |= {n.name for n in found_in(parse(line, {})) if isinstance(n, FromFile)}
            tags |= dict.fromkeys(tag.written for tag in lora_tags(line))
    return _Held(frozenset(names), tuple(tags), tuple(messages))


def _no_wildcard(name: str, inventory: Inventory) -> str:
    refused = inventory.refused_as("wildcard")
    if name in refused:
        return f"the wildcard file '{shown(name)}' cannot be used: {refused[name]}"
    names: Sequence[str] = sorted(inventory.wildcards)
    there = (
        f"Available: {listed(names)}." if names else "Write that file, with a choice in each line."
    )
    broken = [
        f" A pack of wildcards is missing: {why}"
        for file, why in refused.items()
        if file.endswith(PACK_ENDINGS)
    ]
    return (
        f"no wildcard file '{shown(name)}.txt' in models/wildcards. "
        f"{did_you_mean(name, names)}{there}{''.join(broken[:1])}"
    )
