"""A program as people write it around diffusers: one picture after the other.

    python -m benchmarks.peers.diffusers_loop JOB.json

`benchmarks/jobs.py` writes the job. The last line that it prints is JSON: the seconds of each
picture, and its peak memory.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler


def pipeline(job: Mapping[str, Any]) -> Any:
    """The job's checkpoint on its device, in float16 on a card."""
    dtype = torch.float16 if job["device"].startswith("cuda") else torch.float32
    kind: Any = getattr(diffusers, job["pipeline"])
    if Path(job["checkpoint"]).is_dir():
        pipe = kind.from_pretrained(job["checkpoint"], torch_dtype=dtype)
    else:
        pipe = kind.from_single_file(job["checkpoint"], config=job["configs"], torch_dtype=dtype)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(job["device"])


def draw(pipe: Any, job: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> Any:
    """Some of the job's pictures, of as many steps as the first of them, at once.

    Their noise is drawn in float32, as picowatch does: in float16 a seed has other numbers.
    """
    shape = (1, 4, job["size"] // 8, job["size"] // 8)
    noise = [torch.randn(shape, generator=torch.manual_seed(image["seed"])) for image in pictures]
    return pipe(
        [image["prompt"] for image in pictures],
        negative_prompt=[job["negative_prompt"]] * len(pictures),
        num_inference_steps=pictures[0]["steps"],
        guidance_scale=job["cfg_scale"],
        width=job["size"],
        height=job["size"],
        latents=torch.cat(noise).to(pipe.device, pipe.dtype),
    ).images


@torch.inference_mode()
def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    pipe = pipeline(job)
    seconds = []
    for number, picture in enumerate(job["pictures"]):
        began = time.perf_counter()
        draw(pipe, job, [picture])[0].save(Path(job["out"]) / f"{number:04}.png")
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kilobytes on Linux
    print(json.dumps({"pictures": seconds, "peak_bytes": peak * 1024}))


if __name__ == "__main__":
    main()
