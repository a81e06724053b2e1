"""Names, scans and folders of models, and the inventory for recipes."""

import shutil
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, FoundModels, catalog
from picowatch.catalog.gguf import read_any_header
from picowatch.catalog.headers import Header
from picowatch.errors import ModelRefused
from picowatch.files.retry import Ended
from picowatch.recipe.inventory import DEMO_RULES
from picowatch.recipe.resolve.installed import NotInstalled, find_checkpoint, find_lora
from tests.catalog.files import checkpoint_shapes, kohya_lora_shapes, vae_shapes, write_model
from tests.catalog.shapes import Z_IMAGE
from tests.catalog.upscalers import compact_shapes

DEMO = Catalog(Path("nowhere")).demo.path


def checkpoint(models: Path, name: str) -> Path:
    return write_model(models / f"checkpoints/{name}.safetensors", checkpoint_shapes())


def names(found: FoundModels) -> list[str]:
    return [model.name for model in found.models]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers were read."""
    paths: list[Path] = []

    def counted(path: Path) -> Header:
        paths.append(path)
        return read_any_header(path)

    monkeypatch.setattr(catalog, "read_any_header", counted)
    return paths


def test_models_are_named_by_their_path_below_their_folder(tmp_path: Path) -> None:
    """Dots in a name are no ending; files that model managers put beside models are none."""
    assert Catalog(tmp_path / "models").scan() == FoundModels(), "the demo model needs no models/"
    for name in ("b/dream", "realistic v5.1", "a", ".hidden"):
        checkpoint(tmp_path, name)
    for name in ("a.png", "a.civitai.info", "a.yaml", "a.json", "put models here.txt"):
        (tmp_path / "checkpoints" / name).write_text("x")
    found = Catalog(tmp_path).scan()
    assert (names(found), found.refused) == (["a", "b/dream", "realistic v5.1"], ())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("config", "prediction"),
    [
        (b'model:\n  params:\n    # parameterization: "v"\n    parameterization: eps\n', ""),
        (b'model:\n  params:\n    parameterization: "v"  # velocity\n', "v"),
        (b"model:\r\n  params:\r\n    parameterization: 'v'\r\n", "v"),
        *((character * 1_000_000, "") for character in (b"\n", b" ", b"\t")),
    ],
)
def test_a_config_beside_a_checkpoint_says_that_it_predicts_velocity(
    tmp_path: Path, config: bytes, prediction: str
) -> None:
    """As A1111 reads it, also when it comes later; a hostile one is read at once."""
    path = checkpoint(tmp_path, "a.b")
    catalog = Catalog(tmp_path)
    for said in ("", prediction, ""):
        assert [one.prediction for one in catalog.inventory().checkpoints] == [said]
        beside = path.with_name("a.b.yaml")
        beside.unlink() if beside.exists() else beside.write_bytes(config)


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    """Users link the model stores of other programs; a circle of links ends."""
    store = tmp_path / "store"
    write_model(store / "deep/one.safetensors", checkpoint_shapes())
    (store / "circle").symlink_to(store)
    models = tmp_path / "models"
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/linked").symlink_to(store)
    (models / "checkpoints/two.safetensors").symlink_to(store / "deep/one.safetensors")
    assert names(Catalog(models).scan()) == ["linked/deep/one", "two"]
    # A link to what lies there itself takes no name away.
    write_model(models / "loras/style/deep/one.safetensors", kohya_lora_shapes())
    (models / "loras/favourites").symlink_to("style/deep")
    assert [one.name for one in Catalog(models).scan().of_kind("lora")] == ["style/deep/one"]


def test_linked_notes_are_no_models(tmp_path: Path) -> None:
    """In huggingface_hub's cache every file is a link into `blobs`."""
    hub = tmp_path / "hub/models--runwayml--stable-diffusion-v1-5"
    write_model(hub / "blobs/aaaa", checkpoint_shapes())
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
    """Otherwise a recipe could mean either; the demo's name is taken, too."""
    checkpoint(tmp_path, "same")
    checkpoint(tmp_path, "demo")
    shutil.copytree(DEMO, tmp_path / "checkpoints/same")
    found = Catalog(tmp_path).scan()
    assert [(model.name, model.layout) for model in found.models] == [("same", "file")]
    assert [refused.reason for refused in found.refused] == [
        "demo.safetensors has the same name as the embedded demo model: rename it.",
        "same has the same name as same.safetensors: rename it.",
    ]


