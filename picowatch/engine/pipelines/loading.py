"""Loads the checkpoints of flow families: which module serves which, and in which type."""

from typing import Any

from picowatch.catalog import Model
from picowatch.catalog.pipelines import classes_of
from picowatch.engine.devices import Target
from picowatch.engine.models.parts import FindFile
from picowatch.engine.pipelines import flux, flux2, qwen_image, sd3, z_image
from picowatch.engine.pipelines.folder import read_part, read_parts
from picowatch.engine.pipelines.loaded import Interruption, LoadedPipeline
from picowatch.engine.unet.loras import Loras

FAMILIES = {
    "z_image": z_image.FAMILY,
    "flux": flux.FAMILY,
    "flux2": flux2.FAMILY,
    "qwen_image": qwen_image.FAMILY,
    "sd3": sd3.FAMILY,
}
# Variants that have pipelines of their own.
_VARIANTS = {("flux", "Fill"): flux.FILL}


def load(model: Model, target: Target, read_to: Target, find_file: FindFile) -> LoadedPipeline:
    """All of a checkpoint but its VAE; see `sd1.load`."""
    components = read_parts(model.path, target.flow_dtype, read_to.device)
    encoders = [part for name, part in components.items() if name.startswith("text_encoder")]
    transformer = components["transformer"]
    return LoadedPipeline(
        family=model.family,
        rules=_VARIANTS.get((model.family, model.variant)) or FAMILIES[model.family],
        components=components,
        loras=Loras(
            transformer,
            encoders,
            lambda use: find_file("lora", use.name, use.hash),
            target.device,
        ),
        native_size=model.native_size,
        interruption=Interruption(transformer, *encoders),
    )


def load_vae(model: Model, target: Target, read_to: Target) -> Any:
    """The VAE of a checkpoint's folder."""
    name = classes_of(model.path)["vae"]
    return read_part(model.path / "vae", name, target.flow_dtype, read_to.device)
