"""Names, scans, folders and what recipes get to know."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, FoundModels, catalog
from picowatch.catalog.gguf import read_any_header
from picowatch.catalog.headers import Header, read_header
from picowatch.errors import ModelRefused
from picowatch.files.retry import Ended
from picowatch.recipe.inventory import DEMO_RULES
from picowatch.recipe.resolve.installed import NotInstalled, find_lora
from tests.catalog.files import kohya_lora_shapes, sd15_shapes, vae_file_shapes, write_model
from tests.catalog.shapes import Z_IMAGE
from tests.catalog.upscalers import compact_shapes
from tests.house import House

DEMO = Catalog(Path("nowhere")).demo.path


def checkpoint(models: Path, name: str) -> Path:
    return write_model(models / f"checkpoints/{name}.safetensors", sd15_shapes())


def names(found: FoundModels) -> list[str]:
    return [model.name for model in found.models]


def test_missing_folders_hold_nothing(tmp_path: Path) -> None:
    """The demo model needs no models/ at all."""
    assert Catalog(tmp_path / "models").scan() == FoundModels()


def test_models_are_named_by_their_path_below_their_folder(tmp_path: Path) -> None:
    """Without ending; dots in a name are not one."""
    for name in ("b/dream", "realistic v5.1", "a"):
        checkpoint(tmp_path, name)
    assert names(Catalog(tmp_path).scan()) == ["a", "b/dream", "realistic v5.1"]


def test_previews_notes_and_hidden_files_are_no_models(tmp_path: Path) -> None:
    """Model managers put them beside the models."""
    checkpoint(tmp_path, ".hidden")
    for name in ("a.png", "a.civitai.info", "a.yaml", "a.json", "put models here.txt"):
        (tmp_path / "checkpoints" / name).write_text("x")
    assert Catalog(tmp_path).scan() == FoundModels()


def test_a_config_beside_a_checkpoint_says_that_it_predicts_velocity(tmp_path: Path) -> None:
    """As A1111 reads it, also when it comes later."""
    path = checkpoint(tmp_path, "a.b")
    catalog = Catalog(tmp_path)

    def prediction() -> str:
        catalog.scan()
        return catalog.inventory().checkpoints[0].prediction

    assert prediction() == ""
    config = path.with_name("a.b.yaml")
    config.write_text('model:\n  params:\n    # parameterization: "v"\n    parameterization: eps\n')
    assert prediction() == ""
    config.write_text('model:\n  params:\n    parameterization: "v"  # velocity\n')
    assert prediction() == "v"
    config.write_bytes(b"model:\r\n  params:\r\n    parameterization: 'v'\r\n")
    assert prediction() == "v"
    config.unlink()
    assert prediction() == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("character", ["\n", " ", "\t"])
def test_a_hostile_config_beside_a_checkpoint_is_read_at_once(
    tmp_path: Path, character: str
) -> None:
    """A million empty lines, for one."""
    path = checkpoint(tmp_path, "a")
    path.with_suffix(".yaml").write_text(character * 1_000_000)
    assert [one.prediction for one in Catalog(tmp_path).inventory().checkpoints] == [""]


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    """Users link the model stores of other programs; a circle of links ends."""
    store = tmp_path / "store"
    write_model(store / "deep/one.safetensors", sd15_shapes())
    (store / "circle").symlink_to(store)
    models = tmp_path / "models"
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/linked").symlink_to(store)
    (models / "checkpoints/two.safetensors").symlink_to(store / "deep/one.safetensors")
    assert names(Catalog(models).scan()) == ["linked/deep/one", "two"]


def test_a_link_is_followed_after_what_lies_in_the_folder_itself(tmp_path: Path) -> None:
    """So names stay as they are when a folder gets a second one."""
    write_model(tmp_path / "loras/style/deep/one.safetensors", kohya_lora_shapes())
    (tmp_path / "loras/favourites").symlink_to("style/deep")
    (tmp_path / "loras/zuletzt").symlink_to("style")
    assert names(Catalog(tmp_path).scan()) == ["style/deep/one"]


def test_linked_notes_are_no_models(tmp_path: Path) -> None:
    """In huggingface_hub's cache every file is a link into `blobs`."""
    hub = tmp_path / "hub/models--runwayml--stable-diffusion-v1-5"
    write_model(hub / "blobs/aaaa", sd15_shapes())
    (hub / "blobs/bbbb").write_text("# Stable Diffusion")
    snapshot = hub / "snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "v1-5.safetensors").symlink_to("../../blobs/aaaa")
    for note in ("README.md", "v1-5.json", "preview.png"):
        (snapshot / note).symlink_to("../../blobs/bbbb")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/hub").symlink_to(snapshot)
    found = Catalog(tmp_path).scan()
    assert names(found) == ["hub/v1-5"]
    assert not found.refused


