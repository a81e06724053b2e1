"""diffusers folders of Stable Diffusion XL and of models near it, by their configs."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, Model, Refused
from tests.catalog.files import write_model

UNET: dict[str, object] = {
    "in_channels": 4,
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "projection_class_embeddings_input_dim": 2816,
}
SCHEDULE: dict[str, object] = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "epsilon",
}
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def write_json(path: Path, values: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of Stable Diffusion XL with its real configs, and weights of one tensor each."""
    it = tmp_path / "checkpoints/it"
    write_json(it / "model_index.json", {"_class_name": "StableDiffusionXLPipeline"})
    write_json(it / "unet/config.json", UNET)
    write_json(it / "vae/config.json", {"latent_channels": 4, "force_upcast": True})
    write_json(it / "text_encoder/config.json", {"num_hidden_layers": 12})
    write_json(it / "text_encoder_2/config.json", {"num_hidden_layers": 32})
    write_json(it / "scheduler/scheduler_config.json", SCHEDULE)
    write_json(it / "tokenizer/vocab.json", {"a": 0})
    write_json(it / "tokenizer_2/vocab.json", {"a": 0})
    for part, name in WEIGHTS.items():
        write_model(it / part / name, {"weight": (2, 2)})
    return it


def look_at(folder: Path) -> Model | Refused:
    """What the catalog says of the one folder."""
    found = Catalog(folder.parents[1]).scan()
    return found.models[0] if found.models else found.refused[0]


def reason(folder: Path) -> str:
    found = look_at(folder)
    assert isinstance(found, Refused)
    return found.reason


def described(folder: Path) -> tuple[object, ...]:
    found = look_at(folder)
    assert isinstance(found, Model), found
    return (
        *(found.family, found.native_size, found.in_channels),
        *(found.text_layers, found.prediction, found.zero_snr),
    )


def test_a_folder_of_sdxl_is_a_checkpoint(folder: Path) -> None:
    """The smaller text encoder's layers are those that clip_skip can leave out."""
    assert described(folder) == ("sdxl", 1024, 4, 12, "epsilon", False)


@pytest.mark.parametrize(
    "pipeline", ["StableDiffusionXLInpaintPipeline", "StableDiffusionXLImg2ImgPipeline"]
)
def test_the_pipelines_for_start_images_are_the_same_model(folder: Path, pipeline: str) -> None:
    """Inpainting has nine inputs; the others' UNets are equal."""
    write_json(folder / "model_index.json", {"_class_name": pipeline})
    write_json(folder / "unet/config.json", UNET | {"in_channels": 9})
    assert described(folder) == ("sdxl", 1024, 9, 12, "epsilon", False)


def test_the_scheduler_says_what_is_predicted(folder: Path) -> None:
    """As NoobAI's and others' folders have it."""
    schedule = SCHEDULE | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    write_json(folder / "scheduler/scheduler_config.json", schedule)
    assert described(folder) == ("sdxl", 1024, 4, 12, "v_prediction", True)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_a_folder_without_one_of_its_parts_says_which(folder: Path, part: str) -> None:
    """Both text encoders and their tokenizers are needed."""
    shutil.rmtree(folder / part)
    assert reason(folder) == f"it is a diffusers folder without {part}/: copy the whole folder."


def test_the_second_text_encoder_needs_its_config_and_weights(folder: Path) -> None:
    """Numbers beyond measure are refused there, too."""
    write_json(folder / "text_encoder_2/config.json", {"num_hidden_layers": 10**6})
    assert reason(folder) == (
        "it cannot be used: text_encoder_2/config.json says num_hidden_layers: 1000000; "
        "the limit is 100."
    )
    (folder / "text_encoder_2/model.safetensors").unlink()
    assert reason(folder) == "it is a diffusers folder without weights in text_encoder_2/."


