"""`picowatch convert`: pickles become safetensors, bit for bit, and nothing in them is run."""

import io
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from picowatch.catalog import Catalog, Kind, embedded
from picowatch.catalog.models import FOLDERS
from tests.commands.picowatch import PROJECT, picowatch_here
from tests.engine.ldm import write_single_file
from tests.security.attacks import Bomb

DEMO = embedded("checkpoint").path
STYLES = PROJECT / "tests/styles"
SIX = torch.arange(6.0)
Tensors = dict[str, torch.Tensor]


def _a1111_embedding(tensors: Tensors) -> dict[str, Any]:
    """The form of A1111's tab "Train"."""
    (vectors,) = tensors.values()
    named = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors.requires_grad_()}}
    return {**named, "name": "mascot", "step": 500, "sd_checkpoint": None}


def _diffusers_embedding(tensors: Tensors) -> dict[str, Any]:
    """learned_embeds.bin: one vector under the word that it stands for."""
    (vectors,) = tensors.values()
    return {"<v1.5 mascot>": vectors[0]}


class ModelCheckpoint:
    """A callback of PyTorch Lightning's, as its checkpoints name it."""


def _lightning(tensors: Tensors) -> dict[str, Any]:
    """PyTorch Lightning's form: the weights beside the state of the training."""
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    kept = {ModelCheckpoint: {"best": np.float64(0.5), "made_by": ModelCheckpoint()}}
    state = {"optimizer_states": [optimiser], "callbacks": kept, "global_step": 2**70}
    return {"state_dict": tensors, "epoch": 3, **state}


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


VAE = next((DEMO / "vae").glob("*.safetensors"))
LORA, EMBEDDING = STYLES / "pixel-art.safetensors", STYLES / "mascot.safetensors"
CASES: dict[str, tuple[Kind, str, Path | None, Callable[[Tensors], Any]]] = {
    "checkpoint": ("checkpoint", "x.ckpt", None, dict),
    "vae": ("vae", "x.vae.pt", VAE, dict),
    "lora": ("lora", "pytorch_lora_weights.bin", LORA, dict),
    "A1111's embedding": ("embedding", "x.pt", EMBEDDING, _a1111_embedding),
    "diffusers' embedding": ("embedding", "learned_embeds.bin", EMBEDDING, _diffusers_embedding),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_pickle_becomes_a_model_that_can_be_used(tmp_path: Path, case: str) -> None:
    """Its refusal names the command, and the command says where the new file belongs."""
    kind, name, file, packed = CASES[case]
    if file is None:
        file = tmp_path / "whole.safetensors"
        write_single_file(DEMO, file, torch.float16)
    folder = tmp_path / "models" / FOLDERS[kind]
    folder.mkdir(parents=True)
    torch.save(packed(load_file(file)), folder / name)
    (refused,) = Catalog(tmp_path / "models").scan().refused
    assert "convert it with `picowatch convert`" in refused.reason
    said = picowatch_here(tmp_path, "convert", folder / name).stdout
    assert f"it belongs in models/{FOLDERS[kind]}/." in said
    (model,) = Catalog(tmp_path / "models").scan().models
    assert (model.name, model.kind) == (name.rpartition(".")[0], kind)


def test_a_folder_of_pickles_can_be_used_when_each_is_converted(tmp_path: Path) -> None:
    """The text encoder's, which transformers calls otherwise as a pickle, too."""
    folder = tmp_path / "checkpoints/it"
    shutil.copytree(DEMO, folder)
    for file in folder.glob("*/*.safetensors"):
        old = f"pytorch_{file.stem}" if file.stem == "model" else file.stem
        torch.save(load_file(file), file.with_name(f"{old}.bin"))
        file.unlink()
    (refused,) = Catalog(tmp_path).scan().refused
    assert "convert them with `picowatch convert`" in refused.reason
    said = picowatch_here(tmp_path, "convert", *sorted(folder.glob("*/*.bin"))).stdout
    assert said.count("It is a part of the folder it/.\n") == said.count("\n") == 3
    (model,) = Catalog(tmp_path).scan().models
    assert model.name == "it"


@pytest.mark.parametrize(("zipped", "within"), [(True, ""), (False, "params_ema")])
def test_the_numbers_are_torchs_bit_for_bit(tmp_path: Path, zipped: bool, within: str) -> None:
    """Both forms of torch.save, wherever the weights lie in it; also views."""
    numbers = torch.randn(2, 3, 40)
    found = {"x": numbers, "half": numbers.half(), "whole": numbers.long(), "rest": numbers[1:]}
    found |= {"turned": numbers.transpose(0, 2), "parameter": torch.nn.Parameter(numbers * 2)}
    found |= {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 3), "yes": numbers > 0}
    content = {within: found, "epoch": 1} if within else found
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert picowatch_here(tmp_path, "convert", "x.pth").returncode == 0
    new = load_file(tmp_path / "x.safetensors")
    assert new.keys() == found.keys()
    for name, tensor in found.items():
        assert new[name].dtype == tensor.dtype and new[name].equal(tensor.detach()), name