def test_the_second_model_of_one_name_is_refused(tmp_path: Path) -> None:
    """Else a recipe could mean either; the demo's name is taken, too."""
    checkpoint(tmp_path, "same")
    checkpoint(tmp_path, "demo")
    shutil.copytree(DEMO, tmp_path / "checkpoints/same")
    found = Catalog(tmp_path).scan()
    assert [(model.name, model.layout) for model in found.models] == [("same", "file")]
    assert [refused.reason for refused in found.refused] == [
        "demo.safetensors has the same name as the embedded demo model: rename it.",
        "same has the same name as same.safetensors: rename it.",
    ]


def test_a_rescan_reads_only_headers_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models/ may hold hundreds of files on a slow disk."""
    read: list[str] = []

    def counted(path: Path) -> Header:
        read.append(path.stem)
        return read_header(path)

    monkeypatch.setattr("picowatch.catalog.catalog.read_any_header", counted)
    checkpoint(tmp_path, "a")
    checkpoint(tmp_path, "b")
    catalog = Catalog(tmp_path)
    first = catalog.scan()
    assert catalog.scan() == first
    assert sorted(read) == ["a", "b"]
    write_model(tmp_path / "checkpoints/b.safetensors", vae_file_shapes())
    assert names(catalog.scan()) == ["a"]
    assert sorted(read) == ["a", "b", "b"]
    (tmp_path / "checkpoints/a.safetensors").unlink()
    assert names(catalog.scan()) == []


def test_a_restart_reads_only_headers_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of thousands of LoRAs take minutes. Other code looks again."""
    models, cache = tmp_path / "models", tmp_path / "hashes.sqlite"
    read: list[str] = []

    def counted(path: Path) -> Header:
        read.append(path.stem)
        return read_any_header(path)

    def scanned() -> list[str]:
        """A start of a process: what it reads."""
        read.clear()
        found = Catalog(models, cache).scan()
        headers = list(read)
        assert found == Catalog(models).scan()
        return headers

    monkeypatch.setattr("picowatch.catalog.catalog.read_any_header", counted)
    checkpoint(models, "a")
    write_model(models / "checkpoints/flow.safetensors", Z_IMAGE)
    write_model(models / "upscalers/4x.safetensors", compact_shapes(4))
    write_model(models / "loras/half.safetensors", {"lora_unet_\ud800.lora_up.weight": (8, 8)})
    write_model(models / "loras/style.safetensors", kohya_lora_shapes())
    write_model(models / "loras/wrong.safetensors", vae_file_shapes())
    assert sorted(set(scanned())) == ["4x", "a", "flow", "half", "style", "wrong"]
    assert set(scanned()) <= {"half", "wrong"}
    write_model(models / "loras/style.safetensors", vae_file_shapes())
    assert set(scanned()) <= {"half", "wrong", "style"}
    monkeypatch.setattr(catalog, "_code", lambda: "another version")
    assert {"4x", "a", "flow"} <= set(scanned())


def test_a_look_for_one_model_reads_no_header_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine and the publisher look for a picture's LoRAs among thousands."""
    read: list[Path] = []

    def counted(path: Path) -> Header:
        read.append(path)
        return read_header(path)

    monkeypatch.setattr("picowatch.catalog.catalog.read_any_header", counted)
    wanted = write_model(tmp_path / "Lora/style/a.safetensors", kohya_lora_shapes())
    for other in ("Lora/style/b", "Lora/style/a/a", "Lora/a", "loras/b"):
        write_model(tmp_path / f"{other}.safetensors", kohya_lora_shapes())
    assert Catalog(tmp_path).find("lora", "style/a").path == wanted
    assert read == [wanted]


