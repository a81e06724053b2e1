"""Each family's row says what diffusers and transformers have."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from picowatch.catalog import Catalog
from picowatch.catalog.transformer_files import parts_of
from picowatch.families import FAMILIES, FLOWS, UNETS, Family, Pipelines
from tests.engine.tiny_flows import MAKERS, tiny_flow

ROWS = [FAMILIES[key] for key in (*UNETS, *FLOWS)]
SHORT = {
    "aura_flow": "AuraFlow",
    "cogview3": "CogView3-Plus",
    "cogview4": "CogView4",
    "hunyuan_dit": "HunyuanDiT",
    "ovis": "Ovis-Image-7B",
    "pixart": "PixArt-Sigma",
    "sana": "Sana",
    "sana_sprint": "Sana-Sprint",
}
LIBRARIES: tuple[Any, ...] = (diffusers, transformers)
CALLED = {
    "cfg_scale": {"guidance_scale"},
    "cfg_scale_less_one": {"guidance_scale"},
    "true_cfg_scale": {"true_cfg_scale"},
    "guidance": {"guidance_scale"},
    "guidance_and_true_cfg_scale": {"guidance_scale", "true_cfg_scale"},
}


def pipelines_of(row: Family) -> Iterator[tuple[Any, str]]:
    """Each pipeline's class, and the variant that it is for."""
    every = {"": row.pipelines}
    every |= {name: one.pipelines for name, one in row.variants.items() if one.pipelines}
    for variant, pipelines in every.items():
        for field in Pipelines.__dataclass_fields__:
            name = getattr(pipelines, field)
            if name:
                yield getattr(diffusers, name), variant


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_names_classes_that_exist(row: Family) -> None:
    """A name that is gone in a newer version stays allowed if another of the part is there."""
    for part, names in row.parts.items():
        assert any(hasattr(one, name) for name in names for one in LIBRARIES), part
    for name in row.folders:
        assert hasattr(diffusers, name) or name == "Lumina2Text2ImgPipeline"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_pipeline_takes_the_parts_of_its_row(row: Family) -> None:
    """And what it is made with, and nothing else."""
    for kind, variant in pipelines_of(row):
        taken = inspect.signature(kind.__init__).parameters.keys() - {"self"}
        assert row.parts.keys() <= taken, kind
        needed = {
            name
            for name, one in inspect.signature(kind.__init__).parameters.items()
            if one.default is inspect.Parameter.empty and name != "self"
        }
        assert needed <= row.parts.keys() | {*row.unused}, kind
        assert {*row.unused} <= taken or kind.__name__ == "FluxFillPipeline", kind
        assert row.variant(variant).options.keys() <= taken, kind


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_pipeline_takes_what_a_request_means_for_it(row: Family) -> None:
    """Guidance by its own name, and the row's inputs."""
    for kind, variant in pipelines_of(row):
        taken = inspect.signature(kind.__call__).parameters.keys()
        guidance = row.variant(variant).guidance_as or row.guidance
        assert CALLED[guidance] <= taken, kind
        assert row.inputs.keys() | row.inputs_at_other_steps.keys() <= taken, kind


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_says_whether_diffusers_loads_loras(row: Family) -> None:
    """Into the pipeline that draws from text, which holds all parts."""
    assert row.loras == hasattr(getattr(diffusers, row.pipelines.text), "load_lora_weights")


def installed(models: Path, *names: str) -> Catalog:
    """Tiny folders in models/checkpoints/."""
    (models / "checkpoints").mkdir()
    for name in names:
        (models / "checkpoints" / name).symlink_to(tiny_flow(name))
    return Catalog(models)


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")  # diffusers' own
def test_each_flow_family_has_a_tiny_folder(tmp_path: Path) -> None:
    """It is recognised, with all of its parts; the tests of the engine draw with it."""
    found = installed(tmp_path, *MAKERS).scan()
    assert not found.refused
    assert {model.family for model in found.models} == {*FLOWS}
    for model in found.models:
        row = FAMILIES[model.family]
        assert model.variant in row.variants
        assert {part.name for part in parts_of(model)} >= row.parts.keys() - {*row.optional}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
@pytest.mark.parametrize("family", SHORT)
def test_the_pipeline_of_a_short_row_reads_the_prompt_itself(tmp_path: Path, family: str) -> None:
    """From a folder, without a network: progress, a generator each, and the size as requested."""
    row = FAMILIES[family]
    (model,) = installed(tmp_path, SHORT[family]).scan().models
    assert (row.short, model.family) == (True, family)
    kind = getattr(diffusers, row.pipelines.text)
    pipeline = kind.from_pretrained(model.path, local_files_only=True, **dict.fromkeys(row.unused))
    pipeline.set_progress_bar_config(disable=True)
    steps: list[int] = []

    def after_step(_: Any, step: int, *__: Any) -> dict[str, Any]:
        steps.append(step)
        return {}

    def drawn(prompts: list[str]) -> Any:
        inputs: dict[str, Any] = dict(row.inputs)
        taken = inspect.signature(kind.__call__).parameters
        if "negative_prompt" in taken:
            inputs["negative_prompt"] = ["a ball"] * len(prompts)
        if "callback_on_step_end" in taken:
            inputs["callback_on_step_end"] = after_step
        else:
            inputs["callback"] = lambda step, *_: after_step(None, step)
        if row.variant(model.variant).defaults["steps"] != 3:
            inputs |= row.inputs_at_other_steps
        return pipeline(
            prompts,
            width=2 * row.size_multiple + 64,
            height=64,
            num_inference_steps=3,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(index) for index in range(len(prompts))],
            output_type="np",
            **inputs,
        ).images

    alone, both = drawn(["a cube"]), drawn(["a cube", "a longer prompt"])
    assert alone.shape == (1, 64, 2 * row.size_multiple + 64, 3)
    assert steps == [0, 1, 2] * 2
    # CogView4 pads the prompts of a batch together.
    assert abs(alone[0] - both[0]).max() < (0.3 if family == "cogview4" else 1e-4)
