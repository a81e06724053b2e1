"""Each family's row agrees with diffusers and transformers."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.parts import parts_of
from picowatch.families import FAMILIES, FLOWS, UNETS, Family, Pipelines
from tests.engine.tiny_flows import FOLDERS, tiny_flow
from tests.engine.tiny_models import checkpoints_of

ROWS = [FAMILIES[key] for key in (*UNETS, *FLOWS)]
CALLED = {
    "cfg_scale": {"guidance_scale"},
    "cfg_scale_less_one": {"guidance_scale"},
    "true_cfg_scale": {"true_cfg_scale"},
    "guidance": {"guidance_scale"},
    "guidance_and_true_cfg_scale": {"guidance_scale", "true_cfg_scale"},
}


def pipelines_of(row: Family) -> Iterator[tuple[Any, str]]:
    """Yield each pipeline's class, and the variant that it is for."""
    every = {"": row.pipelines}
    every |= {name: one.pipelines for name, one in row.variants.items() if one.pipelines}
    for variant, pipelines in every.items():
        for field in Pipelines.__dataclass_fields__:
            name = getattr(pipelines, field)
            if name:
                yield getattr(diffusers, name), variant


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_pipeline_takes_the_parts_and_the_inputs_of_its_row(row: Family) -> None:
    """It takes its arguments and no others, guidance by its own name, and the row's inputs."""
    for kind, variant in pipelines_of(row):
        taken = inspect.signature(kind.__init__).parameters.keys() - {"self"}
        assert row.parts.keys() - {"processor"} <= taken, kind
        assert row.variant(variant).options.keys() <= taken, kind
        called = inspect.signature(kind.__call__).parameters.keys()
        guidance = row.variant(variant).guidance_as or row.guidance
        assert CALLED[guidance] <= called, kind
        assert row.inputs.keys() | row.inputs_at_other_steps.keys() <= called, kind


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_says_whether_diffusers_loads_loras(row: Family) -> None:
    """Into the pipeline that draws from text, which holds all parts."""
    assert row.loras == hasattr(getattr(diffusers, row.pipelines.text), "load_lora_weights")


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")  # diffusers' own
def test_each_flow_family_has_a_tiny_folder(tmp_path: Path) -> None:
    """The folder is recognised with all parts; the tests of the engine draw with it."""
    folders = {name: tiny_flow(name) for name in FOLDERS}
    found = Catalog(checkpoints_of(tmp_path / "models", **folders)).scan()
    assert not found.refused
    assert {model.family for model in found.models} == {*FLOWS}
    for model in found.models:
        row = FAMILIES[model.family]
        assert model.variant in row.variants
        assert {part.name for part in parts_of(model)} >= row.parts.keys() - {*row.optional}
