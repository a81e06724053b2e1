"""Peer 2, well-used diffusers: SDPA, no slicing, one at a time.

python -m benchmarks.peers.diffusers_loop JOB.json [--compile]

`--compile`: with torch.compile and channels_last, as diffusers' docs on speed have it.
"""

import sys
import time
from pathlib import Path

import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler

from benchmarks.peers.asked import asked, resident_peak, seconds_since_start, tell


@torch.inference_mode()
def main() -> None:
    job = asked()
    on_cuda = job["device"].startswith("cuda")
    dtype = torch.float16 if on_cuda else torch.float32
    pipeline = getattr(diffusers, job["pipeline"])
    if Path(job["checkpoint"]).is_dir():
        pipe = pipeline.from_pretrained(job["checkpoint"], torch_dtype=dtype)
    else:
        pipe = pipeline.from_single_file(
            job["checkpoint"], config=job["configs"], torch_dtype=dtype
        )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True
    )
    pipe = pipe.to(job["device"])
    pipe.set_progress_bar_config(disable=True)
    if "--compile" in sys.argv:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
        pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode, mode="max-autotune", fullgraph=True)
    start_up = seconds_since_start()
    seconds = []
    for number, picture in enumerate(job["pictures"]):
        began = time.perf_counter()
        image = pipe(
            picture["prompt"],
            negative_prompt=job["negative_prompt"],
            num_inference_steps=picture["steps"],
            guidance_scale=job["cfg_scale"],
            width=job["size"],
            height=job["size"],
            generator=torch.Generator("cpu").manual_seed(picture["seed"]),
        ).images[0]
        image.save(Path(job["out"]) / f"{number:04}.png")
        seconds.append(time.perf_counter() - began)
    tell(start_up, seconds, torch.cuda.max_memory_allocated() if on_cuda else resident_peak())


if __name__ == "__main__":
    main()
