"""The families of models: a row each, read by the recipe, the catalog and the engine.

A module has the rows of a maker, or of makers who build on each other; others.py has those of all
others. To add a family that diffusers draws: a row, a tiny folder in tests/engine/tiny_flows.py,
and a paragraph in docs/models.md. Pipelines without a row get theirs from their signature.
"""

import re
from collections.abc import Mapping

from picowatch.families import flux, others, qwen, stable_diffusion
from picowatch.families.general import general_row
from picowatch.families.row import DEMO, KL, Family

# Headers are compared with `signs`, `lora_blocks` and `lora_sides` in this order. A family comes
# before those whose signs it has, too: Chroma and FLUX.2 before FLUX.1, FLUX.2 dev before klein.
# A LoRA that several families may have is the first's: Qwen-Image comes before FLUX.1, Krea 2
# before FLUX.2 dev, FLUX.1 before FLUX.3, Lumina 2 before Z-Image.
_ROWS = (
    stable_diffusion.DEMO_MODEL, stable_diffusion.SDXL, stable_diffusion.SD1, stable_diffusion.SD2,
    stable_diffusion.SD3, qwen.QWEN_IMAGE_21, qwen.QWEN_IMAGE, qwen.KREA2, flux.CHROMA,
    flux.FLUX2_DEV, flux.FLUX2, flux.FLUX, flux.FLUX3, others.LUMINA2, others.Z_IMAGE,
    others.OVIS_IMAGE, others.LONGCAT_IMAGE, others.IDEOGRAM4, others.ANIMA, qwen.ERNIE_IMAGE,
)  # fmt: skip


class _Families(dict[str, Family]):
    """The rows by their keys; the key of a row that is made is its pipeline's class."""

    def __missing__(self, key: str) -> Family:
        return general_row(key)


FAMILIES: Mapping[str, Family] = _Families({row.key: row for row in _ROWS})
UNETS = tuple(row.key for row in _ROWS if row.kind == "unet")
FLOWS = tuple(row.key for row in _ROWS if row.kind == "flow")
# What the classes of VAEs but AutoencoderKL, which many have, are called and need.
OF_VAE = {row.parts["vae"][0]: row for row in _ROWS if KL not in row.parts["vae"]}
FAMILY_OF_WIDTH = {row.text_width: row.key for row in _ROWS if row.text_width}
DEMO_WIDTH = FAMILIES[DEMO].text_width


def from_text(class_name: str) -> str:
    """Return the pipeline that draws from text with the parts of this one."""
    return re.sub("(Img2Img|Inpaint)(?=Pipeline$)", "", class_name)


def row_of_pipeline(class_name: str) -> Family | None:
    """Return the family whose folders say this class; the UNets' share theirs."""
    return next((row for row in _ROWS if from_text(class_name) in row.folders), None)
