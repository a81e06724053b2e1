"""Folders of pipelines without a row: what their signatures in diffusers' source say."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from picowatch.catalog.folder_files import folder_files
from picowatch.families import FAMILIES
from picowatch.families.row import References
from picowatch.recipe.fields import DEFAULTS
from picowatch.recipe.inventory import rules_of
from tests.catalog.files import found_in, refused_in
from tests.catalog.test_folders import Config, write_folder
from tests.commands.picowatch import picowatch_here

pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="reads diffusers' source")

SANA: Config = {
    "_class_name": "SanaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": ["transformers", "GemmaTokenizerFast"],
}
DC_AE = {"encoder_block_out_channels": [8] * 6}
FLOW = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}


@pytest.mark.parametrize(
    ("config", "pipeline", "size"),
    [
        ({"sample_size": 16}, "SanaPipeline", 512),
        ({"sample_size": 128}, "SanaPipeline", 2048),  # the most that a recipe may name
        ({"sample_size": "many"}, "SanaPipeline", 1024),
        ({"sample_size": 64}, "AuraFlowPipeline", 1024),  # its signature says so
        ({"sample_size": 64}, "CogView4Pipeline", 2048),
    ],
)
def test_a_folder_without_a_row_has_the_size_of_its_configs_or_signature(
    tmp_path: Path, config: Config, pipeline: str, size: int
) -> None:
    index = SANA | {"_class_name": pipeline}
    write_folder(tmp_path, "it", index, transformer=config, vae=DC_AE)
    model = found_in(tmp_path)
    assert (model.family, model.variant, model.native_size) == (pipeline, "", size)


def test_the_signature_tells_defaults_and_what_is_missing() -> None:
    """Guidance without a negative prompt is an input of the model."""
    usual = {
        "SanaPipeline": (20, 4.5, 0.0),
        "SanaSprintPipeline": (2, 1.0, 4.5),
        "HunyuanImagePipeline": (50, 1.0, 3.25),
    }
    for pipeline, (steps, cfg_scale, guidance) in usual.items():
        rules = rules_of(pipeline)
        found = {
            name: rules.defaults.get(name, DEFAULTS[name])
            for name in ("steps", "cfg_scale", "guidance")
        }
        assert found == {"steps": steps, "cfg_scale": cfg_scale, "guidance": guidance}
        assert ("guidance" in rules.lacks) == (not guidance)
        assert ("negative_prompt" in rules.lacks) == bool(guidance)
        assert "mask" in rules.lacks and "control" in rules.lacks
    assert rules_of("SanaPipeline").samplers == ("DPM++ 2M",)
    assert rules_of("OvisImagePipeline").samplers == ("Euler", "DPM++ 2M", "UniPC")


def test_pictures_are_taken_where_a_pipeline_has_a_place_for_them() -> None:
    """References; it has none for start images."""
    omni = FAMILIES["ZImageOmniPipeline"]
    assert omni.variant("").references == References(most=10)
    assert omni.pipelines.edit == "ZImageOmniPipeline" and "image" in omni.lacks


REFUSED: list[tuple[Config, str]] = [
    ({"_class_name": "WanPipeline"}, "a WanPipeline: it takes num_frames, which recipes do"),
    ({"_class_name": "StableAudioPipeline"}, "a StableAudioPipeline: it has no height."),
    ({"_class_name": "NextYearPipeline"}, "does not have this pipeline."),
    ({"text_encoder": ["my_code", "Mine"]}, "whose text_encoder is Mine of my_code: only classes"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_in_the_way_is_named(tmp_path: Path, changes: Config, words: str) -> None:
    write_folder(tmp_path, "it", SANA | changes)
    assert words in refused_in(tmp_path)


def test_an_index_alone_says_how_to_get_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints/Sana"
    folder.mkdir(parents=True)
    for named, hub in (({}, "OWNER/NAME"), ({"_name_or_path": "org/Sana"}, "org/Sana")):
        (folder / "model_index.json").write_text(json.dumps(SANA | named))
        command = f"type `hf download {hub} --local-dir models/checkpoints/Sana`."
        assert f"has only an index, model_index.json: {command}" in refused_in(tmp_path)


def test_models_says_that_a_pipeline_has_no_row(tmp_path: Path) -> None:
    write_folder(tmp_path / "models", "it", SANA, vae=DC_AE)
    lines = picowatch_here(tmp_path, "models").stdout
    assert (
        "drawn by diffusers' SanaPipeline, without a row of its own: sizes, previews and memory "
        "are guesses\n"
    ) in lines
    found = json.loads(picowatch_here(tmp_path, "models", "--json").stdout)
    assert {model["name"]: model["pipeline"] for model in found}["it"] == "SanaPipeline"


def test_a_hash_covers_each_part_that_is_read(tmp_path: Path) -> None:
    """Also parts with names that no family with a row has, but no safety checker."""
    parts = {
        **{f"{part}_4": SANA[part] for part in ("text_encoder", "tokenizer")},
        "safety_checker": ["transformers", "Checker"],
    }
    index = SANA | FLOW | parts | {"_class_name": "HiDreamImagePipeline"}
    folder = write_folder(tmp_path, "it", index)
    files = {name.partition("/")[0] for name in folder_files(folder)}
    assert files == {*index} - {"_class_name", "safety_checker"} | {"model_index.json"}
