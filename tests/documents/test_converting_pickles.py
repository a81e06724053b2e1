"""The program that docs/troubleshooting.md gives for pickles, on a file of each kind."""

import re
import runpy
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import FOLDERS
from tests.engine.ldm import write_single_file

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs/troubleshooting.md"
DEMO = Catalog(Path("nowhere")).demo.path
STYLES = PROJECT / "tests/styles"
Tensors = dict[str, torch.Tensor]


def _checkpoint(folder: Path) -> Tensors:
    write_single_file(DEMO, folder / "whole.safetensors", torch.float16)
    return load_file(folder / "whole.safetensors")


def _vae(folder: Path) -> Tensors:
    return load_file(next((DEMO / "vae").glob("*.safetensors")))


def _lora(folder: Path) -> Tensors:
    return load_file(STYLES / "pixel-art.safetensors")


def _embedding(folder: Path) -> Tensors:
    return load_file(STYLES / "mascot.safetensors")


def _a1111_embedding(tensors: Tensors) -> dict[str, Any]:
    """As A1111's tab "Train" writes them."""
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


def _lightning(tensors: Tensors) -> dict[str, Any]:
    """As PyTorch Lightning's checkpoints are: the weights beside the state of the training."""
    return {"state_dict": tensors, "epoch": 3, "global_step": 470_000, "lr_schedulers": []}


def _shared(tensors: Tensors) -> dict[str, Any]:
    """Views of one memory, two of them of one place in it: safetensors refuses such a pair."""
    pairs = combinations(tensors, 2)
    first, twin = next((a, b) for a, b in pairs if tensors[a].shape == tensors[b].shape)
    tensors[twin] = tensors[first]
    everything = torch.cat([tensor.flatten() for tensor in tensors.values()])
    found, at = {}, 0
    for name, tensor in tensors.items():
        found[name] = everything[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    return found | {twin: found[first]}


CASES: dict[str, tuple[Kind, str, Callable[[Path], Tensors], Callable[[Tensors], Any]]] = {
    "checkpoint": ("checkpoint", "x.ckpt", _checkpoint, _lightning),
    "bare checkpoint": ("checkpoint", "x.ckpt", _checkpoint, _shared),
    "vae": ("vae", "x.vae.pt", _vae, _lightning),
    "lora": ("lora", "x.pt", _lora, dict),
    "diffusers' lora": ("lora", "pytorch_lora_weights.bin", _lora, _shared),
    "A1111's embedding": ("embedding", "x.pt", _embedding, _a1111_embedding),
    "diffusers' embedding": ("embedding", "learned_embeds.bin", _embedding, _diffusers_embedding),
}


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """Runs the program of the page, as somebody who copied it does."""
    section = PAGE.read_text().partition("### `is a pickle file")[2].partition("\n### ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (tmp_path / "convert.py").write_text(program)

    def run(old: Path, new: Path) -> None:
        monkeypatch.setattr(sys, "argv", ["convert.py", str(old), str(new)])
        runpy.run_path(str(tmp_path / "convert.py"))

    return run


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_pickle_becomes_a_model_that_can_be_used(
    tmp_path: Path, convert: Callable[[Path, Path], None], case: str
) -> None:
    """With the same numbers; before that its refusal names the page."""
    kind, name, read, packed = CASES[case]
    folder = tmp_path / "models" / FOLDERS[kind]
    folder.mkdir(parents=True)
    tensors = read(tmp_path)
    torch.save(packed(tensors), folder / name)
    (refused,) = Catalog(tmp_path / "models").scan().refused
    assert refused.reason.endswith("convert it with the program in docs/troubleshooting.md.")
    new = folder / "new.safetensors"
    convert(folder / name, new)
    (model,) = Catalog(tmp_path / "models").scan().models
    assert (model.name, model.kind) == ("new", kind)
    expected = sum(float(one.detach().double().sum()) for one in tensors.values())
    found = sum(float(one.double().sum()) for one in load_file(new).values())
    if case != "diffusers' embedding":  # one vector of several
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("content", [[torch.zeros(4, 4)], {"epoch": 3}], ids=["list", "nothing"])
def test_what_cannot_be_converted_is_told_in_words(
    tmp_path: Path, convert: Callable[[Path, Path], None], content: Any
) -> None:
    """Old LoRAs are lists: which layer a tensor belongs to stands nowhere."""
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(SystemExit, match=r"^It (is a list of tensors|holds no tensors)"):
        convert(tmp_path / "x.pt", tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
