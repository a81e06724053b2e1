"""Denoisers compiled for the machine that they run on: `compile: true`.

On a card diffusers compiles the blocks that a denoiser repeats, at their first use. On a CPU
OpenVINO computes the whole denoiser: it is converted once for each shape that it is called with,
and kept on the disk. The modules keep their own layers, so each of them can be run as it is at any
time: on a CPU by calling it, on a card inside `CompiledDenoisers.eager`.
"""

import copy
import gc
import hashlib
import json
import secrets
import shutil
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch

from picowatch.engine.memory_usage import free_bytes
from picowatch.extras import install_command
from picowatch.files.atomic import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    sync_file,
    sync_folder,
    write_atomically,
)

# Each width of a denoiser's blocks and each kind of shape is one: torch's 8 are too few for
# Stable Diffusion at three sizes.
_RECOMPILE_LIMIT = 64
# Bytes for each weight at the peak, beside the module: to convert it, and to open what was.
_BYTES_TO_CONVERT = 10
_BYTES_TO_OPEN = 6
_MODELS_IN_MEMORY = 8
_CACHE_BYTES = 30 * 10**9
_CPU = torch.device("cpu")


class CompiledDenoisers:
    """Denoisers compiled for the shapes that they are called with.

    `cache` is the folder for what OpenVINO has converted; with None it is converted at each start.
    """

    def __init__(self, device: torch.device, cache: Path | None) -> None:
        self._on_cpu = device.type == "cpu"
        self._cache = cache
        self._compiled: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why something was not compiled, in words, each reason once."""
        return tuple(self._warnings)

    def of(self, denoiser: Any, key: str) -> Callable[..., Any] | None:
        """Return what computes as the module does, or None where nothing can be compiled.

        It is called as the module is, with `return_dict=False`. `key` is the checkpoint's hash.
        What it cannot compile it leaves to the module, with a warning. Threads take turns: a batch
        gains nothing from being drawn in parts.
        """
        if denoiser not in self._compiled:
            self._compiled[denoiser] = self._compile(denoiser, key)
        found: Callable[..., Any] | None = self._compiled[denoiser]
        return found

    def _compile(self, denoiser: Any, key: str) -> Callable[..., Any] | None:
        if not self._on_cpu:
            return _blocks(denoiser, self._warn)
        if find_spec("openvino") is None:
            self._warn(f"needs OpenVINO, which is not installed: {install_command('openvino')}")
            return None
        try:
            return _Converted(denoiser, key, self._cache, self._warn)
        except Exception as error:  # whatever a broken installation raises
            self._warn(f"needs OpenVINO, which cannot be used here: {_said(error)}")
            return None

    def eager(self) -> Any:
        """Return a context in which modules compute with their own layers, whatever is compiled.

        On a CPU they do so anyway, and where nothing is compiled there is nothing to do.
        """
        if self._on_cpu or not any(self._compiled.values()):
            return nullcontext()
        return torch.compiler.set_stance("force_eager")

    def forget(self, denoiser: Any) -> None:
        """Give back the memory of what was compiled of a module."""
        self._compiled.pop(denoiser, None)

    def close(self) -> None:
        """Forget all modules."""
        self._compiled.clear()

    def _warn(self, words: str) -> None:
        self._warnings[f"compile: true {words}"] = None


def _blocks(denoiser: Any, warn: Callable[[str], None]) -> Callable[..., Any] | None:
    """Return the denoiser with its repeated blocks compiled, at their first use, where they are."""
    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    try:
        denoiser.compile_repeated_blocks(fullgraph=True)
    except (ValueError, AttributeError):  # a class that names no blocks; no model of diffusers'
        warn(f"does nothing for {type(denoiser).__name__}: it has no repeated blocks.")
        return None
    reference = weakref.ref(denoiser)
    failed = False

    def compute(*given: Any, **named: Any) -> Any:
        nonlocal failed
        module: Any = reference()
        if not failed:
            try:
                return module(*given, **named)
            except torch.OutOfMemoryError:
                raise
            # What torch's compiler raises is of no common class. What is not the compiler's is
            # raised again below, and says nothing against it.
            except Exception as error:
                reason = error
        with torch.compiler.set_stance("force_eager"):
            output = module(*given, **named)
        if not failed:
            failed = True
            warn(f"failed for {type(module).__name__}, which computes without: {_said(reason)}")
        return output

    return compute


class _Input(NamedTuple):
    """A tensor's place among a call's arguments."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class _Converted:
    """A denoiser that OpenVINO computes, with a model for each shape that it is called with."""

    def __init__(
        self, denoiser: Any, key: str, cache: Path | None, warn: Callable[[str], None]
    ) -> None:
        self._denoiser = weakref.ref(denoiser)
        self._key = key
        self._cache = cache
        self._warn = warn
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._failed: set[str] = set()
        self._openvino = _import_openvino()
        self._core = self._openvino.Core()

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return what the module does, in tensors of its type."""
        tensors: list[torch.Tensor] = []
        denoiser: Any = self._denoiser()
        shape = ""
        with self._lock:
            try:
                call = _without_tensors((given, named), tensors)
                shape = repr(call)
                if shape not in self._failed:
                    model = self._models.pop(shape, None) or self._model(denoiser, call, tensors)
                    self._models[shape] = model  # the last used last
                    return model.compute(tensors, denoiser.dtype)
            # Whatever OpenVINO or the tracing of the module raise, the module computes.
            except Exception as error:
                self._failed.add(shape)
                self._models.pop(shape, None)
                name = type(denoiser).__name__
                self._warn(f"failed for {name}, which computes without OpenVINO: {_said(error)}")
        return denoiser(*given, **named)

    def _model(self, denoiser: Any, call: Any, tensors: Sequence[torch.Tensor]) -> "_Model":
        """Return the model for a shape, compiled: from the cache, or converted now."""
        versions = self._openvino.__version__, torch.__version__, diffusers.__version__
        described = repr((versions, type(denoiser).__name__, denoiser.dtype, self._key, call))
        name = hashlib.sha256(described.encode()).hexdigest()[:32]
        folder = self._cache / name if self._cache else None
        if folder and folder.is_dir():
            self._make_room(denoiser, _BYTES_TO_OPEN)
            try:
                (folder / "model.xml").touch()  # the last used is deleted last
                return self._compiled(folder / "model.xml", denoiser.dtype)
            except Exception:  # whatever OpenVINO raises of a file that it cannot read
                shutil.rmtree(folder, ignore_errors=True)
        failed = folder.with_suffix(".failed") if folder else None
        if failed and failed.exists():
            raise ValueError(failed.read_text())
        self._make_room(denoiser, _BYTES_TO_CONVERT)
        try:
            graph = self._convert(denoiser, call, tensors)
        # It lacks an operation, and will until there is another version.
        except self._openvino.frontend.OpConversionFailure as error:
            if failed:
                with suppress(OSError):
                    write_atomically(failed, _said(error).encode())
            raise
        if folder:
            try:
                self._keep(graph, folder, halves=denoiser.dtype != torch.float32)
                graph = folder / "model.xml"  # mapped, so the graph takes no memory of its own
                gc.collect()  # the traced copy is in cycles
            except (OSError, RuntimeError) as error:
                self._warn(f"cannot keep converted models in {self._cache}: {_said(error)}")
        return self._compiled(graph, denoiser.dtype)

    def _make_room(self, denoiser: Any, bytes_each: int) -> None:
        """Forget models until there is room for one more, the one not used for longest first."""
        needed = bytes_each * sum(weight.numel() for weight in denoiser.parameters())
        while free_bytes(_CPU) < needed or len(self._models) >= _MODELS_IN_MEMORY:
            if not self._models:
                raise MemoryError(f"{needed / 1e9:.1f} GB of memory have to be free")
            del self._models[next(iter(self._models))]

    def _convert(self, denoiser: Any, call: Any, tensors: Sequence[torch.Tensor]) -> Any:
        """Return the module as OpenVINO's graph for this call's shapes."""
        # OpenVINO's CPU plugin computes NaN from graphs in bfloat16, so the graph is in float32.
        whole = denoiser.dtype == torch.float32
        module = _Flat(denoiser if whole else copy.deepcopy(denoiser).float(), call)
        example = tuple(_boundary(tensor).clone() for tensor in tensors)
        trace: Any = torch.jit.trace
        # What torch says while it traces: that shapes become constants, as they should.
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            # OpenVINO itself would have the trace checked, which takes as long again, twice.
            graph = trace(module, example, strict=False, check_trace=False)
            model = self._openvino.convert_model(graph, example_input=example)
        model.reshape({at: list(t.shape) for at, t in zip(model.inputs, example, strict=True)})
        model.set_rt_info(json.dumps(module.output), ["picowatch"])
        return model

    def _keep(self, model: Any, folder: Path, *, halves: bool) -> None:
        """Write it to the cache, whole or not at all; with `halves` its weights in float16."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        temporary.mkdir()
        try:
            self._openvino.save_model(model, temporary / "model.xml", compress_to_fp16=halves)
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    sync_file(file)
            with suppress(OSError):  # another engine was quicker
                temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _delete_oldest(folder.parent, keep=folder)

    def _compiled(self, model: Any, dtype: torch.dtype) -> "_Model":
        """Return a graph, or the one in a file, compiled for this CPU."""
        if isinstance(model, Path):
            model = self._core.read_model(model)
        halves = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        halves = halves and dtype != torch.float32
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # other engines may have the first cores
        }
        output = json.loads(model.get_rt_info(["picowatch"]).value)
        return _Model(self._core.compile_model(model, "CPU", properties), output)


