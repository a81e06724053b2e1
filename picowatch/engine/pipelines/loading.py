"""Loads the checkpoints of flow families: which module serves which, and in which type."""

from typing import Any

from picowatch.catalog import Model
from picowatch.catalog.transformer_files import part_of, parts_of
from picowatch.engine.devices import Target
from picowatch.engine.models.parts import FindFile
from picowatch.engine.pipelines import (
    chroma,
    ernie_image,
    flux,
    flux2,
    krea2,
    lumina2,
    ovis,
    qwen_image,
    sd3,
    z_image,
)
from picowatch.engine.pipelines.folder import read_part
from picowatch.engine.pipelines.loaded import Interruption, LoadedPipeline
from picowatch.engine.pipelines.transformer import read_transformer
from picowatch.engine.unet.loras import Loras

FAMILIES = {
    "z_image": z_image.FAMILY,
    "flux": flux.FAMILY,
    "flux2": flux2.FAMILY,
    "qwen_image": qwen_image.FAMILY,
    "krea2": krea2.FAMILY,
    "ernie_image": ernie_image.FAMILY,
    "ovis": ovis.FAMILY,
    "sd3": sd3.FAMILY,
    "chroma": chroma.FAMILY,
    "lumina2": lumina2.FAMILY,
}
# Variants that have pipelines of their own.
_VARIANTS = {("flux", "Fill"): flux.FILL, ("krea2", "Turbo"): krea2.TURBO}


def load(model: Model, target: Target, read_to: Target, find_file: FindFile) -> LoadedPipeline:
    """All of a checkpoint but its VAE; see `sd1.load`."""
    components = {
        part.name: read_part(part, target.flow_dtype, read_to.device)
        for part in parts_of(model)
        if part.name not in ("vae", "transformer")
    }
    components["transformer"] = transformer = read_transformer(
        model, target.flow_dtype, read_to.device
    )
    encoders = [part for name, part in components.items() if name.startswith("text_encoder")]
    return LoadedPipeline(
        family=model.family,
        rules=_VARIANTS.get((model.family, model.variant)) or FAMILIES[model.family],
        components=components,
        loras=Loras(
            model.family,
            transformer,
            encoders,
            lambda use: find_file("lora", use.name, use.hash),
            target.device,
        ),
        native_size=model.native_size,
        interruption=Interruption(transformer, *encoders),
    )


def load_vae(model: Model, target: Target, read_to: Target) -> Any:
    """The VAE of a checkpoint."""
    return read_part(part_of(model, "vae"), target.flow_dtype, read_to.device)
