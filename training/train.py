"""Train the demo model from nothing: `python -m training.train`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from training.denoiser import train_denoiser
from training.export import begin_with, export_model
from training.latents import PARTS, encode_pictures
from training.tokenizer import build_tokenizer
from training.vae import refine_decoder, train_vae

STAGES = ("vae", "latents", "denoiser", "decoder", "export")


def main() -> None:
    """Run the stages in order; a finished one is skipped, an interrupted one goes on."""
    arguments = parsed_arguments()
    run_folder, device = arguments.run_dir, chosen_device(arguments.device)
    if arguments.finish:
        (run_folder / f"{arguments.finish}.finish").touch()
        return
    stages = [arguments.stage] if arguments.stage else STAGES
    if arguments.begin_with:
        begin_with(arguments.begin_with, run_folder)
    tokenizer_of(run_folder)
    if "vae" in stages:
        train_vae(run_folder, device)
    if "latents" in stages:
        encode_pictures(run_folder, device, arguments.parts)
    if "denoiser" in stages:
        train_denoiser(run_folder, device, tokenizer_of(run_folder), arguments.steps)
    if "decoder" in stages:
        refine_decoder(run_folder, device)
    if "export" in stages:
        export_model(run_folder, arguments.out)


def tokenizer_of(run_folder: Path) -> CLIPTokenizer:
    folder = run_folder / "tokenizer"
    if folder.exists():
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
        return tokenizer
    return build_tokenizer(folder)


def chosen_device(name: str) -> torch.device:
    """The named device; `auto` takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=STAGES, help="one stage only")
    parser.add_argument("--run-dir", type=Path, default=Path("training/runs/demo"))
    parser.add_argument(
        "--begin-with", type=Path, help="go on from this model's folder, not from nothing"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("picowatch/assets/demo"))
    parser.add_argument("--steps", type=int, help="steps of the denoiser")
    parser.add_argument("--parts", type=int, default=PARTS, help="parts of training pictures")
    parser.add_argument(
        "--finish",
        choices=("vae", "denoiser", "decoder"),
        help="let the learning rate of a running stage fall now, so that it ends soon",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
