"""A pretended package of AOTInductor: written at once, and computed by the eager layers.

As a real one, it has no weights of its own, copies those that it is given, and takes only all of
them at first. What else lies in its place is for torch to open.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from picowatch.engine.compiled import compiled as compiling
from picowatch.engine.compiled.compile_job import CompileJob, PlainUnet, unet_to_compile

_MARK = "pretended package: "
_COMPILER = """
import pathlib, sys
new = pathlib.Path(sys.argv[2] + ".new")
new.write_text(sys.argv[1])
new.rename(sys.argv[2])
"""


@contextmanager
def pretended_packages() -> Iterator[None]:
    """Engines write and open pretended packages, as they would real ones."""
    from torch._inductor import aoti_load_package  # takes over a second

    with (
        patch.object(compiling, "python_command", _write_instead_of_compiling),
        patch.object(compiling, "_COMPILERS", ("sh",)),
        patch("torch._inductor.aoti_load_package", partial(_load, aoti_load_package)),
    ):
        yield


def _write_instead_of_compiling(program: str, job: str, package: str) -> list[str]:
    assert program == "picowatch.engine.compiled.compile_main"
    return [sys.executable, "-S", "-c", _COMPILER, _MARK + job, package]


def _load(torchs: Callable[..., Any], path: str, device_index: int) -> Any:
    content = Path(path).read_bytes()
    if not content.startswith(_MARK.encode()):
        return torchs(path, device_index=device_index)
    return _PretendedPackage(CompileJob.from_json(content.decode().removeprefix(_MARK)))


class _PretendedPackage:
    def __init__(self, job: CompileJob) -> None:
        self._shape = job.shape
        self._unet = PlainUnet(unet_to_compile(job))
        self._weights = list(self._unet.state_dict())

    def get_constant_fqns(self) -> list[str]:
        return self._weights

    def load_constants(
        self, weights: Mapping[str, torch.Tensor], *, check_full_update: bool
    ) -> None:
        assert not check_full_update or set(weights) == set(self._weights)
        copies = {name: tensor.clone() for name, tensor in weights.items()}
        self._unet.load_state_dict(copies, strict=False, assign=True)

    def __call__(self, latents: torch.Tensor, *inputs: Any) -> Any:
        rows, _, height, width = latents.shape
        assert (rows, height, width) == tuple(self._shape)[:3], "compiled for another shape"
        return self._unet(latents, *inputs)
