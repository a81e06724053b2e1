"""Commands that answer at once, on a machine without torch."""

import errno
import json
import os
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from picowatch.catalog import Catalog, hashes
from picowatch.commands.init import init
from picowatch.commands.models import models
from picowatch.errors import CommandFailed
from picowatch.files.inside import open_regular
from picowatch.recipe.fields import ROWS, ImageFields
from picowatch.settings import Settings
from tests.catalog.files import Shapes, kohya_lora_shapes, write_model
from tests.commands.picowatch import PROJECT, picowatch
from tests.house import within

SECONDS = 10.0  # a generous bound for a busy machine; benchmarks/ hold the real figure


@pytest.fixture
def without_torch(tmp_path: Path) -> str:
    """A PYTHONPATH on which torch, diffusers and transformers cannot be imported."""
    folder = tmp_path / "without_torch"
    folder.mkdir()
    for name in ("torch", "diffusers", "transformers"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is absent here')\n")
    return f"{folder}:{PROJECT}"


def test_every_light_command_answers_without_torch(tmp_path: Path, without_torch: str) -> None:
    """init, check, models, status, --help, and what show refuses."""
    calls = (
        (("--help",), 0),
        (("--version",), 0),
        (("init",), 0),
        (("check", "inbox/corgi.yaml"), 0),
        (("models",), 0),
        (("status",), 1),
        (("show", "inbox/corgi.yaml"), 1),
    )
    for arguments, code in calls:
        started = time.monotonic()
        result = picowatch(tmp_path, *arguments, PYTHONPATH=without_torch)
        assert result.returncode == code, (arguments, result.stderr)
        assert "Traceback" not in result.stderr
        assert time.monotonic() - started < within(SECONDS), arguments


def test_check_lists_the_images_a_recipe_would_render(tmp_path: Path) -> None:
    """As lines for people, and as JSON with every resolved field."""
    recipe = tmp_path / "a.yaml"
    recipe.write_text("prompt: a corgi\nsampler: euler_a\ncount: 2\nseed: 4294967295\n")
    result = picowatch(tmp_path, "check", recipe)
    assert result.returncode == 0
    assert "2 images" in result.stdout
    images = json.loads(picowatch(tmp_path, "check", "--json", recipe).stdout)
    assert [image["seed"] for image in images] == [4294967295, 0]
    expected = {
        "recipe": str(recipe),
        "entry_index": 0,
        "prompt": "a corgi",
        "negative_prompt": "",
        "checkpoint": "demo",
        "vae": "baked",
        "prediction": "",
        "sampler": "Euler a",
        "schedule_type": "uniform",
        "steps": 24,
        "cfg_scale": 4.0,
        "cfg_rescale": 0.0,
        "cfg_start": 0.0,
        "cfg_end": 1.0,
        "guidance": 0.0,
        "width": 128,
        "height": 128,
        "clip_skip": 1,
        "image": "",
        "hires": None,
        "shrink_to_fit": False,
        "exact": False,
        "loras": [],
        "embeddings": [],
        "unexpanded_prompt": "",
        "unexpanded_negative_prompt": "",
        "priority": 0,
        "seed": 4294967295,
    }
    assert images[0] | expected == images[0]
    shown = {field.name for field in fields(ImageFields) if not ROWS[field.name].needs}
    assert shown <= set(images[0])


def test_check_draws_no_wildcard_without_its_seed(tmp_path: Path) -> None:
    """Another word would be drawn than the one that was shown."""
    (tmp_path / "a.txt").write_text("a {cat|dog}\na {cat|dog} --seed 3\na {cat} --negative {x|y}\n")
    found = json.loads(picowatch(tmp_path, "check", "--json", "a.txt").stdout)
    first, second, third = [(image["prompt"], image["negative_prompt"]) for image in found]
    assert (first, third) == (("a {cat|dog}", ""), ("a {cat}", "{x|y}"))
    assert second in [("a cat", ""), ("a dog", "")]
    shown = picowatch(tmp_path, "check", "a.txt").stdout.splitlines()
    assert shown[1].endswith("seed random  negative_prompt none  a {cat|dog}")


def test_check_tells_images_apart(tmp_path: Path) -> None:
    """Each line has what is not the same in all: of a sweep, or several recipes."""
    (tmp_path / "fr").mkdir()
    for name in ("f1", "f2"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"fr/{name}.png")
    (tmp_path / "a.yaml").write_text(
        "prompt: a corgi\nsweep: {image: [fr/f1.png, fr/f2.png], denoising_strength: [0.25, 1]}\n"
    )
    (tmp_path / "b.yaml").write_text("- prompt: a\n- prompt: a\n  hires: true\n- prompt: b\n")
    shown = picowatch(tmp_path, "check", "a.yaml", "b.yaml").stdout.splitlines()
    assert [line.partition("seed random  ")[2] for line in shown if " seed " in line] == [
        "image fr/f1.png  denoising_strength 0.25  a corgi",
        "image fr/f1.png  denoising_strength 1  a corgi",
        "image fr/f2.png  denoising_strength 0.25  a corgi",
        "image fr/f2.png  denoising_strength 1  a corgi",
        "hires none  a",
        "hires scale 2, steps 0, denoising_strength 0.7, upscaler Latent  a",
        "hires none  b",
    ]


def test_check_says_what_is_wrong_with_every_file(tmp_path: Path) -> None:
    """Exit code 1 if any file has a problem; the good ones are listed all the same."""
    (tmp_path / "good.txt").write_text("a corgi\n")
    (tmp_path / "bad.yaml").write_text("prompt: a corgi\nwidth: 500\nheigth: 512\n")
    result = picowatch(tmp_path, "check", "good.txt", "bad.yaml", "missing.txt")
    assert result.returncode == 1
    assert "good.txt: 1 image" in result.stdout
    assert "496 or 504 would do" in result.stderr
    assert "Did you mean 'height'" in result.stderr
    assert "missing.txt" in result.stderr


def test_check_of_defaults_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    """They are no recipe: no prompt is missing in those that `init` writes."""
    picowatch(tmp_path, "init")
    defaults = tmp_path / "inbox/live/_defaults.yaml"
    good = picowatch(tmp_path, "check", "inbox/live/_defaults.yaml")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout == (
        "inbox/live/_defaults.yaml: defaults of the recipes in this folder and below\n"
    )
    for file in (defaults, tmp_path / "_defaults.yaml"):
        file.write_text("stesp: 3\ncfg_scale: 100\n")
        bad = picowatch(tmp_path, "check", file)
        assert bad.returncode == 1
        assert "_defaults.yaml, line 1, column 1\n" in bad.stderr
        assert "unknown field 'stesp'. Did you mean 'steps'?" in bad.stderr
        assert "prompt" not in bad.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuch.yaml", "cannot read nosuch.yaml: No such file or directory."),
        ("folder", "folder is a folder. Name the recipes in it instead."),
        (
            "a.png",
            "a.png is not a recipe file name. Recipe names end in .yaml, .yml, .json, .csv, .txt.",
        ),
    ],
)
def test_check_says_what_is_no_recipe(tmp_path: Path, name: str, said: str) -> None:
    """Without the words of the system, or of another file's kind; the others are checked."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "b.txt").write_text("a corgi\n")
    result = picowatch(tmp_path, "check", name, "b.txt")
    assert (result.returncode, result.stderr) == (1, f"picowatch: {said}\n")
    assert "b.txt: 1 image" in result.stdout


def test_check_applies_the_inbox_s_defaults(tmp_path: Path) -> None:
    """A recipe in the inbox is checked as the daemon would read it."""
    (tmp_path / "inbox/pets").mkdir(parents=True)
    (tmp_path / "inbox/_defaults.yaml").write_text("steps: 9\n")
    (tmp_path / "inbox/pets/a.txt").write_text("a corgi\n")
    result = picowatch(tmp_path, "check", "--json", "inbox/pets/a.txt")
    assert json.loads(result.stdout)[0]["steps"] == 9


def test_check_refuses_what_a_run_would_refuse(tmp_path: Path) -> None:
    """Pictures that are not there or none, and a clip_skip that the checkpoint does not have."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "text.png").write_text("no picture")
    text = "- {prompt: a, image: no.png, mask: text.png}\n- {prompt: b, clip_skip: 3}\n"
    (inbox / "a.yaml").write_text(text)
    checked = picowatch(tmp_path, "check", "inbox/a.yaml")
    assert checked.returncode == 1
    assert "inbox/a.yaml, line 2, column 26\n" in checked.stderr
    assert "clip_skip 3 is too much for the checkpoint 'demo': its text encoder has 2 layers" in (
        checked.stderr
    )
    (inbox / "a.yaml").write_text(text.splitlines()[0])
    checked = picowatch(tmp_path, "check", "inbox/a.yaml")
    assert checked.returncode == 1
    assert "line 1, column 22\n" in checked.stderr
    assert "There is no picture 'no.png'." in checked.stderr
    assert "line 1, column 36\n" in checked.stderr
    assert "not a picture that can be read" in checked.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("_defaults.yml", "it must be called _defaults.yaml, which may contain JSON, too"),
        ("_default.yaml", "if it is meant to be _defaults.yaml, rename it"),
        ("a (conflicted copy).yaml", "it is a conflict copy of a sync tool"),
        ("_draft.yaml", "recipes and their folders have other names"),
        (".old/a.yaml", "recipes and their folders have other names"),
    ],
)
def test_check_names_files_in_the_inbox_that_are_never_run(
    tmp_path: Path, name: str, why: str
) -> None:
    """Elsewhere the same names are only drafts."""
    for folder in ("inbox", "drafts"):
        file = tmp_path / folder / name
        file.parent.mkdir(parents=True)
        file.write_text("prompt: a corgi\n")
    drafted = picowatch(tmp_path, "check", f"drafts/{name}")
    assert (drafted.returncode, drafted.stderr) == (0, "")
    checked = picowatch(tmp_path, "check", f"inbox/{name}")
    assert checked.returncode == 0
    assert checked.stderr == (
        f"inbox/{name}: warning: this file in the inbox is never run: {why}.\n"
    )


