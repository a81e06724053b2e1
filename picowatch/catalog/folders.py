"""Recognises diffusers folders: an index and a folder for each part, or a single part.

This is an allowlist: the rows of picowatch/families/ say which classes of diffusers and
transformers each part may have, or that it may have any of their own. The engine loads no others,
whatever a folder names or contains.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from picowatch.catalog import folder_files
from picowatch.catalog.encoders import vae_of_config
from picowatch.catalog.finders import recognise_network
from picowatch.catalog.headers import Header, read_header
from picowatch.catalog.models import Kind, Recognised, holds
from picowatch.catalog.recognise import POOLED, REFINER, USABLE_INPUTS, controlnet
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, from_text, row_of_pipeline
from picowatch.families.general import signature
from picowatch.families.row import Family
from picowatch.files.safe_paths import is_file, is_folder
from picowatch.recipe.fields import MAX_SIDE
from picowatch.recipe.messages.problems import shown

_SIDES, _USUAL_SIDE = range(256, 4097, 32), 1024  # of pipelines without a row
_VAE_FACTOR = 8
_SAMPLE_SIZES = range(8, 257)  # sides of 64 to 2048 pixels
_SDXL_DEPTHS = [2, 10]  # blocks of transformers in the two levels of the UNet that have them


def recognise_checkpoint_folder(folder: Path) -> Recognised:
    """Recognise a whole diffusers folder. ModelRefused says what is missing or not supported."""
    index = folder_files.read_index(folder)
    row = _row_of(index)
    folder_files.check_files(folder)
    configs = {}
    for part, class_name in classes_of(folder).items():
        match holds(class_name):
            case "words" if class_name != "ByT5Tokenizer":  # bytes are its words
                folder_files.check_vocabulary(folder / part)
            case "pixels":
                folder_files.read_json(folder / part / "preprocessor_config.json")
            case "settings" if part == "scheduler":
                configs[part] = folder_files.read_schedule(folder / part)
            case "weights":
                if part != "transformer" or row.kind == "general" or not only_lends(folder):
                    folder_files.check_weights(folder / part, _get(folder, row, index))
                configs[part] = folder_files.read_config(folder / part / "config.json")
    if row.kind == "unet":
        return _unet_folder(row, configs)
    if row.kind == "general":  # with the side that its pipeline draws by default, or configs tell
        vae, size = configs["vae"], configs["transformer"].get("sample_size")
        levels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
        # Each level of a VAE but the first halves the sides.
        factor = 2 ** (len(levels) - 1) if isinstance(levels, list) else _VAE_FACTOR
        side = size * factor if isinstance(size, int) else 0
        side = row.native_size or (side if side in _SIDES else _USUAL_SIDE)
        return Recognised("checkpoint", row.key, min(side, MAX_SIDE))
    return _flow_folder(row, folder, configs["transformer"])


def _row_of(index: dict[str, Any]) -> Family:
    """Return a folder's family; img2img pipelines of the same parts count, too."""
    pipeline = str(index.get("_class_name"))
    try:
        return row_of_pipeline(pipeline) or FAMILIES[from_text(pipeline)]
    except ModelRefused as refused:
        raise ModelRefused(f"is a diffusers folder of a {shown(pipeline)}: {refused}") from refused


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a pipeline without a row in its index, besides its parts."""
    index = folder_files.read_json(folder / folder_files.INDEX)
    takes = signature(from_text(str(index["_class_name"])), "__init__") or {}
    return {name: entry for name, entry in index.items() if name in takes and not _is_part(entry)}


def _unet_folder(row: Family, configs: dict[str, dict[str, Any]]) -> Recognised:
    unet, schedule = configs["unet"], configs["scheduler"]
    width = unet.get("cross_attention_dim")
    family = row.key
    if family != "sdxl":
        # Stable Diffusion 1.x projects by convolutions.
        family = "sd2" if width == 1024 or unet.get("use_linear_projection") else "sd1"
    size, layers = unet.get("sample_size"), unet.get("transformer_layers_per_block")
    pooled = unet.get("projection_class_embeddings_input_dim")
    expected = {"in_channels": unet.get("in_channels") in [*USABLE_INPUTS]}
    expected["sample_size"] = type(size) is int and size in _SAMPLE_SIZES
    if family == "sdxl":
        narrow = isinstance(width, int) and width < FAMILIES["sdxl"].text_width
        depths = layers[1:] if isinstance(layers, list) else layers
        expected["cross_attention_dim"] = width != 1280
        expected["projection_class_embeddings_input_dim"] = narrow or pooled == POOLED["sdxl"]
        expected["transformer_layers_per_block"] = narrow or depths == _SDXL_DEPTHS
        if pooled == 2560:
            raise ModelRefused(REFINER)
    for key, fits in expected.items():
        if not fits:
            raise ModelRefused(
                f"is a diffusers folder with a UNet that picowatch does not know: its {key} is "
                f"{shown(str(unet.get(key)))}."
            )
    texts = (config for part, config in configs.items() if part.startswith("text_encoder"))
    counts = [config.get("num_hidden_layers") for config in texts]
    prediction = schedule.get("prediction_type")
    return Recognised(
        "checkpoint",
        family,
        size * _VAE_FACTOR if isinstance(size, int) else 0,
        unet["in_channels"],
        min(count if isinstance(count, int) else FAMILIES["sd1"].text_layers for count in counts),
        prediction if prediction in ("epsilon", "v_prediction") else "",
        schedule.get("rescale_betas_zero_snr") is True,
        text_width=width if isinstance(width, int) else 0,
    )


def _flow_folder(row: Family, folder: Path, transformer: dict[str, Any]) -> Recognised:
    index = folder_files.read_index(folder)
    for setting, value in row.settings.items():
        if index.get(setting) not in (value, None):
            raise ModelRefused(
                f"cannot be used: {folder_files.index_of(folder).name} says {setting}: "
                f"{shown(str(index[setting]))}; only {json.dumps(value)} is supported."
            )
    variant = _variant(row, index, transformer)
    takes = row.variant(variant).references
    edits = takes is not None and takes.required and "processor" in row.parts
    if edits and _class_of(index, "processor")[1] is None:
        raise ModelRefused("is a diffusers folder without processor/: copy the whole folder.")
    return Recognised("checkpoint", row.key, row.native_size, variant=variant)


def _variant(row: Family, index: dict[str, Any], transformer: dict[str, Any]) -> str:
    """Return the variant by index and transformer config; "" if only the name tells it."""
    settings = index | {f"transformer/{name}": value for name, value in transformer.items()}
    pipeline = from_text(str(index["_class_name"]))
    pipeline = row.pipelines.text if pipeline in row.more_folders else pipeline
    for name, variant in row.variants.items():
        is_told = variant.like is None or variant.config is not None
        # An index may name another class than its blocks': the config tells.
        is_its = row.modular or (variant.pipelines or row.pipelines).text == pipeline
        if is_told and is_its and (variant.config or {}).items() <= settings.items():
            return name
    return ""


def _get(folder: Path, row: Family, index: dict[str, Any]) -> str:
    """Return how to get the files that a folder lacks."""
    named = str(index.get("_name_or_path"))
    hub = row.variant(_variant(row, index, {})).hub or (
        named if re.fullmatch(r"[\w.-]+/[\w.-]+", named) else "OWNER/NAME"
    )
    return f"type `hf download {hub} --local-dir models/checkpoints/{shown(folder.name)}`."


def only_lends(folder: Path) -> bool:
    """Return whether a folder has no weights in transformer/ and only completes other files."""
    return not any(
        path.suffix in folder_files.WEIGHTS_ENDINGS for path in (folder / "transformer").iterdir()
    )


def classes_of(folder: Path) -> dict[str, str]:
    """Return the class of each part that is loaded. ModelRefused if the family lacks the class."""
    index, file = folder_files.read_index(folder), folder_files.index_of(folder)
    row = _row_of(index)
    found: dict[str, str] = {}
    if not any(is_folder(folder / part) for part in row.parts):
        raise ModelRefused(f"has only an index, {file.name}: {_get(folder, row, index)}")
    for part, allowed in row.parts.items():
        encoder, (library, name) = encoder_of(part), _class_of(index, part)
        if encoder in row.optional and _class_of(index, encoder)[1] is None:
            continue
        if allowed and name not in allowed:
            raise ModelRefused(
                f"is a diffusers folder whose {part} is {shown(str(name))}, not {allowed[0]}: "
                "not supported."
            )
        is_own = library in ("diffusers", "transformers") and isinstance(name, str)
        if not (allowed or (is_own and name.isidentifier())):
            raise ModelRefused(
                f"is a diffusers folder whose {part} is {shown(str(name))} of "
                f"{shown(str(library))}: only classes of diffusers and transformers are loaded."
            )
        if not is_folder(folder / part):
            null = elsewhere = ""
            if part in row.optional and part == encoder:
                null = f", or write [null, null] for it in {file.name}"
            match folder_files.read_json(file).get(part):
                case [_, _, {"pretrained_model_name_or_path": str(repository)}]:
                    elsewhere = f" Its index takes this part from {shown(repository)}."
            raise ModelRefused(
                f"is a diffusers folder without {part}/: copy the whole folder{null}.{elsewhere}"
            )
        found[part] = str(name)
    return found


def encoder_of(part: str) -> str:
    """Return the text encoder of a tokenizer, or the part itself."""
    return part.replace("tokenizer", "text_encoder")


def _class_of(index: dict[str, Any], part: str) -> list[Any]:
    """Return a part's library and class in the index; an optional part may have neither."""
    entry = index.get(part)
    return entry if _is_part(entry) else [None, None]


