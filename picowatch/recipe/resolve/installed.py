"""The look-up of installed models: names are forgiving, mistakes are explained."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeVar

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import BAKED
from picowatch.recipe.inventory import (
    DEMO_CUTOUT,
    DEMO_UPSCALER,
    Checkpoint,
    ControlNet,
    Inventory,
    Upscaler,
    is_called,
)
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.parts import UPSCALERS, usual_upscaler
from picowatch.recipe.written import switch

ENDINGS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
# What A1111 and Fooocus write when the checkpoint's own VAE is used.
_BAKED_WORDS = {"baked", "none", "automatic", "default (model)"}
# The smallest model of its makers, under the Apache licence; the larger ones are not for business.
DEPTH = "Depth-Anything-V2-Small-hf"

# The folders of models that a name may begin with: ours, and those of other programs.
FOLDERS = (
    *("checkpoints", "Stable-diffusion", "Stable-Diffusion", "StableDiffusion"),
    *("diffusion_models", "DiffusionModels", "unet", "vae", "VAE", "loras", "Lora", "LyCORIS"),
    *("upscalers", "ESRGAN", "RealESRGAN", "upscale_models", "controlnet", "ControlNet", "depth"),
    *("cutout", "background_removal", "rembg", "u2net", "RMBG"),
)
_FOLDERS = rf"^(?:\./)?(?:models/)?(?:{'|'.join(FOLDERS)})/"
_FOLDER_OF = {
    "checkpoint": "checkpoints",
    "VAE": "vae",
    "LoRA": "loras",
    "ControlNet": "controlnet",
    "depth model": "depth",
    "upscaler": "upscalers",
    "cutout model": "cutout",
}
# A web address, or a repository of Hugging Face.
_REPOSITORY = re.compile(r"(?:https?://huggingface\.co/)?([\w.-]+/([\w.-]+))/?")
T = TypeVar("T", Checkpoint, Upscaler, str)
# A checkpoint and what its file does not say: "my-merge as Kontext".
_VARIANT = re.compile(r"(.+)\s+as\s+(.+)", re.IGNORECASE)
# What A1111 writes after a model's name: the beginning of its hash.
HASH = r"\s*\[[0-9a-fA-F]{8,64}\]"
# What A1111 calls the files of Real-ESRGAN (modules/realesrgan_model.py).
_A1111_UPSCALERS = {
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
}


class NotInstalled(ValueInvalid):
    """No installed model of this name, or several; the text says what would do."""


class NoneOfThisName(NotInstalled):
    """No file of this name, not even one that is refused."""


def find_checkpoint(written: str | None, inventory: Inventory) -> Checkpoint:
    """The checkpoint a recipe means. Raises NotInstalled.

    Written: the name with or without ending, in any case if that is unambiguous, or a unique
    beginning of it; behind it perhaps "as" and its variant, where the file does not say it. Not
    written: the setting `checkpoint`; else the only one that can be used; else, with none
    installed, demo.
    """
    setting = inventory.default_checkpoint
    if written is None and setting is None:
        unusable, demo = inventory.unusable_checkpoint, inventory.demo
        more = " here, or name one in the settings (picowatch.yaml)"
        words = "'checkpoint: {}'"
        return _only("checkpoint", inventory.checkpoints, unusable, demo, words, more)
    checkpoints = {one.name: one for one in (*inventory.checkpoints, inventory.demo)}
    name = setting if written is None else written
    said = _VARIANT.fullmatch(str(name))
    try:
        if said and not matching(str(name), list(checkpoints)):
            return _find_variant(said[1], said[2], inventory)
        return checkpoints[_find("checkpoint", str(name), list(checkpoints), inventory)]
    except NotInstalled as error:
        if written is not None:
            raise
        raise NotInstalled(
            f"the setting checkpoint (picowatch.yaml): {error} Correct the setting first."
        ) from None


def _find_variant(written: str, variant: str, inventory: Inventory) -> Checkpoint:
    """A checkpoint as the variant that is written behind it."""
    installed = {one.name: one for one in (*inventory.checkpoints, inventory.demo)}
    name = _find("checkpoint", written, [*{**installed, **inventory.variants}], inventory)
    variants = inventory.variants.get(name)
    if not variants:
        raise NotInstalled(
            f"the checkpoint '{name}' says itself what it is ({installed[name].family}). Write "
            f"'checkpoint: {name}'."
        )
    found = [one for called, one in variants.items() if is_called(called, variant)]
    if len(found) != 1:
        raise NotInstalled(
            f"the checkpoint '{name}' cannot be used as '{shown(variant)}'. Write one of these "
            f"behind 'as': {listed([*variants], 'or')}."
        )
    if isinstance(found[0], str):
        raise NotInstalled(
            f"the checkpoint '{name}' cannot be used as {shown(variant)}: {found[0]}"
        )
    return found[0]


def find_vae(written: str, inventory: Inventory) -> str:
    """The VAE a recipe means, or "baked". Raises NotInstalled."""
    if written.strip().casefold() in _BAKED_WORDS:
        return BAKED
    return _find("VAE", written, inventory.vaes, inventory, BAKED)


def find_lora(written: str, inventory: Inventory) -> str:
    """The LoRA a recipe means. Raises NotInstalled.

    A1111 writes the name that a LoRA's trainer gave it, whatever its file is called. That counts if
    no file is called so, and one LoRA was.
    """
    folded = _folded(written)
    trained = [name for name, own in inventory.lora_names.items() if own.casefold() == folded]
    files = (*inventory.loras, *inventory.refused_as("lora"))
    if len(trained) == 1 and not any(folded in _by(of, files) for of in (_folded, _last)):
        return trained[0]
    return _find("LoRA", written, inventory.loras, inventory)


def find_controlnet(written: str, inventory: Inventory) -> ControlNet:
    """The ControlNet a recipe means. Raises NotInstalled."""
    controlnets = {one.name: one for one in inventory.controlnets}
    return controlnets[_find("ControlNet", written, list(controlnets), inventory)]


def find_depth(written: str | None, inventory: Inventory) -> str:
    """The model that guesses depth: the one that is named, or the only one. Raises NotInstalled."""
    if written:
        return _find("depth model", written, inventory.depths, inventory)
    if not inventory.depths:
        raise NotInstalled(
            "'preprocess: depth' needs a model that guesses depth, and none is installed. Fetch "
            f"one once: hf download depth-anything/{DEPTH} --local-dir models/depth/{DEPTH} "
            "(99 MB). Or use a finished depth map, with 'preprocess: none'."
        )
    return _only("depth model", inventory.depths, "", "", "'depth: {}'")


def find_upscaler(written: str | None, inventory: Inventory) -> Upscaler:
    """The upscaler a recipe means; without a name as with checkpoints. Raises NotInstalled."""
    if written is None:
        why = next(iter(inventory.refused_as("upscaler").values()), "")
        words = "'upscale: {{model: {}}}'"
        return _only("upscaler", inventory.upscalers, why, DEMO_UPSCALER, words)
    upscalers = {one.name: one for one in (*inventory.upscalers, DEMO_UPSCALER)}
    return upscalers[_find("upscaler", written, list(upscalers), inventory)]


def find_cutout(written: str, inventory: Inventory) -> str:
    """The cutout model a recipe means; "true" is any, as with upscalers. Raises NotInstalled."""
    if switch(written):
        why = next(iter(inventory.refused_as("cutout").values()), "")
        return _only("cutout model", inventory.cutouts, why, DEMO_CUTOUT, "'cutout: {}'")
    return _find("cutout model", written, [*inventory.cutouts, DEMO_CUTOUT], inventory)


def find_hires_upscaler(written: str, inventory: Inventory) -> str:
    """The way to enlarge for hires: as usual, or by a model. Raises NotInstalled."""
    names = [one.name for one in (*inventory.upscalers, DEMO_UPSCALER)]
    return usual_upscaler(written) or _find("upscaler", written, names, inventory, *UPSCALERS)


def matching(written: str, names: Sequence[str]) -> list[str]:
    """The names that are meant, by the first rule that matches any.

    The whole name; in any case; its last part after a slash; its beginning; the beginning of its
    last part.
    """
    stem = _stem(written)
    folded = stem.casefold()
    if written in names or not folded:
        return [name for name in names if name == written]
    ways = [
        (meant, _by(of_name, tuple(names)))
        for of_name, meant in ((_stem, stem), (_folded, folded), (_last, folded))
    ]
    whole = (by.get(meant) for meant, by in ways)
    begun = (
        [name for begins, found in by.items() if begins.startswith(meant) for name in found]
        for meant, by in ways
    )
    return list(next((found for found in chain(whole, begun) if found), ()))


def is_whole_name(written: str, name: str) -> bool:
    """Return whether a name is meant by more than its beginning."""
    return _folded(written) in (_folded(name), _last(name))


@lru_cache(maxsize=64)
def _by(of_name: Callable[[str], str], names: tuple[str, ...]) -> dict[str, list[str]]:
    """Names by a part of them: there may be thousands of LoRAs, in each prompt of a file."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(of_name(name), []).append(name)
    return found


