"""Names, scans and folders of models, the inventory for recipes, and wildcard files."""

import os
import shutil
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, FoundModels, Kind, catalog, embedded, wildcards
from picowatch.errors import ModelRefused
from picowatch.files.essential import Ended
from picowatch.recipe.installed import NotInstalled, find, find_checkpoint
from picowatch.recipe.inventory import DEMO_RULES
from tests.catalog.files import Shapes, checkpoint_shapes, kohya_lora_shapes, write_model
from tests.catalog.shapes import Z_IMAGE, compact_shapes, tiny_vae
from tests.fault_points import preceded_by, wrap
from tests.recipe.reading import messages

DEMO = embedded("checkpoint").path


def checkpoint(models: Path, name: str) -> Path:
    return write_model(models / f"checkpoints/{name}.safetensors", checkpoint_shapes())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths: list[Path] = []
    wrap("picowatch.catalog.catalog:read_header", preceded_by(paths.append), monkeypatch.setattr)
    return paths


def test_models_are_named_by_their_path_below_their_folder(tmp_path: Path) -> None:
    """Dots in a name are no ending; files that model managers put beside models are none."""
    assert Catalog(tmp_path / "models").scan() == FoundModels(), "the demo model needs no models/"
    for name in ("b/dream", "realistic v5.1", "a", ".hidden"):
        checkpoint(tmp_path, name)
    for name in ("a.png", "a.civitai.info", "a.yaml", "a.json", "put models here.txt"):
        (tmp_path / "checkpoints" / name).write_text("x")
    found = Catalog(tmp_path).scan()
    assert ([model.name for model in found.models], found.refused) == (
        ["a", "b/dream", "realistic v5.1"],
        (),
    )


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
        assert [model.prediction for model in catalog.inventory().checkpoints] == [said]
        beside = path.with_name("a.b.yaml")
        beside.unlink() if beside.exists() else beside.write_bytes(config)


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    """Other programs' stores; in huggingface_hub's cache every file is a link into `blobs`."""
    store = tmp_path / "store"
    write_model(store / "blobs/aaaa", checkpoint_shapes())
    (store / "blobs/bbbb").write_text("# Stable Diffusion")
    (store / "deep").mkdir()
    (store / "deep/one.safetensors").symlink_to("../blobs/aaaa")
    for note in ("README.md", "one.json", "preview.png"):
        (store / "deep" / note).symlink_to("../blobs/bbbb")
    (store / "circle").symlink_to(store)
    models = tmp_path / "models"
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/linked").symlink_to(store)
    (models / "checkpoints/two.safetensors").symlink_to(store / "deep/one.safetensors")
    found = Catalog(models).scan()
    assert ([file.name for file in found.models], found.refused) == (["linked/deep/one", "two"], ())
    # A link to what lies there itself takes no name away.
    write_model(models / "loras/style/deep/one.safetensors", kohya_lora_shapes())
    (models / "loras/favourites").symlink_to("style/deep")
    assert [file.name for file in Catalog(models).scan().of_kind("lora")] == ["style/deep/one"]


