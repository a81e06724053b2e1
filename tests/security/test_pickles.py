"""No pickle is ever opened, whatever it is called and wherever it lies."""

import io
import json
import os
import pickle
import re
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commands.picowatch import picowatch

KINDS = ("checkpoints", "vae", "loras", "embeddings", "wildcards", "hypernetworks", ".")
ENDINGS = (
    *(".ckpt", ".pt", ".pth", ".bin", ".pkl", ".safetensors", ".zip", ".gguf", ".txt", ".json"),
    *(".CKPT", ""),
)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._marker),)


def forms(marker: Path) -> dict[str, bytes]:
    """Return the bomb in every form in which torch stores pickles, and after a header."""
    bomb = Bomb(marker)
    found = {f"protocol {number}": pickle.dumps(bomb, number) for number in (0, 2, 5)}
    plain = found["protocol 2"]
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3\n")
    found["torch's zip"] = zipped.getvalue()
    parts: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}, bomb]
    found["torch's old form"] = b"".join(pickle.dumps(part, 2) for part in parts)
    end = b'{"__metadata__":{"format":"pt"}}'
    found["behind a header"] = struct.pack("<Q", len(end)) + end + plain
    return found


class Mined(NamedTuple):
    """A user's folder with bombs everywhere, and what each of them would make."""

    folder: Path
    marker: Path


@pytest.fixture
def mined(tmp_path: Path) -> Mined:
    """Every form under every ending in every folder, and as parts of diffusers folders."""
    marker = tmp_path / "it went off"
    bombs = forms(marker)
    models, inbox = tmp_path / "models", tmp_path / "inbox"
    inbox.mkdir()
    for kind in KINDS:
        for number, content in enumerate(bombs.values()):
            for ending in ENDINGS:
                path = models / kind / f"bomb{number}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    for kind in ("checkpoints", "vae"):
        _mine_folder(models / kind / "folder", bombs["torch's zip"])
    for number, content in enumerate(bombs.values()):
        for ending in (".png", ".jpg", ".webp", ".safetensors", ".pkl", ".yaml", ".txt"):
            (inbox / f"bomb{number}{ending}").write_bytes(content)
    return Mined(tmp_path, marker)


def _mine_folder(folder: Path, content: bytes) -> None:
    """A diffusers folder whose weights are pickles, by name or under the safe name."""
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker"):
        (folder / part).mkdir(parents=True)
        config = {
            "_class_name": "AutoencoderKL",
            "in_channels": 4,
            "sample_size": 64,
            "auto_map": {"AutoModel": "evil.Evil"},
        }
        (folder / part / "config.json").write_text(json.dumps(config))
        for name in (
            *("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.safetensors"),
            *("diffusion_pytorch_model.safetensors", "scheduler.bin", "training_args.bin"),
        ):
            (folder / part / name).write_bytes(content)
    (folder / "evil.py").write_text("raise SystemExit\n")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')


