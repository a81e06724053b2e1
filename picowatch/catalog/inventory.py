"""The inventory for recipes, made of what a scan found."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from picowatch.catalog.candidates import without_ending
from picowatch.catalog.models import FOLDERS, FoundModels, Model
from picowatch.catalog.unets import UNIONS
from picowatch.catalog.vaes import families_of
from picowatch.catalog.wildcards import FoundWildcards
from picowatch.families import DEMO, FAMILIES
from picowatch.recipe.inventory import (
    DEMO_RULES,
    Checkpoint,
    ControlNet,
    Inventory,
    Upscaler,
    rules_of,
)
from picowatch.recipe.prompts.known_words import KnownWords

# Families whose files need not say what they predict. Of 2.x the weights do (engine/load.py).
_SILENT = ("sd1", "sdxl")


def inventory_of(
    found: FoundModels,
    hashes: Mapping[str, str],
    wildcards: FoundWildcards,
    demo: Model,
    demo_controlnet: Model,
) -> Inventory:
    """The inventory: refused files are in it by their names with ending, and without.

    `hashes` are those of checkpoints, "" where one is not known yet.
    """
    vaes, loras = found.of_kind("vae"), found.of_kind("lora")
    embeddings = found.of_kind("embedding")
    known_words = _known_words(demo)
    return Inventory(
        demo=replace(_checkpoint(demo), rules=DEMO_RULES, known_words=known_words),
        checkpoints=tuple(
            replace(_checkpoint(one), hash=hashes[one.name])
            for one in found.of_kind("checkpoint")
            if not one.missing
        ),
        vaes=_names(vaes),
        loras=_names(loras),
        embeddings=_names(embeddings),
        upscalers=tuple(Upscaler(one.name, one.scale) for one in found.of_kind("upscaler")),
        vae_families={one.name: families_of(one.variant) for one in vaes},
        controlnets=tuple(map(_controlnet, (*found.of_kind("controlnet"), demo_controlnet))),
        depths=_names(found.of_kind("depth")),
        lora_families=_families(loras),
        lora_names={one.name: one.trained_as for one in loras if one.trained_as},
        embedding_families=_families(embeddings),
        wildcards=wildcards.lines,
        wildcard_packs=wildcards.packs,
        refused={"wildcard": wildcards.refused, **_reasons(found)},
        refused_embeddings={
            without_ending(one.name): one.reason for one in found.refused if one.kind == "embedding"
        },
    )


def _names(models: Sequence[Model]) -> tuple[str, ...]:
    return tuple(model.name for model in models)


def _reasons(found: FoundModels) -> dict[str, dict[str, str]]:
    """Why what was refused cannot be used, by kind and name, with and without ending."""
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in FOLDERS}
    for entry in found.refused:
        reasons[entry.kind][entry.name] = entry.reason
        reasons[entry.kind].setdefault(without_ending(entry.name), entry.reason)
    checkpoints = found.of_kind("checkpoint")
    reasons["checkpoint"] |= {one.name: one.missing for one in checkpoints if one.missing}
    return reasons


def _checkpoint(model: Model) -> Checkpoint:
    return Checkpoint(
        model.name,
        model.native_size,
        model.text_layers,
        model.zero_snr,
        FAMILIES[model.family].name,
        rules_of(model.family, model.variant),
        "v" if model.velocity_beside else "",
        bool(model.prediction) or model.family not in _SILENT,
        model.text_width,
    )


@cache
def _known_words(demo: Model) -> KnownWords:
    """The demo model's; training/export.py writes the file."""
    found = json.loads((demo.path / "known_words.json").read_text("utf-8"))
    subjects = found["subjects"] + found["extras"] + found["colours"]
    return KnownWords(tuple(subjects), frozenset(found["words"]))


def _controlnet(model: Model) -> ControlNet:
    family = FAMILIES[model.family].name
    return ControlNet(model.name, family, model.text_width, UNIONS.get(model.variant, 0))


def _families(adapters: Sequence[Model]) -> dict[str, str]:
    """The names of their families; the demo model's are Stable Diffusion 1.x of other widths."""
    return {one.name: FAMILIES[one.family].name for one in adapters if one.family not in ("", DEMO)}