def test_the_second_model_of_one_name_is_refused(tmp_path: Path) -> None:
    """Otherwise a recipe could mean either. The file in picowatch's own folder counts."""
    checkpoint(tmp_path, "same")
    checkpoint(tmp_path, "demo")
    shutil.copytree(DEMO, tmp_path / "checkpoints/same")
    write_model(tmp_path / "upscalers/demo-compact.safetensors", compact_shapes(4))
    ours = write_model(tmp_path / "loras/pixel.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "Lora/pixel.safetensors", kohya_lora_shapes())
    found = Catalog(tmp_path).scan()
    assert [(model.name, model.layout) for model in found.models] == [
        ("same", "file"),
        ("pixel", "file"),
    ]
    assert found.models[1].path == ours
    end = "has the same name as"
    assert sorted(refused.reason for refused in found.refused) == [
        f"Lora/pixel.safetensors {end} pixel.safetensors: rename it.",
        f"demo-compact.safetensors {end} the embedded upscaler: rename it.",
        f"demo.safetensors {end} the embedded demo model: rename it.",
        f"same {end} same.safetensors: rename it.",
    ]
    inventory = Catalog(tmp_path).inventory()
    for written in ("pixel.safetensors", "Pixel"):
        assert find("lora", written, inventory) == "pixel"


def test_a_name_that_recipes_read_otherwise_is_refused(tmp_path: Path) -> None:
    """Otherwise it would be listed, and never used."""
    for name in ("None", "baked", "other"):
        write_model(tmp_path / f"vae/{name}.safetensors", tiny_vae(4))
    for name in ("style", "style: oil"):  # <lora:style: oil:0.7>
        write_model(tmp_path / f"loras/{name}.safetensors", kohya_lora_shapes())
    found = Catalog(tmp_path).scan()
    assert [model.name for model in found.models] == ["other", "style"]
    assert [refused.reason for refused in found.refused] == [
        "None.safetensors has a name that means the checkpoint's own VAE: rename it.",
        "baked.safetensors has a name that means the checkpoint's own VAE: rename it.",
        "style: oil.safetensors has a name with <, : or >, so no prompt can name it: rename it.",
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
    write_model(models / "loras/wrong.safetensors", tiny_vae(4))
    assert scanned() == {"4x", "a", "flow", "half", "style", "wrong"}
    catalog_of_one_process = Catalog(models)
    for expected in (6, 0):
        read.clear()
        catalog_of_one_process.scan()
        assert len(read) == expected, "each header once, of what is refused, too"
    assert scanned() <= {"half", "wrong"}
    write_model(models / "loras/style.safetensors", tiny_vae(4))
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


def test_a_look_at_the_models_asks_for_hashes_of_the_installed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded ones are found without; each look would examine their dozen files."""
    asked: list[Path] = []
    wrap(
        "picowatch.catalog.hashes:HashCache.known",
        preceded_by(lambda _, path: asked.append(path)),
        monkeypatch.setattr,
    )
    path = checkpoint(tmp_path, "a")
    Catalog(tmp_path).inventory()
    assert asked == [path]


@pytest.mark.parametrize("last", ["checkpoints", "vae"])
def test_scans_of_any_kind_end_with_picowatch(tmp_path: Path, read: list[Path], last: str) -> None:
    """Stopping does not wait for the files of a slow share, nor for those that complete others."""
    write_model(tmp_path / "checkpoints/flow.safetensors", Z_IMAGE)
    for name in ("text_encoders/a", "text_encoders/b", "vae/a", "vae/b"):
        write_model(tmp_path / f"{name}.safetensors", tiny_vae(4))
    catalog = Catalog(tmp_path, has_ended=lambda: last in [path.parent.name for path in read])
    with pytest.raises(Ended):
        catalog.find("checkpoint", "flow")
    assert [path.parent.name for path in read].count(last) == 1


def test_recipes_know_the_installed_the_demo_and_the_refused(tmp_path: Path) -> None:
    """A refused file is found by its name and by its stem, unless a model has that."""
    path, catalog = checkpoint(tmp_path, "a"), Catalog(tmp_path)
    write_model(tmp_path / "vae/soft.safetensors", tiny_vae(4))
    write_model(tmp_path / "loras/styles/pixel.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "embeddings/bad-hands.safetensors", {"emb_params": (4, 768)})
    for name in ("a.ckpt", "old.ckpt", "new.safetensors.part"):
        (tmp_path / "checkpoints" / name).write_bytes(b"x")
    for name in ("a", "a.safetensors"):
        assert catalog.find("checkpoint", name).path == path
    assert catalog.find("checkpoint", "demo") == embedded("checkpoint")
    with pytest.raises(ModelRefused, match=r"old\.ckpt is a pickle file"):
        catalog.find("checkpoint", "old")
    with pytest.raises(ModelRefused, match=r"There is no 'hard' in models/vae/\."):
        catalog.find("vae", "hard")
    inventory = catalog.inventory("a")
    assert (inventory.demo.name, inventory.demo.native_size) == ("demo", 128)
    assert inventory.demo.rules == DEMO_RULES
    assert [(model.name, model.native_size) for model in inventory.checkpoints] == [("a", 512)]
    assert inventory.vaes == ("soft",)
    assert inventory.loras == ("styles/pixel",)
    assert inventory.embeddings == ("bad-hands",)
    assert inventory.checkpoints[0].family == "Stable Diffusion 1.x"
    assert not inventory.checkpoints[0].says_prediction and inventory.demo.says_prediction
    assert inventory.lora_families == {"styles/pixel": ("Stable Diffusion 1.x",)}
    assert inventory.embedding_families == {"bad-hands": ("Stable Diffusion 1.x",)}
    assert inventory.default_checkpoint == "a"
    assert {"old", "old.ckpt", "a.ckpt", "new", "new.safetensors.part"} <= set(
        inventory.refused_as("checkpoint")
    )
    assert inventory.refused_as("checkpoint")["old"].startswith("old.ckpt is a pickle file")


def test_a_refused_file_takes_no_name_away(tmp_path: Path) -> None:
    """Users keep a converted pickle for a while. It only says why a name is not found."""
    write_model(tmp_path / "loras/style.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "loras/cut.safetensors", kohya_lora_shapes(), missing_bytes=2)
    for beside in (
        *("loras/style.pt", "loras/Style.ckpt", "checkpoints/style.ckpt", "checkpoints/demo.ckpt"),
        *("upscalers/cut.ckpt", "checkpoints/lost.ckpt"),
    ):
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_bytes(b"\x80\x02}q")
    inventory = Catalog(tmp_path).inventory()
    for written in ("style.safetensors", "style", "STYLE", "sty"):
        assert find("lora", written, inventory) == "style"
    assert find_checkpoint("demo", inventory).name == "demo"
    for name, said in (("cut", "cut.safetensors is cut off"), ("lost", "lost.ckpt is a pickle")):
        with pytest.raises(NotInstalled, match=f"the LoRA '{name}' cannot be used: {said}"):
            find("lora", name, inventory)


# -- other programs' folders, and wrong places

CHECKPOINTS = (
    *("Stable-diffusion", "Stable-Diffusion", "StableDiffusion", "checkpoints"),
    *("diffusion_models", "DiffusionModels", "unet"),
)
TOKENS: Shapes = {"text_model.embeddings.token_embedding.weight": (49408, 768)}
# The folders of A1111, ComfyUI, SwarmUI and Stability Matrix by kind, with a file.
THEIRS: list[tuple[Kind, str, Shapes, tuple[str, ...]]] = [
    ("checkpoint", "photo/v1-5.safetensors", checkpoint_shapes(), CHECKPOINTS),
    ("checkpoint", "z_image.sft", Z_IMAGE, CHECKPOINTS),
    ("vae", "mse.SFT", tiny_vae(4), ("VAE", "vae")),
    ("text_encoder", "clip_l.safetensors", TOKENS, ("clip", "text_encoder", "TextEncoders")),
    ("lora", "pixel.safetensors", kohya_lora_shapes(), ("Lora", "LyCORIS", "loras")),
    ("embedding", "bad.safetensors", {"emb_params": (2, 768)}, ("Embeddings", "embeddings")),
    ("upscaler", "4x.safetensors", compact_shapes(4), ("ESRGAN", "RealESRGAN", "upscale_models")),
]


@pytest.mark.parametrize(("kind", "file", "shapes", "folders"), THEIRS)
def test_a_models_folder_of_another_program_works_as_it_is(
    tmp_path: Path, kind: Kind, file: str, shapes: Shapes, folders: tuple[str, ...]
) -> None:
    """Linked as `models`; whatever else is in there, deleted files too."""
    for folder in folders:
        theirs, models = tmp_path / folder / "theirs", tmp_path / folder / "models"
        write_model(theirs / folder / file, shapes)
        for other in ("BLIP", "clip_vision", f"{folder}/#recycle", f"{folder}/sub/@eaDir"):
            write_model(theirs / other / "x.safetensors", kohya_lora_shapes())
        models.symlink_to(theirs)
        found = Catalog(models).scan()
        assert not found.refused
        (model,) = found.models
        assert (model.kind, model.name) == (kind, file.rpartition(".")[0])


def test_messages_name_the_folders_that_are_there(tmp_path: Path) -> None:
    write_model(tmp_path / "VAE/mse.safetensors", tiny_vae(4))
    (tmp_path / "vae").symlink_to("VAE")  # or on a Mac, its name in another case: it counts once
    write_model(tmp_path / "Stable-diffusion/sub/wrong.safetensors", tiny_vae(4))
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
    assert [entry.reason for entry in catalog.scan().refused] == [
        f"{name} {end}" for name in ("pixel.safetensors", "turbo", "v1-5.safetensors")
    ]
    inventory, words = catalog.inventory(), r"in models/ itself: move it to models/"
    for name in (None, "v1-5"):
        with pytest.raises(NotInstalled, match=words):
            find_checkpoint(name, inventory)
    with pytest.raises(NotInstalled, match=words):
        find("lora", "pixel", inventory)


# -- wildcard files: names, lines, limits


def write(models: Path, name: str, content: bytes) -> None:
    path = models / "wildcards" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_recipes_know_each_file_by_its_path_without_ending(tmp_path: Path) -> None:
    """Only a changed file is read again; comments, empty lines and BOMs do not count."""
    catalog = Catalog(tmp_path)
    write(tmp_path, "animal.txt", b"\xef\xbb\xbfcorgi\n\n  cat  \r\n# a comment\nshiba inu")
    write(tmp_path, "places/v1.5 e\u0301.TXT", "Zürich\n".encode())  # as macOS names it
    write(tmp_path, "places/notes.md", b"no")
    write(tmp_path, ".hidden.txt", b"no")
    first = catalog.inventory().wildcards
    assert first == {"animal": ("corgi", "cat", "shiba inu"), "places/v1.5 \u00e9": ("Zürich",)}
    write(tmp_path, "animal.txt", b"dog")
    second = catalog.inventory().wildcards
    assert second["animal"] == ("dog",)
    assert second["places/v1.5 \u00e9"] is first["places/v1.5 \u00e9"]


def test_a_large_pack_refuses_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its own files that are too large or unread are refused, and read once there is room."""
    for limit, most in (("MAX_FILE_BYTES", 1000), ("MAX_BYTES", 1020), ("MAX_LINES", 6)):
        monkeypatch.setattr(wildcards, limit, most)
    for name in ("all.txt", "all.yaml"):
        write(tmp_path, name, b"x" * 2000)
    for number in range(4):
        write(tmp_path, f"animals/deep/{number}.txt", b"cat\ndog")
    write(tmp_path, "hats.txt", b"bowler")
    write(tmp_path, "own/shoes.txt", b"boots")
    write(tmp_path, "latin.txt", "Zürich".encode("latin-1"))
    (tmp_path / "wildcards/long.txt").symlink_to("x" * 300)
    os.mkfifo(tmp_path / "wildcards/pipe.txt")
    catalog = Catalog(tmp_path)
    found = catalog.inventory()
    assert {"hats", "own/shoes", "animals/deep/0"} <= found.wildcards.keys()
    said = found.refused_as("wildcard")
    there = {"all", "all.yaml", "latin", "long", "pipe", "animals/deep/2", "animals/deep/3"}
    assert said.keys() == there
    assert said["long"] == "long.txt cannot be read: File name too long."
    assert said["pipe"] == "pipe.txt is not a regular file."
    assert said["animals/deep/3"] == "3.txt exceeds the limit of 6 lines of wildcards."
    assert said["all"] == "all.txt has 2,000 bytes; the limit is 1,000."
    assert said["latin"] == "latin.txt is not UTF-8: save it as UTF-8."
    (tmp_path / "wildcards/animals/deep/0.txt").unlink()
    found = catalog.inventory()
    assert found.wildcards["animals/deep/2"] == ("cat", "dog")
    assert found.refused_as("wildcard").keys() == there - {"animals/deep/2"}


def test_a_pack_or_a_weight_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    """Nothing of dynamicprompts' further grammar is drawn as words."""
    write(tmp_path, "all.yaml", b"hats: [a, b]")
    write(tmp_path, "shoes.txt", b"boots\n  2::sandals\n")
    write(tmp_path, "socks.txt", b"# 1::a\nred {long|0.5::short} socks\n")
    write(tmp_path, "times.txt", b"std::vector\n12:30 [a|2::b]\n")
    found = Catalog(tmp_path).inventory()
    assert found.wildcards == {"times": ("std::vector", "12:30 [a|2::b]")}
    for name, message in {
        "hats": "all.yaml is not read: write each of its lists into a .txt file, with a choice",
        "shoes": "shoes.txt has a weight in line 2, '2::'. To have a choice drawn more often",
        "socks": "socks.txt has a weight in line 2, '0.5::'. To have a choice drawn more often",
    }.items():
        (said,) = messages(f"prompt: __{name}__", inventory=found)
        assert message in said