def test_check_goes_on_after_wildcards_that_make_no_prompt(tmp_path: Path) -> None:
    """Told with its place, as in the error file; the other files are checked and listed."""
    (tmp_path / "a.yaml").write_text("prompt: a star A{ND|ND} a cat\nseed: 1\n")
    (tmp_path / "b.txt").write_text("a corgi\n")
    result = picowatch(tmp_path, "check", "a.yaml", "b.txt")
    assert result.returncode == 1
    assert "a.yaml, line 1, column 9\n" in result.stderr
    assert "with seed 1 this becomes: a star AND a cat\nAND " in result.stderr
    assert result.stdout.startswith("b.txt: 1 image\n")
    listed = picowatch(tmp_path, "check", "--json", "a.yaml", "b.txt")
    assert (listed.returncode, len(json.loads(listed.stdout))) == (1, 1)


@pytest.mark.parametrize(
    ("template", "beside", "said"),
    [
        ("prompt: a\n", "prompt: b\nmask: no.png\n", "There is no picture 'no.png'."),
        ("prompt: a AND b\n", "prompt: c\n", "AND (composing prompts) is not supported"),
    ],
)
def test_check_refuses_a_dropped_picture_as_a_run_would(
    tmp_path: Path, template: str, beside: str, said: str
) -> None:
    """With what is beside it alone, it could be rendered, or read."""
    folder = tmp_path / "inbox/d"
    folder.mkdir(parents=True)
    (folder / "_pictures.yaml").write_text(template)
    (folder / "a.yaml").write_text(beside)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    checked = picowatch(tmp_path, "check", "inbox/d/a.png")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert said in checked.stderr


