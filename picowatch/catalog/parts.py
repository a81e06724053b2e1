"""Where each part of a checkpoint's pipeline is: its config, and its weights."""

from collections.abc import Mapping
from pathlib import Path

from picowatch.catalog.families import UNET
from picowatch.catalog.gguf import read_any_header
from picowatch.catalog.models import Model, Part
from picowatch.catalog.transformer_files import ASSETS
from picowatch.catalog.transformer_files import parts_of as parts_with_transformer
from picowatch.families import FAMILIES

# The folder that describes single files, for each family.
CONFIGS = {"sd1": ASSETS / "sd15", "sd2": ASSETS / "sd2", "sdxl": ASSETS / "sdxl"}
# The vocabulary of every CLIP that Stable Diffusion 1.x, 2.x and XL use; single files have none.
_VOCABULARY = ASSETS / "sd15" / "tokenizer"
VAE = "first_stage_model."


def is_unet(model: Model) -> bool:
    """Whether it is a Stable Diffusion with a UNet, whose single files are whole checkpoints."""
    return FAMILIES[model.family].kind == "unet"


def parts_of(model: Model) -> tuple[Part, ...]:
    """All parts of a checkpoint, by the names that its pipeline has for them."""
    if not is_unet(model):
        return parts_with_transformer(model)
    row = FAMILIES[model.family]
    classes = {name: kinds[0] for name, kinds in row.parts.items()}
    if model.layout == "folder":
        return tuple(Part(name, kind, model.path / name) for name, kind in classes.items())
    starts: Mapping[str, tuple[str, ...]] = {
        "unet": (UNET,),
        "vae": (VAE,),
        "text_encoder": row.text_prefixes,
        "text_encoder_2": row.text_prefixes[-1:],
    }
    parts = []
    for name, kind in classes.items():
        folder = CONFIGS[model.family] / name
        if name in starts:
            prefix = prefix_in(model.path, *starts[name])
            parts.append(Part(name, kind, folder, model.path, prefix))
        else:
            has_none = name.startswith("tokenizer") and not folder.is_dir()
            parts.append(Part(name, kind, _VOCABULARY if has_none else folder))
    return tuple(parts)


def prefix_in(file: Path, *starts: str) -> str:
    """What stands before the names of a part's tensors in a file; nothing in a file of its own."""
    header = read_any_header(file)
    return next((start for start in starts if header.has(start)), "")
