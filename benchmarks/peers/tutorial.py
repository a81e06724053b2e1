"""Peer 1, the plain engine that people copy from tutorials: attention slicing, one at a time.

python -m benchmarks.peers.tutorial JOB.json
"""

import time
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from benchmarks.peers.asked import asked, resident_peak, seconds_since_start, tell


def main() -> None:
    job = asked()
    on_cuda = job["device"].startswith("cuda")
    dtype = torch.float16 if on_cuda else torch.float32
    if Path(job["checkpoint"]).is_dir():
        pipe = StableDiffusionPipeline.from_pretrained(job["checkpoint"], torch_dtype=dtype)
    else:
        pipe = StableDiffusionPipeline.from_single_file(
            job["checkpoint"], config=job["configs"], torch_dtype=dtype
        )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True
    )
    pipe = pipe.to(job["device"])
    pipe.enable_attention_slicing()
    pipe.set_progress_bar_config(disable=True)
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
