"""Transformers in files of their own: completed by a folder, or by files for the other parts."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from picowatch.catalog import Catalog, Model
from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.folder_files import folder_files
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from picowatch.recipe.installed import NotInstalled, find_checkpoint
from tests.catalog.files import UNET, Shapes, write_model
from tests.catalog.shapes import FLUX1_VAE, QWEN_IMAGE, Z_IMAGE, below, flux, flux2, sd3, tiny_vae
from tests.engine.tiny_flows import tiny_flow

ENCODER_FILES = {known.file: {known.tensor: known.shape} for known in ENCODERS.values()}
CLIP_L, CLIP_G, T5 = "clip_l", "clip_g", "t5xxl_fp16"
SD35 = sd3(147456)


def add(models: Path, transformer: Shapes, *encoders: str, vae: str = "ae") -> None:
    """A transformer called it, these text encoders' files, and a VAE with 16 latent channels."""
    write_model(models / "checkpoints/it.safetensors", transformer)
    for name in encoders:
        write_model(models / f"text_encoders/{name}.safetensors", ENCODER_FILES[name])
    if vae:
        write_model(models / f"vae/{vae}.safetensors", FLUX1_VAE)


def add_folder(models: Path, name: str) -> None:
    folder = models / "checkpoints" / name
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny_flow(name))


def completed(models: Path, name: str = "it") -> Model:
    return Catalog(models).find("checkpoint", name)


def digest(models: Path, name: str = "it") -> str:
    catalog = Catalog(models)
    return catalog.sha256(catalog.find("checkpoint", name))


PLACE = "in models/text_encoders/"
L, G = (
    f"CLIP L (such as {CLIP_L}.safetensors) {PLACE}",
    f"CLIP G (such as {CLIP_G}.safetensors) {PLACE}",
)
ONLY = "it.safetensors has only the transformer"
SD35_AND_VAE = below(UNET, SD35) | below("first_stage_model.", FLUX1_VAE)
# A transformer, the files beside it, and what is said to be missing. T5 is not needed by SD 3.5.
LACKS: list[tuple[Shapes, tuple[str, ...], str, str]] = [
    (flux(), (T5,), "ae", f"{ONLY} of FLUX.1 (dev). It also needs {L}; or a diffusers folder of"),
    (flux(), (CLIP_L,), "ae", f"It also needs T5 XXL (such as {T5}.safetensors) {PLACE}; or"),
    (flux(), (CLIP_L, T5), "", "a VAE with 16 latent channels (such as ae.safetensors) in models/"),
    (flux(), (CLIP_L, T5), "tiny", "needs a VAE with 16 latent"),  # a tiny one does not do
    (SD35, (), "ae", f"needs {L}, {G} and a VAE of Stable Diffusion 3 with sd3 in its name (such"),
    (SD35_AND_VAE, (), "", f"{ONLY} and the VAE of Stable Diffusion 3.x (3.5 Medium). It also"),
    (SD35_AND_VAE, (), "", f"needs {L} and {G}; or a diffusers folder of Stable Diffusion 3.x"),
    (
        *(flux2(7680), ("qwen_3_4b",), "ae"),
        "It also needs a VAE with 32 latent channels (such as flux2-vae.safetensors) in models/vae/"
        "; or a diffusers folder of FLUX.2 (klein 4B) (such as black-forest-labs/FLUX.2-klein-4B) "
        "in models/checkpoints/, which lends its own.",
    ),
]


@pytest.mark.parametrize(("transformer", "encoders", "vae", "message"), LACKS)
def test_each_missing_file_is_named_with_its_place(
    tmp_path: Path, transformer: Shapes, encoders: tuple[str, ...], vae: str, message: str
) -> None:
    """No other is named; a diffusers folder is an alternative. Recipes get the same message."""
    add(tmp_path, transformer, *encoders, vae=vae)
    if vae == "tiny":
        write_model(tmp_path / "vae/tiny.safetensors", tiny_vae(16))
    with pytest.raises(ModelRefused) as refused:
        completed(tmp_path)
    assert message in refused.value.message
    with pytest.raises(NotInstalled) as told:
        find_checkpoint("it", Catalog(tmp_path).inventory())
    assert message in str(told.value)


