"""The parts of a checkpoint's pipeline: where the config and the weights of each are.

A transformer in a file of its own is completed by other files. The file itself may contain the text
encoders and the VAE. What it lacks comes from an installed diffusers folder of the same family, or
from files in models/text_encoders/ and models/vae/, whose configs and vocabularies the package has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from picowatch.catalog.encoders import ENCODERS, TINY, TRANSFORMER, VAE, serves
from picowatch.catalog.folder_files import folder_files
from picowatch.catalog.folders import classes_of, encoder_of
from picowatch.catalog.models import Model, Part
from picowatch.families import FAMILIES, FLOWS
from picowatch.families.row import SD3_VAE, SIXTEEN
from picowatch.files.safe_paths import is_folder
from picowatch.recipe.messages.suggestions import listed

ASSETS = Path(__file__).parent.parent / "assets"
# The folder that describes single files, for each family of UNets.
CONFIGS = {"sd1": ASSETS / "sd15", "sd2": ASSETS / "sd2", "sdxl": ASSETS / "sdxl"}
# The vocabulary of every CLIP that Stable Diffusion 1.x, 2.x and XL use; single files have none.
_VOCABULARY = ASSETS / "sd15" / "tokenizer"
# Only the language model of these is loaded, and files may lack the rest.
_HEADLESS = {
    "Qwen3ForCausalLM": "Qwen3Model",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2_5_VLTextModel",
}
# Parts that are in a transformer's file, and what the names of their tensors begin with.
_PARTS_OF_TRANSFORMER = {"transformer": "", "text_conditioner": "llm_adapter."}
# The parts for which variants of a family may have configs of their own.
_OF_A_VARIANT = ("scheduler", "transformer")

# The weights of parts: a folder, or a file and their tensors' prefix.
_Sources = Mapping[str, tuple[Path, str] | None]


def is_unet(model: Model) -> bool:
    """Return whether a model has a UNet: its single files are whole checkpoints."""
    return FAMILIES[model.family].kind == "unet"


def is_transformer(checkpoint: Model) -> bool:
    """Return whether a checkpoint is a transformer in a file, which needs other parts."""
    return checkpoint.layout == "file" and checkpoint.family in FLOWS


def parts_of(model: Model) -> tuple[Part, ...]:
    """Return all parts of a checkpoint, with the names that its pipeline has for them."""
    if model.layout == "folder":
        return _lent(model, model, {})
    if is_unet(model):
        return _of_the_package(model, {name: (model.path, own) for name, own in model.contents})
    return model.parts


def completed(model: Model, installed: Sequence[Model]) -> Model:
    """Return a model and its variants with all parts of their pipeline, or what is missing."""
    model = replace(model, others=tuple(completed(variant, installed) for variant in model.others))
    inside = _sources(model, ())
    lender = _lender(model, installed)
    if lender and not _suffice(model, inside):
        return replace(model, parts=_lent(model, lender, inside), native_size=lender.native_size)
    sources = _sources(model, installed)
    if _suffice(model, sources):
        return replace(model, parts=_of_the_package(model, sources))
    missing = _missing(model, sources)
    if other := next((variant.name for variant in model.others if not variant.missing), ""):
        missing += f" Or, if it is another variant, write 'checkpoint: {other}'."
    return replace(model, missing=missing)


def _sources(model: Model, installed: Sequence[Model]) -> _Sources:
    """Find transformer, text encoders and VAE in the file itself, or among those installed."""
    inside = {content: (model.path, prefix) for content, prefix in model.contents}
    # A VAE that may be FLUX.1's or Stable Diffusion 3's is FLUX.1's.
    unfit = (*TINY, SIXTEEN) if SD3_VAE in FAMILIES[model.family].vaes else (*TINY,)
    vaes = [own for own in installed if own.kind == "vae" and own.variant not in unfit]

    def found(content: str) -> tuple[Path, str] | None:
        if content == VAE:
            fitting = [vae for vae in vaes if serves(vae.variant, model.family)]
        else:
            wanted = "text_encoder", content
            fitting = [own for own in installed if (own.kind, own.variant) == wanted]
        # The most precise weights: float16 rather than fp8.
        largest = max(fitting, key=lambda model: model.bytes, default=None)
        return inside.get(content) or ((largest.path, "") if largest else None)

    contents = {**_encoders_of(model), "vae": VAE, "transformer": TRANSFORMER}
    return {part: found(content) for part, content in contents.items()}


def _encoders_of(model: Model) -> Mapping[str, str]:
    """Return the text encoders that may be files; those that read pictures must be in folders."""
    row = FAMILIES[model.family]
    variant = row.variant(model.variant)
    return {} if variant.references and "processor" in row.parts else variant.encoders


def _suffice(model: Model, sources: _Sources) -> bool:
    """Return whether these and the package have all parts."""
    row = FAMILIES[model.family]
    alone = row.vae_assets and _encoders_of(model)
    return bool(alone) and all(source or part in row.optional for part, source in sources.items())


def _lent(model: Model, lender: Model, inside: _Sources) -> tuple[Part, ...]:
    """Return the parts of a folder, replaced by those that the file itself has.

    The package has some parts that a folder may lack.
    """
    parts, classes = [], classes_of(lender.path)
    for name, class_name in classes.items():
        folder = lender.path / name
        if name in _OF_A_VARIANT and lender.variant != model.variant:
            own = _package_folder(model, name)
            folder = own if own.is_dir() else folder
        parts.append(_part(name, class_name, folder, inside))
    row = FAMILIES[model.family]
    lacking = {name: ASSETS / row.key / name for name in row.optional if name not in classes}
    built_in = ((name, at) for name, at in lacking.items() if name in row.parts and at.is_dir())
    return (*parts, *(Part(name, row.parts[name][0], at) for name, at in built_in))


def _of_the_package(model: Model, sources: _Sources) -> tuple[Part, ...]:
    """Return all parts, with the package's configs, vocabularies and noise schedule."""
    row = FAMILIES[model.family]
    return tuple(
        _part(name, classes[0], _package_folder(model, name), sources)
        for name, classes in row.parts.items()
        if (encoder := encoder_of(name)) not in row.optional or sources[encoder]
    )


