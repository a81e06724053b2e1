"""`picowatch convert`: pickles become safetensors, bit for bit, and nothing in them is run."""

import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import FOLDERS
from picowatch.cli import main
from tests.commands import pickled
from tests.commands.picowatch import PROJECT
from tests.engine.ldm import write_single_file

DEMO = Catalog(Path("nowhere")).demo.path
STYLES = PROJECT / "tests/styles"
Tensors = dict[str, torch.Tensor]
TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool),
]


def _a1111_embedding(tensors: Tensors) -> dict[str, Any]:
    """The form of A1111's tab "Train"."""
    (vectors,) = tensors.values()
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors.requires_grad_()},
        "name": "mascot",
        "step": 500,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


def _diffusers_embedding(tensors: Tensors) -> dict[str, Any]:
    """learned_embeds.bin: one vector under the word that it stands for."""
    (vectors,) = tensors.values()
    return {"<v1.5 mascot>": vectors[0]}


class ModelCheckpoint:
    """A callback of PyTorch Lightning's, as its checkpoints name it."""


def _lightning(tensors: Tensors) -> dict[str, Any]:
    """PyTorch Lightning's form: the weights beside the state of the training."""
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    return {
        "state_dict": tensors,
        "epoch": 3,
        "optimizer_states": [optimiser],
        "callbacks": {ModelCheckpoint: {"best": np.float64(0.5), "made_by": ModelCheckpoint()}},
        "global_step": 2**70,
    }


