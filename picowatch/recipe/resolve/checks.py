"""What a recipe as a whole cannot be: wrong prompts, sizes, and what its checkpoint cannot do."""

from picowatch.recipe.fields import (
    MAX_UPSCALED_PIXELS,
    PICTURE_FIELDS,
    PROMPTS,
    ZERO_SNR,
    Loras,
)
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import not_multiple_of
from picowatch.recipe.prompts.grammar import Mistake
from picowatch.recipe.read.decoding import FORBIDDEN, invisible
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.edits import edit_mistakes
from picowatch.recipe.resolve.families import misfits
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.resolve.prompts import mistakes_in
from picowatch.recipe.samplers import SAMPLERS, sampler_named
from picowatch.recipe.written import Layer, Position, Written


class RecipeChecks:
    """Checks the recipes of one file; what is wrong goes to `problems`."""

    def __init__(self, inventory: Inventory, problems: Problems) -> None:
        self._inventory = inventory
        self._problems = problems
        # Field, text, LoRAs and position: sweeps and defaults repeat prompts.
        self._checked: set[tuple[str, str, Loras, Position]] = set()
        self._fitting: set[tuple[str, str, str, str, Loras]] = set()

    def check_prompts(self, layer: Layer, position: Position, loras: Loras) -> None:
        """The prompts as they are written; one that was right is not read again."""
        if "prompt" not in layer:
            self._problems.add(position, _no_prompt(position))
        for field in PROMPTS:
            text = text_of(field, layer, self._problems)
            written = layer.get(field)
            if text is None or written is None:
                continue
            key = (field, text, loras, written.position)
            if key not in self._checked:
                self._checked.add(key)
                self._check_prompt(field, text, loras, written)

    def _check_prompt(self, field: str, text: str, loras: Loras, written: Written) -> None:
        for found in FORBIDDEN.finditer(text.replace("\n", " ")):
            message = f"{field} contains {invisible(found[0])}. Remove it."
            self._problems.add(written.position, message)
        mistakes = self._mistakes(field, text, loras, written)
        earliest: dict[str, Position] = {}  # before a sweep replaced other pieces of the prompt
        before = written.unswept if mistakes else None
        while before:
            known = self._mistakes(field, str(before.value), loras, before)
            earliest |= {message: position for position, message in known}
            before = before.unswept
        for position, message in mistakes:
            self._problems.add(earliest.get(message, position), message)

    def _mistakes(
        self, field: str, text: str, loras: Loras, written: Written
    ) -> list[tuple[Position, str]]:
        return [
            (_position_of(mistake, text, written), mistake.message)
            for mistake in mistakes_in(field, text, loras, self._inventory)
        ]

    def check(self, recipe: Recipe) -> None:
        """A built recipe."""
        self._check_final_size(recipe)
        self.check_upscaled_size(recipe)
        self._check_clip_skip(recipe)
        if recipe.says("prompt"):  # without one the recipe is refused anyway
            self._check_zero_snr(recipe)
            self._check_families(recipe)
            self._check_rules(recipe)

    def _refuse(self, recipe: Recipe, message: str, *fields: str) -> None:
        """A mistake at the first of these fields that the recipe says."""
        self._problems.add(recipe.written(*fields).error_position, message)

    def check_upscaled_size(self, recipe: Recipe) -> None:
        """What is published, whether anything is drawn for it or not."""
        width, height = recipe.published_size
        if recipe.upscale and width * height > MAX_UPSCALED_PIXELS:
            before = "x".join(map(str, recipe.size_before_upscale))
            message = (
                f"upscale makes {width}x{height} of {before}; the limit is "
                f"{MAX_UPSCALED_PIXELS // 1_000_000} million pixels. Use a smaller scale."
            )
            self._refuse(recipe, message, "upscale.scale", "upscale")

    def _check_final_size(self, recipe: Recipe) -> None:
        checkpoint = recipe.installed_checkpoint
        most = checkpoint.rules.max_side
        for field in ("width", "height"):
            side = getattr(recipe, field)
            if side and side > most and recipe.says(field):
                message = f"{field} is {side}; the limit for {checkpoint.family} is {most} pixels."
                self._refuse(recipe, message, field)
                return
        width, height = recipe.size_before_upscale
        if recipe.hires and max(width, height) > most:
            message = (
                f"hires makes {width}x{height} of {recipe.size}; the limit is {most} pixels a "
                "side. Use a smaller scale or size."
            )
            self._refuse(recipe, message, "hires.scale", "hires")

    def _check_clip_skip(self, recipe: Recipe) -> None:
        checkpoint = recipe.installed_checkpoint
        most = checkpoint.text_layers
        if checkpoint.rules.weighs and recipe.clip_skip > most:
            message = (
                f"clip_skip {recipe.clip_skip} is too much for the checkpoint "
                f"'{checkpoint.name}': its text encoder has {most} layers. The limit is {most}."
            )
            self._refuse(recipe, message, "clip_skip")

    def _check_zero_snr(self, recipe: Recipe) -> None:
        """Whether its file or the recipe says so, only some samplers can begin with pure noise."""
        checkpoint = recipe.installed_checkpoint
        zero_snr = recipe.prediction == ZERO_SNR if recipe.prediction else checkpoint.zero_snr
        if zero_snr and not sampler_named(recipe.sampler).reaches_zero_snr:
            names = [one.name for one in SAMPLERS if one.reaches_zero_snr]
            why = (
                f"as 'prediction: {ZERO_SNR}' demands"
                if recipe.prediction
                else f"which the checkpoint '{checkpoint.name}' is trained on"
            )
            message = (
                f"the sampler {recipe.sampler} cannot begin with pure noise, {why} "
                f"(zero terminal SNR). Use {listed(names, 'or', most=len(names))}."
            )
            self._refuse(recipe, message, "sampler", "prompt")

    def _check_families(self, recipe: Recipe) -> None:
        """A VAE, LoRAs and embeddings for another family than the checkpoint's."""
        key = (
            *(recipe.checkpoint, recipe.vae, recipe.prompt, recipe.negative_prompt),
            recipe.loras,
        )
        if key in self._fitting:
            return
        self._fitting.add(key)
        for misfit in misfits(recipe, self._inventory):
            found = _inside(recipe.written(misfit.field, "prompt"), misfit.words, 0)
            self._problems.add(found, misfit.message)

    def _check_rules(self, recipe: Recipe) -> None:
        """What the checkpoint's family cannot do."""
        checkpoint = recipe.installed_checkpoint
        rules, family = checkpoint.rules, checkpoint.family
        for field, why in rules.lacks.items():
            if getattr(recipe, field) != rules.default(field):
                message = f"{family or 'this checkpoint'} has no {field}: {why}. Remove it."
                self._refuse(recipe, message, field, "prompt")
        for field in PROMPTS:
            text = getattr(recipe, field)
            for mistake in edit_mistakes(text, checkpoint, self._inventory.wildcards):
                position = _position_of(mistake, text, recipe.written(field, "prompt"))
                self._problems.add(position, mistake.message)
        missing = [field for field in PICTURE_FIELDS if not getattr(recipe, field)]
        if rules.fills and missing:
            self._problems.add(
                recipe.written("checkpoint", "prompt").position,
                f"the checkpoint '{checkpoint.name}' redraws the part of a picture that a mask "
                f"shows. Add {listed(missing, 'and')}.",
            )
        width, height = recipe.width or 0, recipe.height or 0
        if recipe.image and 0 < rules.most_start_pixels < width * height:
            message = (
                f"{family} takes start images of at most {rules.most_start_pixels:,} pixels "
                f"(1024x1024), but the size is {recipe.size}. Use a smaller size."
            )
            self._refuse(recipe, message, "width", "image")
        for field, side in (("width", width), ("height", height)):
            if side % rules.multiple and recipe.says(field):
                self._refuse(recipe, not_multiple_of(rules.multiple, field, side), field)
        if recipe.hires and any(side % rules.multiple for side in recipe.size_before_upscale):
            width, height = recipe.size_before_upscale
            message = (
                f"hires makes {width}x{height} of {recipe.size}, but {family} has sides that are "
                f"multiples of {rules.multiple}. Use another scale or size."
            )
            self._refuse(recipe, message, "hires.scale", "hires")


def _no_prompt(position: Position) -> str:
    if position.source.name.lower().endswith(".txt"):
        return "a prompt is missing. Write it before the flags."
    if position.source.is_json:
        return 'a prompt is missing. Write "prompt": "…".'
    return "a prompt is missing. Write 'prompt: …'."


def _position_of(mistake: Mistake, text: str, written: Written) -> Position:
    """Where a mistake in a prompt stands in the file."""
    snippet = text[mistake.offset : mistake.offset + mistake.length]
    return _inside(written, snippet, earlier=text.count(snippet, 0, mistake.offset))


def _inside(written: Written, snippet: str, earlier: int) -> Position:
    """Where a piece of a text stands in the file, if it stands there as it is."""
    at = -1
    for _ in range(earlier + 1):
        at = written.raw.find(snippet, at + 1)
        if at < 0:
            return written.position
    before = written.raw[:at]
    width = len(snippet.partition("\n")[0])
    if written.at:
        return written.at(at, width)
    line = written.position.line + before.count("\n")
    if line == written.position.line:
        return written.position.shifted(at, width)
    return Position(written.position.source, line, at - before.rfind("\n"), width)
