"""Recognises from its header alone what a single file is: a positive check, family by family.

The rows of picowatch/families.py say which tensors tell a transformer.
"""

from collections.abc import Mapping

from picowatch.catalog.headers import Header
from picowatch.catalog.loras import lora
from picowatch.catalog.models import FOLDERS, Kind, Layout, Recognised
from picowatch.catalog.storage import stored
from picowatch.catalog.text_encoders import ENCODERS, contents, text_encoder
from picowatch.catalog.unets import UNET, controlnet, unet
from picowatch.catalog.upscalers import layout_of
from picowatch.catalog.vaes import vae_of_header
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, FAMILY_OF_WIDTH, Family, Sign, hub_folder

# The end of every sentence that refuses another family.
ONLY = "picowatch does not support it; docs/models.md lists what it does."
ARTICLES: dict[Kind, str] = {
    "checkpoint": "a checkpoint",
    "vae": "a VAE",
    "text_encoder": "a text encoder",
    "lora": "a LoRA",
    "embedding": "an embedding",
    "upscaler": "an upscaler",
    "controlnet": "a ControlNet",
    "depth": "a model that guesses depth",
}

# What stands before the names of a transformer's tensors: that of whole checkpoints, of NVIDIA's
# Cosmos, of AuraFlow's authors, or nothing.
_PREFIXES = (UNET, f"{UNET}net.", "net.", "model.", "")
# Beginnings of names in what guides a transformer, and has copies of its layers.
_GUIDES = ("controlnet_", "control_layers.", "control_blocks.", "ip_adapter", "image_proj.")
_POSITIONS = ("pos_embed", "pos_embed.pos_embed", "positional_encoding")
_EMBEDDING_WIDTHS = {row.text_width for row in FAMILIES.values() if row.key != "sdxl"} - {0}
_SDXL_WIDTHS = (768, 1280)  # of SDXL's two text encoders


def recognise(header: Header, families: Mapping[str, Family] = FAMILIES) -> Recognised:
    """Return what the file is; ModelRefused shows what an unknown one begins with."""
    if not header.shapes:
        raise ModelRefused("is an empty file of weights, without one tensor.")
    found = (
        controlnet(header)
        or unet(header)
        or lora(header)
        or _transformer(header, families)
        or _part(header)
        or _embedding(header)
    )
    if found is None:
        raise ModelRefused(
            f"is no model that picowatch knows: its tensors begin with {header.beginning()}."
        )
    return found


def expect_usable(found: Recognised, kind: Kind, layout: Layout = "file", right: str = "") -> None:
    """A file belongs in the folder of its kind, and to a family and variant that can be rendered.

    `right` is what that folder is called here, if not as usual.
    """
    row = FAMILIES.get(found.family)
    if row and not _is_usable(row, found.kind, kind, layout):
        raise ModelRefused(f"{_with_family(found)}: {_why_not(row, found)}")
    if found.kind != kind:
        folder = right or FOLDERS[found.kind]
        raise ModelRefused(
            f"is {ARTICLES[found.kind]}, not {ARTICLES[kind]}: move it to models/{folder}/."
        )


def expect_rendered(found: Recognised, layout: Layout) -> None:
    """A checkpoint's variant is one that can be rendered; a file's is exactly that."""
    if found.kind != "checkpoint" or FAMILIES[found.family].kind == "unet":
        return
    variants = FAMILIES[found.family].variants
    if found.variant not in variants and (layout == "file" or "" not in variants):
        raise ModelRefused(f"{_with_family(found)}: {ONLY}")


def _is_usable(row: Family, found: Kind, kind: Kind, layout: Layout) -> bool:
    if found == "lora":
        return row.loras
    if kind == "checkpoint" and row.kind == "flow":
        return layout == "folder" or not row.short
    return row.kind == "unet"


def _why_not(row: Family, found: Recognised) -> str:
    """Say why its family is not rendered from this file, and what to get instead."""
    if found.kind == "lora":
        return "diffusers loads none for this family."
    if row.kind == "unet" or not row.short:
        return ONLY
    return (
        "picowatch renders it from diffusers folders only. Get the folder "
        f"{hub_folder(found.family, found.variant)} instead (docs/models.md)."
    )


def _with_family(found: Recognised) -> str:
    name = FAMILIES[found.family].name + (f" ({found.variant})" if found.variant else "")
    return f"is {ARTICLES[found.kind]} {'of' if found.kind == 'checkpoint' else 'for'} {name}"


def _transformer(header: Header, families: Mapping[str, Family]) -> Recognised | None:
    """The transformer in a file, in its original names or diffusers', with what is beside it."""
    if header.has(_GUIDES):
        return None
    for prefix in _PREFIXES:
        names = [name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)]
        for row in families.values():
            if not row.signs or not any(name.startswith(row.signs) for name in names):
                continue
            shown = (name for name, sign in row.by_header if _shows(header, prefix, sign))
            variant = next(shown, None if row.by_header else "")
            if variant is not None:
                return Recognised(
                    "checkpoint",
                    row.key,
                    row.native_size,
                    variant=variant,
                    stored=stored(header),
                    contents=contents(header, prefix),
                )
    return None


def _shows(header: Header, prefix: str, sign: Sign) -> bool:
    if sign.has and not any(header.has(f"{prefix}{name}") for name in sign.has):
        return False
    if any(header.has(f"{prefix}{name}") for name in sign.lacks):
        return False
    if sign.width:
        return sign.width == max(header.inputs(f"{prefix}{name}") for name in sign.of)
    return sign.positions in (0, _positions(header, prefix))


def _positions(header: Header, prefix: str) -> int:
    """The number of positions; GGUF files may leave out the first side, which is 1."""
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


def _part(header: Header) -> Recognised | None:
    """A VAE, a text encoder or an upscaler."""
    vae = vae_of_header(header)
    if vae is not None:
        return Recognised("vae", "", variant=vae)
    encoder = text_encoder(header)
    if encoder and not ENCODERS[encoder].file:
        raise ModelRefused(
            f"is {encoder}, a text encoder that picowatch reads from diffusers folders and whole "
            "checkpoints only."
        )
    if encoder:
        return Recognised("text_encoder", "", variant=encoder, stored=stored(header))
    layout = layout_of(header.shapes)
    if layout:
        return Recognised("upscaler", "", variant=layout.architecture, scale=layout.scale)
    return None


def _embedding(header: Header) -> Recognised | None:
    """Textual inversion: A1111's `emb_params`, `clip_l`, SDXL's pair, diffusers' one tensor."""
    shapes = header.shapes
    if "clip_g" in shapes:  # SDXL's, as many vectors of either
        pair = shapes.get("clip_l", ()), shapes["clip_g"]
        fits = pair[0][:1] == pair[1][:1] and (pair[0][1:] + pair[1][1:]) == _SDXL_WIDTHS
        return Recognised("embedding", "sdxl") if fits else None
    named = shapes.keys() & {"emb_params", "clip_l"}
    name = min(named or shapes)
    shape = shapes[name]
    if not named and (len(shapes) > 1 or "." in name):
        return None
    if len(shape) not in (1, 2) or 0 in shape or shape[-1] not in _EMBEDDING_WIDTHS:
        return None
    return Recognised("embedding", FAMILY_OF_WIDTH[shape[-1]])