def test_check_takes_pictures_beside_a_file_outside_of_the_inbox(tmp_path: Path) -> None:
    """Both are to be copied into the inbox together."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "new").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "new/start.png")
    (tmp_path / "new/a.yaml").write_text("prompt: a\nimage: start.png\n")
    assert picowatch(tmp_path, "check", "new/a.yaml").returncode == 0


def test_check_says_what_is_wrong_with_a_picture_beside_such_a_file(tmp_path: Path) -> None:
    """It is there: that the inbox has none of its name would be no help."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/start.png").write_bytes(b"no picture")
    (tmp_path / "new/a.yaml").write_text("prompt: a\nimage: start.png\n")
    result = picowatch(tmp_path, "check", "new/a.yaml")
    assert result.returncode == 1
    assert "There is no picture" not in result.stderr
    assert "not a picture" in result.stderr


def test_check_names_a_file_as_it_was_named(tmp_path: Path) -> None:
    """Only what lies in the inbox is told as in its error file."""
    for folder in ("inbox", "drafts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("a corgi --stesp 3\n")
        result = picowatch(tmp_path, "check", f"{folder}/a.txt")
        assert result.returncode == 1
        assert result.stderr.startswith(f"{folder}/a.txt, line 1, column 9\n")


def test_models_lists_what_is_installed_and_what_was_refused(tmp_path: Path) -> None:
    """The embedded models are always there."""
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    (folder / "old.ckpt").write_bytes(b"\x80\x02}q")
    result = picowatch(tmp_path, "models")
    assert result.returncode == 0
    assert "demo" in result.stdout
    assert "old.ckpt  refused: " in result.stdout
    rows = json.loads(picowatch(tmp_path, "models", "--json").stdout)
    demo, *others, old = rows
    assert [one["name"] for one in others] == ["demo-compact", "demo-sketch"]
    assert {"name", "kind", "path", "bytes", "hash", "native_size", "refused"} <= set(demo)
    assert (demo["name"], demo["native_size"], demo["refused"]) == ("demo", 128, None)
    assert len(demo["hash"]) == 64
    assert old["refused"]


def test_models_lists_the_others_beside_one_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some programs give a file its whole size before they copy what is in it."""
    for name in ("copied", "other"):
        write_model(tmp_path / f"loras/{name}.safetensors", kohya_lora_shapes())
    real = os.fdopen

    def written(handle: int, *more: Any) -> Any:
        path = tmp_path / "loras/copied.safetensors"
        if os.path.samestat(os.fstat(handle), path.stat()):
            os.utime(path)
        return real(handle, *more)

    monkeypatch.setattr(os, "fdopen", written)
    settings = Settings(models=tmp_path, outbox=tmp_path / "outbox")
    assert models(settings, as_json=True) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["copied"]["refused"] == "copied.safetensors changed while it was read."
    assert rows["other"]["hash"]


def test_models_reads_a_model_once_for_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collection has hundreds of gigabytes; but nothing is created where no outbox is."""
    path = write_model(tmp_path / "models/loras/a.safetensors", kohya_lora_shapes())
    read: list[Path] = []

    def opened(path: Path) -> int:
        read.append(path)
        return open_regular(path)

    monkeypatch.setattr(hashes, "open_regular", opened)
    settings = Settings(models=tmp_path / "models", outbox=tmp_path / "outbox")
    models(settings, as_json=True)
    assert not settings.outbox.exists()
    settings.state_folder.mkdir(parents=True)
    shown = []
    for _ in range(2):
        read.clear()
        capsys.readouterr()
        models(settings, as_json=True)
        shown.append(capsys.readouterr().out)
        assert (path in read) is (len(shown) == 1)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("is_there", [True, False])
def test_models_says_that_its_folder_is_not_there(tmp_path: Path, is_there: bool) -> None:
    """As in another folder than the user's, or with a misspelt setting."""
    if is_there:
        (tmp_path / "models").mkdir()
    listed = picowatch(tmp_path, "models")
    assert (listed.returncode, "demo" in listed.stdout) == (0, True)
    said = f"picowatch: There is no models folder {tmp_path}/models.\n"
    assert listed.stderr == ("" if is_there else said)


def test_commands_in_the_wrong_folder_name_it(tmp_path: Path) -> None:
    """Where they looked: "inbox" alone says nothing."""
    for command in ("run", "make"):
        refused = picowatch(tmp_path, command, *(["a.txt"] if command == "make" else []))
        assert f"There is no inbox folder {tmp_path}/inbox." in refused.stderr
    assert f"the outbox {tmp_path}/outbox." in picowatch(tmp_path, "pause").stderr


def test_models_lists_links_that_lead_nowhere(tmp_path: Path) -> None:
    """To a disk that is away, or further than a path may be."""
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    (folder / "disk").symlink_to(tmp_path / "away")
    (folder / "long").symlink_to("x" * 300)
    result = picowatch(tmp_path, "models")
    assert result.returncode == 0, result.stderr
    for name in ("disk", "long"):
        assert f"{name}  refused: {name} cannot be read: its link leads nowhere" in result.stdout


def test_models_lists_text_encoders_and_vaes(tmp_path: Path) -> None:
    """With what they are and how they are stored, or whom for; columns stay columns."""
    models = tmp_path / "models"
    write_model(models / "text_encoders/t5xxl_fp16.safetensors", {"shared.weight": (32128, 4096)})
    layer: Shapes = {"encoder.conv1.weight": (96, 3, 3, 3, 3)}
    write_model(models / "vae/qwen_image_vae.safetensors", layer)
    demo, *_, vae, encoder = picowatch(tmp_path, "models").stdout.splitlines()
    assert demo.index("demo") == vae.index("qwen_i") == encoder.index("t5xxl_fp16") == 14
    assert encoder.endswith("  T5 XXL, float16")
    assert vae.endswith("  for Qwen-Image and Krea 2")


def test_models_says_what_a_transformers_file_is_and_what_it_lacks(tmp_path: Path) -> None:
    """Its variant, how its weights are stored, and where to put what is missing."""
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    shapes: Shapes = {"layers.0.adaLN_modulation.0.weight": (8, 8), "cap_pad_token": (1, 8)}
    write_model(folder / "z_image_turbo.safetensors", shapes)
    shown = " ".join(picowatch(tmp_path, "models").stdout.split())
    assert "z_image_turbo 0.0 MB 1024x1024 Z-Image (Turbo, by its name), float16 missing:" in shown
    assert "missing: z_image_turbo.safetensors has only the transformer of Z-Image (Turbo)" in shown
    *_, row = json.loads(picowatch(tmp_path, "models", "--json").stdout)
    assert (row["variant"], row["by_name"], row["stored"]) == ("Turbo", True, "float16")
    assert (row["hash"], row["refused"]) == (None, None)
    assert "models/checkpoints/" in row["missing"]


def test_models_says_what_is_inside_a_checkpoint_and_what_completes_it(tmp_path: Path) -> None:
    """Where several would do, it shows which one is used."""
    models = tmp_path / "models"
    token = "text_model.embeddings.token_embedding.weight"
    shapes: Shapes = {
        "joint_blocks.0.x_block.mlp.fc1.weight": (8, 8),
        "pos_embed": (1, 147456, 8),
        f"text_encoders.clip_l.transformer.{token}": (49408, 768),
        "first_stage_model.decoder.conv_in.weight": (8, 16, 3, 3),
    }
    write_model(models / "checkpoints/sd3.5_medium.safetensors", shapes)
    for name in ("clip_g", "clip_g_of_another"):
        write_model(models / f"text_encoders/{name}.safetensors", {token: (49408, 1280)})
    shown = picowatch(tmp_path, "models").stdout
    assert "Stable Diffusion 3.x (3.5 Medium), float16\n" in shown
    assert f"{'':14}inside: CLIP L, VAE\n{'':14}completed by: text_encoders/clip_g" in shown


def test_models_says_what_a_lora_is_for(tmp_path: Path) -> None:
    """Its family, base model and trigger words, from its header."""
    folder = tmp_path / "models/loras"
    folder.mkdir(parents=True)
    good = {name: np.zeros(shape, np.float16) for name, shape in kohya_lora_shapes().items()}
    notes = {"ss_sd_model_name": "v1-5.safetensors", "modelspec.trigger_phrase": "pxl style"}
    save_file(good, folder / "good.safetensors", notes)
    wide = np.zeros((8, 3072), np.float16)
    flux = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"
    save_file({flux: wide}, folder / "flux.safetensors")
    wan = "lora_unet_blocks_0_self_attn_q.lora_down.weight"
    save_file({wan: np.zeros((8, 1536), np.float16)}, folder / "wan.safetensors")
    sgm = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight"
    save_file({sgm: np.zeros((8, 2048), np.float16)}, folder / "xl.safetensors")
    shown = picowatch(tmp_path, "models").stdout
    assert "  for Stable Diffusion XL\n" in shown
    assert "  for Stable Diffusion 1.x\n              trained on: v1-5.safetensors\n" in shown
    assert "              trigger words: pxl style\n" in shown
    assert "  for FLUX.1\n" in shown
    assert "wan.safetensors  refused: wan.safetensors is a LoRA for a transformer" in shown
    rows = {row["name"]: row for row in json.loads(picowatch(tmp_path, "models", "--json").stdout)}
    assert rows["good"]["family"] == "sd1"


def test_models_says_what_is_special_about_a_checkpoint(tmp_path: Path) -> None:
    """Its family, inpainting, and what it predicts, from the header or the scheduler's config."""
    folder = tmp_path / "models/checkpoints"
    shutil.copytree(Catalog(tmp_path).demo.path, folder / "mine")
    for name, values in (
        ("unet/config.json", {"in_channels": 9}),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        ),
    ):
        config = json.loads((folder / "mine" / name).read_text())
        (folder / "mine" / name).write_text(json.dumps(config | values))
    shown = picowatch(tmp_path, "models").stdout
    special = "Stable Diffusion 1.x, inpainting, v-prediction, zero terminal SNR"
    assert f"  128x128  {special}\n" in shown
    demo, *_, mine = json.loads(picowatch(tmp_path, "models", "--json").stdout)
    assert (demo["prediction"], demo["zero_snr"], demo["inpainting"]) == (
        "v_prediction",
        False,
        False,
    )
    assert (mine["prediction"], mine["zero_snr"], mine["inpainting"]) == (
        "v_prediction",
        True,
        True,
    )


