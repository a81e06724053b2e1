"""The entries of an inventory: models as recipes see them."""

import json
from collections.abc import Sequence
from functools import cache

from picowatch.catalog.loras import OR_CHROMA
from picowatch.catalog.models import FOLDERS, FoundModels, Model
from picowatch.catalog.recognise import UNIONS
from picowatch.catalog.scan import without_ending
from picowatch.families import FAMILIES
from picowatch.families.row import DEMO
from picowatch.recipe.fields import ZERO_SNR
from picowatch.recipe.inventory import Checkpoint, ControlNet, rules_of
from picowatch.recipe.prompts.known_words import KnownWords

# Families whose files need not say what they predict: 2.x's weights tell (engine/model/load.py).
_SILENT = ("sd1", "sdxl")


def reasons_of(found: FoundModels) -> dict[str, dict[str, str]]:
    """Return the reasons of refused files by kind and name, with and without ending."""
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in FOLDERS}
    for entry in found.refused:
        reasons[entry.kind][entry.name] = entry.reason
        reasons[entry.kind].setdefault(without_ending(entry.name), entry.reason)
    # In prompts endings are no part of their names: another file may have the name without it.
    reasons["embedding"] = {without_ending(name): why for name, why in reasons["embedding"].items()}
    checkpoints = found.of_kind("checkpoint")
    reasons["checkpoint"] |= {model.name: model.missing for model in checkpoints if model.missing}
    return reasons


def checkpoint_of(model: Model) -> Checkpoint:
    """Return a checkpoint without its hash."""
    return Checkpoint(
        model.name,
        model.native_size,
        model.text_layers,
        FAMILIES[model.family].name,
        rules_of(model.family, model.variant),
        _prediction(model),
        bool(model.prediction) or model.family not in _SILENT,
        model.text_width,
    )


def _prediction(model: Model) -> str:
    """Return what recipes for a checkpoint predict unless they say, "" for what its file says."""
    if model.zero_snr and model.prediction != "epsilon":
        return ZERO_SNR
    return "v" if model.velocity_beside else ""


def called_of(model: Model) -> str:
    """Return the family and the variant."""
    return f"{FAMILIES[model.family].name} {model.variant}".strip()


@cache
def known_words(demo: Model) -> KnownWords:
    """Return the words that an embedded model knows; training/ writes the file."""
    found = json.loads((demo.path / "known_words.json").read_text("utf-8"))
    subjects = [word for kind in ("subjects", "extras", "colours") for word in found.get(kind, ())]
    return KnownWords(tuple(subjects), frozenset(found["words"]))


def controlnet_of(model: Model) -> ControlNet:
    family = FAMILIES[model.family].name
    return ControlNet(model.name, family, model.text_width, UNIONS.get(model.variant, 0))


def trained_for(adapters: Sequence[Model]) -> dict[str, tuple[str, ...]]:
    """Return the families' names by adapter; the demo model's width does not tell a family."""
    chroma = FAMILIES["chroma"].name
    return {
        adapter.name: (FAMILIES[adapter.family].name, *[chroma] * (adapter.variant == OR_CHROMA))
        for adapter in adapters
        if adapter.family not in ("", DEMO)
    }