def _is_part(entry: Any) -> TypeGuard[list[Any]]:
    """Return whether a value of the index is a part, and not a setting."""
    return isinstance(entry, list) and len(entry) == 2 and not isinstance(entry[1], int | float)


def is_part_folder(folder: Path) -> bool:
    """Return whether a folder is a single part, like a VAE: it has a config.json itself."""
    return is_file(folder / "config.json") and not folder_files.has_index(folder)


def _vae_folder(folder: Path) -> Recognised:
    config = folder_files.read_config(folder / "config.json")
    variant = vae_of_config(config)
    if variant is None:
        told = ("_class_name", "latent_channels", "scaling_factor")
        said = ", ".join(f"{key}: {shown(str(config.get(key)))}" for key in told)
        raise ModelRefused(f"is not the folder of a VAE that picowatch knows ({said}).")
    return Recognised("vae", "", variant=variant)


def _controlnet_folder(folder: Path) -> Recognised:
    class_name = folder_files.read_json(folder / "config.json").get("_class_name")
    if class_name not in ("ControlNetModel", "ControlNetUnionModel"):
        raise ModelRefused("is a diffusers folder, but not of a ControlNet (ControlNetModel).")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in folder_files.weight_files(folder):
        shapes |= read_header(file).shapes
    header = Header(shapes, {})
    found = controlnet(header)
    if shapes and found is None:
        raise ModelRefused(
            "is not a ControlNet that picowatch knows: its tensors begin with "
            f"{header.beginning()}."
        )
    return found or Recognised("controlnet", "")


# The kinds of models that may be folders of a single part.
PART_FOLDERS: dict[Kind, Callable[[Path], Recognised]] = {
    "vae": _vae_folder,
    "controlnet": _controlnet_folder,
    "depth": recognise_network,
    "segmentation": recognise_network,
}


def recognise_part_folder(folder: Path, kind: Kind) -> Recognised:
    """Recognise the folder of a single part, in diffusers' or transformers' layout."""
    folder_files.check_files(folder)
    found = PART_FOLDERS[kind](folder)
    folder_files.check_weights(folder)
    return found