def _shared(tensors: Tensors) -> dict[str, Any]:
    """Views of one memory, two of them of one place in it."""
    pairs = combinations(tensors, 2)
    first, twin = next((a, b) for a, b in pairs if tensors[a].shape == tensors[b].shape)
    tensors[twin] = tensors[first]
    everything = torch.cat([tensor.flatten() for tensor in tensors.values()])
    found, at = {}, 0
    for name, tensor in tensors.items():
        found[name] = everything[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    return found | {twin: found[first]}


VAE = next((DEMO / "vae").glob("*.safetensors"))
LORA, EMBEDDING = STYLES / "pixel-art.safetensors", STYLES / "mascot.safetensors"
CASES: dict[str, tuple[Kind, str, Path | None, Callable[[Tensors], Any]]] = {
    "checkpoint": ("checkpoint", "x.ckpt", None, _shared),
    "vae": ("vae", "x.vae.pt", VAE, dict),
    "lora": ("lora", "pytorch_lora_weights.bin", LORA, dict),
    "A1111's embedding": ("embedding", "x.pt", EMBEDDING, _a1111_embedding),
    "diffusers' embedding": ("embedding", "learned_embeds.bin", EMBEDDING, _diffusers_embedding),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_pickle_becomes_a_model_that_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
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
    assert main(["convert", str(folder / name)]) == 0
    assert f"it belongs in models/{FOLDERS[kind]}/." in capsys.readouterr().out
    (model,) = Catalog(tmp_path / "models").scan().models
    assert (model.name, model.kind) == (name.rpartition(".")[0], kind)


def test_a_folder_of_pickles_can_be_used_when_each_is_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text encoder's, which transformers calls otherwise as a pickle, too."""
    folder = tmp_path / "checkpoints/it"
    shutil.copytree(DEMO, folder)
    for file in folder.glob("*/*.safetensors"):
        old = f"pytorch_{file.stem}" if file.stem == "model" else file.stem
        torch.save(load_file(file), file.with_name(f"{old}.bin"))
        file.unlink()
    (refused,) = Catalog(tmp_path).scan().refused
    assert "convert them with `picowatch convert`" in refused.reason
    assert main(["convert", *map(str, sorted(folder.glob("*/*.bin")))]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.endswith("It is a part of the folder it/.") for line in said] == [True] * 3
    (model,) = Catalog(tmp_path).scan().models
    assert model.name == "it"


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of any type and shape; whole memories and views of them."""
    shape: list[int] = draw(st.lists(st.integers(0, 4), max_size=4))
    one = torch.randint(0, 250, shape).to(torch.uint8)
    count = one.numel()
    kind: torch.dtype = draw(st.sampled_from(TYPES))
    each = torch.empty(0, dtype=kind).element_size()
    numbers = torch.randint(0, 250, (count * each,), dtype=torch.uint8)
    made = (numbers % 2).bool() if kind is torch.bool else numbers.view(kind)
    made = made.reshape(shape)
    if draw(st.booleans()) and shape:
        made = made.transpose(0, len(shape) - 1)
    if draw(st.booleans()) and shape and shape[0] > 1:
        made = made[1:]
    return torch.nn.Parameter(made, requires_grad=False) if draw(st.booleans()) else made


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    found=st.dictionaries(st.text("ab.ö", max_size=4), tensors(), min_size=2, max_size=4),
    zipped=st.booleans(),
    within=st.sampled_from(["", "params_ema", "state_dict"]),
)
def test_the_numbers_are_torchs_bit_for_bit(
    tmp_path: Path, found: Tensors, zipped: bool, within: str
) -> None:
    """Every type, both forms of torch.save, wherever the weights lie in it."""
    if not zipped:  # the old form has no storages of the newer types
        found = {n: t for n, t in found.items() if t.dtype not in TYPES[4:5] + TYPES[10:11]}
    content: Any = {within: found, "epoch": 1} if within else found
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    code = main(["convert", "--force", str(path)])
    if not found:
        assert code == 1
        return
    assert code == 0
    new = load_file(tmp_path / "x.safetensors")
    loaded = torch.load(path, weights_only=True)
    loaded = loaded[within] if within else loaded
    expected = (
        dict(zip(["emb_params"], loaded.values(), strict=True)) if len(loaded) == 1 else loaded
    )
    assert new.keys() == expected.keys()
    for name, tensor in expected.items():
        old = tensor.detach().contiguous()
        assert (new[name].dtype, new[name].shape) == (old.dtype, old.shape)
        assert new[name].view(-1).view(torch.uint8).equal(old.view(-1).view(torch.uint8))


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
    assert main(["convert", *(str(tmp_path / name) for name in files)]) == 0
    for name in ("ema", "lightning", "old"):
        found = load_file(tmp_path / f"{name}.safetensors")
        sums = [int(found[letter].sum()) for letter in "ab"]
        assert sums == ([0, 2] if name == "ema" else [2, 0])


def test_a_file_is_never_overwritten_without_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a file that cannot be converted does not stop the next one."""
    (tmp_path / "a.pth").write_bytes(b"nothing")
    (tmp_path / "b.pth").write_bytes(
        pickled.zipped(pickled.weights(x=pickled.tensor(), y=pickled.tensor()), {"0": pickled.SIX})
    )
    (tmp_path / "b.safetensors").write_bytes(b"kept")
    both = [str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]
    assert main(["convert", *both]) == 1
    assert (tmp_path / "b.safetensors").read_bytes() == b"kept"
    errors = capsys.readouterr().err.splitlines()
    assert "a.pth is not a PyTorch file" in errors[0]
    assert "b.safetensors exists. With --force it is replaced." in errors[1]
    assert main(["convert", "--force", *both]) == 1
    assert load_file(tmp_path / "b.safetensors")["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth", "b.safetensors"]


@pytest.mark.parametrize("name", pickled.EVIL)
def test_a_bomb_is_refused_in_words_and_does_not_go_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Beside good tensors."""
    monkeypatch.chdir(tmp_path)
    content = pickled.weights(a=pickled.tensor(), b=pickled.EVIL[name])
    Path("x.pth").write_bytes(pickled.zipped(content, {"0": pickled.SIX}))
    assert main(["convert", "x.pth"]) == 1
    said = capsys.readouterr().err
    assert "contains more than numbers" in said or "is damaged, or no PyTorch file" in said
    assert [path.name for path in Path().iterdir()] == ["x.pth"]


# Numbers beyond a storage, one of them a billion times, and a long text.
CLAIMS = [
    pickled.tensor(offset=1),
    pickled.tensor(shape=(2**30, 2), strides=(0, 0)),
    b"\x8d" + struct.pack("<Q", 2**40),
]


def test_other_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs, packed zips, web pages, damaged numbers, and what is no pickle at all.

    A few bytes may say that they are gigabytes: that is checked before they are read.
    """
    good = pickled.zipped(pickled.weights(x=pickled.tensor()), {"0": pickled.SIX})
    claims = [pickled.weights(a=pickled.tensor(), b=claim) for claim in CLAIMS]
    files = {
        "program.pt": good,
        "packed.pth": pickled.zipped(b"\x80\x02].", {"0": pickled.SIX}, packed=True),
        "page.pth": b"<!doctype html>",
        "damaged.pth": good.replace(pickled.SIX, pickled.SIX[:-1] + b"?"),
        "cut.pth": good[:-40],
        "nothing.pt": pickled.zipped(b"\x80\x02}.", {}),
        **{f"{at}.pt": pickled.zipped(it, {"0": pickled.SIX}) for at, it in enumerate(claims)},
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "program.pt", "a") as archive:
        archive.writestr("archive/constants.pkl", "")
    assert main(["convert", *(str(tmp_path / name) for name in files)]) == 1
    said = capsys.readouterr().err.splitlines()
    words = ["a program (TorchScript)", "is damaged", "a web page", "is damaged", "is damaged"]
    words += ["holds no tensors", *["is "] * len(CLAIMS)]
    for line, word in zip(said, words, strict=True):
        assert word in line
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
