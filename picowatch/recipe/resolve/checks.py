"""What a recipe as a whole cannot be: wrong prompts, sizes, and what its checkpoint cannot do."""

from picowatch.recipe.fields import (
    MAX_SEED,
    MAX_UPSCALED_PIXELS,
    PROMPTS,
    ZERO_SNR,
    Loras,
)
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import not_multiple_of
from picowatch.recipe.prompts.grammar import Mistake
from picowatch.recipe.prompts.prompts import mistakes_in
from picowatch.recipe.read.decoding import FORBIDDEN, invisible
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.edits import edit_mistakes
from picowatch.recipe.resolve.families import (
    misfits,
)
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.samplers import (
    SAMPLERS,
    sampler_named,
)
from picowatch.recipe.written import Layer, Position, Written

_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"


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
        for mistake in mistakes_in(field, text, loras, self._inventory):
            self._problems.add(_position_of(mistake, text, written), mistake.message)

    def check(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        """A built recipe, and the layer that it was built from."""
        self._check_final_size(recipe, checkpoint, layer)
        self.check_upscaled_size(recipe, layer)
        self._check_clip_skip(recipe, checkpoint, layer)
        if "prompt" in layer:  # without one the recipe is refused anyway
            self._check_zero_snr(recipe, checkpoint, layer)
            self._check_families(recipe, checkpoint, layer)
            self._check_rules(recipe, checkpoint, layer)

    def check_upscaled_size(self, recipe: Recipe, layer: Layer) -> None:
        """What is published, whether anything is drawn for it or not."""
        width, height = recipe.published_size
        if recipe.upscale and width * height > MAX_UPSCALED_PIXELS:
            written = layer.get("upscale.scale", layer["upscale"])
            before = "x".join(map(str, recipe.final_size))
            self._problems.add(
                written.error_position,
                f"upscale makes {width}x{height} of {before}; the limit is "
                f"{MAX_UPSCALED_PIXELS // 1_000_000} million pixels. Use a smaller scale.",
            )

    def _check_final_size(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        most = checkpoint.rules.max_side
        for field in ("width", "height"):
            side = getattr(recipe, field)
            if side and side > most and field in layer:
                self._problems.add(
                    layer[field].error_position,
                    f"{field} is {side}; the limit for {checkpoint.family} is {most} pixels.",
                )
                return
        width, height = recipe.final_size
        if recipe.hires and max(width, height) > most:
            written = layer.get("hires.scale", layer["hires"])
            self._problems.add(
                written.error_position,
                f"hires makes {width}x{height} of {recipe.size}; the limit is {most} pixels a "
                "side. Use a smaller scale or size.",
            )

    def _check_clip_skip(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        most = checkpoint.text_layers
        if checkpoint.rules.weighs and recipe.clip_skip > most:
            self._problems.add(
                layer["clip_skip"].error_position,
                f"clip_skip {recipe.clip_skip} is too much for the checkpoint "
                f"'{checkpoint.name}': its text encoder has {most} layers. The limit is {most}.",
            )

    def _check_zero_snr(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        """Whether its file or the recipe says so, only some samplers can begin with pure noise."""
        zero_snr = recipe.prediction == ZERO_SNR if recipe.prediction else checkpoint.zero_snr
        if zero_snr and not sampler_named(recipe.sampler).reaches_zero_snr:
            written = layer.get("sampler", layer["prompt"])
            names = [one.name for one in SAMPLERS if one.reaches_zero_snr]
            can = listed(names, "or", most=len(names))
            why = (
                f"as 'prediction: {ZERO_SNR}' demands"
                if recipe.prediction
                else f"which the checkpoint '{checkpoint.name}' is trained on"
            )
            self._problems.add(
                written.error_position,
                f"the sampler {recipe.sampler} cannot begin with pure noise, {why} "
                f"(zero terminal SNR). Use {can}.",
            )

    def _check_families(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        """A VAE, LoRAs and embeddings for another family than the checkpoint's."""
        key = (checkpoint.name, recipe.vae, recipe.prompt, recipe.negative_prompt, recipe.loras)
        if key in self._fitting:
            return
        self._fitting.add(key)
        for misfit in misfits(recipe, checkpoint, self._inventory):
            written = layer.get(misfit.field, layer["prompt"])
            found = _inside(written, misfit.words, 0)
            self._problems.add(found, misfit.message)

    def _check_rules(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        """What the checkpoint's family cannot do."""
        rules, family = checkpoint.rules, checkpoint.family
        for field, why in rules.lacks.items():
            if getattr(recipe, field) != rules.default(field):
                written = layer.get(field, layer["prompt"])
                message = f"{family or 'this checkpoint'} has no {field}: {why}. Remove it."
                self._problems.add(written.error_position, message)
        for field in PROMPTS:
            text = getattr(recipe, field)
            for mistake in edit_mistakes(text, checkpoint, self._inventory.wildcards):
                written = layer.get(field, layer["prompt"])
                self._problems.add(_position_of(mistake, text, written), mistake.message)
        missing = [field for field in ("image", "mask") if not getattr(recipe, field)]
        if rules.fills and missing:
            self._problems.add(
                layer["checkpoint"].position if "checkpoint" in layer else layer["prompt"].position,
                f"the checkpoint '{checkpoint.name}' redraws the part of a picture that a mask "
                f"shows. Add {listed(missing, 'and')}.",
            )
        if recipe.image and rules.most_start_pixels:
            self._check_start_pixels(recipe, checkpoint, layer)
        for field in ("width", "height"):
            side = getattr(recipe, field)
            if side and side % rules.multiple and field in layer:
                message = not_multiple_of(rules.multiple, field, side)
                self._problems.add(layer[field].error_position, message)
        if recipe.hires and any(side % rules.multiple for side in recipe.final_size):
            width, height = recipe.final_size
            self._problems.add(
                layer.get("hires.scale", layer["hires"]).error_position,
                f"hires makes {width}x{height} of {recipe.size}, but {family} has sides that are "
                f"multiples of {rules.multiple}. Use another scale or size.",
            )

    def _check_start_pixels(self, recipe: Recipe, checkpoint: Checkpoint, layer: Layer) -> None:
        most = checkpoint.rules.most_start_pixels
        if (recipe.width or 0) * (recipe.height or 0) > most:
            self._problems.add(
                layer.get("width", layer["image"]).error_position,
                f"{checkpoint.family} takes start images of at most {most:,} pixels (1024x1024), "
                f"but the size is {recipe.size}. Use a smaller size.",
            )


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