def _part(name: str, class_name: str, folder: Path, sources: _Sources) -> Part:
    source = sources.get(name)
    if name in _PARTS_OF_TRANSFORMER and (found := sources.get("transformer")):
        file, prefix = found
        source = file, prefix + _PARTS_OF_TRANSFORMER[name]
    if source is None or is_folder(source[0]):
        return Part(name, class_name, source[0] if source else folder)
    return Part(name, _HEADLESS.get(class_name, class_name), folder, *source)


def _package_folder(model: Model, part: str) -> Path:
    """Return the package's config, vocabulary or noise schedule of a part."""
    row = FAMILIES[model.family]
    if is_unet(model):
        own = CONFIGS[model.family] / part
        return _VOCABULARY if part.startswith("tokenizer") and not own.is_dir() else own
    encoder = _encoders_of(model).get(encoder_of(part))
    if encoder:
        known = ENCODERS[encoder]
        return ASSETS / (known.words if part.startswith("tokenizer") else known.config)
    if part == "t5_tokenizer":
        return ASSETS / ENCODERS["T5 XXL"].words
    variant = row.variant(model.variant).configs or model.variant
    own = ASSETS / model.family / variant.casefold().replace(" ", "-") / part
    if part in _OF_A_VARIANT and own.is_dir():
        return own
    return ASSETS / (row.vae_assets if part == "vae" else model.family) / part


def files_of(parts: Sequence[Part]) -> dict[str, Path]:
    """Return the files these parts are read from by name, sorted, without the package's own."""
    found = {}
    whole = next((part.weights for part in parts if part.name == "transformer"), None)
    for part in parts:
        for relative, path in folder_files(part.folder).items():
            is_other_weight = part.weights and path.suffix == ".safetensors"
            if ASSETS not in path.parents and not is_other_weight:
                found[f"{part.name}/{relative}"] = path
        # A file with several parts counts once, as the transformer.
        if part.weights and (part.weights != whole or part.name == "transformer"):
            found[part.name] = part.weights
    return dict(sorted(found.items()))


def completed_by(model: Model) -> list[str]:
    """Return the files and folders below models/ that complete a transformer's file."""
    found = []
    for part in model.parts:
        if part.weights and part.weights != model.path:
            used = part.weights
        elif part.weights or ASSETS in part.folder.parents:
            continue
        else:  # a folder with all parts, or a VAE's own
            used = part.folder.parent if part.folder.name == part.name else part.folder
        found.append(f"{used.parent.name}/{used.name}")
    return list(dict.fromkeys(found))


def _lender(model: Model, installed: Sequence[Model]) -> Model | None:
    """Return the folder that lends its parts: of the same variant, or of a similar variant."""
    folders = [own for own in installed if (own.layout, own.family) == ("folder", model.family)]
    lending = [folder for folder in folders if folder.variant == model.variant]
    if model.family == "flux2":  # klein of a size, and the base that it was made from
        size = model.variant.replace(" base", "")
        lending += [folder for folder in folders if folder.variant.replace(" base", "") == size]
    elif FAMILIES[model.family].alike:
        lending += folders
    return next(iter(lending), None)


def _missing(model: Model, sources: _Sources) -> str:
    """Return what to install, and where: files, if they can complete the model, or a folder."""
    row, encoders, ways = FAMILIES[model.family], _encoders_of(model), []
    variant = f" ({model.variant})" if model.variant else ""
    if row.vae_assets and encoders:
        needed = [
            f"{encoder} (such as {ENCODERS[encoder].file}.safetensors) in models/text_encoders/"
            for part, encoder in encoders.items()
            if not sources[part] and part not in row.optional
        ]
        ways.append(listed(needed + ([] if sources["vae"] else [f"{row.vae_file} in models/vae/"])))
    ways.append(
        f"a diffusers folder of {row.name}{'' if row.alike else variant} (such as "
        f"{row.variant(model.variant).hub}) in models/checkpoints/, which lends its own"
    )
    has = [f"the {name}" if name in (TRANSFORMER, VAE) else name for name, _ in model.contents]
    return (
        f"{model.path.name} has only {listed(has)} of {row.name}{variant}. "
        f"It also needs {'; or '.join(ways)}."
    )
