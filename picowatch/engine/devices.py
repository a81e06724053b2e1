"""Where to compute, and in which precision."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from picowatch.engine.options import Precision
from picowatch.errors import RenderFailed

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LARGE_NATIVE_SIZE = 512
# Of a card. A build of torch names those that it was compiled for (`torch.cuda.get_arch_list`):
# https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html
Capability = tuple[int, int]
_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class Target:
    """A device, the type its models compute in, and the device's name for people.

    `large_unet_dtype` is the type for the UNet of a full-size checkpoint, `flow_dtype` for all
    parts of a flow family.
    """

    device: torch.device
    dtype: torch.dtype
    large_unet_dtype: torch.dtype
    flow_dtype: torch.dtype
    name: str

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory layout of convolutions' weights: the narrow types compute channels last."""
        narrow = self.dtype != torch.float32 and self.device.type in ("cpu", "cuda")
        return torch.channels_last if narrow else torch.contiguous_format

    def for_unet(self, native_size: int) -> "Target":
        """The same target with the type for a UNet of this native size."""
        large = native_size >= LARGE_NATIVE_SIZE
        return replace(self, dtype=self.large_unet_dtype) if large else self


def choose_target(device: str, precision: Precision, ordinal: int = 0) -> Target:
    """The device the settings mean. "auto" takes CUDA, else MPS, else the CPU.

    If the settings name no CUDA device by its number, the engine number `ordinal` of this machine
    takes that one; more engines than devices share them.

    Precision "auto" is float16 on CUDA, but for the GTX 16 cards, on which it gives black pictures.
    Elsewhere it is float32 (with some checkpoints float16 gives black pictures on MPS), except for
    the UNet of a full-size checkpoint on a CPU that computes bfloat16: a step of Stable Diffusion
    1.5 at 256x256 took 3 seconds instead of 7 on two such cores, and the UNet took half the memory.
    The demo model gains nothing from it. Flow families are trained in bfloat16, and many overflow
    in float16: they compute in it where the device does not merely emulate it, else in float32.
    """
    chosen = torch.device(_best() if device == "auto" else device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", ordinal % max(1, torch.cuda.device_count()))
    _check(chosen)
    if precision != "auto":
        dtype = large = flow = _DTYPES[precision]
    elif chosen.type == "cuda" and not _overflows_in_float16(chosen):
        dtype = large = torch.float16
        flow = torch.bfloat16 if _has_bfloat16(chosen) else torch.float32
    else:
        dtype = torch.float32
        narrow = chosen.type == "cpu" and _computes_bfloat16()
        large = torch.bfloat16 if narrow else dtype
        flow = torch.bfloat16 if chosen.type == "mps" else large
    return Target(chosen, dtype, large, flow, _name(chosen))


def compute_on(target: Target) -> None:
    """Make the target's device the one that this thread means where it names none.

    Events, memory figures and compiled packages are those of the current device, which is the
    first one until somebody says otherwise.
    """
    if target.device.type == "cuda":
        torch.cuda.set_device(target.device)


def compute_float32_in_full(*, full: bool) -> None:
    """Whether float32 is computed with all its bits, or convolutions may take TF32's ten.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    torch.backends.cudnn.allow_tf32 = not full
    torch.backends.cuda.matmul.allow_tf32 = False


def precision_name(dtype: torch.dtype) -> str:
    """The type's name as settings have it."""
    return str(dtype).removeprefix("torch.")


def _computes_bfloat16() -> bool:
    """True if the CPU has instructions for it; otherwise it is slower than float32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return probe is not None and bool(probe())


def _has_bfloat16(device: torch.device) -> bool:
    """True for a CUDA device that computes it: torch emulates it on cards before Ampere.

    As torch.cuda.is_bf16_supported(including_emulation=False), which asks the current device.
    """
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= _AMPERE


def _overflows_in_float16(device: torch.device) -> bool:
    """True for the cards without tensor cores of the generation that has them elsewhere.

    They compute float16 with errors that end in black pictures. A1111 knows them by the same name
    (modules/devices.py, `cuda_no_autocast`).
    """
    return "GeForce GTX 16" in torch.cuda.get_device_name(device)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check(device: torch.device) -> None:
    """Raise RenderFailed unless the device exists."""
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
    _check_build(device)


def _check_build(device: torch.device) -> None:
    """Raise RenderFailed if this build of torch has no code that the card can run."""
    capability = torch.cuda.get_device_capability(device)
    architectures = torch.cuda.get_arch_list()
    if torch.version.hip or runs_on(capability, architectures):
        return
    major, minor = capability
    raise RenderFailed(
        f"{_name(device)} has compute capability {major}.{minor}, and torch {torch.__version__} is "
        f"built for {range_of(architectures)}.",
        f"{remedy_for(capability)} Or set device: cpu.",
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device.type


_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?")
# Builds with CUDA 12.8 and later have no code for Maxwell and Pascal, those with 12.6 are the last.
_OLDEST_OF_NEW_BUILDS = (7, 0)
_LAST_FOR_OLD = (
    "Install torch's build for CUDA 12.6 (cu126), the last one with code for Maxwell and Pascal "
    "cards: https://pytorch.org/get-started/previous-versions/."
)
_NEWER = (
    "Install a newer build of torch, for a newer CUDA: https://pytorch.org/get-started/locally/."
)


def runs_on(capability: Capability, architectures: Iterable[str]) -> bool:
    """Whether a build for these architectures has code that a card can run.

    Compiled code runs on later cards of its generation, PTX ("compute") on all later ones.
    """
    return any(
        built <= capability and (kind == "compute" or built[0] == capability[0])
        for kind, built in _parsed(architectures)
    )


def remedy_for(capability: Capability) -> str:
    """What to install for a card that the build has no code for."""
    return _LAST_FOR_OLD if capability < _OLDEST_OF_NEW_BUILDS else _NEWER


def range_of(architectures: Iterable[str]) -> str:
    """The compute capabilities that a build is for, as in `7.5 to 12.0`."""
    found = sorted(built for _, built in _parsed(architectures))
    if not found:
        return "no card"
    first, last = (f"{major}.{minor}" for major, minor in (found[0], found[-1]))
    return first if first == last else f"{first} to {last}"


def _parsed(architectures: Iterable[str]) -> list[tuple[str, Capability]]:
    """Kind and capability; AMD's names (`gfx90a`) do not match."""
    matches = filter(None, map(_ARCHITECTURE.fullmatch, architectures))
    return [(match[1], (int(match[2]), int(match[3]))) for match in matches]