def test_a_restart_reads_only_headers_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[Path]
) -> None:
    """Thousands of LoRAs would take minutes. A new version of the code reads all again."""
    models, cache = tmp_path / "models", tmp_path / "hashes.sqlite"

    def scanned() -> set[str]:
        """Start a catalog, and return the headers that it reads."""
        read.clear()
        found = Catalog(models, cache).scan()
        headers = {path.stem for path in read}
        assert found == Catalog(models).scan()
        return headers

    checkpoint(models, "a")
    write_model(models / "checkpoints/flow.safetensors", Z_IMAGE)
    write_model(models / "upscalers/4x.safetensors", compact_shapes(4))
    write_model(models / "loras/half.safetensors", {"lora_unet_\ud800.lora_up.weight": (8, 8)})
    write_model(models / "loras/style.safetensors", kohya_lora_shapes())
    write_model(models / "loras/wrong.safetensors", vae_shapes())
    assert scanned() == {"4x", "a", "flow", "half", "style", "wrong"}
    catalog_of_one_process = Catalog(models)
    for expected in (6, 0):
        read.clear()
        catalog_of_one_process.scan()
        assert len(read) == expected, "each header once, of what is refused, too"
    assert scanned() <= {"half", "wrong"}
    write_model(models / "loras/style.safetensors", vae_shapes())
    assert scanned() <= {"half", "wrong", "style"}
    monkeypatch.setattr(catalog, "_code", lambda: "another version")
    assert {"4x", "a", "flow"} <= scanned()


def test_a_look_for_one_model_reads_no_header_of_another(tmp_path: Path, read: list[Path]) -> None:
    """The engine and the publisher look for a picture's LoRAs among thousands."""
    wanted = write_model(tmp_path / "Lora/style/a.safetensors", kohya_lora_shapes())
    for other in ("Lora/style/b", "Lora/style/a/a", "Lora/a", "loras/b"):
        write_model(tmp_path / f"{other}.safetensors", kohya_lora_shapes())
    assert Catalog(tmp_path).find("lora", "style/a").path == wanted
    assert read == [wanted]


@pytest.mark.parametrize("last", ["checkpoints", "text_encoders", "vae"])
def test_a_scan_of_any_kind_ends_with_picowatch(
    tmp_path: Path, read: list[Path], last: str
) -> None:
    """Stopping does not wait for the files of a slow share, nor for those that complete others."""
    write_model(tmp_path / "checkpoints/flow.safetensors", Z_IMAGE)
    for name in "ab":
        write_model(tmp_path / f"text_encoders/{name}.safetensors", vae_shapes())
        write_model(tmp_path / f"vae/{name}.safetensors", vae_shapes())

    def folders() -> list[str]:
        return [path.parent.name for path in read]

    with pytest.raises(Ended):
        Catalog(tmp_path, has_ended=lambda: last in folders()).find("checkpoint", "flow")
    assert folders().count(last) == 1


def test_recipes_know_the_installed_the_demo_and_the_refused(tmp_path: Path) -> None:
    """A refused file is found by its name and by its stem, unless a model has that."""
    checkpoint(tmp_path, "a")
    write_model(tmp_path / "vae/soft.safetensors", vae_shapes())
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
    """The error says why it cannot be used, or that nothing has this name."""
    path = checkpoint(tmp_path, "sub/a")
    (tmp_path / "checkpoints/old.ckpt").write_bytes(b"x")
    catalog = Catalog(tmp_path)
    assert catalog.find("checkpoint", "sub/a").path == path
    assert catalog.find("checkpoint", "sub/a.safetensors").path == path
    assert catalog.find("checkpoint", "demo") == catalog.demo
    with pytest.raises(ModelRefused, match=r"old\.ckpt is a pickle file"):
        catalog.find("checkpoint", "old")
    with pytest.raises(ModelRefused, match=r"There is no 'soft' in models/vae/\."):
        catalog.find("vae", "soft")


def test_a_refused_file_takes_no_name_away(tmp_path: Path) -> None:
    """Users keep a converted pickle for a while, or download a model again."""
    write_model(tmp_path / "loras/style.safetensors", kohya_lora_shapes())
    for beside in ("loras/style.pt", "loras/Style.ckpt", "checkpoints/style.ckpt"):
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_bytes(b"x")
    (tmp_path / "checkpoints/demo.ckpt").write_bytes(b"x")
    inventory = Catalog(tmp_path).inventory()
    for written in ("style.safetensors", "style", "STYLE", "sty"):
        assert find_lora(written, inventory) == "style"
    assert find_checkpoint("demo", inventory).name == "demo"


def test_a_refused_file_of_another_kind_says_why_a_name_is_not_found(tmp_path: Path) -> None:
    """A file may be in the wrong folder; a broken one in the right folder comes first."""
    write_model(tmp_path / "loras/cut.safetensors", kohya_lora_shapes(), missing_bytes=2)
    for name in ("upscalers/cut.ckpt", "checkpoints/lost.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x80\x02}q")
    inventory = Catalog(tmp_path).inventory()
    for name, said in {
        "cut": "cut.safetensors is cut off",
        "lost": "lost.ckpt is a pickle",
    }.items():
        with pytest.raises(NotInstalled, match=f"the LoRA '{name}' cannot be used: {said}"):
            find_lora(name, inventory)
