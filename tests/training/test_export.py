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


def test_a_run_begins_with_a_model_and_goes_on_from_there(tmp_path: Path) -> None:
    """It exports that model; one that has begun keeps its own weights.

    The optimizer begins anew, and is saved with the first step.
    """
    run, exported, device = tmp_path / "run", tmp_path / "exported", torch.device("cpu")
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
    vae = AutoencoderKL.from_pretrained(run / "vae").eval()
    (run / "latents").mkdir()
    width, height = NATIVE
    pictures = {f"{width}x{height}": encoded(vae, device, 0, 16, NATIVE)}
    save_whole(pictures, run / "latents/0.pt")
    network = torch.load(run / "denoiser.state.pt", weights_only=True)["network"]
    train_denoiser(run, device, tokenizer_of(run), steps=1)
    state = torch.load(run / "denoiser.state.pt", weights_only=True)
    assert state["step"] == 1
    assert state["optimizer"]
    assert network.keys() == state["network"].keys()