class _Model(NamedTuple):
    """A compiled model, and where its tensors lie in the output: see `_Flat`."""

    compiled: Any
    output: list[Any]

    def compute(self, tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> Any:
        """Return the output for these tensors, as the module gives it."""
        results = self.compiled([_boundary(tensor).contiguous().numpy() for tensor in tensors])
        found = [torch.from_numpy(results[place]).to(dtype) for place in range(len(results))]

        def put(value: Any) -> Any:
            return found[value] if isinstance(value, int) else [put(one) for one in value]

        return tuple(put(one) for one in self.output)


class _Flat(torch.nn.Module):
    """A denoiser that takes the tensors of a call one by one, and gives those of its output.

    `output` says then how those lie in the output: numbers where the tensors were.
    """

    def __init__(self, denoiser: Any, call: Any) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.call = call
        self.output: Any = None

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return all tensors of the output, in types that numpy has."""
        given, named = _with_tensors(self.call, iter(tensors))
        found: list[torch.Tensor] = []
        self.output = _numbered(self.denoiser(*given, **named), found)
        return tuple(_boundary(tensor) for tensor in found)


def _without_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return nested arguments with an `_Input` for each tensor, which is added to `tensors`."""
    if isinstance(value, float):  # may differ from step to step
        value = torch.tensor(value)
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _Input(tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return {name: _without_tensors(one, tensors) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_without_tensors(one, tensors) for one in value])
    if value is None or isinstance(value, bool | int | str | torch.dtype):
        return value
    raise TypeError(f"an argument is {type(value).__name__}")


def _with_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Return the arguments that `_without_tensors` took apart."""
    if isinstance(value, _Input):
        return next(tensors)
    if isinstance(value, dict):
        return {name: _with_tensors(one, tensors) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_with_tensors(one, tensors) for one in value])
    return value


def _numbered(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return nested lists with a number for each tensor, which is added to `tensors`."""
    if isinstance(value, list | tuple):
        return [_numbered(one, tensors) for one in value]
    tensors.append(value)
    return len(tensors) - 1


def _boundary(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in a type that numpy has."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _delete_oldest(cache: Path, *, keep: Path) -> None:
    """Bound the cache: delete what was not used for longest, but never what was just written."""
    kept: dict[Path, tuple[float, int]] = {}
    for folder in cache.iterdir():
        with suppress(OSError):  # another engine deletes, too
            used = (folder / "model.xml").stat().st_mtime
            kept[folder] = used, (folder / "model.bin").stat().st_size
    total = sum(size for _, size in kept.values())
    for folder in sorted(kept, key=lambda one: kept[one]):
        if total > _CACHE_BYTES and folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= kept[folder][1]


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send an event at once.

    Where its package is missing, OpenVINO takes a stub instead.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-untyped]

    return openvino


def _said(error: Exception) -> str:
    """Return what an error says, without an end if it is long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
