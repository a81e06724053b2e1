"""A run that begins with an exported model."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from training.denoiser import train_denoiser
from training.export import begin_with, export_model
from training.latents import NATIVE, encoded
from training.progress import save_whole
from training.train import tokenizer_of
from training.untyped import AutoencoderKL

DEMO = Path(__file__).parents[2] / "picowatch/assets/demo"


def test_a_run_that_begins_with_a_model_exports_that_model(tmp_path: Path) -> None:
    """And one that has begun keeps its own weights."""
    run, exported = tmp_path / "run", tmp_path / "exported"
    begin_with(DEMO, run)
    export_model(run, exported)
    files = [file.relative_to(DEMO) for file in DEMO.rglob("*.safetensors")]
    assert len(files) == 3
    for file in files:
        ours, theirs = load_file(exported / file), load_file(DEMO / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), file
    before = (run / "denoiser.state.pt").read_bytes()
    begin_with(exported, run)
    assert (run / "denoiser.state.pt").read_bytes() == before


def test_training_goes_on_from_there(tmp_path: Path) -> None:
    """The optimizer begins anew, and is saved with the first step."""
    device = torch.device("cpu")
    begin_with(DEMO, tmp_path)
    before = torch.load(tmp_path / "denoiser.state.pt", weights_only=True)["network"]
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    (tmp_path / "latents").mkdir()
    width, height = NATIVE
    pictures = {f"{width}x{height}": encoded(vae, device, 0, 16, NATIVE)}
    save_whole(pictures, tmp_path / "latents/0.pt")
    train_denoiser(tmp_path, device, tokenizer_of(tmp_path), steps=1)
    state = torch.load(tmp_path / "denoiser.state.pt", weights_only=True)
    assert state["step"] == 1
    assert state["optimizer"]
    assert before.keys() == state["network"].keys()
