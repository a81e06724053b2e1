"""No pickle is ever opened, wherever it lies, and no stranger's code runs.

`picowatch convert` opens them: tests/commands/test_convert.py.
"""

import io
import json
import os
import pickle
import re
import shutil
import struct
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import EngineOptions
from tests.commands.picowatch import picowatch
from tests.engine.flow_requests import requests_of
from tests.engine.requests import ignore_progress
from tests.engine.tiny_flows import tiny_flow

FLOW = "FLUX.1-schnell"
FOLDERS = (
    *(f"models/{kind}" for kind in ("checkpoints", "vae", "loras", "embeddings", "wildcards")),
    *("models/hypernetworks", "models", "inbox"),
)
ENDINGS = (
    *(".ckpt", ".pt", ".pth", ".bin", ".pkl", ".safetensors", ".zip", ".gguf", ".txt", ".json"),
    *(".CKPT", "", ".png", ".jpg", ".webp", ".yaml"),
)
# How a recipe names a file.
NAMING = (
    *("prompt: x\ncheckpoint: {}\n", "prompt: x\nvae: {}\n", "prompt: x\nloras: [{}]\n"),
    *("prompt: 'x <lora:{}:1>'\n", "prompt: x __{}__\n"),
    *("prompt: x\nimage: {}\n", "prompt: x\nfrom: {}\n"),
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
    plain = pickle.dumps(bomb, 2)
    zipped, old = io.BytesIO(), io.BytesIO()
    torch.save(bomb, zipped)
    torch.save(bomb, old, _use_new_zipfile_serialization=False)
    header = b'{"__metadata__":{"format":"pt"}}'
    return {
        **{f"protocol {number}": pickle.dumps(bomb, number) for number in (0, 2, 5)},
        "torch's zip": zipped.getvalue(),
        "torch's old form": old.getvalue(),
        "behind a header": struct.pack("<Q", len(header)) + header + plain,
    }


def test_the_bombs_go_off_when_they_are_unpickled(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    marker, file = tmp_path / "it went off", tmp_path / "bomb.ckpt"
    for name, content in forms(marker).items():
        if name.startswith("protocol"):
            pickle.loads(content)
        elif name.startswith("torch"):
            file.write_bytes(content)
            torch.load(file, weights_only=False)
        else:
            continue
        marker.rmdir()


def test_no_pickle_goes_off(tmp_path: Path) -> None:
    """Under every ending in every folder, named by every field, as a folder's weights."""
    marker = tmp_path / "it went off"
    bombs = forms(marker)
    for folder, ending, (number, content) in product(FOLDERS, ENDINGS, enumerate(bombs.values())):
        path = tmp_path / folder / f"bomb{number}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for kind, source in (("checkpoints", tiny_flow(FLOW)), ("vae", tiny_flow(FLOW) / "vae")):
        shutil.copytree(source, tmp_path / f"models/{kind}/folder")
    for weights in (tmp_path / "models").rglob("folder/**/*.safetensors"):
        weights.write_bytes(bombs["torch's zip"])
        weights.with_name("pytorch_model.bin").write_bytes(bombs["torch's zip"])
    endings = ("", ".safetensors", ".ckpt", ".png")
    names = [f"bomb{n}{ending}" for n, ending in product(range(len(bombs)), endings)]
    names += ["folder", "folder/vae", "folder/transformer/pytorch_model"]
    for number, (naming, name) in enumerate(product(NAMING, names)):
        (tmp_path / f"inbox/names-{number}.yaml").write_text(naming.format(name))
    words = " ".join(f"bomb{number}" for number in range(len(bombs)))
    good = f"prompt: {words}\ncheckpoint: demo\nseed: 1\nsteps: 2\n"
    (tmp_path / "inbox/good.yaml").write_text(good)
    listed = picowatch(tmp_path, "models")
    assert listed.returncode == 0
    assert "which can run code" in listed.stdout
    assert not marker.exists()
    checked = picowatch(tmp_path, "check", *sorted((tmp_path / "inbox").glob("*.yaml")))
    assert checked.returncode == 1
    assert not marker.exists()
    ran = picowatch(tmp_path, "run", "--once")
    assert ran.returncode == 1
    assert (tmp_path / "outbox/good/0001-1.png").exists()
    assert not marker.exists()
    for result in (listed, checked, ran):
        assert "Traceback" not in result.stderr


def test_code_and_pickles_of_a_folder_are_never_run(tmp_path: Path) -> None:
    """Modules named in every config, code for the pipeline, and pickles beside the weights."""
    folder, marker = tmp_path / "checkpoints" / FLOW, tmp_path / "it went off"
    shutil.copytree(tiny_flow(FLOW), folder)
    named = dict.fromkeys(("AutoModel", "AutoConfig", "AutoTokenizer"), "evil.Evil")
    evil = {"auto_map": named, "trust_remote_code": True, "custom_pipeline": "evil"}
    for config in folder.glob("*/*config.json"):
        config.write_text(json.dumps(json.loads(config.read_text()) | evil))
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2", "."):
        for name in ("evil.py", "pipeline.py"):
            (folder / part / name).write_text(f"import os\nos.mkdir({str(marker)!r})\n")
        for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
            (folder / part / name).write_bytes(forms(marker)["protocol 2"])
    options = EngineOptions(models=tmp_path, device="cpu", precision="float32", threads=1)
    wanted = requests_of(tmp_path, FLOW, "prompt: a red cube")
    assert [*Renderer(options).render(wanted, ignore_progress)]
    assert not marker.exists()


TAGS = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/new:subprocess.Popen [['touch', '{}']]",
    "!!python/name:os.system",
    "!!python/module:this",
]


FILES = ("inbox/a.yaml", "inbox/_defaults.yaml", "picowatch.yaml", "inbox/a.yaml")


@pytest.mark.parametrize(("file", "tag"), [*zip(FILES, TAGS, strict=True)])
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
    """Daemon and engine talk over a private pipe, and an encoder reads what the daemon sends.

    Ray itself pickles what nodes exchange.
    """
    package = Path(__file__).parents[2] / "picowatch"
    ways = re.compile(
        r"(import|from) (\w*pickle|dill|joblib|multiprocessing)|(np|torch)\.load\(path"
    )
    users = {path.name for path in package.rglob("*.py") if ways.search(path.read_text())}
    assert users == {"child.py", "child_main.py", "convert.py", "encoding_apart.py"}
    text = (package / "engine/networks/convert.py").read_text()
    assert text.count("torch.load(path") == text.count("weights_only=True, ") == 1
