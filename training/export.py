"""Write the trained parts as a diffusers folder in half precision, and goes on from one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTokenizer

from training.captions import known_words
from training.networks import Denoiser
from training.noise import new_sampler
from training.progress import Progress
from training.untyped import AutoencoderKL, StableDiffusionPipeline


def export_model(run_folder: Path, target: Path) -> None:
    """The autoencoder and the denoiser's average, ready for `from_pretrained`."""
    tokenizer = CLIPTokenizer.from_pretrained(run_folder / "tokenizer")
    denoiser = Denoiser(tokenizer)
    state = torch.load(run_folder / "denoiser.state.pt", weights_only=True)
    denoiser.load_state_dict(state["average"])
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(run_folder / "vae"),
        unet=denoiser.unet,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        scheduler=new_sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(target, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):
        (target / "tokenizer" / name).write_bytes((run_folder / "tokenizer" / name).read_bytes())
    for part in ("unet", "vae", "text_encoder"):
        edit_json(target / part / "config.json", _name_or_path=None)
    # As in Stable Diffusion 1.5's file. PNDM's own save leaves it out, and a DDIM made from such
    # a file clips the latents.
    edit_json(target / "scheduler" / "scheduler_config.json", clip_sample=False)
    write_known_words(target)
    print(f"exported step {state['step']} to {target}", flush=True)


def begin_with(model: Path, run_folder: Path) -> None:
    """Begin a run with an exported model's weights; a run that has begun stays what it is.

    The optimizer begins anew, and so do the probes: at zero, so that they disturb the text encoder
    as little as they know.
    """
    progress = Progress(run_folder, "denoiser")
    if progress.state_file.exists():
        return
    for part in ("vae", "tokenizer"):
        shutil.copytree(model / part, run_folder / part, dirs_exist_ok=True)
    denoiser = Denoiser(CLIPTokenizer.from_pretrained(run_folder / "tokenizer"))
    load_weights(denoiser.unet, model / "unet/diffusion_pytorch_model.safetensors")
    load_weights(denoiser.text_encoder, model / "text_encoder/model.safetensors")
    for parameter in denoiser.probes.parameters():
        torch.nn.init.zeros_(parameter)
    weights = denoiser.state_dict()
    progress.save({"network": weights, "average": weights, "step": 0})


def load_weights(network: Any, file: Path) -> None:
    """Fill a network from its file; every weight must be there."""
    stored: dict[str, Tensor] = load_file(file)
    network.load_state_dict({name: value.float() for name, value in stored.items()})


def write_known_words(target: Path) -> None:
    """`known_words.json`: what the model was taught, for a warning about other words."""
    (target / "known_words.json").write_text(json.dumps(known_words(), indent=2) + "\n", "utf-8")


def edit_json(file: Path, **changes: object) -> None:
    """Set the fields; None takes one out, such as the folder that a part was read from."""
    fields = {**json.loads(file.read_text("utf-8")), **changes}
    kept = {name: value for name, value in fields.items() if (name, value) not in dropped(changes)}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", "utf-8")


def dropped(changes: dict[str, object]) -> list[tuple[str, None]]:
    """The fields to take out."""
    return [(name, None) for name, value in changes.items() if value is None]
