"""What is in a transformer's file besides the transformer: whole checkpoints have everything."""

from picowatch.catalog.headers import Header
from picowatch.catalog.text_encoders import encoders_inside

TRANSFORMER, VAE = "transformer", "VAE"
_VAES = ("vae.", "first_stage_model.")
# The first layer of the decoder: of Stable Diffusion and FLUX, and of Qwen-Image.
_DECODERS = ("decoder.conv_in.weight", "decoder.conv1.weight")


def contents(header: Header, prefix: str) -> tuple[tuple[str, str], ...]:
    """The parts by their names, and what stands before the names of their tensors."""
    vaes = (
        (VAE, start) for start in _VAES if any(start + one in header.shapes for one in _DECODERS)
    )
    return ((TRANSFORMER, prefix), *encoders_inside(header).items(), *vaes)