def test_the_bombs_go_off_when_they_are_unpickled(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    marker = tmp_path / "it went off"
    bombs = forms(marker)
    for name in ("protocol 0", "protocol 2", "protocol 5"):
        pickle.loads(bombs[name])
        assert marker.exists()
        marker.rmdir()
    import torch

    path = tmp_path / "bomb.ckpt"
    for name in ("torch's zip", "torch's old form"):
        path.write_bytes(bombs[name])
        with pytest.raises(Exception):  # noqa: B017  (whatever torch makes of what it got)
            torch.load(path, weights_only=False)["x"]
        assert marker.exists()
        marker.rmdir()


def recipes(mined: Mined) -> None:
    """Recipes that name each of them, by every field that takes a file."""
    inbox = mined.folder / "inbox"
    for number in range(len(forms(mined.marker))):
        for ending in ("", ".safetensors", ".ckpt"):
            name = f"bomb{number}{ending}"
            for field, text in {
                "checkpoint": f"prompt: x\ncheckpoint: {name}\n",
                "vae": f"prompt: x\nvae: {name}\n",
                "lora": f"prompt: x\nloras: [{name}]\n",
                "tag": f"prompt: 'x <lora:{name}:1>'\n",
                "wildcard": f"prompt: x __{name}__\n",
            }.items():
                (inbox / f"names-{field}-{number}{ending}.yaml").write_text(text)
        for ending in (".png", ".jpg", ".webp", ".pkl"):
            for field in ("image", "from"):
                text = f"prompt: x\n{field}: bomb{number}{ending}\n"
                (inbox / f"names-{field}-{number}{ending}.yaml").write_text(text)
    for name in ("folder", "folder/unet/pytorch_model", "folder/vae"):
        plain = name.replace("/", "-")
        (inbox / f"names-{plain}.yaml").write_text(f"prompt: x\ncheckpoint: {name}\n")
        (inbox / f"names-vae-{plain}.yaml").write_text(f"prompt: x\nvae: {name}\n")
    words = " ".join(f"bomb{number}" for number in range(len(forms(mined.marker))))
    text = f"prompt: {words}\ncheckpoint: demo\nseed: 1\nsteps: 2\n"
    (inbox / "good.yaml").write_text(text)


def test_no_pickle_goes_off(mined: Mined) -> None:
    """Neither in the list of models, nor in a check, nor in a run that renders a picture."""
    recipes(mined)
    files = sorted((mined.folder / "inbox").glob("*.yaml"))
    listed = picowatch(mined.folder, "models")
    assert listed.returncode == 0
    assert "which can run code" in listed.stdout
    assert not mined.marker.exists()
    checked = picowatch(mined.folder, "check", *files)
    assert checked.returncode == 1
    assert not mined.marker.exists()
    ran = picowatch(mined.folder, "run", "--once")
    assert ran.returncode == 1
    assert (mined.folder / "outbox/good/0001-1.png").exists()
    assert not mined.marker.exists()
    for result in (listed, checked, ran):
        assert "Traceback" not in result.stderr


TAGS = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/new:subprocess.Popen [['touch', '{}']]",
    "!!python/name:os.system",
    "!!python/module:this",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("file", ["inbox/a.yaml", "inbox/_defaults.yaml", "picowatch.yaml"])
def test_no_tag_of_yaml_makes_an_object(tmp_path: Path, file: str, tag: str) -> None:
    """Neither in a recipe, nor in defaults, nor in the settings."""
    marker = tmp_path / "it went off"
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: x\n")
    (tmp_path / file).write_text(f"prompt: {tag.format(marker)}\n")
    result = picowatch(tmp_path, "check", "inbox/a.yaml")
    assert result.returncode in (1, 2)
    assert not marker.exists()
    assert "Traceback" not in result.stderr


def test_nothing_of_ours_unpickles_but_the_wire() -> None:
    """The sources are checked; the daemon and its engine communicate over a private pipe.

    Ray itself pickles what goes to and from the nodes.
    """
    package = Path(__file__).parents[2] / "picowatch"
    found = subprocess.run(
        ["grep", "-rlE", r"pickle|torch\.load|np\.load|multiprocessing", "--include=*.py", package],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    users = {Path(path).relative_to(package).as_posix() for path in found}
    assert users <= {
        "engine/child.py",
        "engine/child_main.py",
        "engine/ray_actor.py",  # these say how Ray is to pickle
        "engine/ray_engine.py",
        "catalog/headers.py",
        "catalog/folder_files.py",
        "catalog/scan.py",
        "engine/convert.py",  # its torch.load runs nothing
        "commands/__init__.py",  # the help of `convert`
        "commands/convert.py",
    }
    text = (package / "engine/convert.py").read_text()
    assert not re.search(r"import pickle\.|pickle\.load|weights_only=False", text)
    assert text.count("torch.load(path") == text.count("weights_only=True, ") == 1
