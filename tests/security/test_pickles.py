"""No pickle is ever opened, wherever it lies, and no stranger's code runs.

`picowatch convert` opens them: tests/commands/test_convert.py.
"""

import io
import json
import pickle
import re
import shutil
import struct
from itertools import product
from pathlib import Path

import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import EngineOptions
from tests.commands.picowatch import picowatch_here
from tests.engine.flow_requests import requests_of
from tests.engine.requests import ignore_progress
from tests.engine.tiny_flows import tiny_flow
from tests.house import House
from tests.security.attacks import Bomb

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


def forms(marker: Path) -> dict[str, bytes]:
    """Return the bomb in every form in which torch stores pickles, and after a header."""
    bomb = Bomb(marker)
    plain = pickle.dumps(bomb, 2)
    zipped, old = io.BytesIO(), io.BytesIO()
    torch.save(bomb, zipped)
    torch.save(bomb, old, _use_new_zipfile_serialization=False)
    header = b'{"__metadata__":{"format":"pt"}}'
    return {
        "protocol 2": plain,
        "torch's zip": zipped.getvalue(),
        "torch's old form": old.getvalue(),
        "behind a header": struct.pack("<Q", len(header)) + header + plain,
    }


def options(models: Path) -> EngineOptions:
    return EngineOptions(models=models, device="cpu", precision="float32", threads=1)


def test_the_bombs_go_off_when_they_are_unpickled(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    marker, file = tmp_path / "it went off", tmp_path / "bomb.ckpt"
    bombs = forms(marker)
    pickle.loads(bombs["protocol 2"])
    marker.rmdir()
    for name in ("torch's zip", "torch's old form"):
        file.write_bytes(bombs[name])
        torch.load(file, weights_only=False)
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
    names = [f"bomb{n}{ending}" for n, ending in product(range(len(bombs)), ("", ".png"))]
    names += ["folder", "folder/vae", "folder/transformer/pytorch_model"]
    for number, (naming, name) in enumerate(product(NAMING, names)):
        (tmp_path / f"inbox/names-{number}.yaml").write_text(naming.format(name))
    words = " ".join(f"bomb{number}" for number in range(len(bombs)))
    good = f"prompt: {words}\ncheckpoint: demo\nseed: 1\nsteps: 2\n"
    (tmp_path / "inbox/good.yaml").write_text(good)
    listed = picowatch_here(tmp_path, "models")
    assert listed.returncode == 0
    assert "which can run code" in listed.stdout
    checked = picowatch_here(tmp_path, "check", *sorted((tmp_path / "inbox").glob("*.yaml")))
    assert checked.returncode == 1
    assert "Traceback" not in listed.stderr + checked.stderr
    house = House(tmp_path)
    assert not house.once()
    (wanted,) = house.engine.batches
    assert house.pictures() == ["good/0001-1.png"]
    assert len([*Renderer(options(house.models)).render(wanted, ignore_progress)]) == 1
    assert not marker.exists()


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
    wanted = requests_of(tmp_path, FLOW, "prompt: a red cube")
    assert [*Renderer(options(tmp_path)).render(wanted, ignore_progress)]
    assert not marker.exists()


TAGS = {
    "inbox/a.yaml": "!!python/object/apply:os.system ['touch {}']",
    "inbox/_defaults.yaml": "!!python/object/new:subprocess.Popen [['touch', '{}']]",
    "picowatch.yaml": "!!python/name:os.system",
    "inbox/b.yaml": "!!python/module:this",
}


def test_no_tag_of_yaml_makes_an_object(house: House) -> None:
    """Neither in a recipe, nor in defaults, nor in the settings."""
    marker = house.folder / "it went off"
    for file, tag in TAGS.items():
        for name in ("a.yaml", "b.yaml"):
            house.save(name, "prompt: x\n")
        path = house.folder / file
        path.write_text(f"prompt: {tag.format(marker)}\n")
        result = picowatch_here(house.folder, "check", "inbox")
        assert result.returncode in (1, 2), file
        assert not marker.exists(), file
        assert "Traceback" not in result.stderr, file
        path.unlink()


def test_nothing_of_ours_unpickles_but_the_wire() -> None:
    """Daemon, engine and encoder talk over private pipes. Ray itself pickles what it exchanges."""
    package = Path(__file__).parents[2] / "picowatch"
    ways = re.compile(
        r"(import|from) (\w*pickle|dill|joblib|multiprocessing)|(np|torch)\.load\(path"
    )
    users = {path.name for path in package.rglob("*.py") if ways.search(path.read_text())}
    assert users == {"child.py", "child_main.py", "convert.py", "encoding.py"}
    text = (package / "engine/networks/convert.py").read_text()
    assert text.count("torch.load(path") == text.count("weights_only=True, ") == 1
