"""Where to compute, and in which precision."""

from dataclasses import dataclass

import torch

from picowatch.engine.options import Precision
from picowatch.errors import RenderFailed

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Place:
    """A device, the type its models compute in, and the device's name for people."""

    device: torch.device
    dtype: torch.dtype
    name: str

    @property
    def precision(self) -> str:
        """The type's name as settings have it."""
        return str(self.dtype).removeprefix("torch.")


def choose_place(device: str, precision: Precision) -> Place:
    """The device the settings mean. "auto" takes CUDA, else MPS, else the CPU.

    Precision "auto" is float16 on CUDA and float32 elsewhere: float16 makes black pictures with
    some checkpoints on MPS, and CPUs are slower in it.
    """
    chosen = torch.device(_best() if device == "auto" else device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", 0)
    _check(chosen)
    narrow = "float16" if chosen.type == "cuda" else "float32"
    dtype = _DTYPES[narrow if precision == "auto" else precision]
    return Place(chosen, dtype, _name(chosen))


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check(device: torch.device) -> None:
    """The device exists; the message says what there is instead."""
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RenderFailed("There is no MPS device here (Apple's GPU).", "Set device: auto.")
    if device.type != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise RenderFailed(
            f"There is no CUDA device here that torch {torch.__version__} can use.",
            "Set device: auto, or install torch for your GPU (https://pytorch.org).",
        )
    if (device.index or 0) >= count:
        raise RenderFailed(f"There is no {device}: the last CUDA device is cuda:{count - 1}.")


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device.type
