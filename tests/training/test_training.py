"""The loop that all stages share, what the denoiser is asked, and runs that begin with a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from training.denoiser import train_denoiser
from training.export import begin_with, export_model
from training.latents import NATIVE, encoded
from training.muon import Optimizers, orthogonalised
from training.noise import new_sampler, noisy_and_target, signal_shares
from training.progress import Progress, RateOfStage, Schedule, run_stage, save_whole
from training.train import tokenizer_of
from training.untyped import AutoencoderKL

SCHEDULE = Schedule(steps=1000, rate=2.0, rise=10, fall=100)


def test_the_file_lets_the_rate_fall_now_and_for_good(tmp_path: Path) -> None:
    """The end is the step at which the file was seen and the fall; a new run finds it again."""
    progress = Progress(tmp_path, "vae")
    rate = RateOfStage(SCHEDULE, progress)
    assert (rate.end(300), rate.of(300), rate.of(950)) == (1000, 2.0, 1.0)
    (tmp_path / "vae.finish").touch()
    assert (rate.end(300), rate.end(340), rate.of(350)) == (400, 400, 1.0)
    assert RateOfStage(SCHEDULE, progress).end(390) == 400


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_a_step_is_about_as_large_in_every_direction(shape: tuple[int, int]) -> None:
    """The singular values of a lopsided gradient come near to 1."""
    torch.manual_seed(1)
    lopsided = torch.randn(shape) * torch.logspace(0, -2, shape[1])
    values = torch.linalg.svdvals(orthogonalised(lopsided))
    assert values.max() < 1.3
    assert values.min() > 0.5


SHORT = Schedule(steps=12, rate=0.05, rise=3, fall=4)


class Killed(Exception):
    """The training ends here."""


def run(folder: Path, *, killed_at: int | None = None) -> dict[str, Tensor]:
    """Trains a small network in `folder`, from what was saved there on; gives its weights."""
    torch.manual_seed(1)
    network = nn.Linear(3, 4)
    optimizer = Optimizers(network, rate=SHORT.rate, weight_decay=0.01)
    progress = Progress(folder, "vae")

    def one_step(step: int) -> dict[str, Tensor]:
        if step == killed_at:
            raise Killed
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (network(inputs) - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    rate = RateOfStage(SHORT, progress)
    assert run_stage(network, optimizer, progress, rate, 0.9, one_step) == SHORT.steps
    return network.state_dict()


@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_killed_stage_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Weights, their average, the optimizer's state and the rate all go on where they were."""
    monkeypatch.setattr("training.progress.SECONDS_BETWEEN_SAVES", -1.0)  # after each step
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_at=killed_at)
    resumed = run(tmp_path / "killed")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_the_target_leads_back_to_the_clean_latents_whatever_is_shown() -> None:
    """Taking the target out of the noisy latents leaves the captioned picture."""
    torch.manual_seed(1)
    clean, unrelated = torch.randn(4, 4, 16, 16), torch.randn(4, 4, 16, 16)
    share = signal_shares()[torch.tensor([100, 500, 800, 999])]
    signal, rest = (part.sqrt().view(-1, 1, 1, 1) for part in (share, 1 - share))
    for shown in (clean, unrelated, torch.zeros_like(clean)):
        noisy, v = noisy_and_target(clean, shown, share)
        assert torch.allclose(signal * noisy - rest * v, clean, atol=1e-4)


def test_the_noise_is_stable_diffusions() -> None:
    """Other programs compute their schedules from these values."""
    sampler = new_sampler()
    assert float(sampler.alphas_cumprod[999]) == pytest.approx(0.00466, abs=1e-5)
    assert (sampler.config.steps_offset, sampler.config.set_alpha_to_one) == (1, False)


DEMO = Path(__file__).parents[2] / "picowatch/assets/demo"


def test_a_run_begins_with_a_model_and_goes_on_from_there(tmp_path: Path) -> None:
    """One that has begun keeps its own weights. The optimizer begins anew."""
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
    save_whole({f"{width}x{height}": encoded(vae, device, 0, 16, NATIVE)}, run / "latents/0.pt")
    network = torch.load(run / "denoiser.state.pt", weights_only=True)["network"]
    train_denoiser(run, device, tokenizer_of(run), steps=1)
    state = torch.load(run / "denoiser.state.pt", weights_only=True)
    assert state["step"] == 1
    assert state["optimizer"]
    assert network.keys() == state["network"].keys()
