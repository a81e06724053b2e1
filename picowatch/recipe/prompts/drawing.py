"""The prompts of one image: mistakes in them, what they cost, and as wildcards draw them."""

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from itertools import islice

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import PROMPTS, Loras
from picowatch.recipe.installed import NoneOfThisName, NotInstalled, find
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import embedding_missing
from picowatch.recipe.prompts import grammar, wildcards
from picowatch.recipe.prompts.grammar import Mistake

MAX_LORAS = 100
MAX_FOUND = 20  # mistakes in a prompt
# The limit for the cost of all prompts of a save: each one is searched.
MAX_COST = 20_000_000
_SIGNS = ("{", "|", "}", "__", *"()[]:<")
PROMPT, NEGATIVE = PROMPTS
# ComfyUI's name of an embedding, unless a wildcard follows.
_OF_COMFYUI = re.compile(r"(?<![\w-])embedding:(?!__)[^\s,()\[\]:<>{}|]+")


@dataclass(frozen=True)
class Prompts:
    """The two prompts of an entry and its field `loras`, ready to be drawn for every seed."""

    texts: Mapping[str, str]
    loras: Loras
    inventory: Inventory
    # LoRAs whose tags are removed, also from what wildcards draw: the sweep has the weights.
    swept: Set[str]
    streams: Mapping[str, str]  # that each of the two prompts draws from
    problem_at: Callable[[str, str], Exception]  # gives the error about one of them

    @cached_property
    def _parsed(self) -> dict[str, wildcards.Nodes]:
        known = self.inventory.wildcards
        return {field: wildcards.parse(text, known) for field, text in self.texts.items()}

    def named(self) -> list[tuple[str, str]]:
        """Return kind and name of every LoRA and embedding named anywhere, drawn or not; sorted."""
        found = {("lora", name) for name, _ in self.loras}
        found |= {("lora", name) for _, name in installed_tags(self.texts[PROMPT], self.inventory)}
        for text in self.texts.values():
            words = grammar.embedding_words(grammar.without_loras(text), self.inventory.embeddings)
            found |= {("embedding", name) for *_, name in words}
        return sorted(found)

    def refused_embeddings(self) -> list[str]:
        """Return sentences on embeddings that are unusable, or missing after `embedding:`."""
        refused = self.inventory.refused_as("embedding")
        every = tuple(dict.fromkeys((*self.inventory.embeddings, *refused)))
        found, missing = set[str](), set[str]()
        for text in self.texts.values():
            words = grammar.embedding_words(text, every)
            found |= {name for *_, name in words if name not in self.inventory.embeddings}
            starts = {start for start, *_ in words}
            missing |= {w[0] for w in _OF_COMFYUI.finditer(text) if w.start() not in starts}
        why = "is used as plain words, because the embedding of that name cannot be used."
        cannot = [f"The prompt's '{name}' {why} {refused[name]}" for name in sorted(found)]
        return [*cannot, *map(embedding_missing, sorted(missing))]

    def drawn(self, seed: int) -> tuple[dict[str, str], dict[str, float], list[str]]:
        """Return a seed's prompts, LoRAs and embeddings. Raises the error of `problem_at`."""
        texts = {field: self._text(seed, field) for field in PROMPTS}
        known = self.inventory.embeddings
        embeddings = {n for text in texts.values() for n in grammar.embeddings_in(text, known)}
        tags = installed_tags(texts[PROMPT], self.inventory)
        loras = dict(self.loras) | {name: tag.weight for tag, name in tags}
        return texts, loras, sorted(embeddings)

    def _text(self, seed: int, field: str) -> str:
        nodes, stream = self._parsed[field], f"{self.streams[field]}:{seed}"
        try:
            text = wildcards.expand(nodes, self.inventory.wildcards, stream)
        except wildcards.NoLines as error:
            raise self.problem_at(field, file_mistake(error.name, self.inventory)) from None
        except ValueInvalid as error:
            raise self.problem_at(field, f"this cannot be drawn: {error}.") from None
        if field == PROMPT:
            text = without_tags(text, self.swept, self.inventory)
        if nodes != (self.texts[field],):  # otherwise it was checked as written
            of_loras = lora_mistakes(field, text, self.loras, self.inventory)
            for mistake in (*grammar.unsupported(text), *of_loras):
                what = f"with seed {seed} this becomes: {shown(text, 200)}\n{mistake.message}"
                raise self.problem_at(field, what)
        return text


def lora_mistakes(
    field: str, text: str, loras: Loras, inventory: Inventory, is_drawn: bool = False
) -> Iterator[Mistake]:
    """Yield mistakes in the LoRAs of a text; with wildcards, a LoRA may be named in two choices."""
    seen = {name for name, _ in loras}
    for tag in grammar.lora_tags(text):
        if field == NEGATIVE:
            message = (
                "a LoRA acts on the whole picture and cannot be used in negative_prompt. Put it "
                "into prompt, with a negative weight if it should have the opposite effect."
            )
            yield Mistake(message, tag.written)
            continue
        try:
            name = find("lora", tag.name, inventory)
        except NoneOfThisName as error:
            remedy = "Put its file there, or write the prompt without the tag."
            yield Mistake(f"{error} {remedy}", tag.written)
        except NotInstalled as error:
            yield Mistake(str(error), tag.written)
        else:
            if name in seen and not is_drawn:
                yield Mistake(named_twice(name), tag.written)
            seen.add(name)


