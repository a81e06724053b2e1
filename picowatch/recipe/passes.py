"""The passes that make a picture: what computes, on how many pixels, how often.

This list is the one account of a picture's memory, time and progress. It knows no hardware.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from picowatch.recipe.fields import ImageFields
from picowatch.recipe.samplers import SAMPLERS

if TYPE_CHECKING:
    from picowatch.recipe.request import ImageRequest

# In the order in which they may come.
PassKind = Literal[
    "find", "draw", "enlarge", "hires", "detail", "upscale", "cutout", "resize", "write"
]
DRAWING: tuple[PassKind, ...] = ("draw", "hires", "detail")

_EACH_STEP = {sampler.name: sampler.evaluations for sampler in SAMPLERS}
# Every family draws edits in about a megapixel, whatever size the picture has.
_EDITED_PIXELS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """One run of a sampler for a picture of `size`: the last share `strength` of its `steps`.

    `planned` are the evaluations by which prompt editing counts, as A1111's modules/processing.py
    does: a start image skips the first of them and counts the rest from 0.
    """

    evaluations: int
    planned: int
    before: int | None = None  # planned for the earlier runs, None in the first run
    size: tuple[int, int] = (0, 0)
    steps: int = 0
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """A part of a picture's way: a model that computes on pictures of `size`, and gives `gives`."""

    kind: PassKind
    model: str  # "" in "resize" and "write"
    model_hash: str
    size: tuple[int, int]
    gives: tuple[int, int]
    evaluations: int = 1  # of the model for each image, twice with guidance
    most: int = 1  # times that a detail is drawn, once for each thing that is found
    shared: bool = False  # several images can go through one call

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def units(self) -> int:
        """The work for an image: passes of one kind and model take a time in proportion to it."""
        if self.kind in DRAWING:
            return self.evaluations * self.pixels * self.most
        if self.kind == "resize":  # which reads all pixels of a photo
            return self.pixels
        return 1 if self.kind == "find" else self.gives[0] * self.gives[1]


def passes_of(request: "ImageRequest") -> tuple[Pass, ...]:
    """Return the passes of a request in their order."""
    found = request.found_mask
    size = request.size_before_upscale
    passes = [Pass("find", found.model, request.mask_finder_hash, size, size)] if found else []
    checkpoint = request.checkpoint, request.checkpoint_hash
    is_drawn = request.draws and not request.only_details  # the whole picture, or its masked part
    for kind, sampling in zip(DRAWING, samplings(request) if is_drawn else (), strict=False):
        drawn = sampling.size
        if request.references and drawn[0] * drawn[1] > _EDITED_PIXELS:
            scale = (_EDITED_PIXELS / (drawn[0] * drawn[1])) ** 0.5
            drawn = int(drawn[0] * scale), int(drawn[1] * scale)
        if request.hires and kind == "hires" and request.hires_upscaler_hash:
            upscaler = request.hires.upscaler, request.hires_upscaler_hash
            passes.append(Pass("enlarge", *upscaler, passes[-1].gives, drawn))
        count = _model_calls(request, sampling.evaluations)
        shared = not (request.references or request.exact)
        passes.append(Pass(kind, *checkpoint, drawn, sampling.size, count, shared=shared))
    for use in request.detail:
        passes.append(Pass("find", use.model, use.finder_hash, size, size))
        taken = steps_taken(use.steps or request.steps, use.denoising_strength)
        count = _model_calls(request, _evaluations(request.sampler, taken))
        passes.append(Pass("detail", *checkpoint, use.sides, size, count, use.count, shared=True))
    large, whole = request.size_after_upscale, request.size_before_resize
    final = request.published_size
    if upscale := request.upscale:
        passes.append(Pass("upscale", upscale.model, request.upscaler_hash, size, large))
    if cutout := request.cutout:
        passes.append(Pass("cutout", cutout.model, request.cutout_hash, large, whole))
    if request.resize_to:
        passes.append(Pass("resize", "", "", whole, final))
    return (*passes, Pass("write", "", "", final, final))


def _model_calls(image: ImageFields, evaluations: int) -> int:
    """Count the calls of the model for an image, of which guidance makes two."""
    guided = sum(is_guided(image, at / evaluations) for at in range(evaluations))
    return max(1, evaluations + guided)


def samplings(image: ImageFields) -> list[Sampling]:
    """Return the first run of the sampler and, with hires, the second."""
    each = _EACH_STEP.get(image.sampler, 1)  # a picture that is only enlarged has no sampler
    strength = image.denoising_strength if image.image else 1.0
    count = _evaluations(image.sampler, steps_taken(image.steps, strength))
    planned, size = image.steps * each, (image.width or 0, image.height or 0)
    found = [Sampling(count, planned, None, size, image.steps, strength)]
    if hires := image.hires:
        steps, strength = hires.steps or image.steps, hires.denoising_strength
        taken = steps_taken(steps, strength)
        count = _evaluations(image.sampler, taken)
        # A1111's second pass takes all steps that it plans: 1.5 is its middle.
        found.append(Sampling(count, taken * each, planned, image.drawn_size, steps, strength))
    return found


def evaluations(image: ImageFields) -> int:
    """Count the evaluations of the sampler for an image; with guidance each is double."""
    return max(1, sum(sampling.evaluations for sampling in samplings(image)))


def is_guided(image: ImageFields, share: float) -> bool:
    """Return whether an evaluation after this share of those of its run follows `cfg_scale`."""
    # "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    # Models", https://arxiv.org/abs/2404.07724.
    begun = not image.cfg_start or share > image.cfg_start
    return image.cfg_scale != 1 and begun and share <= image.cfg_end


def steps_taken(steps: int, strength: float) -> int:
    """Return the share `strength` of the steps: at least one, but 0 for strength 0."""
    taken = min(int(steps * strength + 1e-9), steps)  # 0.29 * 100 is 28.999…
    return max(taken, 1) if strength > 0 else taken


def _evaluations(sampler: str, taken: int) -> int:
    """Count evaluations: with guidance, each is double."""
    each = _EACH_STEP.get(sampler, 1)
    if each > 1:
        return max(0, each * taken - 1)
    return taken + 1 if sampler == "PNDM" and taken > 1 else taken
