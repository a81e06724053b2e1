"""The lenient look-up of installed models by name, with messages that explain mistakes."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from picowatch.errors import ValueInvalid
from picowatch.recipe.converters import A1111_UPSCALERS
from picowatch.recipe.fields import BAKED
from picowatch.recipe.inventory import MODEL_FOLDERS, Checkpoint, Inventory, is_called
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.parts import UPSCALERS, usual_upscaler

# The smallest model has the Apache licence; the larger models exclude commercial use.
DEPTH = "Depth-Anything-V2-Small-hf"
_NO_DEPTH = (
    "'preprocess: depth' needs a depth model, and none is installed. Fetch one once: "
    f"hf download depth-anything/{DEPTH} --local-dir models/depth/{DEPTH} (99 MB). Or use a "
    "finished depth map, with 'preprocess: none'."
)


class _Kind(NamedTuple):
    called: str  # in messages
    field: str = ""  # that names a model, in messages
    none: str = ""  # what to do if a recipe needs a model and none is installed
    also: tuple[str, ...] = ()  # further values
    ranked: bool = False  # of several, the first is used


_KINDS = {
    "checkpoint": _Kind("checkpoint", "'checkpoint: {}'"),
    "vae": _Kind("VAE", also=(BAKED,)),
    "lora": _Kind("LoRA"),
    "controlnet": _Kind("ControlNet"),
    "depth": _Kind("depth model", "'depth: {}'", _NO_DEPTH),
    "upscaler": _Kind("upscaler", "'upscale: {{model: {}}}'"),
    "hires upscaler": _Kind("upscaler", also=UPSCALERS),
    "cutout": _Kind("cutout model", "'cutout: {}'"),
    "segmentation": _Kind("segmentation model", "'model: {}'", ranked=True),
}
ENDINGS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
# What A1111, Fooocus and ComfyUI's nodes write when the checkpoint's own VAE is used.
BAKED_WORDS = {"baked", "none", "automatic", "default (model)", "baked vae"}
# The folders of models that a name may begin with.
_FOLDERS = [name for kind in _KINDS for name in MODEL_FOLDERS.get(kind, ())]
# A folder before a name, and the beginning of the hash, which A1111 writes after it.
_AROUND = re.compile(rf"^(?:\./)?(?:models/)?(?:{'|'.join(_FOLDERS)})/|\s*\[[0-9a-fA-F]{{8,64}}\]$")
# A web address, or a repository of Hugging Face.
_REPOSITORY = re.compile(r"(?:https?://huggingface\.co/)?([\w.-]+/([\w.-]+))/?")
# A checkpoint, and the variant that its file does not tell: "my-merge as Kontext".
_VARIANT = re.compile(r"(.+)\s+as\s+(.+)", re.IGNORECASE)
_MOST_KNOWN = 1000


class NotInstalled(ValueInvalid):
    """No or several installed models have this name; the message says what to write."""


class NoneOfThisName(NotInstalled):
    """No file has this name, not even a refused file."""


def find_checkpoint(
    written: str | None, inventory: Inventory, *, foreign: bool = False
) -> Checkpoint:
    """Return the checkpoint that a recipe, or else the setting, names. Raises NotInstalled.

    `foreign`: see `find`.
    """
    if written is None and inventory.default_checkpoint is not None:
        try:
            return find_checkpoint(inventory.default_checkpoint, inventory)
        except NotInstalled as error:
            what = f"the setting checkpoint (picowatch.yaml): {error} Correct the setting first."
            raise NotInstalled(what) from None
    installed: dict[str, Checkpoint] = inventory.named("checkpoint")
    said = _VARIANT.fullmatch(written or "")
    if not said or matching(said[0], [*installed]):
        return installed[find("checkpoint", written, inventory, foreign=foreign)]
    names = matching(said[1], [*{**installed, **inventory.variants}])
    name = names[0] if len(names) == 1 else find("checkpoint", said[1], inventory)
    variants = inventory.variants.get(name)
    if not variants:
        what = f"the checkpoint '{name}' tells what it is: {installed[name].family}."
        raise NotInstalled(f"{what} Write 'checkpoint: {name}'.")
    found = [variant for called, variant in variants.items() if is_called(called, said[2])]
    if len(found) != 1:
        what = f"the checkpoint '{name}' cannot be used as '{shown(said[2])}'."
        able = listed([*variants], "or")
        raise NotInstalled(f"{what} Write one of these after 'as': {able}.")
    if isinstance(found[0], str):
        what = f"the checkpoint '{name}' cannot be used as {shown(said[2])}: {found[0]}"
        raise NotInstalled(what)
    return found[0]


def find(kind: str, written: str | None, inventory: Inventory, *, foreign: bool = False) -> str:
    """Return the name of the model of a kind that a recipe names. Raises NotInstalled.

    `written` is the name as `matching` knows it. None means the only usable one, or the embedded
    one if none is installed. The error says why a file is refused; one in another kind's folder may
    have been misplaced. A refused file may have the name of a usable one, with another ending.

    `foreign`: another program wrote it; its folder counts only if a model has the whole name.
    """
    known, asked = inventory.found, (f"foreign {kind}" if foreign else kind, written)
    if asked not in known:
        if len(known) >= _MOST_KNOWN:  # a hostile file may name a million
            known.clear()
        inventory.missed.add(asked)
        known[asked] = _find(kind, written, inventory, foreign)
        inventory.missed.discard(asked)
    return known[asked]


def _find(kind: str, written: str | None, inventory: Inventory, foreign: bool) -> str:
    if written is None:
        return _only(kind, inventory)
    row, models = _KINDS[kind], kind.removeprefix("hires ")
    names = inventory.named(models)
    if foreign and _folded(written) not in _by_name((*names,)):
        written = _stem(written).rpartition("/")[2]
    if kind == "vae" and written.strip().casefold() in BAKED_WORDS:
        return BAKED
    if kind == "lora" and (trained := _trained_as(written, inventory)):
        return trained
    if kind == "hires upscaler" and (usual := usual_upscaler(written)):
        return usual
    own, anywhere = inventory.refused_as(models), inventory.refused_anywhere()
    theirs = A1111_UPSCALERS.get(written.strip(), "") if models == "upscaler" else ""
    meant = written if written.strip() in names else theirs or written
    found = matching(meant, [*dict.fromkeys([*names, *own])]) or matching(meant, [*anywhere])
    usable = [name for name in found if name in names]
    if len(usable) > 1:
        what = f"the {row.called} '{shown(written)}' could be {listed(usable, 'or')}."
        raise NotInstalled(f"{what} Write the whole name exactly so.")
    if usable:
        return usable[0]
    if found:
        reason = own.get(found[0]) or anywhere[found[0]]
        raise NotInstalled(f"the {row.called} '{found[0]}' cannot be used: {reason}")
    missing = f"no {row.called} '{shown(written)}' in models/{MODEL_FOLDERS[models][0]}."
    hint, scale = "", re.fullmatch(r"(?i)x? ?(\d(?:\.\d)?) ?x?", written.strip())
    if models == "upscaler" and scale:
        hint = f" For the scale, write {scale[1]}."
    elif kind == "upscaler" and (usual := usual_upscaler(written)):
        hint = f" {usual} is for hires: {{upscaler: {usual}}}."
    elif theirs:
        hint = f" Put {theirs}.safetensors there; 'picowatch convert' makes it from a .pth file."
    elif kind == "checkpoint" and (repository := _REPOSITORY.fullmatch(written)):
        whole, name = map(shown, repository.groups())
        hint = (
            " picowatch never downloads. If it is a repository, fetch it once: hf download "
            f"{whole} --local-dir models/checkpoints/{name}, and write 'checkpoint: {name}'."
        )
    elif kind == "checkpoint" and re.match("(?i)https?://", written):
        hint = " picowatch never downloads: fetch its .safetensors file into that folder."
    every = [*names, *row.also]
    there = f"Available: {listed(every)}." if every else "None is installed."
    if len(every) == 1:
        there = f"Only {every[0]} is available."
    near = did_you_mean(_stem(written), every)
    error = NoneOfThisName(f"{missing}{hint} {near}{there}")
    error.remedy = "" if near or hint else "Put its file there."
    raise error


def _trained_as(written: str, inventory: Inventory) -> str:
    """Return the one LoRA with this trainer's name, which A1111 writes and no file has, or ""."""
    folded = _folded(written)
    trained = [name for name, own in inventory.lora_names.items() if own.casefold() == folded]
    files = (*inventory.loras, *inventory.refused_as("lora"))
    return trained[0] if len(trained) == 1 and folded not in _by_name(files) else ""