def installed_tags(text: str, inventory: Inventory) -> list[tuple[grammar.LoraTag, str]]:
    """Return the tags of a prompt that name installed LoRAs, with the LoRAs' names."""
    tags = ((tag, lora_named(tag.name, inventory)) for tag in grammar.lora_tags(text))
    return [(tag, name) for tag, name in tags if name]  # others are among the prompt's mistakes


def lora_named(name: str, inventory: Inventory) -> str:
    """Return the installed LoRA of a name; "" for none or several."""
    try:
        return find("lora", name, inventory)
    except NotInstalled:
        return ""


def without_tags(text: str, names: Set[str], inventory: Inventory) -> str:
    """Return a prompt without the tags of these installed LoRAs, however the tags name them."""
    for tag, name in installed_tags(text, inventory) if names else ():
        if name in names:
            text = text.replace(tag.written, "")
    return text


def named_twice(name: str) -> str:
    """Return the message about a LoRA that is listed twice: its weights are not added up."""
    return f"the LoRA '{shown(name)}' is listed twice. Keep one, with its weight."


def file_mistake(name: str, inventory: Inventory) -> str:
    """Return why no line of this wildcard can be drawn; "" if one can."""
    known, refused = inventory.wildcards, inventory.refused_as("wildcard")
    file = wildcards.file_called(name, known)
    if file is not None:
        empty = f"the wildcard file models/wildcards/{shown(file)}.txt has no lines."
        return "" if known[file] else empty
    inventory.missed.add(("wildcard", name))
    if name in refused:
        return f"the wildcard file '{shown(name)}' cannot be used: {refused[name]}"
    names = sorted(known)
    if "*" in name:
        meant = filter(re.compile(translate(name), re.IGNORECASE).match, names)
        each = "|".join(f"__{file}__" for file in islice(meant, 4)) or "__dogs__|__cats__"
        what = f"'*' in '{shown(name)}' is not supported."
        return f"{what} Name one file, or several in braces: {{{shown(each)}}}."
    there = (
        f"Available: {listed(names)}." if names else "Write that file, with a choice in each line."
    )
    packs = [f" {why}" for name, why in refused.items() if name.endswith((".yaml", ".yml"))]
    what = f"no wildcard file '{shown(name)}.txt' in models/wildcards."
    return f"{what} {did_you_mean(name, names)}{there}{''.join(packs[:1])}"


def cost_of(text: str, is_swept: bool) -> int:
    """Return the cost of a prompt: its characters, times ten if a sweep changes it.

    If a sweep changes it or wildcards are drawn, each bracket and sign of wildcards adds 80. A
    prompt that is too long is another mistake, and costs 0.
    """
    if len(text) > wildcards.MAX_LENGTH:
        return 0
    is_drawn = is_swept or "{" in text or "__" in text
    return len(text) * (10 if is_swept else 1) + 80 * is_drawn * sum(map(text.count, _SIGNS))


def mistakes_in(field: str, text: str, loras: Loras, inventory: Inventory) -> list[Mistake]:
    """Return the first mistakes in a prompt as written, whatever wildcards draw."""
    if len(text) > wildcards.MAX_LENGTH:
        what = f"a prompt of {len(text):,} characters; the limit is {wildcards.MAX_LENGTH:,}."
        return [Mistake(what)]
    nodes = wildcards.parse(text, inventory.wildcards)
    found = [*islice(grammar.unsupported(text), MAX_FOUND), *_wildcard_mistakes(nodes, inventory)]
    tags = grammar.lora_tags(text)
    if len(tags) > MAX_LORAS:
        found.append(Mistake(f"more than {MAX_LORAS} LoRAs here.", tags[MAX_LORAS].written))
    else:
        found += lora_mistakes(field, text, loras, inventory, nodes != (text,))
    return found[:MAX_FOUND]


def mistaken_line(field: str, file: str, inventory: Inventory) -> tuple[str, set[str]]:
    """Return a warning on a wildcard file's first mistaken line, or "", and the files it names."""
    warning, files = "", set[str]()
    for line in inventory.wildcards[file]:
        files |= files_in(line, inventory)
        if not warning and (found := mistakes_in(field, line, (), inventory)):
            warning = (
                f"if a seed draws '{shown(line)}' from models/wildcards/{shown(file)}.txt, "
                f"this recipe is refused: {found[0].message}"
            )
    return warning, files


def files_in(text: str, inventory: Inventory) -> frozenset[str]:
    """Return the wildcard files that a prompt draws from."""
    known = inventory.wildcards
    nodes = wildcards.found_in(wildcards.parse(text, known)) if "__" in text else ()
    named = [node.name for node in nodes if isinstance(node, wildcards.FromFile)]
    return frozenset(filter(None, (wildcards.file_called(name, known) for name in named)))


def _wildcard_mistakes(nodes: wildcards.Nodes, inventory: Inventory) -> Iterator[Mistake]:
    """Yield mistakes in wildcards as written, once for each file; drawing checks their lines."""
    seen = set[str]()
    for node in wildcards.found_in(nodes):
        if isinstance(node, wildcards.FromFile):
            if node.name not in seen and (message := file_mistake(node.name, inventory)):
                yield Mistake(message)
            seen.add(node.name)
            continue
        if node.weight:
            what = f"the weight '{shown(node.weight)}' is not supported."
            yield Mistake(f"{what} To have a drawn more often, repeat it: {{a|a|b}}.")
        if not node.low <= node.high <= wildcards.MAX_CHOSEN:
            what = f"{{{node.low}-{node.high}$$…}} cannot be drawn"
            why = f"must not be above the second, and the limit is {wildcards.MAX_CHOSEN}."
            yield Mistake(f"{what}: the first number {why}")
