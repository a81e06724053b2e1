"""The passes that make an image, counted in evaluations of its model."""

from dataclasses import dataclass

from picowatch.recipe.fields import ImageFields
from picowatch.recipe.samplers import SAMPLERS

_EACH_STEP = {sampler.name: sampler.evaluations for sampler in SAMPLERS}


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of a sampler for a picture of `size`: the last share `strength` of its `steps`.

    `planned` are the evaluations by which prompt editing counts, as A1111's modules/processing.py
    does: a start image skips the first of them and counts the rest from 0. `before` are those
    planned for the earlier passes, None in the first one.
    """

    evaluations: int
    planned: int
    before: int | None = None
    size: tuple[int, int] = (0, 0)
    steps: int = 0
    strength: float = 1.0


def passes_of(image: ImageFields) -> list[Pass]:
    """The first pass and, with hires, the second.

    A start image, and the second pass, take their strength's share of the steps.
    """
    strength = image.denoising_strength if image.image else 1.0
    taken = steps_taken(image.steps, strength)
    planned = image.steps * _each_step(image.sampler)
    size = image.width or 0, image.height or 0
    passes = [Pass(_evaluations(image.sampler, taken), planned, None, size, image.steps, strength)]
    if image.hires:
        size, steps = image.drawn_size, image.hires.steps or image.steps
        strength = image.hires.denoising_strength
        taken = steps_taken(steps, strength)
        # A1111's second pass takes all steps that it plans: 1.5 is its middle.
        second = taken * _each_step(image.sampler)
        count = _evaluations(image.sampler, taken)
        passes.append(Pass(count, second, planned, size, steps, strength))
    return passes


def evaluations(image: ImageFields) -> int:
    """Count the evaluations of the UNet for an image; with guidance each is double."""
    return max(1, sum(one.evaluations for one in passes_of(image)))


def is_guided(image: ImageFields, share: float) -> bool:
    """Return whether an evaluation after this share of its pass' evaluations follows `cfg_scale`.

    "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    Models", https://arxiv.org/abs/2404.07724.
    """
    begun = not image.cfg_start or share > image.cfg_start
    return image.cfg_scale != 1 and begun and share <= image.cfg_end


def steps_taken(steps: int, strength: float) -> int:
    """Return the share `strength` of the steps: at least one, but 0 for strength 0."""
    taken = min(int(steps * strength + 1e-9), steps)  # 0.29 * 100 is 28.999…
    return max(taken, 1) if strength > 0 else taken


def _each_step(sampler: str) -> int:
    """Return the evaluations in each step; a picture that is only enlarged has no sampler."""
    return _EACH_STEP.get(sampler, 1)


def _evaluations(sampler: str, taken: int) -> int:
    """Count evaluations: with guidance, each is double."""
    each = _each_step(sampler)
    if each > 1:
        return max(0, each * taken - 1)
    return taken + 1 if sampler == "PNDM" and taken > 1 else taken
