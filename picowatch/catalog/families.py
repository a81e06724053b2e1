"""Tells the family and variant of a transformer by its header, or by the name of its file."""

from typing import NamedTuple

from picowatch.catalog.headers import Header
from picowatch.families import FAMILIES, Family, Sign

# The end of every sentence that refuses another family.
ONLY = "picowatch does not support it; docs/models.md lists what it does."
UNET = "model.diffusion_model."
# What stands before the names of tensors: that of whole checkpoints, of NVIDIA's Cosmos, of
# AuraFlow's authors, or nothing.
_PREFIXES = (UNET, f"{UNET}net.", "net.", "model.", "")
_POSITIONS = ("pos_embed", "pos_embed.pos_embed", "positional_encoding")


class Transformer(NamedTuple):
    """A transformer, alone or in a checkpoint: `prefix` stands before its tensors' names.

    The variant is "" where the header does not say. FLUX.1's Krea and Kontext look like its dev;
    Turbo and base differ in their files' names alone.
    """

    family: str
    variant: str
    prefix: str


def transformer(header: Header) -> Transformer | None:
    """The transformer in a file, in its original names or diffusers'; None for anything else."""
    for prefix in _PREFIXES:
        names = [name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)]
        for row in FAMILIES.values():
            if row.signs and any(name.startswith(row.signs) for name in names):
                return Transformer(row.key, _variant(header, prefix, row), prefix)
    return None


def _variant(header: Header, prefix: str, row: Family) -> str:
    return next((name for name, sign in row.by_header if _shows(header, prefix, sign)), "")


def _shows(header: Header, prefix: str, sign: Sign) -> bool:
    if sign.has and not any(header.has(f"{prefix}{name}") for name in sign.has):
        return False
    if any(header.has(f"{prefix}{name}") for name in sign.lacks):
        return False
    if sign.width:
        return sign.width == max(header.inputs(f"{prefix}{name}") for name in sign.of)
    return sign.positions in (0, _positions(header, prefix))


def _positions(header: Header, prefix: str) -> int:
    """How many there are; GGUF files may leave out the first side, which is 1."""
    shapes = (header.shapes.get(f"{prefix}{name}", ()) for name in _POSITIONS)
    return max(((0, 0, *shape)[-2] for shape in shapes), default=0)


def variant_by_name(family: str, variant: str, name: str) -> str:
    """The variant of a checkpoint, where its file's or folder's name alone tells it.

    `variant` is what its weights and configs say.
    """
    words = name.casefold().replace("_", "-")
    told = FAMILIES[family].by_name if family else ()
    return next((after for before, word, after in told if before == variant and word in words),
                variant)  # fmt: skip
