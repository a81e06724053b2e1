"""Which graphics cards a build of torch has code for. Imports no torch.

torch.cuda.get_arch_list() names them: `sm_86` is machine code for compute capability 8.6 and for
later ones of 8; `compute_90` is PTX, which drivers translate for 9.0 and everything later
(NVIDIA, "CUDA C++ Programming Guide", "Binary Compatibility", "PTX Compatibility").
"""

import re
from collections.abc import Iterable

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

Capability = tuple[int, int]


def runs_on(capability: Capability, architectures: Iterable[str]) -> bool:
    """Whether a build for these architectures has code that a card can run."""
    major, minor = capability
    for kind, *numbers in _parsed(architectures):
        built_major, built_minor = numbers
        if kind == "compute" and (built_major, built_minor) <= capability:
            return True
        if kind == "sm" and built_major == major and built_minor <= minor:
            return True
    return False


def remedy_for(capability: Capability) -> str:
    """What to install for a card that the build has no code for."""
    return _LAST_FOR_OLD if capability < _OLDEST_OF_NEW_BUILDS else _NEWER


def range_of(architectures: Iterable[str]) -> str:
    """`7.5 to 12.0`: the compute capabilities a build was made for."""
    found = sorted((major, minor) for _, major, minor in _parsed(architectures))
    if not found:
        return "no card"
    (first, last) = (f"{major}.{minor}" for major, minor in (found[0], found[-1]))
    return first if first == last else f"{first} to {last}"


def _parsed(architectures: Iterable[str]) -> list[tuple[str, int, int]]:
    """Kind, major and minor; AMD's names (`gfx90a`) are none of these."""
    matches = filter(None, map(_ARCHITECTURE.fullmatch, architectures))
    return [(match[1], int(match[2]), int(match[3])) for match in matches]