def test_what_changes_pixels_changes_the_hash(folder: Path) -> None:
    """The second text encoder, vocabularies without .json, templates and the lists of shards."""
    catalog = Catalog(folder.parents[1])
    hashes = {catalog.sha256(catalog.find("checkpoint", "it"))}
    for name in (
        "text_encoder_2/config.json",
        "tokenizer_2/special_tokens_map.json",
        "tokenizer/spiece.model",
        "tokenizer_2/tokenizer.model",
        "tokenizer_2/chat_template.jinja",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ):
        (folder / name).write_text('{"num_hidden_layers": 32, "more": 1}')
        hashes.add(catalog.sha256(catalog.find("checkpoint", "it")))
    assert len(hashes) == 7
    write_model(folder / "text_encoder_2/model.safetensors", {"weight": (2, 3)})
    hashes.add(catalog.sha256(catalog.find("checkpoint", "it")))
    assert len(hashes) == 8


def test_the_hash_is_that_of_the_sha256sum_listing(folder: Path) -> None:
    """Over the files of all seven parts and the index, sorted by path."""
    catalog = Catalog(folder.parents[1])
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    listing = "".join(
        f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )
    expected = sha256(listing.encode()).hexdigest()
    assert catalog.sha256(catalog.find("checkpoint", "it")) == expected


NEAR: dict[str, tuple[dict[str, object], str]] = {
    "refiner": (
        {"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560},
        "it is the refiner of Stable Diffusion XL, which only finishes pictures of the base "
        "model: not supported. Use the base checkpoint without it.",
    ),
    "SSD-1B": (
        {"transformer_layers_per_block": [1, 2, 4]},
        "it is SSD-1B, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "Vega": (
        {"transformer_layers_per_block": [1, 1, 2]},
        "it is Segmind Vega, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "KOALA-700M": (
        {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1},
        "it is KOALA-700M, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "KOALA-1B": (
        {"transformer_layers_per_block": [1, 2, 6], "layers_per_block": 1},
        "it is KOALA-1B, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "other layers": (
        {"transformer_layers_per_block": 3},
        "it is a checkpoint of Stable Diffusion XL with other layers: not supported.",
    ),
    "layers of each attention": (
        {"transformer_layers_per_block": [1, [2, 2], 10]},
        "it is a checkpoint of Stable Diffusion XL with other layers: not supported.",
    ),
    "several numbers of inputs": (
        {"in_channels": [4]},
        "it is a diffusers folder with a UNet that picowatch does not support.",
    ),
    "InstructPix2Pix": (
        {"in_channels": 8},
        "it is an image-editing checkpoint (InstructPix2Pix): not supported.",
    ),
}


@pytest.mark.parametrize("name", NEAR)
def test_folders_near_sdxl_are_refused_by_name(folder: Path, name: str) -> None:
    """By the UNet's config; the refiner's index has no first text encoder."""
    values, words = NEAR[name]
    if name == "refiner":
        write_json(folder / "model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"})
        shutil.rmtree(folder / "text_encoder")
    write_json(folder / "unet/config.json", UNET | values)
    assert reason(folder) == words


def test_another_noise_schedule_is_refused(folder: Path) -> None:
    """Playground 2.5's."""
    schedule: dict[str, object] = {"_class_name": "EDMDPMSolverMultistepScheduler"}
    write_json(folder / "scheduler/scheduler_config.json", schedule)
    assert reason(folder) == (
        "it is a diffusers folder with a noise schedule of its own (EDM, as of Playground 2.5): "
        "not supported."
    )


def test_a_pipeline_for_other_inputs_is_refused_as_its_single_file_is(folder: Path) -> None:
    """Its class says what its UNet needs."""
    for pipeline, words in (
        ("StableDiffusionDepth2ImgPipeline", "is a depth-to-image checkpoint, which also needs"),
        ("StableDiffusionXLInstructPix2PixPipeline", "is an image-editing checkpoint"),
    ):
        write_json(folder / "model_index.json", {"_class_name": pipeline})
        assert reason(folder).startswith(f"it {words}")
