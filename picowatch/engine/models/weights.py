"""Weights, from safetensors files into models of diffusers and transformers."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from safetensors import safe_open
from torch.overrides import TorchFunctionMode

from picowatch.engine.devices import Target
from picowatch.errors import RenderFailed

Tensors = dict[str, torch.Tensor]

# What layers begin with: functions of torch.nn.init, and of transformers in place of them.
_RANDOM_VALUES = {"normal_", "uniform_", "kaiming_uniform_", "trunc_normal_", "xavier_uniform_"}


def read_tensors(
    files: Iterable[Path], target: Target, wanted: Callable[[str], bool] = lambda name: True
) -> Tensors:
    """Copies of the wanted tensors on the target's device; numbers in the target's type.

    Copies, because safetensors maps files into memory: a file that is overwritten in place would
    change the model, or end the process (SIGBUS).
    """
    tensors: Tensors = {}
    for path in files:
        # Copying and converting takes a processor longer than the disk's cache gives it: all cores.
        with safe_open(path, framework="pt") as file, ThreadPoolExecutor() as pool:
            names = list(filter(wanted, file.keys()))
            found = [file.get_tensor(name) for name in names]
            tensors |= zip(names, pool.map(partial(_copied, target=target), found), strict=True)
    return tensors


def _copied(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """A copy where and as the target wants it."""
    dtype = target.dtype if tensor.is_floating_point() else tensor.dtype
    form = target.memory_format if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(target.device, dtype, copy=True, memory_format=form)


def empty(model: Any, config: Any) -> Any:
    """A model without weights; buffers, which no file holds, are real.

    diffusers builds from a dict, transformers from a config object.
    """
    with init_empty_weights(include_buffers=False), _NoRandomValues():
        return model.from_config(config) if isinstance(config, dict) else model(config)


class _NoRandomValues(TorchFunctionMode):
    """Weights that have no values get no random ones either.

    It makes no difference to them, but for a meta tensor torch imports its compiler to do it, which
    takes over a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """See https://docs.pytorch.org/docs/stable/notes/extending.html."""
        kwargs = kwargs or {}
        if func.__name__ in _RANDOM_VALUES:
            weights = args[0] if args else kwargs["tensor"]
            if weights.is_meta:
                return weights
        return func(*args, **kwargs)


def fill(model: Any, tensors: Tensors, what: str, target: Target) -> Any:
    """Put the tensors into an empty model; each of its weights must be there, in its shape."""
    try:
        missing = model.load_state_dict(tensors, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise RenderFailed(
            f"The {what} does not fit its kind of model: some weights have other shapes.",
            trace=str(error),
        ) from error
    if missing:
        raise RenderFailed(
            f"The {what} is incomplete: {len(missing)} weights are missing, starting with "
            f"{missing[0]}.",
            "Get the file again, or another one.",
        )
    model = model.to(target.device).eval().requires_grad_(False)
    if any(weight.ndim == 5 for weight in model.parameters()):
        return model  # convolutions over frames know no other layout
    return model.to(memory_format=target.memory_format)


def with_sides(tensor: torch.Tensor, ndim: int) -> torch.Tensor:
    """A matrix as a 1x1 convolution, or the reverse, whichever has `ndim` sides."""
    if (tensor.ndim, ndim) == (2, 4):
        return tensor[:, :, None, None]
    if (tensor.ndim, ndim) == (4, 2) and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    return tensor


def drop_weights(model: Any) -> None:
    """Give the memory of a model's weights back; its layers stay, and what is hooked to them."""
    model.load_state_dict(
        {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in model.state_dict().items()
        },
        assign=True,
    )


def has_weights(model: Any) -> bool:
    """False after `drop_weights`."""
    return not any(tensor.is_meta for tensor in model.parameters())


def take_weights(model: Any, source: Any, *, copy: bool) -> None:
    """Give a model the weights of another one, in the types that its own had.

    `copy`: those of `source` are mapped from files, and must not change with them.
    """
    taken: Tensors = {}
    by_address: dict[tuple[object, ...], torch.Tensor] = {}  # some weights have two names
    own = model.state_dict()
    # Parameters as they are: quantised ones know how.
    for name, tensor in source.state_dict(keep_vars=True).items():
        key = (tensor.data_ptr(), tensor.shape, own[name].dtype)
        if key not in by_address:
            by_address[key] = tensor.to(own[name].dtype, copy=copy)
        taken[name] = by_address[key]
    model.load_state_dict(taken, assign=True)