def _only(
    kind: str, installed: Sequence[T], refused: str, embedded: T, words: str, more: str = ""
) -> T:
    """The model that is meant without a name; `refused` says why an installed one cannot be.

    `words` are what names one.
    """
    if len(installed) > 1:
        what = f"no {kind} is named, and several are installed: {listed(_names(installed))}."
        raise NotInstalled(f"{what} Write {words.format('…')}{more}.")
    if refused and not installed:
        what = f"no {kind} is named, and none that is installed can be used: {refused}"
        words = words.format(*_names([embedded]))
        raise NotInstalled(f"{what} For the embedded one, write {words}.")
    return installed[0] if installed else embedded


def _names(models: Sequence[T]) -> list[str]:
    return [one if isinstance(one, str) else one.name for one in models]


def _find(kind: str, written: str, names: Sequence[str], inventory: Inventory, *also: str) -> str:
    """The one name that is meant; NotInstalled says what would do, or why a file is refused.

    What is refused in another kind's folder may only have been misplaced. A refused file beside a
    usable one may have the same name without its ending.
    """
    own = inventory.refused_as(kind.casefold().partition(" ")[0])
    anywhere = inventory.refused_anywhere()
    theirs = _A1111_UPSCALERS.get(written.strip(), "") if kind == "upscaler" else ""
    meant = theirs or written
    found = matching(meant, [*dict.fromkeys([*names, *own])]) or matching(meant, [*anywhere])
    usable = [name for name in found if name in names]
    if len(usable) > 1:
        raise NotInstalled(
            f"the {kind} '{shown(written)}' could be {listed(usable, 'or')}. Write more of the "
            "name."
        )
    if usable:
        return usable[0]
    if found:
        reason = own.get(found[0]) or anywhere[found[0]]
        raise NotInstalled(f"the {kind} '{found[0]}' cannot be used: {reason}")
    missing = f"no {kind} '{shown(written)}' in models/{_FOLDER_OF[kind]}."
    if theirs:
        missing += (
            f" Put {theirs}.safetensors there; 'picowatch convert' makes it from a .pth file."
        )
    elif kind == "checkpoint" and (repository := _REPOSITORY.fullmatch(written)):
        whole, name = repository.groups()
        missing += (
            " picowatch never downloads. If it is a repository, fetch it once: hf download "
            f"{shown(whole)} --local-dir models/checkpoints/{shown(name)}, and write "
            f"'checkpoint: {shown(name)}'."
        )
    elif kind == "checkpoint" and re.match("(?i)https?://", written):
        missing += " picowatch never downloads: fetch its .safetensors file into that folder."
    every = [*names, *also]
    there = f"Available: {listed(every)}." if every else "None is installed."
    if len(every) == 1:
        there = f"Only {every[0]} is available."
    raise NoneOfThisName(f"{missing} {did_you_mean(_stem(written), every)}{there}")


def _stem(name: str) -> str:
    """The name without white space around it, the models' folder before it, ending and hash.

    Composed, because macOS keeps the accents of file names apart from their letters. Windows
    separates folders by backslashes.
    """
    name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    name = re.sub(_FOLDERS, "", re.sub(f"{HASH}$", "", name))
    ending = next((e for e in ENDINGS if name.casefold().endswith(e)), "")
    return name[: len(name) - len(ending)]


def _folded(name: str) -> str:
    return _stem(name).casefold()


def _last(name: str) -> str:
    return _folded(name).rpartition("/")[2]
