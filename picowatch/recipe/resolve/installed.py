"""The look-up of installed models: names are forgiving, mistakes are explained."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import BAKED
from picowatch.recipe.inventory import DEMO_UPSCALER, Checkpoint, ControlNet, Inventory, Upscaler
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.parts import UPSCALERS, usual_upscaler

# Its first address, runwayml's, is gone; this one is what remained. One file of it is enough.
_SD15, _SD15_FILE = "stable-diffusion-v1-5", "v1-5-pruned-emaonly"
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
)
_FOLDERS = rf"^(?:\./)?(?:models/)?(?:{'|'.join(FOLDERS)})/"
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
    """The checkpoint a recipe means.

    Written: the name with or without ending, in any case if that is unambiguous, or a unique
    beginning of it. Not written: the setting `checkpoint`; else the only one that can be used;
    else, with none installed, demo. Raises NotInstalled.
    """
    if written is not None:
        return _checkpoint(written, inventory)
    if inventory.default_checkpoint is not None:
        try:
            return _checkpoint(inventory.default_checkpoint, inventory)
        except NotInstalled as error:
            raise NotInstalled(
                f"the setting checkpoint (picowatch.yaml): {error} Correct the setting first."
            ) from None
    if len(inventory.checkpoints) > 1:
        names = listed([checkpoint.name for checkpoint in inventory.checkpoints])
        raise NotInstalled(
            f"no checkpoint is named, and several are installed: {names}. Write 'checkpoint: …' "
            "here, or name one in the settings (picowatch.yaml)."
        )
    if inventory.unusable_checkpoint and not inventory.checkpoints:
        raise NotInstalled(
            "no checkpoint is named, and none that is installed can be used: "
            f"{inventory.unusable_checkpoint} For the embedded one, write 'checkpoint: demo'."
        )
    return inventory.checkpoints[0] if inventory.checkpoints else inventory.demo


def find_vae(written: str, inventory: Inventory) -> str:
    """The VAE a recipe means, or "baked". Raises NotInstalled."""
    if written.strip().casefold() in _BAKED_WORDS:
        return BAKED
    missing = f"no VAE '{shown(written)}' in models/vae."
    return _find("VAE", missing, written, inventory.vaes, inventory, BAKED)


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
    missing = f"no LoRA '{shown(written)}' in models/loras."
    try:
        return _find("LoRA", missing, written, inventory.loras, inventory)
    except NoneOfThisName:
        if not trained:
            raise
        raise NotInstalled(
            f"the LoRA '{shown(written)}' could be {listed(trained, 'or')}: their trainers called "
            "them so. Write the name of one."
        ) from None


def find_controlnet(written: str, inventory: Inventory) -> ControlNet:
    """The ControlNet a recipe means. Raises NotInstalled."""
    controlnets = {one.name: one for one in inventory.controlnets}
    missing = f"no ControlNet '{shown(written)}' in models/controlnet."
    return controlnets[_find("ControlNet", missing, written, list(controlnets), inventory)]


def find_depth(written: str, inventory: Inventory) -> str:
    """The model that guesses depth: the one that is named, or the only one. Raises NotInstalled."""
    if written:
        missing = f"no model '{shown(written)}' in models/depth."
        return _find("depth model", missing, written, inventory.depths, inventory)
    if len(inventory.depths) > 1:
        names = listed(inventory.depths)
        raise NotInstalled(f"several models guess depth: {names}. Write which one: 'depth: …'.")
    if not inventory.depths:
        raise NotInstalled(
            "'preprocess: depth' needs a model that guesses depth, and none is installed. Fetch "
            f"one once: hf download depth-anything/{DEPTH} --local-dir models/depth/{DEPTH} "
            "(99 MB). Or use a finished depth map, with 'preprocess: none'."
        )
    return inventory.depths[0]


def find_upscaler(written: str | None, inventory: Inventory) -> Upscaler:
    """The upscaler a recipe means; without a name as with checkpoints. Raises NotInstalled."""
    upscalers = {one.name: one for one in (*inventory.upscalers, DEMO_UPSCALER)}
    if written is not None:
        return upscalers[_upscaler(written, list(upscalers), inventory)]
    if len(inventory.upscalers) > 1:
        names = listed([one.name for one in inventory.upscalers])
        raise NotInstalled(
            f"no upscaler is named, and several are installed: {names}. Write 'upscale: {{model: "
            "…}'."
        )
    refused = inventory.refused_as("upscaler")
    if refused and not inventory.upscalers:
        raise NotInstalled(
            "no upscaler is named, and none that is installed can be used: "
            f"{next(iter(refused.values()))} For the embedded one, write 'upscale: {{model: "
            "demo-compact}'."
        )
    return inventory.upscalers[0] if inventory.upscalers else DEMO_UPSCALER


def find_hires_upscaler(written: str, inventory: Inventory) -> str:
    """The way to enlarge for hires: as usual, or by a model. Raises NotInstalled."""
    names = [one.name for one in (*inventory.upscalers, DEMO_UPSCALER)]
    return usual_upscaler(written) or _upscaler(written, names, inventory, *UPSCALERS)


def matching(written: str, names: Sequence[str]) -> list[str]:
    """The names that are meant, by the first rule that matches any.

    The whole name; in any case; its last part after a slash; with "_" for slashes; its beginning;
    the beginning of its last part.
    """
    stem = _stem(written)
    folded = stem.casefold()
    if written in names or not folded:
        return [name for name in names if name == written]
    ways = [
        (meant, _by(of_name, tuple(names)))
        for of_name, meant in ((_stem, stem), (_folded, folded), (_last, folded))
    ]
    whole = (by.get(meant) for meant, by in (*ways, (folded, _by(_flat, tuple(names)))))
    begun = (
        [name for begins, found in by.items() if begins.startswith(meant) for name in found]
        for meant, by in ways
    )
    return list(next((found for found in chain(whole, begun) if found), ()))


def is_whole_name(written: str, name: str) -> bool:
    """Return whether a name is meant by more than its beginning."""
    return _folded(written) in [of_name(name) for of_name in (_folded, _last, _flat)]


@lru_cache(maxsize=64)
def _by(of_name: Callable[[str], str], names: tuple[str, ...]) -> dict[str, list[str]]:
    """Names by a part of them: there may be thousands of LoRAs, in each prompt of a file."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(of_name(name), []).append(name)
    return found


