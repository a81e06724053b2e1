"""Mistakes in the prompts of an entry, and what searching the prompts costs."""

from collections.abc import Iterator
from itertools import islice

from picowatch.recipe.fields import Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.prompts import wildcards
from picowatch.recipe.prompts.drawing import MAX_LORAS, file_mistake, lora_mistakes
from picowatch.recipe.prompts.grammar import MAX_FOUND, Mistake, lora_tags, unsupported

# The limit for the cost of all prompts of a save: each one is searched.
MAX_COST = 20_000_000
_SIGNS = ("{", "|", "}", "__", *"()[]:<")


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
        return [
            Mistake(f"a prompt of {len(text):,} characters; the limit is {wildcards.MAX_LENGTH:,}.")
        ]
    nodes = wildcards.parse(text, inventory.wildcards)
    found = [*islice(unsupported(text), MAX_FOUND), *_wildcard_mistakes(nodes, inventory)]
    tags = lora_tags(text)
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
        if isinstance(node, wildcards.Choice):
            yield from _choice_mistakes(node)
        elif node.name not in seen:
            seen.add(node.name)
            if message := file_mistake(node.name, inventory):
                yield Mistake(message)


def _choice_mistakes(choice: wildcards.Choice) -> Iterator[Mistake]:
    if choice.weight:
        yield Mistake(
            f"the weight '{shown(choice.weight)}' is not supported. To have a drawn more often, "
            "repeat it: {a|a|b}."
        )
    if not choice.low <= choice.high <= wildcards.MAX_CHOSEN:
        yield Mistake(
            f"{{{choice.low}-{choice.high}$$…}} cannot be drawn: the first number must not be "
            f"above the second, and the limit is {wildcards.MAX_CHOSEN}."
        )
