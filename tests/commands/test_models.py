"""`picowatch models`: what is installed, what was refused, and why."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from picowatch.catalog import embedded
from tests.catalog.files import VAE, Shapes, kohya_lora_shapes, write_model
from tests.catalog.shapes import FLUX1_VAE, Z_IMAGE, below, kohya, sd3
from tests.commands.picowatch import picowatch_here

TOKEN = "text_model.embeddings.token_embedding.weight"
WITH_CLIP: Shapes = {f"text_encoders.clip_l.transformer.{TOKEN}": (49408, 768)}
FILES: dict[str, Shapes] = {
    "checkpoints/sd3.5_medium": sd3(147456) | below(VAE, FLUX1_VAE) | WITH_CLIP,
    "text_encoders/clip_g": {TOKEN: (49408, 1280)},
    "text_encoders/t5xxl_fp16": {"shared.weight": (32128, 4096)},
    "vae/qwen_image_vae": {"encoder.conv1.weight": (96, 3, 3, 3, 3)},
    "checkpoints/z_image_turbo": Z_IMAGE,
    "loras/flux": kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
    "loras/wan": kohya("lora_unet_blocks_0_self_attn_q", 1536, 1536),
}


def test_models_says_what_each_file_is(tmp_path: Path) -> None:
    """Family, variant, storage, what is inside, what completes it; columns stay columns."""
    folder = tmp_path / "models"
    for name, shapes in FILES.items():
        write_model(folder / f"{name}.safetensors", shapes)
    good = {name: np.zeros(shape, np.float16) for name, shape in kohya_lora_shapes().items()}
    notes = {"ss_sd_model_name": "v1-5.safetensors", "modelspec.trigger_phrase": "pxl style"}
    save_file(good, folder / "loras/good.safetensors", notes)
    (folder / "checkpoints/old.ckpt").write_bytes(b"\x80\x02}q")
    shutil.copytree(embedded("checkpoint").path, folder / "checkpoints/special")
    own = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    changes = {"unet/config.json": {"in_channels": 9}, "scheduler/scheduler_config.json": own}
    for name, values in changes.items():
        path = folder / "checkpoints/special" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    result = picowatch_here(tmp_path, "models")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    ours = ("demo", "demo-compact", "demo-cutout", "demo-sketch")
    assert {lines[at].index(name) for at, name in enumerate(ours)} == {14}
    for words in (
        "Stable Diffusion 3.x (3.5 Medium), float16\n",
        f"{'':14}inside: CLIP L, VAE\n{'':14}completed by: text_encoders/clip_g",
        "t5xxl_fp16",
        "  T5 XXL, float16\n",
        "  for Qwen-Image, Krea 2 and Anima\n",
        "  1024x1024  Z-Image (Turbo, by its name), float16\n",
        f"{'':14}missing: z_image_turbo.safetensors has only the transformer of Z-Image (Turbo)",
        f"  for Stable Diffusion 1.x\n{'':14}trained on: v1-5.safetensors\n"
        f"{'':14}trigger words: pxl style\n",
        "  for FLUX.1, or Chroma\n",
        "  128x128  Stable Diffusion 1.x, inpainting, v-prediction, zero terminal SNR\n",
        "wan.safetensors  refused: wan.safetensors is a LoRA for a transformer",
        "old.ckpt  refused: ",
    ):
        assert words in result.stdout
    rows = {
        row["name"]: row for row in json.loads(picowatch_here(tmp_path, "models", "--json").stdout)
    }
    demo, turbo = rows["demo"], rows["z_image_turbo"]
    assert {"name", "kind", "path", "bytes", "hash", "native_size", "refused"} <= set(demo)
    assert (demo["native_size"], demo["refused"], len(demo["hash"])) == (128, None, 64)
    assert (turbo["variant"], turbo["by_name"], turbo["stored"]) == ("Turbo", True, "float16")
    assert (turbo["hash"], turbo["refused"]) == (None, None)
    assert "models/checkpoints/" in turbo["missing"]
    for row, special in ((demo, False), (rows["special"], True)):
        assert row["prediction"] == "v_prediction"
        assert row["zero_snr"] is row["inpainting"] is special
    assert rows["good"]["family"] == "sd1"
    assert rows["old.ckpt"]["refused"]


def test_models_reads_a_model_once_for_its_hash(tmp_path: Path) -> None:
    """A collection has hundreds of gigabytes; but nothing is created where no outbox is."""
    path = write_model(tmp_path / "models/loras/a.safetensors", kohya_lora_shapes())
    picowatch_here(tmp_path, "models", "--json")
    assert not (tmp_path / "outbox").exists()
    (tmp_path / "outbox/.picowatch").mkdir(parents=True)
    shown, written = picowatch_here(tmp_path, "models", "--json").stdout, path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")  # to be seen by a second look
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert picowatch_here(tmp_path, "models", "--json").stdout == shown


def test_commands_in_the_wrong_folder_name_it(tmp_path: Path) -> None:
    """Where they looked: "inbox" alone says nothing."""
    for command in (["run"], ["make", "a.txt"]):
        refused = picowatch_here(tmp_path, *command)
        assert f"There is no inbox folder {tmp_path}/inbox." in refused.stderr
        assert (refused.returncode, "picowatch init" in refused.stderr) == (2, True)
    assert f"the outbox {tmp_path}/outbox." in picowatch_here(tmp_path, "pause").stderr
    listed = picowatch_here(tmp_path, "models")
    assert (listed.returncode, "demo" in listed.stdout) == (0, True)
    assert listed.stderr == f"picowatch: There is no models folder {tmp_path}/models.\n"
    said = (
        f"No picowatch has ever used the outbox {tmp_path}/outbox. For another one: --outbox DIR\n"
    )
    status = picowatch_here(tmp_path, "status")
    assert (status.returncode, status.stdout) == (1, f"picowatch is not running\n{said}")
    assert picowatch_here(tmp_path, "status", "nothere").stderr == f"picowatch: {said}"
    assert list(tmp_path.iterdir()) == []
