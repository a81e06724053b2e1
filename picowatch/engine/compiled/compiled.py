"""Compiled UNets: when to compile them, where they are kept, when to trust them.

They are compiled beside the pictures, by a process of the lowest priority, and used from the
first batch after that; no picture is ever delayed by one. They are kept in the user's own cache
folder: what is in them is run, so nobody else may write it.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from picowatch.engine.compiled.compile_job import (
    CompileJob,
    PlainUnet,
    arranged,
    example_inputs,
    job_for,
)
from picowatch.engine.compiled.compile_main import failure_of
from picowatch.engine.compiled.measuring import agree, example_of
from picowatch.engine.compiled.trials import begin_trial
from picowatch.engine.failures import out_of_memory
from picowatch.engine.memory.usage import free_bytes
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.torch_check import python_command
from picowatch.engine.unet.denoise import EagerUnet, Inputs, Shape

# Compiling takes half a minute to two, and gives back a third of the time of what follows: a
# shape that took, or is going to take, this long is worth it.
WORTH_SECONDS = 300.0
_COMPILERS = ("g++", "clang++", "c++")
_LEFT_FOR_PICTURES = 2 * 2**30
# A package computes with a copy of the weights, so few are kept: hires needs two at a time.
_KEPT_PACKAGES = 2


class CompiledUnet:
    """A compiled UNet with a copy of a loaded one's weights, and whatever LoRAs act on them.

    `beats_graphs`: it was measured beside a graph, and was faster.
    """

    compiled = True
    embeds_guidance = False

    def __init__(self, package: Path, job: CompileJob, loaded: Loaded) -> None:
        """Raises what torch raises of a package that it cannot open."""
        self.beats_graphs = False
        from torch._inductor import aoti_load_package  # takes over a second, once

        self.dtype: torch.dtype = loaded.unet.dtype
        self._channels_last = job.channels_last
        index = loaded.unet.device.index
        self._run: Any = aoti_load_package(
            str(package), device_index=-1 if index is None else index
        )
        self._zeros = tuple(map(torch.zeros_like, example_inputs(job)[3]))
        weights = _weights_of(loaded)
        if set(self._run.get_constant_fqns()) != set(weights):
            raise ValueError("some weights were compiled in")
        self._run.load_constants(weights, check_full_update=True)
        self._applied: object = ()
        self._merged: set[str] = set()
        self.apply_loras(loaded)

    def apply_loras(self, loaded: Loaded) -> None:
        """Compute with the LoRAs that act on the loaded UNet now, and no others.

        Only layers that LoRAs act on, or acted on before, are copied again.
        """
        if self._applied == loaded.loras.applied:
            return
        merged = {f"unet.{name}": tensor for name, tensor in loaded.loras.merged().items()}
        plain = _weights_of(loaded)
        changed = {name: plain[name] for name in self._merged} | merged
        self._run.load_constants(changed, check_full_update=False)
        self._merged, self._applied = set(merged), loaded.loras.applied

    def __call__(self, given: Inputs) -> torch.Tensor:
        """See `Unet`. Residuals of zero change nothing: where ControlNets rest, they are that."""
        latents = arranged(given.latents, self._channels_last)
        added = given.residuals or self._zeros
        if given.residuals:  # those of pooled maps are one pixel large
            added = tuple(
                arranged(one.expand(zeros.shape), self._channels_last)
                for one, zeros in zip(given.residuals, self._zeros, strict=True)
            )
        states = given.prompts.states.contiguous()
        predicted: torch.Tensor = self._run(latents, given.timestep.float(), states, added)
        return predicted

    def foresee(self, timesteps: torch.Tensor) -> Sequence[torch.Tensor]:
        """See `Unet`: its code has no way in for what is known beforehand."""
        return timesteps.unbind()


def _weights_of(loaded: Loaded) -> dict[str, torch.Tensor]:
    """The checkpoint's own, by their names in a package, whatever the UNet computes with now."""
    wrapped = PlainUnet(loaded.unet)
    own = {f"unet.{name}": weight for name, weight in loaded.loras.plain().items()}
    return {**dict(wrapped.named_parameters()), **dict(wrapped.named_buffers()), **own}


