"""What the second pass of `hires` is enlarged with, and how large it becomes."""

from picowatch.recipe.messages.suggestions import squeezed

UPSCALERS = (
    "Latent",
    "Latent (nearest)",
    "Latent (nearest-exact)",
    "Latent (bicubic)",
    "Latent (antialiased)",
    "Latent (bicubic antialiased)",
    "Lanczos",
    "Nearest",
)
# Those that enlarge pixels, not latents.
PIXEL_UPSCALERS = ("Lanczos", "Nearest")


def usual_upscaler(written: str) -> str | None:
    """The upscaler without a model that somebody means; None if it is none of them."""
    return next((name for name in UPSCALERS if squeezed(written) == squeezed(name)), None)


def is_model(upscaler: str) -> bool:
    """Whether it is the name of an installed model."""
    return upscaler not in UPSCALERS


def final_side(side: int, scale: float) -> int:
    """A side after the second pass: a multiple of 8, rounded down as A1111 does."""
    return int(side * scale) // 8 * 8
