"""The folders of other programs are read as they are."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog
from picowatch.errors import ModelRefused
from picowatch.recipe.resolve.installed import NotInstalled, find_checkpoint, find_lora
from tests.catalog.files import (
    Shapes,
    checkpoint_shapes,
    kohya_lora_shapes,
    vae_shapes,
    write_model,
)
from tests.catalog.shapes import Z_IMAGE
from tests.catalog.upscalers import compact_shapes

CHECKPOINTS = (
    *("Stable-diffusion", "Stable-Diffusion", "StableDiffusion", "checkpoints"),
    *("diffusion_models", "DiffusionModels", "unet"),
)
# The folders of A1111, ComfyUI, SwarmUI and Stability Matrix, by file and kind.
THEIRS: dict[str, tuple[str, tuple[str, ...]]] = {
    "photo/v1-5.safetensors": ("checkpoint", CHECKPOINTS),
    "z_image.sft": ("checkpoint", CHECKPOINTS),
    "mse.SFT": ("vae", ("VAE", "vae")),
    "clip_l.safetensors": ("text_encoder", ("clip", "text_encoder", "TextEncoders")),
    "pixel.safetensors": ("lora", ("Lora", "LyCORIS", "loras")),
    "badhand.safetensors": ("embedding", ("Embeddings", "embeddings")),
    "4x-any.safetensors": ("upscaler", ("ESRGAN", "RealESRGAN", "upscale_models")),
}
FOLDERS = [(file, folder) for file, (_, folders) in THEIRS.items() for folder in folders]
SHAPES: dict[str, Shapes] = {
    "badhand": {"emb_params": (2, 768)},
    "clip_l": {"text_model.embeddings.token_embedding.weight": (49408, 768)},
    "v1-5": checkpoint_shapes(),
    "z_image": Z_IMAGE,
    "mse": vae_shapes(),
    "pixel": kohya_lora_shapes(),
    "4x-any": compact_shapes(4),
}


@pytest.mark.parametrize(("file", "folder"), FOLDERS)
def test_a_models_folder_of_another_program_works_as_it_is(
    tmp_path: Path, file: str, folder: str
) -> None:
    """As `models` itself, or as a link to it; whatever else is in there, deleted files too."""
    theirs = tmp_path / "theirs"
    write_model(theirs / folder / file, SHAPES[Path(file).stem])
    for other in ("BLIP", "clip_vision", f"{folder}/#recycle", f"{folder}/sub/@eaDir"):
        write_model(theirs / other / "x.safetensors", SHAPES["pixel"])
    (tmp_path / "models").symlink_to(theirs)
    for models in (theirs, tmp_path / "models"):
        found = Catalog(models).scan()
        assert not found.refused
        (one,) = found.models
        assert (one.kind, one.name) == (THEIRS[file][0], file.rpartition(".")[0])


def test_of_two_files_with_one_name_the_one_in_our_folder_counts(tmp_path: Path) -> None:
    """The other is refused, with both places."""
    ours = write_model(tmp_path / "loras/pixel.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "Lora/pixel.safetensors", kohya_lora_shapes())
    found = Catalog(tmp_path).scan()
    assert [model.path for model in found.models] == [ours]
    (refused,) = found.refused
    assert refused.reason == (
        "Lora/pixel.safetensors has the same name as pixel.safetensors: rename it."
    )
    inventory = Catalog(tmp_path).inventory()
    assert find_lora("pixel.safetensors", inventory) == find_lora("Pixel", inventory) == "pixel"


def test_messages_name_the_folders_that_are_there(tmp_path: Path) -> None:
    """Messages say where the file is, and where it belongs."""
    write_model(tmp_path / "VAE/mse.safetensors", vae_shapes())
    (tmp_path / "vae").symlink_to("VAE")  # or on a Mac, its name in another case: it counts once
    write_model(tmp_path / "Stable-diffusion/sub/wrong.safetensors", vae_shapes())
    (refused,) = Catalog(tmp_path).scan().refused
    assert refused.reason == (
        "Stable-diffusion/sub/wrong.safetensors is a VAE, not a checkpoint: move it to models/vae/."
    )
    with pytest.raises(ModelRefused, match=r"in models/Stable-diffusion/\.$"):
        Catalog(tmp_path).find("checkpoint", "gone")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(
        ModelRefused, match=r"in models/checkpoints/ or models/Stable-diffusion/\.$"
    ):
        Catalog(tmp_path).find("checkpoint", "gone")


def test_what_lies_in_models_itself_is_told_where_it_belongs(tmp_path: Path) -> None:
    """Nothing would say why it is not found, and the demo model would render instead."""
    write_model(tmp_path / "pixel.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "v1-5.safetensors", checkpoint_shapes())
    (tmp_path / "turbo").mkdir()
    (tmp_path / "turbo/model_index.json").write_text("{}")
    for other in ("config.json", "gone.safetensors.part", "link.safetensors"):
        (tmp_path / other).symlink_to("nowhere")
    catalog = Catalog(tmp_path)
    end = "is in models/ itself: move it to models/checkpoints/, or to the folder of its kind."
    assert [one.reason for one in catalog.scan().refused] == [
        f"{name} {end}" for name in ("pixel.safetensors", "turbo", "v1-5.safetensors")
    ]
    for name in (None, "v1-5"):
        with pytest.raises(NotInstalled, match=r"in models/ itself: move it to models/"):
            find_checkpoint(name, catalog.inventory())
    with pytest.raises(NotInstalled, match=r"in models/ itself: move it to models/"):
        find_lora("pixel", catalog.inventory())