class CompiledUnets:
    """The compiled UNets of this device. Without a folder, nothing is compiled."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder if folder and _is_ours_alone(folder) else None
        self._spent: dict[str, float] = {}
        self._requested: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def find(self, loaded: Loaded, shape: Shape) -> CompiledUnet | None:
        """The compiled UNet for this shape, if there is one that can be trusted."""
        if self._folder is None:
            return None
        compiled: CompiledUnet | None = loaded.compiled.pop(shape, None)
        compiled = compiled or self._load(loaded, shape)
        if compiled is not None:
            compiled.apply_loras(loaded)
            loaded.compiled[shape] = compiled  # the last used last
            while len(loaded.compiled) > _KEPT_PACKAGES:
                del loaded.compiled[next(iter(loaded.compiled))]
        return compiled

    def consider(self, loaded: Loaded, shape: Shape, seconds: float, expected: float) -> None:
        """Compile for a shape that took `seconds` just now, if that is worth it.

        `expected` are the seconds of what is queued. One is compiled at a time.
        """
        if self._folder is None or (self._process and self._process.poll() is None):
            return
        job = job_for(loaded.unet, shape)
        self._spent[job.name] = self._spent.get(job.name, 0.0) + seconds
        worth = self._spent[job.name] + expected >= WORTH_SECONDS
        if not worth or job.name in self._requested or not any(map(shutil.which, _COMPILERS)):
            return
        if not _has_room(loaded, copies=2):  # the weights there, and what compiling tries out
            return
        self._requested.add(job.name)
        package = self._package(job)
        if not package.exists() and not failure_of(package).exists():
            program = "picowatch.engine.compiled.compile_main"
            self._process = subprocess.Popen(
                python_command(program, job.as_json(), str(package)),
                stdin=_pipe_until_we_end(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def _load(self, loaded: Loaded, shape: Shape) -> CompiledUnet | None:
        """The compiled UNet from its file, tried on one prediction."""
        job = job_for(loaded.unet, shape)
        package = self._package(job)
        trials = package.with_suffix(".trials")
        if not package.exists() or not _has_room(loaded, copies=1) or not begin_trial(trials):
            return None
        try:
            compiled = CompiledUnet(package, job, loaded)
            same = agree(compiled, EagerUnet(loaded.unet), example_of(loaded.unet, shape))
            failure = "" if same else "gives different results"
        # Whatever a package that does not work raises, the eager UNet does.
        except Exception as error:
            # Memory comes back: the trial counts as none, and the next one waits for its pause.
            failure = "." if out_of_memory(error) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            trials.write_text(failure)
        return None if failure else compiled

    def _package(self, job: CompileJob) -> Path:
        assert self._folder is not None
        return self._folder / f"{job.name}.pt2"


@cache
def _pipe_until_we_end() -> int:
    """A pipe's end that can be read once this process is gone: nobody else holds the other end."""
    reader, _ = os.pipe()
    return reader


def _has_room(loaded: Loaded, *, copies: int) -> bool:
    """Whether a card has memory for so many more copies of the UNet, and for pictures beside."""
    device = loaded.unet.device
    if device.type == "cpu":
        return True
    size = sum(weight.nbytes for weight in loaded.unet.parameters())
    return bool(free_bytes(device) >= copies * size + _LEFT_FOR_PICTURES)


def _is_ours_alone(folder: Path) -> bool:
    """Whether this user, and nobody else, can write to the folder; creates it."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        others = stat.S_IWGRP | stat.S_IWOTH
        return found.st_uid == os.geteuid() and not found.st_mode & others
    return False
