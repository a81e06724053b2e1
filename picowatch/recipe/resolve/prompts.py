"""An entry's two prompts: their mistakes, the files they name, and the text of each image."""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import PROMPTS, Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import embedding_missing
from picowatch.recipe.prompts.editing import Edit, parse_edits
from picowatch.recipe.prompts.editing import Nodes as EditNodes
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
    Nodes,
    Template,
    found_in,
    matching_files,
    parse,
)
from picowatch.recipe.resolve.installed import NoneOfThisName, NotInstalled, find_lora
from picowatch.recipe.resolve.loras import MAX_LORAS, installed_tags, named_twice, without_tags
from picowatch.recipe.resolve.severity import NOTHING, Finding

# The limit for the cost of all prompts of a save: each one is searched.
MAX_COST = 20_000_000
PROMPT, NEGATIVE = PROMPTS
_SIGNS = ("{", "|", "}", "__", *"()[]:<")
# ComfyUI's name of an embedding, unless a wildcard follows.
_OF_COMFYUI = re.compile(r"(?<![\w-])embedding:(?!__)[^\s,()\[\]:<>{}|]+")


class PromptFailed(ValueInvalid):
    """The prompt drawn for one image cannot be used; `field` says which of the two."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def cost_of(text: str, is_swept: bool) -> int:
    """Return the cost of a prompt: its characters, times ten if a sweep changes it.

    If a sweep changes it or wildcards are drawn, each bracket and sign of wildcards adds 80. A
    prompt that is too long is another mistake, and costs 0.
    """
    if len(text) > MAX_LENGTH:
        return 0
    is_drawn = is_swept or "{" in text or "__" in text
    return len(text) * (10 if is_swept else 1) + 80 * is_drawn * sum(map(text.count, _SIGNS))


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """The prompts of one image, with wildcards drawn, and the files that they name."""

    prompt: str
    negative_prompt: str
    loras: Loras
    embeddings: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """The prompts of an entry and its field `loras`, ready to be drawn for every seed.

    The tags of `swept` LoRAs are removed, also from what wildcards draw: the sweep has the weights.
    """

    prompt: str
    negative_prompt: str
    loras: Loras
    inventory: Inventory
    swept: Set[str] = frozenset()

    @cached_property
    def _templates(self) -> dict[str, Template]:
        wildcards = self.inventory.wildcards
        return {field: Template(getattr(self, field), wildcards) for field in PROMPTS}

    def named(self) -> list[tuple[str, str]]:
        """Return kind and name of every LoRA and embedding named anywhere, drawn or not; sorted."""
        found = {("lora", name) for name, _ in self.loras}
        found |= {("lora", name) for _, name in installed_tags(self.prompt, self.inventory)}
        for text in (self.prompt, self.negative_prompt):
            words = embedding_words(split_loras(text)[0], self.inventory.embeddings)
            found |= {("embedding", name) for *_, name in words}
        return sorted(found)

    def refused_embeddings(self) -> list[str]:
        """Return sentences about unusable embeddings that the prompts seem to name.

        Names after ComfyUI's `embedding:` are reported if they are missing, too.
        """
        refused = self.inventory.refused_embeddings
        every = tuple(dict.fromkeys((*self.inventory.embeddings, *refused)))
        found, missing = set[str](), set[str]()
        for text in (self.prompt, self.negative_prompt):
            words = embedding_words(text, every)
            found |= {name for *_, name in words if name not in self.inventory.embeddings}
            starts = {start for start, *_ in words}
            missing |= {one[0] for one in _OF_COMFYUI.finditer(text) if one.start() not in starts}
        cannot = [
            f"The prompt's '{name}' is used as plain words, because the embedding of that name "
            f"cannot be used. {refused[name]}"
            for name in sorted(found)
        ]
        return [*cannot, *map(embedding_missing, sorted(missing))]

    def drawn(self, seed: int) -> DrawnPrompts:
        """Return the prompts of the image with this seed. Raises PromptFailed."""
        prompt, negative = (self._text(field, seed) for field in PROMPTS)
        installed = self.inventory.embeddings
        embeddings = embeddings_in(prompt, installed) | embeddings_in(negative, installed)
        tags = installed_tags(prompt, self.inventory)
        loras = dict(self.loras) | {name: tag.weight for tag, name in tags}
        return DrawnPrompts(prompt, negative, tuple(loras.items()), tuple(sorted(embeddings)))

    def _text(self, field: str, seed: int) -> str:
        template = self._templates[field]
        try:
            text = template.expand(seed, field)
        except ExpansionFailed as error:
            raise PromptFailed(field, f"this cannot be drawn: {error}.") from None
        if field == PROMPT:
            text = without_tags(text, self.swept, self.inventory)
        if template.is_drawn:  # otherwise it was checked as written
            lora_mistakes = _lora_mistakes(field, text, self.loras, self.inventory)
            for mistake in (*unsupported(text), *lora_mistakes):
                what = f"with seed {seed} this becomes: {shown(text, 200)}\n{mistake.message}"
                raise PromptFailed(field, what)
        return text


def mistakes_in(field: str, text: str, loras: Loras, inventory: Inventory) -> list[Mistake]:
    """Return the first mistakes in a prompt as written, whatever wildcards draw.

    Checked are the text with all its alternatives, the wildcard files that it names, and LoRAs.
    """
    if len(text) > MAX_LENGTH:
        message = f"a prompt of {len(text):,} characters; the limit is {MAX_LENGTH:,}."
        return [Mistake(message)]
    nodes = parse(text, inventory.wildcards)
    found = [*islice(unsupported(text), MAX_FOUND), *_wildcard_mistakes(nodes, inventory)]
    tags = lora_tags(text)
    if len(tags) > MAX_LORAS:
        found.append(Mistake(f"more than {MAX_LORAS} LoRAs here.", tags[MAX_LORAS].written))
    else:
        found += _lora_mistakes(field, text, loras, inventory, nodes != (text,))
    return found[:MAX_FOUND]


def _lora_mistakes(
    field: str, text: str, loras: Loras, inventory: Inventory, is_drawn: bool = False
) -> Iterator[Mistake]:
    """Yield mistakes in the LoRAs of a text; with wildcards, one may be named in two choices."""
    seen = {name for name, _ in loras}
    for tag in lora_tags(text):
        if field == NEGATIVE:
            message = (
                "a LoRA acts on the whole picture and cannot be used in negative_prompt. Put it "
                "into prompt, with a negative weight if it should have the opposite effect."
            )
            yield Mistake(message, tag.written)
            continue
        try:
            name = find_lora(tag.name, inventory)
        except NoneOfThisName as error:
            remedy = "Put its file there, or write the prompt without the tag."
            yield Mistake(f"{error} {remedy}", tag.written)
        except NotInstalled as error:
            yield Mistake(str(error), tag.written)
        else:
            if name in seen and not is_drawn:
                yield Mistake(named_twice(name), tag.written)
            seen.add(name)


def _wildcard_mistakes(nodes: Nodes, inventory: Inventory) -> Iterator[Mistake]:
    """Yield mistakes in wildcards as written; their lines are checked when they are drawn.

    Each file is reported once, however often it is named.
    """
    seen = set[str]()
    for node in found_in(nodes):
        if isinstance(node, Choice):
            if not node.low <= node.high <= MAX_CHOSEN:
                message = (
                    f"{{{node.low}-{node.high}$$…}} cannot be drawn: the first number must not be "
                    f"above the second, and the limit is {MAX_CHOSEN}."
                )
                yield Mistake(message)
        elif node.name not in seen:
            seen.add(node.name)
            files = matching_files(node.name, inventory.wildcards)
            if not any(inventory.wildcards[file] for file in files):
                message = _no_wildcard(files[0] if files else node.name, inventory)
                yield Mistake(message)


def _no_wildcard(name: str, inventory: Inventory) -> str:
    refused = inventory.refused_as("wildcard")
    if name in refused:
        return f"the wildcard file '{shown(name)}' cannot be used: {refused[name]}"
    if name in inventory.wildcards:
        file = inventory.wildcard_packs.get(name, f"{name}.txt")
        return f"the wildcard file models/wildcards/{shown(file)} has no lines."
    names = sorted(inventory.wildcards)
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


def edit_findings(field: str, prompt: str, family: str) -> Iterator[Finding]:
    """Find edits in a prompt for a family that reads one prompt for all steps."""
    text = split_loras(prompt)[0]
    for node in parse_edits(text) if "[" in text else ():
        if isinstance(node, Edit):
            whole = text[node.start : node.end]
            last = "".join(_last_words((node,)))
            yield Finding(
                field,
                f"{family} cannot change words between the steps: {shown(whole)} is for Stable "
                "Diffusion.",
                "Write the words you want.",
                prompt.replace(whole, last, 1) if whole in prompt else NOTHING,
            )


def _last_words(nodes: EditNodes) -> Iterator[str]:
    """Yield the words that hold at the last step."""
    for node in nodes:
        yield from _last_words(node.options[-1]) if isinstance(node, Edit) else (node,)
