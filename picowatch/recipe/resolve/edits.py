"""Prompt editing, which some families of checkpoints do not have."""

from collections.abc import Iterator

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.prompts.editing import Edit, Nodes, parse_edits
from picowatch.recipe.prompts.grammar import lora_tags
from picowatch.recipe.prompts.wildcards import Choice, FromFile, Wildcards, parse
from picowatch.recipe.resolve.severity import Finding

# Neither occurs in a prompt: what stands for a LoRA tag, and for a wildcard.
_TAG, _DRAWN = "\0", "\1"


def edit_findings(field: str, prompt: str, family: str, wildcards: Wildcards) -> Iterator[Finding]:
    """The edits of a prompt for a family that reads one prompt for all steps."""
    for node in parse_edits(_blanked(prompt, wildcards)) if "[" in prompt else ():
        if isinstance(node, Edit):
            whole = prompt[node.start : node.end]
            last = "".join(_last_words(parse_edits(whole)))
            yield Finding(
                field,
                f"{family} cannot change words between the steps: {shown(whole)} is for Stable "
                "Diffusion.",
                "Write the words you want.",
                prompt[: node.start] + last + prompt[node.end :],
            )


def _last_words(nodes: Nodes) -> Iterator[str]:
    """The words that the picture ends with."""
    for node in nodes:
        yield from _last_words(node.options[-1]) if isinstance(node, Edit) else (node,)


def _blanked(prompt: str, wildcards: Wildcards) -> str:
    """The prompt with other characters where LoRA tags and wildcards stand, so that offsets stay.

    What is drawn for a wildcard is one piece of text; that it may hold brackets is no concern here.
    """
    spans = [(tag.offset, len(tag.written), _TAG) for tag in lora_tags(prompt)]
    for node in parse(prompt, wildcards):
        if isinstance(node, Choice):
            spans.append((node.offset, node.length, _DRAWN))
        elif isinstance(node, FromFile):
            spans.append((node.offset, len(node.written), _DRAWN))
    for start, length, sign in spans:
        prompt = prompt[:start] + sign * length + prompt[start + length :]
    return prompt