def test_a_scan_of_any_kind_ends_with_picowatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end does not wait for all files of a slow share, not for those that complete others."""
    read: list[str] = []

    def counted(path: Path) -> Header:
        read.append(path.parent.name)
        return read_header(path)

    monkeypatch.setattr("picowatch.catalog.catalog.read_any_header", counted)
    write_model(tmp_path / "checkpoints/flow.safetensors", Z_IMAGE)
    for name in "ab":
        write_model(tmp_path / f"text_encoders/{name}.safetensors", vae_file_shapes())
        write_model(tmp_path / f"vae/{name}.safetensors", vae_file_shapes())
    for last in ("checkpoints", "text_encoders", "vae"):
        read.clear()
        with pytest.raises(Ended):
            catalog = Catalog(tmp_path, has_ended=partial(read.__contains__, last))
            catalog.find("checkpoint", "flow")
        assert read.count(last) == 1


def test_recipes_know_the_installed_the_demo_and_the_refused(tmp_path: Path) -> None:
    """A refused file is found by its whole name and by its stem, unless a model has that."""
    checkpoint(tmp_path, "a")
    write_model(tmp_path / "vae/soft.safetensors", vae_file_shapes())
    write_model(tmp_path / "loras/styles/pixel.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "embeddings/bad-hands.safetensors", {"emb_params": (4, 768)})
    for name in ("a.ckpt", "old.ckpt", "new.safetensors.part"):
        (tmp_path / "checkpoints" / name).write_bytes(b"x")
    inventory = Catalog(tmp_path).inventory("a")
    assert (inventory.demo.name, inventory.demo.native_size) == ("demo", 128)
    assert inventory.demo.rules == DEMO_RULES
    assert [(one.name, one.native_size) for one in inventory.checkpoints] == [("a", 512)]
    assert inventory.vaes == ("soft",)
    assert inventory.loras == ("styles/pixel",)
    assert inventory.embeddings == ("bad-hands",)
    assert inventory.checkpoints[0].family == "Stable Diffusion 1.x"
    assert not inventory.checkpoints[0].says_prediction and inventory.demo.says_prediction
    assert inventory.lora_families == {"styles/pixel": "Stable Diffusion 1.x"}
    assert inventory.embedding_families == {"bad-hands": "Stable Diffusion 1.x"}
    assert inventory.default_checkpoint == "a"
    assert {"old", "old.ckpt", "a.ckpt", "new", "new.safetensors.part"} <= set(
        inventory.refused_as("checkpoint")
    )
    assert inventory.refused_as("checkpoint")["old"].startswith("old.ckpt is a pickle file")


def test_a_model_is_found_by_name_with_or_without_ending(tmp_path: Path) -> None:
    """And the demo model by its name."""
    path = checkpoint(tmp_path, "sub/a")
    catalog = Catalog(tmp_path)
    assert catalog.find("checkpoint", "sub/a").path == path
    assert catalog.find("checkpoint", "sub/a.safetensors").path == path
    assert catalog.find("checkpoint", "demo") == catalog.demo


def test_looking_for_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    """The scan's reason, or that there is nothing of that name."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/old.ckpt").write_bytes(b"x")
    catalog = Catalog(tmp_path)
    with pytest.raises(ModelRefused, match=r"old\.ckpt is a pickle file"):
        catalog.find("checkpoint", "old")
    with pytest.raises(ModelRefused, match=r"There is no 'soft' in models/vae/\."):
        catalog.find("vae", "soft")


@pytest.mark.parametrize(
    ("beside", "written"),
    [("style.pt", "style.safetensors"), ("style.safetensors.part", "STYLE"), ("Style.ckpt", "sty")],
)
def test_a_usable_model_beside_a_refused_file_can_be_named(
    tmp_path: Path, beside: str, written: str
) -> None:
    """Who converts a pickle keeps both for a while; a download starts again beside the model."""
    house = House(tmp_path)
    write_model(house.models / "loras/style.safetensors", kohya_lora_shapes())
    (house.models / "loras" / beside).write_bytes(b"x")
    house.save("a.yaml", f"prompt: a\ncheckpoint: demo\nloras: {written}\n")
    assert house.once(), house.error("a.yaml")


def test_a_refused_file_of_another_kind_takes_no_name_away(tmp_path: Path) -> None:
    """It only says why where nothing else has the name: a file may be in the wrong folder."""
    write_model(tmp_path / "loras/style_v2.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "loras/cut.safetensors", kohya_lora_shapes(), missing_bytes=2)
    for name in ("checkpoints/style.ckpt", "upscalers/cut.ckpt", "checkpoints/lost.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x80\x02}q")
    inventory = Catalog(tmp_path).inventory()
    assert find_lora("style", inventory) == "style_v2"
    for name, said in {
        "cut": "cut.safetensors is cut off",
        "lost": "lost.ckpt is a pickle",
    }.items():
        with pytest.raises(NotInstalled, match=f"the LoRA '{name}' cannot be used: {said}"):
            find_lora(name, inventory)


def test_neither_a_refused_demo_nor_a_refused_embedding_takes_a_name_away(tmp_path: Path) -> None:
    """The embedded model stays; what is refused is of another kind."""
    house = House(tmp_path)
    write_model(house.models / "loras/style.safetensors", kohya_lora_shapes())
    for name in ("checkpoints/demo.ckpt", "embeddings/style.pt", "vae/style.safetensors.tmp"):
        (house.models / name).parent.mkdir(exist_ok=True)
        (house.models / name).write_bytes(b"x")
    house.save("a.yaml", "prompt: a\ncheckpoint: demo\nloras: style\n")
    assert house.once(), house.error("a.yaml")
    house.save("b.yaml", "prompt: a\ncheckpoint: demo.ckpt\n")
    assert not house.once()
    assert "is a pickle file" in (house.error("b.yaml") or "")
