"""Peer 3, stable-diffusion.cpp on the CPU: Stable Diffusion in C++ with ggml.

python -m benchmarks.peers.stable_diffusion_cpp JOB.json f32|f16|q8_0

It knows full-size checkpoints only, and draws its noise in its own way.
"""

import os
import sys
import time
from pathlib import Path

from stable_diffusion_cpp import StableDiffusion

from benchmarks.peers.asked import asked, resident_peak, seconds_since_start, tell


def main() -> None:
    job = asked()
    model = StableDiffusion(
        model_path=job["checkpoint"],
        wtype=sys.argv[2],
        n_threads=os.cpu_count() or 1,
        vae_decode_only=True,
        verbose=False,
    )
    start_up = seconds_since_start()
    seconds = []
    for number, picture in enumerate(job["pictures"]):
        began = time.perf_counter()
        image = model.generate_image(
            prompt=picture["prompt"],
            negative_prompt=job["negative_prompt"],
            sample_method="dpm++2m",
            scheduler="karras",
            sample_steps=picture["steps"],
            cfg_scale=job["cfg_scale"],
            width=job["size"],
            height=job["size"],
            seed=picture["seed"],
        )[0]
        image.save(Path(job["out"]) / f"{number:04}.png")
        seconds.append(time.perf_counter() - began)
    tell(start_up, seconds, resident_peak())


if __name__ == "__main__":
    main()