def _only(kind: str, inventory: Inventory) -> str:
    """Return the model for a recipe that names none."""
    row, names = _KINDS[kind], list(inventory.named(kind))
    embedded = names.pop() if inventory.embedded(kind) else ""
    why = next(iter(inventory.refused_as(kind).values()), "")
    if kind == "checkpoint":
        why = inventory.unusable_checkpoint
    if len(names) > 1 and not row.ranked:
        more = " here, or name one in the settings (picowatch.yaml)" if kind == "checkpoint" else ""
        what = f"no {row.called} is named, and several are installed: {listed(names)}."
        raise NotInstalled(f"{what} Write {row.field.format('…')}{more}.")
    if names:
        return names[0]
    if row.none:
        raise NotInstalled(row.none)
    if why:
        what = f"no {row.called} is named, and none that is installed can be used: {why}"
        raise NotInstalled(f"{what} For the embedded one, write {row.field.format(embedded)}.")
    return embedded


def matching(written: str, names: Sequence[str]) -> list[str]:
    """Return the names that match, by the first rule that matches any.

    The rules: the name as it is; the name without its ending and folder, in any case; its
    beginning.
    """
    for exact in (written, _stem(written)):
        if exact in names:
            return [exact]
    meant, by_name = _folded(written), _by_name(tuple(names))
    begins = (match for name, found in by_name.items() if name.startswith(meant) for match in found)
    return by_name.get(meant) or list(dict.fromkeys(begins)) if meant else []


def is_whole_name(written: str, name: str) -> bool:
    """Return whether a whole name is written, in any folder, not only its beginning."""
    return _last(written) in (_folded(name), _last(name))


@lru_cache(maxsize=16)
def _by_name(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Map whole names, and their last parts that are not whole names, to the names."""
    whole: dict[str, list[str]] = {}
    last: dict[str, list[str]] = {}
    for name in names:
        whole.setdefault(_folded(name), []).append(name)
        last.setdefault(_last(name), []).append(name)
    return whole | {name: found for name, found in last.items() if name not in whole}


def _stem(name: str) -> str:
    """Return the name without white space around it, the models' folder, ending and hash."""
    # Characters are composed, as macOS decomposes accents; Windows separates by backslashes.
    name = _AROUND.sub("", unicodedata.normalize("NFC", name.strip()).replace("\\", "/"))
    ending = next((e for e in ENDINGS if name.casefold().endswith(e)), "")
    return name[: len(name) - len(ending)]


def _folded(name: str) -> str:
    return _stem(name).casefold()


def _last(name: str) -> str:
    return _folded(name).rpartition("/")[2]
