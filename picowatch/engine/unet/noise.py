"""Noise: what each image of a pass starts from, and what its steps add.

Every image has its own numbers, so a picture does not depend on its neighbours. They are used as
A1111 uses them (modules/rng.py, ImageRNG): a pass begins with the first numbers of its seed,
mixed with those of the variation seed, and its steps take those that follow, or with `ensd` those
of another seed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch.overrides import TorchFunctionMode

from picowatch.engine.unet.latents import LATENT_CHANNELS, LATENT_FACTOR
from picowatch.engine.unet.philox import Philox
from picowatch.recipe.fields import NVIDIA
from picowatch.recipe.request import ImageRequest

# From here on A1111 takes two noises for the same, and does not divide by the angle between them.
_PARALLEL = 0.9995


class Noise(NamedTuple):
    """What the images of a pass start from, a row for each, and what their steps draw from."""

    start: torch.Tensor
    generators: list[torch.Generator]


def noise_of(requests: Sequence[ImageRequest], width: int, height: int) -> Noise:
    """The noise of a pass at this size; each pass begins anew, as in A1111."""
    shape = (1, LATENT_CHANNELS, height // LATENT_FACTOR, width // LATENT_FACTOR)
    generators = generators_for(requests)
    with numbers_of(generators):
        start = [torch.randn(shape, generator=generator) for generator in generators]
    start = [_varied(noise, one) for noise, one in zip(start, requests, strict=True)]
    generators = [
        _generator(one, one.seed + one.ensd) if one.ensd else generator
        for one, generator in zip(requests, generators, strict=True)
    ]
    return Noise(torch.cat(start), generators)


def generators_for(requests: Iterable[ImageRequest]) -> list[torch.Generator]:
    """A generator for each image, from its seed."""
    return [_generator(request, request.seed) for request in requests]


def _generator(request: ImageRequest, seed: int) -> torch.Generator:
    if request.noise == NVIDIA:
        return NvidiaGenerator(seed)
    return torch.Generator("cpu").manual_seed(seed)


def _varied(noise: torch.Tensor, request: ImageRequest) -> torch.Tensor:
    """The noise on its way to that of the variation seed."""
    if not request.variation_strength:
        return noise
    assert request.variation_seed is not None
    other = _generator(request, request.variation_seed)
    with numbers_of([other]):
        goal = torch.randn(noise.shape, generator=other)
    return slerp(noise[0], goal[0], request.variation_strength)[None]


def slerp(start: torch.Tensor, goal: torch.Tensor, share: float) -> torch.Tensor:
    """Spherical linear interpolation of channels x height x width, so that noise stays noise.

    "Animating rotation with quaternion curves", K. Shoemake, https://doi.org/10.1145/325334.325242,
    for the vectors along the second axis, as A1111 has it: one for each channel and column.
    """
    lengths = (one / one.norm(dim=1, keepdim=True) for one in (start, goal))
    cosine = torch.linalg.vecdot(*lengths, dim=1)
    if cosine.mean() > _PARALLEL:
        return start
    angle = cosine.acos()
    weights = (((1 - share) * angle).sin(), (share * angle).sin())
    kept, taken = ((weight / angle.sin()).unsqueeze(1) for weight in weights)
    mixed: torch.Tensor = kept * start + taken * goal
    return mixed


class NvidiaGenerator(torch.Generator):
    """A generator of the CPU by its type, which draws the numbers of an NVIDIA GPU."""

    _numbers: Philox

    def __new__(cls, seed: int) -> Self:
        """torch's class takes a device there."""
        generator = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        generator._numbers = Philox(seed)
        return generator

    def __init__(self, seed: int) -> None:
        pass

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal numbers; each call continues where the last one ended."""
        return torch.from_numpy(self._numbers.randn(tuple(shape)))


class _NvidiaNumbers(TorchFunctionMode):
    """Lets torch.randn draw from an NvidiaGenerator, whoever calls it.

    diffusers' schedulers and pipelines pass their generators on to it; each has bound diffusers'
    randn_tensor to a name of its own, so nothing else reaches all of them.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        generator = named.get("generator")
        if not isinstance(generator, NvidiaGenerator):
            return function(*arguments, **named)
        if function is not torch.randn:
            # Its state is not that of torch's own, so any other numbers would be wrong.
            raise TypeError(f"{function} draws from a generator of NVIDIA's numbers")
        return _numbers(*arguments, **named)


def _numbers(
    shape: Sequence[int],
    *,
    generator: NvidiaGenerator,
    device: Any = None,
    dtype: torch.dtype | None = None,
    **_: Any,
) -> torch.Tensor:
    """What torch.randn gives for its arguments; diffusers names no layout but the usual one."""
    return generator.randn(shape).to(device=device or "cpu", dtype=dtype or torch.float32)


def numbers_of(generators: Iterable[torch.Generator]) -> AbstractContextManager[Any]:
    """While torch draws from any of these generators; costs nothing where all are torch's own."""
    if any(isinstance(generator, NvidiaGenerator) for generator in generators):
        return _NvidiaNumbers()
    return nullcontext()


@contextmanager
def step_noise(generators: Iterable[torch.Generator], device: torch.device) -> Iterator[None]:
    """While a step draws from these generators: its numbers come to a card without waiting."""
    uploads = _Uploads(device) if device.type == "cuda" else nullcontext()
    with numbers_of(generators), uploads:
        yield


class _Uploads(TorchFunctionMode):
    """Lets torch.randn give a processor's numbers on a card.

    They go there from pinned memory, after the work that is queued. diffusers copies them from
    ordinary memory, which waits until all of that is done.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*arguments, **(named or {}))
        if function is not torch.randn:
            return result
        return result.pin_memory().to(self._device, non_blocking=True)
