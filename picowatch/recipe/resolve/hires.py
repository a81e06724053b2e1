"""The old address of what parts.py has."""

from picowatch.recipe.parts import PIXEL_UPSCALERS as PIXEL_UPSCALERS
from picowatch.recipe.parts import UPSCALERS as UPSCALERS
from picowatch.recipe.parts import final_side as final_side
from picowatch.recipe.parts import usual_upscaler as usual_upscaler


def is_model(upscaler: str) -> bool:
    """Whether it is the name of an installed model."""
    return upscaler not in UPSCALERS
