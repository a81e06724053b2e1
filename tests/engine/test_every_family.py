"""Each family's row has all that the recipe, the catalog, the engine and the docs need."""

from contextlib import suppress
from inspect import signature
from pathlib import Path

import diffusers
import pytest

from picowatch.catalog.encoders import ENCODERS, families_of
from picowatch.catalog.parts import ASSETS
from picowatch.engine.drawing.latents import COLOURS
from picowatch.engine.model.families import _COUNT, _ENCODE
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, general
from picowatch.families.row import DEMO, Family
from tests.engine.tiny_flows import FOLDERS, GENERAL, UNETS

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()
# Nobody has published colours of their latents.
WITHOUT_COLOURS = ("qwen_image_21",)
# The tests of the engine have the demo model, and a checkpoint with its UNet.
WITHOUT_TINY_FOLDER = (DEMO, "sd1")


def lacking(row: Family) -> list[str]:
    """What a family lacks, by the names of a row's fields or the places outside it."""
    tiny = {folder.family for folder in (*FOLDERS.values(), *UNETS.values())}
    has: dict[str, object] = {
        "preview": row.preview in COLOURS or row.key in WITHOUT_COLOURS,
        "vaes": row.vaes and all(map(families_of, row.vaes)) and row.parts["vae"],
        "a tiny folder": row.key in tiny or row.key in WITHOUT_TINY_FOLDER,
    }
    if row.kind == "unet":
        has["texts.towers"] = row.texts.towers.keys() <= row.parts.keys()
        return [name for name, there in has.items() if not there]
    has |= {
        "docs/models.md": f"**{row.name}" in PAGE or f"| {row.name}" in PAGE,
        "hub, with docs/models.md": row.hub and f"`{row.hub}`" in PAGE,
        "texts.reads": row.texts.reads.keys() <= row.parts.keys(),
        "texts.encode": row.texts.encode in _ENCODE,
        "texts.count": row.texts.count in _COUNT,
        "lora_sides": row.lora_sides or not row.loras,
        "lora_blocks": row.lora_blocks or not row.loras,
        "lora_marks": row.lora_marks,
        "loras": not row.loras
        or hasattr(getattr(diffusers, row.pipelines.text), "load_lora_weights"),
    }
    for name, variant in row.variants.items():
        of, kinds = f"variants[{name!r}]", variant.pipelines or row.pipelines
        has[f"{of}.defaults"] = {"steps", "cfg_scale", "guidance"} <= variant.defaults.keys()
        has[f"{of}.references"] = bool(kinds.edit) == bool(variant.references)
        for pipeline in filter(None, (kinds.text, kinds.image, kinds.mask, kinds.edit)):
            has[pipeline] = hasattr(diffusers, pipeline)
        for encoder in (variant.encoders or row.encoders).values():
            has[f"encoders[{encoder!r}]"] = encoder in ENCODERS
    if row.vae_assets:
        has["vae_assets"] = (ASSETS / row.vae_assets / "vae/config.json").is_file()
        has["vae_file or signs"] = row.vae_file and row.signs
    return [name for name, there in has.items() if not there]


def test_a_row_has_all_that_its_family_needs() -> None:
    """A new family fails here with the names of what it lacks."""
    assert {row.key: found for row in FAMILIES.values() if (found := lacking(row))} == {}


def test_vaes_of_one_class_are_the_same_for_all_families() -> None:
    """The catalog and the engine know them by their class."""
    rows = [row for row in FAMILIES.values() if row.parts["vae"] != ("AutoencoderKL",)]
    for row in rows:
        others = [other for other in rows if other.parts["vae"] == row.parts["vae"]]
        assert {other.vaes for other in others} == {row.vaes}


@pytest.mark.heavy
def test_signatures_in_the_source_are_those_of_the_classes() -> None:
    """Names, and defaults where they are literals, of all pipelines that get a row from them."""
    drawn = set()
    for name in general._sources():
        with suppress(ModelRefused):
            drawn |= {general.general_row(name).key} & {*dir(diffusers)}
    assert drawn >= {tiny.family for tiny in GENERAL.values()}
    for name in drawn:
        for method in ("__init__", "__call__"):
            theirs = signature(getattr(getattr(diffusers, name), method)).parameters
            ours = general.signature(name, method)
            named = [key for key in theirs if key not in ("self", "args", "kwargs")]
            assert ours and [*ours] == named, name
            for key, parameter in ours.items():
                assert parameter.default in (None, theirs[key].default), (name, key)
