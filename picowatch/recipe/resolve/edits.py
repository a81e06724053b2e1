"""What prompt editing cannot do: for a checkpoint's family, and with a recipe's steps."""

from collections.abc import Iterator

from picowatch.recipe.fields import PROMPTS, ImageFields
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.passes import Pass, passes_of
from picowatch.recipe.prompts.editing import Edit, Nodes, edits_in, parse_edits
from picowatch.recipe.prompts.grammar import lora_tags
from picowatch.recipe.prompts.wildcards import MAX_LENGTH, Choice, FromFile, Wildcards, parse
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
    """What the picture ends with."""
    for node in nodes:
        yield from _last_words(node.options[-1]) if isinstance(node, Edit) else (node,)


def edit_warnings(image: ImageFields, wildcards: Wildcards) -> Iterator[str]:
    """Edits that change nothing with these steps, and LoRAs in edits."""
    passes = passes_of(image)
    for field in PROMPTS:
        prompt: str = getattr(image, field)
        if len(prompt) > MAX_LENGTH:  # it is refused
            continue
        if "[" not in prompt or (field != "prompt" and image.cfg_scale == 1):
            continue
        blanked = _blanked(prompt, wildcards)
        for edit in edits_in(parse_edits(blanked)):
            whole = shown(prompt[edit.start : edit.end])
            if _TAG in blanked[edit.start : edit.end]:
                yield f"the LoRA in '{whole}' acts on all steps: it changes the whole picture."
            if len(_options_used(edit, passes)) == 1:
                yield f"'{whole}' changes nothing: {_why_nothing(edit, image, passes)}."


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


def _options_used(edit: Edit, passes: list[Pass]) -> set[int]:
    """Its first change shows at the evaluation 2, if it alternates, else at the last."""
    return {
        edit.option(evaluation, one)
        for one in passes
        for evaluation in (0, 2, one.evaluations - 1)
        if 0 <= evaluation < one.evaluations
    }


def _why_nothing(edit: Edit, image: ImageFields, passes: list[Pass]) -> str:
    count = f"{passes[0].evaluations} steps"
    if image.image:
        count += f" (denoising_strength leaves no more of {passes[0].planned})"
    if not edit.when:
        return f"the first words hold for two of the {count}"
    if _options_used(edit, passes) == {1}:
        return "it changes before the first step"
    if "." in edit.when and float(edit.when) > 1 and not image.hires:
        return f"{edit.when} is in the second pass, and there is no hires"
    return f"it would change after the last of {count}"