def test_the_average_of_a_training_is_preferred_and_a_training_s_state_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real-ESRGAN's files hold both; `module.` of several GPUs goes, too."""
    module = ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    monkeypatch.setattr(ModelCheckpoint, "__module__", module.__name__)
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, parent, module)
    monkeypatch.setattr(module, "ModelCheckpoint", ModelCheckpoint, raising=False)
    one, two = torch.ones(2), torch.zeros(2)
    last = {"module.a": one, "module.b": two}
    torch.save({"params": last, "params_ema": {"a": two, "b": one}}, tmp_path / "ema.pth")
    torch.save(_lightning(last), tmp_path / "lightning.ckpt")
    torch.save(_lightning(last), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    files = ("ema.pth", "lightning.ckpt", "old.ckpt")
    assert picowatch_here(tmp_path, "convert", *files).returncode == 0
    for name in ("ema", "lightning", "old"):
        found = load_file(tmp_path / f"{name}.safetensors")
        sums = [int(found[letter].sum()) for letter in "ab"]
        assert sums == ([0, 2] if name == "ema" else [2, 0])


def test_a_file_is_never_overwritten_without_force(tmp_path: Path) -> None:
    """And a file that cannot be converted does not stop the next one."""
    there = tmp_path / "b.safetensors"
    (tmp_path / "a.pth").write_bytes(b"nothing")
    torch.save({"x": SIX, "y": SIX}, tmp_path / "b.pth")
    there.write_bytes(b"kept")
    refused = picowatch_here(tmp_path, "convert", "a.pth", "b.pth")
    assert (refused.returncode, there.read_bytes()) == (1, b"kept")
    errors = refused.stderr.splitlines()
    assert "a.pth is not a PyTorch file" in errors[0]
    assert "b.safetensors exists. With --force it is replaced." in errors[1]
    assert picowatch_here(tmp_path, "convert", "--force", "a.pth", "b.pth").returncode == 1
    assert load_file(there)["x"].tolist() == SIX.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth", "b.safetensors"]


def test_a_new_file_has_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    """A daemon of another user has to read it."""
    torch.save({"x": SIX, "y": SIX}, tmp_path / "a.pth")
    before = os.umask(0o027)
    try:
        picowatch_here(tmp_path, "convert", "a.pth")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


def test_other_files_are_named_and_no_bomb_goes_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes may say that they are gigabytes, or lie beside good tensors to be run."""
    monkeypatch.chdir(tmp_path)
    good, bomb = saved({"x": SIX}), saved({"x": SIX, "y": Bomb(Path("it-went-off"))})
    numbers = SIX.numpy().tobytes()
    with (
        zipfile.ZipFile(io.BytesIO(good)) as old,
        zipfile.ZipFile("packed.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    Path("program.pt").write_bytes(good)
    with zipfile.ZipFile("program.pt", "a") as archive:
        archive.writestr("archive/constants.pkl", "")
    damaged = "is damaged, or not a PyTorch file"
    files = {
        "program.pt": (b"", "a program (TorchScript)"),
        "packed.pth": (b"", damaged),
        "page.pth": (b"<!doctype html>", "a web page"),
        "damaged.pth": (good.replace(numbers, numbers[:-1] + b"?"), damaged),
        "cut.pth": (good[:-40], damaged),
        "nothing.pt": (saved({}), "holds no tensors"),
        "huge.pt": (saved({"x": torch.zeros(1).expand(2**30, 2)}), "repeat the same numbers"),
        "bomb.pt": (bomb, "contains more than numbers."),
        "instance.pt": (b"\x80\x02(Vit-went-off\niposix\nmkdir\n.", "contains more than numbers."),
        "hub.pt": (b"\x80\x02ctorch.hub\nload\n)R.", "it names 'torch.hub.load'"),
    }
    for name, (content, _) in files.items():
        if content:
            Path(name).write_bytes(content)
    refused = picowatch_here(tmp_path, "convert", *files)
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    for (name, (_, words)), line in zip(files.items(), lines, strict=True):
        assert line.startswith(f"picowatch: {name} ") and words in line, line
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