def test_init_makes_the_folders_and_overwrites_nothing(tmp_path: Path) -> None:
    """A commented settings file with every setting, and recipes that are valid."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new/picowatch.yaml").write_text("settle_seconds: 1\n")
    result = picowatch(tmp_path, "init", "new")
    assert result.returncode == 0
    assert (tmp_path / "new/picowatch.yaml").read_text() == "settle_seconds: 1\n"
    assert (tmp_path / "new/inbox/live/_defaults.yaml").exists()
    assert (tmp_path / "new/models/checkpoints").is_dir()
    (tmp_path / "new/picowatch.yaml").unlink()
    picowatch(tmp_path, "init", "new")
    recipes = sorted(path for path in (tmp_path / "new/inbox").iterdir() if path.is_file())
    assert len(recipes) >= 3
    assert picowatch(tmp_path / "new", "check", *recipes).returncode == 0


def test_init_refuses_flags_that_it_cannot_honour(tmp_path: Path) -> None:
    """The folders would be elsewhere than the user said."""
    result = picowatch(tmp_path, "init", "new", "--outbox", "pictures")
    assert result.returncode == 2
    assert "`outbox: …` in DIR/picowatch.yaml" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is synced under a temporary name first, so a power cut leaves none empty."""

    def sync(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(CommandFailed, match="No space left on device"):
        init(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("folder", ["file", "file/below", "x" * 300, "a\udcff/\x1b[2J", "locked"])
def test_init_says_where_it_cannot_make_folders(tmp_path: Path, folder: str) -> None:
    """Below a file, in a place without permission, under a name that is too long."""
    (tmp_path / "file").touch()
    (tmp_path / "locked").symlink_to("/proc/nowhere")
    (tmp_path / "a\udcff").symlink_to("file")
    result = picowatch(tmp_path, "init", folder)
    assert result.returncode == 1
    assert result.stderr.startswith("picowatch: Cannot create picowatch's folders in ")
    assert "nexpected error" not in result.stderr
    assert "picowatch init DIR" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "settle_secnods: 1\n",
            "picowatch.yaml, line 1, column 1: unknown setting 'settle_secnods'. Did",
        ),
        ("device: gpu\n", "picowatch.yaml, line 1, column 9: device 'gpu'"),
        ("# x\nbatch_size: 0\n", "picowatch.yaml, line 2, column 13: batch_size 0"),
        ("hooks: {done: x}\n", "unknown hook 'done'; the hooks are picture, failed, idle"),
        ("hooks: {idle: []}\n", "idle must be a program, as text or as a list of arguments"),
        ('hooks: {idle: "\'"}\n', "No closing quotation"),
        ("metrics_address: 9464\n", "metrics_address 9464"),
        ("metrics_address: localhost\n", "it must be like 127.0.0.1:9464"),
        ("file_name: '{seed}'\n", "needs {number}"),
        ("file_name: '{nmber}'\n", "cannot be used"),
        ("file_name: '{seed}{number}'\n", "gives two pictures the same name"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: &a [1]\ndevice: [*a, *a]\n", "unknown setting 'a'"),
        ("<<: {stall_seconds: 0}\n", "line 1"),
        ("device: [" + "[1], " * 5000 + "]\n", "..."),
        ("file_name: '{number:04}{seed}'\n", "gives two pictures the same name"),
        ("- a\n", "must contain `name: value` lines"),
        ("a: [\n", "line 2, column 1: not valid YAML"),
    ],
)
def test_bad_settings_end_with_exit_code_2(tmp_path: Path, text: str, said: str) -> None:
    """And with the place and the remedy."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "picowatch.yaml").write_text(text)
    result = picowatch(tmp_path, "run", "--once")
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_flags_beat_environment_beats_file(tmp_path: Path) -> None:
    """Folders of the file are relative to the file's own folder."""
    for name in ("file", "env", "flag"):
        (tmp_path / "etc" / name).mkdir(parents=True)
        (tmp_path / "etc" / name / "a.txt").write_text(f"{name}\n")
    settings = tmp_path / "etc/my.yaml"
    settings.write_text("inbox: file\nmax_images_per_save: 1\n")
    recipe = tmp_path / "etc/file/a.txt"
    recipe.write_text("one\ntwo\n")
    result = picowatch(tmp_path, "check", recipe, "--settings", settings)
    assert result.returncode == 1
    result = picowatch(
        tmp_path, "check", recipe, "--settings", settings, PICOWATCH_MAX_IMAGES_PER_SAVE="2"
    )
    assert result.returncode == 0