def test_a_recipe_says_which_variant_a_file_is(tmp_path: Path) -> None:
    """Each has its own rules, and is completed by its own folder; its name comes back as it is."""
    add(tmp_path, flux(), CLIP_L, T5)
    write_model(tmp_path / "checkpoints/qwen.safetensors", QWEN_IMAGE)
    write_model(tmp_path / "checkpoints/klein-base.safetensors", flux2(7680))
    add_folder(tmp_path, "Qwen-Image-Edit-2509")
    with pytest.raises(ModelRefused, match=r"write 'checkpoint: qwen as Edit 2509'\.$"):
        completed(tmp_path, "qwen")
    add_folder(tmp_path, "Qwen-Image")
    inventory = Catalog(tmp_path).inventory()
    for said, name in {
        "it as Kontext": "it as Kontext",
        "IT.safetensors  as flux1-kontext": "it as Kontext",
        "it as dev": "it",
        "qwen as 2509": "qwen as Edit 2509",
        "qwen as Qwen-Image-Edit-2509": "qwen as Edit 2509",
    }.items():
        found = find_checkpoint(said, inventory)
        assert (found.name, find_checkpoint(found.name, inventory)) == (name, found)
        assert bool(found.rules.references) == (name != "it")
        if found.name != "it":
            assert completed(tmp_path, found.name).variant == name.partition(" as ")[2]
    for said, message in {
        "it as Turbo": "one of these after 'as': FLUX.1 dev, FLUX.1 Krea or FLUX.1 Kontext.",
        "it as ": "no checkpoint 'it as '",
        "qwen as Edit": "'qwen' cannot be used as Edit: qwen.safetensors has only the transformer",
        "klein as klein 4b": "as klein 4b: klein-base.safetensors has only the transformer",
        "klein as 4b": "one of these after 'as': FLUX.2 klein base 4B or FLUX.2 klein 4B.",
        "gone as Kontext": "no checkpoint 'gone' in models/checkpoints.",
        "demo as Kontext": "the checkpoint 'demo' tells what it is: Stable Diffusion 1.x",
        "Qwen-Image-Edit-2509 as Edit": "tells what it is: Qwen-Image",
    }.items():
        with pytest.raises(NotInstalled) as told:
            find_checkpoint(said, inventory)
        assert message in str(told.value)


def test_the_largest_file_of_each_part_counts(tmp_path: Path) -> None:
    """float16 where there is fp8, too; SD 3's VAE by its name, as headers do not tell it."""
    add(tmp_path, SD35, CLIP_L, CLIP_G, T5, vae="sd3_vae")
    larger = ENCODER_FILES[T5] | {"more.weight": (8,)}
    write_model(tmp_path / "text_encoders/larger.safetensors", larger)
    add(tmp_path, SD35)
    used = {part.name: part.weights.stem for part in completed(tmp_path).parts if part.weights}
    assert used == {
        "transformer": "it",
        "vae": "sd3_vae",
        "text_encoder": "clip_l",
        "text_encoder_2": "clip_g",
        "text_encoder_3": "larger",
    }


def test_a_folder_of_the_family_completes_it(tmp_path: Path) -> None:
    """A folder of its variant comes first; otherwise the package has its variant's configs."""
    write_model(tmp_path / "checkpoints/it.safetensors", flux())
    add_folder(tmp_path, "Z-Image-Turbo")
    with pytest.raises(ModelRefused):
        completed(tmp_path)
    add_folder(tmp_path, "FLUX.1-schnell")
    parts = {part.name: part.folder for part in completed(tmp_path).parts}
    assert parts["vae"] == tmp_path / "checkpoints/FLUX.1-schnell/vae"
    for name in ("scheduler", "transformer"):
        assert parts[name].parts[-3:] == ("assets", "flux", name)
    add_folder(tmp_path, "FLUX.1-dev")
    assert {part.folder.parent.name for part in completed(tmp_path).parts} == {"FLUX.1-dev"}


def test_a_folder_that_only_lends_needs_no_weights_of_a_transformer(tmp_path: Path) -> None:
    """A recipe cannot name it; its hash for others is that of the whole folder."""
    folder = tmp_path / "checkpoints/Z-Image-Turbo"
    shutil.copytree(tiny_flow("Z-Image-Turbo"), folder)
    write_model(tmp_path / "checkpoints/z-turbo.safetensors", Z_IMAGE)
    whole = digest(tmp_path, "z-turbo")
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert digest(tmp_path, "z-turbo") == whole
    assert [model.name for model in Catalog(tmp_path).inventory().checkpoints] == ["z-turbo"]
    with pytest.raises(ModelRefused) as refused:
        completed(tmp_path, "Z-Image-Turbo")
    assert refused.value.message == (
        "Z-Image-Turbo/ has no weights in transformer/: it only completes transformer files. To "
        "render with it, copy the whole folder."
    )


def test_each_file_that_changes_pixels_is_in_the_hash(tmp_path: Path) -> None:
    """No other file is: the folder's own transformer is not read, and names do not count."""
    checkpoints = tmp_path / "checkpoints"
    folder = shutil.copytree(tiny_flow("Z-Image-Turbo"), checkpoints / "Z-Image-Turbo")
    file = checkpoints / "z-turbo.safetensors"
    save_file({name: torch.zeros(shape[:1]) for name, shape in Z_IMAGE.items()}, file)
    unread = {
        folder / "transformer/diffusion_pytorch_model.safetensors",
        folder / "model_index.json",
    }
    before = digest(tmp_path, "z-turbo")
    for path in (file, *folder.rglob("*.safetensors"), *folder.rglob("*.json")):
        content = path.read_bytes()
        other = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(content + b" " if path.suffix == ".json" else other)
        assert (digest(tmp_path, "z-turbo") != before) == (path not in unread), path
        path.write_bytes(content)
    folder.rename(checkpoints / "another-turbo")
    file.rename(checkpoints / "my-turbo.safetensors")
    assert digest(tmp_path, "my-turbo") == before


def test_every_part_of_a_modular_folder_is_in_its_hash(tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_flow("Anima"), tmp_path / "checkpoints/it")
    paths = (path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert {*folder_files(copy)} == {*paths}
    shutil.rmtree(copy / "vae")
    (refused,) = Catalog(tmp_path).scan().refused
    assert refused.reason == (
        "it is a diffusers folder without vae/: copy the whole folder. Its index takes this part "
        f"from {FAMILIES['anima'].hub}."
    )
