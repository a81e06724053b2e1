"""Which cards a build of torch has code for. Imports no torch.

A build names the compute capabilities that it was compiled for (`torch.cuda.get_arch_list`):
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html
"""

import re
from collections.abc import Iterable

Capability = tuple[int, int]

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
