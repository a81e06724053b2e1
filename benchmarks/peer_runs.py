"""Runs a peer in a process of its own, and tells what it took."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import Job

PROJECT = Path(__file__).parents[1]
PATIENCE = 1800.0
SD_CPP = "stable-diffusion-cpp-python==0.4.7"
# Built once, beside nothing else: it must not change what the project is tested with.
SD_CPP_FOLDER = Path(tempfile.gettempdir()) / SD_CPP.replace("==", "-")


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One run: seconds of the whole process, until it was ready, and of each picture."""

    wall: float
    start_up: float
    pictures: list[float]
    peak_bytes: int

    @property
    def each(self) -> float:
        """Seconds a picture, once it is warm: the first one is left out if there are more."""
        return statistics.fmean(self.pictures[1:] or self.pictures)


def run_peer(name: str, job: Job, folder: Path, *arguments: str) -> PeerRun:
    """Let a peer do the job; its pictures are in `folder`, numbered as in the job.

    Raises RuntimeError with the peer's last words.
    """
    file = folder / "job.json"
    job.write(file, folder)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PROJECT}{os.pathsep}{SD_CPP_FOLDER}",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.peers.{name}", str(file), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    wall = time.monotonic() - began
    if result.returncode:
        raise RuntimeError(f"{name} failed: {' / '.join(result.stderr.splitlines()[-3:])}")
    told = json.loads(result.stdout.splitlines()[-1])
    return PeerRun(wall, told["start_up"], told["pictures"], told["peak_bytes"])


def build_sd_cpp() -> None:
    """Build stable-diffusion.cpp from its source package, unless that was done."""
    if (SD_CPP_FOLDER / "stable_diffusion_cpp").is_dir():
        return
    print(f"building {SD_CPP} in {SD_CPP_FOLDER}; needs cmake and a C++ compiler", flush=True)
    unfinished = SD_CPP_FOLDER.with_suffix(".part")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
    subprocess.run([*pip, "--target", str(unfinished), SD_CPP], check=True, timeout=PATIENCE)
    unfinished.rename(SD_CPP_FOLDER)