def _checkpoint(written: str, inventory: Inventory) -> Checkpoint:
    checkpoints = {c.name: c for c in (*inventory.checkpoints, inventory.demo)}
    missing = f"no checkpoint '{shown(written)}' in models/checkpoints."
    try:
        name = _find("checkpoint", missing, written, list(checkpoints), inventory)
    except NoneOfThisName:
        _refuse_download(written)
        raise
    return checkpoints[name]


def _upscaler(written: str, names: Sequence[str], inventory: Inventory, *also: str) -> str:
    file = _A1111_UPSCALERS.get(written.strip())
    missing = f"no upscaler '{shown(written)}' in models/upscalers."
    if file:
        missing += f" Put {file}.safetensors there; 'picowatch convert' makes it from a .pth file."
    return _find("upscaler", missing, file or written, names, inventory, *also)


def _find(
    kind: str, missing: str, written: str, names: Sequence[str], inventory: Inventory, *also: str
) -> str:
    """The one name that is meant; NotInstalled says what would do, or why a file is refused.

    What is refused in another kind's folder may only have been misplaced. A refused file beside a
    usable one may have the same name without its ending.
    """
    own = inventory.refused_as(kind.casefold().partition(" ")[0])
    anywhere = inventory.refused_anywhere()
    found = matching(written, [*dict.fromkeys([*names, *own])]) or matching(written, [*anywhere])
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
    every = [*names, *also]
    there = f"Available: {listed(every)}." if every else "None is installed."
    if len(every) == 1:
        there = f"Only {every[0]} is available."
    raise NoneOfThisName(f"{missing} {did_you_mean(_stem(written), every)}{there}")


def _refuse_download(written: str) -> None:
    repository = re.fullmatch(r"(?:https?://huggingface\.co/)?([\w.-]+/([\w.-]+))/?", written)
    if repository and not written.casefold().endswith(ENDINGS):
        name = repository[2]
        fetch = f"{repository[1]} --local-dir models/checkpoints/{name}"
        if name.casefold() == _SD15:
            name = _SD15_FILE
            fetch = f"{_SD15}/{_SD15} {name}.safetensors --local-dir models/checkpoints (4.3 GB)"
        raise NotInstalled(
            f"'{shown(written)}' is not in models/checkpoints, and picowatch never downloads. "
            f"Fetch it once: hf download {fetch}, and write 'checkpoint: {name}'."
        )
    if re.match(r"(?i)https?://", written):
        raise NotInstalled(
            f"'{shown(written)}' is an address, and picowatch never downloads. Fetch the "
            ".safetensors file into models/checkpoints and write its name."
        )


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


def _flat(name: str) -> str:
    """The name that A1111 before 1.6 wrote of a checkpoint in a folder."""
    return _folded(name).replace("/", "_")