def test_the_home_folder_is_known_in_flags_and_the_environment(tmp_path: Path) -> None:
    """Shells leave `--inbox=~/in` as it is, and cron PICOWATCH_OUTBOX=~/out."""
    (tmp_path / "home/in").mkdir(parents=True)
    own = {"HOME": str(tmp_path / "home"), "PICOWATCH_OUTBOX": "~/out"}
    result = picowatch(tmp_path, "run", "--once", "--inbox=~/in", **own)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "home/out/picowatch.log").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_a_home_folder_of_nobody_is_refused(tmp_path: Path) -> None:
    """A folder of that name would be a surprise."""
    refused = picowatch(tmp_path, "status", "--outbox=~nobody-of-this-name/out")
    assert refused.returncode == 2
    assert "'~nobody-of-this-name/out': this user has no home folder" in refused.stderr
    refused = picowatch(tmp_path, "status", PICOWATCH_OUTBOX="~nobody-of-this-name/out")
    assert refused.returncode == 2
    assert "this user has no home folder" in refused.stderr


@pytest.mark.parametrize(("inbox", "outbox"), [("both", "both"), ("a", "a/out"), ("a/in", "a")])
def test_an_inbox_inside_the_outbox_or_the_reverse_is_refused(
    tmp_path: Path, inbox: str, outbox: str
) -> None:
    """It would loop."""
    (tmp_path / inbox).mkdir(parents=True)
    result = picowatch(tmp_path, "run", "--once", "--inbox", inbox, "--outbox", outbox)
    assert result.returncode == 2
    assert "separate folders" in result.stderr


def test_a_missing_inbox_is_reported(tmp_path: Path) -> None:
    """It may just not be mounted, so it is not made."""
    result = picowatch(tmp_path, "run", "--once")
    assert result.returncode == 2
    assert "picowatch init" in result.stderr
    assert not (tmp_path / "inbox").exists()
