"""Each family's row has all that the recipe, the catalog, the engine and the docs need."""

from collections.abc import Iterator
from pathlib import Path

import diffusers

from picowatch.catalog.encoders import ENCODERS, families_of
from picowatch.catalog.parts import ASSETS
from picowatch.engine.drawing.preview import COLOURS
from picowatch.engine.model import texts
from picowatch.families import FAMILIES
from picowatch.families.row import DEMO, Family
from tests.engine.tiny_flows import FOLDERS, UNETS

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()
# Nobody has published colours of their latents.
WITHOUT_COLOURS = ("qwen_image_21",)
# The tests of the engine have the demo model, and a checkpoint with its UNet.
WITHOUT_TINY_FOLDER = (DEMO, "sd1")


def lacking(row: Family) -> Iterator[str]:
    """What a family lacks, by the names of a row's fields or the places outside it."""
    yield from () if row.preview in COLOURS or row.key in WITHOUT_COLOURS else ("preview",)
    known = all(families_of(one) for one in row.vaes) and row.parts["vae"]
    yield from () if row.vaes and known else ("vaes",)
    tiny = {one.family for one in (*FOLDERS.values(), *UNETS.values())}
    yield from () if row.key in tiny or row.key in WITHOUT_TINY_FOLDER else ("a tiny folder",)
    if row.kind == "unet":
        yield from () if row.texts.towers.keys() <= row.parts.keys() else ("texts.towers",)
        return
    yield from () if f"**{row.name}" in PAGE or f"| {row.name}" in PAGE else ("docs/models.md",)
    yield from () if row.hub and f"`{row.hub}`" in PAGE else ("hub, with docs/models.md",)
    yield from () if row.texts.reads.keys() <= row.parts.keys() else ("texts.reads",)
    yield from () if row.texts.encode in texts._ENCODE else ("texts.encode",)
    yield from () if row.texts.count in texts._COUNT else ("texts.count",)
    for field in ("lora_layers", "lora_blocks") if row.loras else ():
        yield from () if getattr(row, field) else (field,)
    yield from () if row.lora_marks else ("lora_marks",)
    for name, variant in row.variants.items():
        has = {"steps", "cfg_scale", "guidance"} <= variant.defaults.keys()
        yield from () if has else (f"variants[{name!r}].defaults",)
        pipelines = variant.pipelines or row.pipelines
        for pipeline in (pipelines.text, pipelines.image, pipelines.mask, pipelines.edit):
            yield from () if not pipeline or hasattr(diffusers, pipeline) else (pipeline,)
        edits = bool(pipelines.edit)
        yield from () if edits == bool(variant.references) else (f"variants[{name!r}].references",)
        for encoder in (variant.encoders or row.encoders).values():
            yield from () if encoder in ENCODERS else (f"encoders[{encoder!r}]",)
    if row.vae_assets:
        yield from (
            () if (ASSETS / row.vae_assets / "vae/config.json").is_file() else ("vae_assets",)
        )
        yield from () if row.vae_file and row.signs else ("vae_file or signs",)


def test_a_row_has_all_that_its_family_needs() -> None:
    """A new family fails here with the names of what it lacks."""
    missing = {row.key: found for row in FAMILIES.values() if (found := [*lacking(row)])}
    assert missing == {}


def test_vaes_of_one_class_are_the_same_for_all_families() -> None:
    """The catalog and the engine know them by their class."""
    rows = [row for row in FAMILIES.values() if row.parts["vae"] != ("AutoencoderKL",)]
    for row in rows:
        others = [one for one in rows if one.parts["vae"] == row.parts["vae"]]
        assert {(one.vaes, one.decoding) for one in others} == {(row.vaes, row.decoding)}
