"""Denoisers compiled for the machine that they run on: `compile: true`, and `graphs: true`.

On a GPU, torch compiles a transformer at its first use: its repeated blocks, or all of it if it
names none. A UNet is faster as a graph. On a CPU, OpenVINO computes the denoiser, which is
converted once for each shape of its inputs. Both keep on disk what they made. The module is
unchanged and can run uncompiled: on a CPU by calling it, on a GPU inside `Compiled.eager`.

A card that computes faster than the processor starts kernels waits for it. A graph has recorded the
kernels for a shape, and starts them together; they are the same, and compute the same bits.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import gc
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import diffusers
import torch

from picowatch.engine.failures import as_clause
from picowatch.engine.model.dequantise import widened
from picowatch.engine.model.devices import free_bytes
from picowatch.engine.private import allow_recompiling, pytree
from picowatch.errors import install_command
from picowatch.files.atomic import sync_file, sync_folder, temporary_beside

# Each width of a denoiser's blocks and each kind of shape needs a form: torch's 8 are too few for
# Stable Diffusion at three sizes.
_RECOMPILE_LIMIT = 64
# Bytes per weight at the peak, besides the module: to convert it, and to open what was converted.
_BYTES_TO_CONVERT = 10
_BYTES_TO_OPEN = 6
_CACHE_BYTES = 30 * 10**9
# A denoiser that starts its kernels in less than this share of its time does not wait for the
# processor: a graph would only take memory.
_START_BOUND = 0.7
_KEPT = 8  # graphs, which share their memory
_NUMPYS = {torch.bfloat16: torch.float32, torch.float16: torch.float32}  # its type for torch's


class Compiled:
    """A denoiser compiled for the shapes of its inputs; after a failure it runs uncompiled.

    It is called as the module is, with `return_dict=False`. `key` is the checkpoint's hash, `cache`
    the folder of what was compiled. `failure` is a sentence on why it runs uncompiled, "" for none.
    """

    def __init__(
        self, denoiser: Any, key: str, device: torch.device, cache: Path | None = None
    ) -> None:
        self._denoiser = denoiser
        self._dtype = denoiser.dtype  # diffusers looks at all modules for it
        self._key = key
        self._device = device
        self._cache = cache
        self._models: dict[str, Any] = {}  # OpenVINO's by shape, the last used last
        self.failure = ""
        if device.type == "cpu":
            if find_spec("openvino") is None:
                self._fail(f"needs OpenVINO, which is not installed: {install_command('openvino')}")
            elif cache is None:
                self._fail("needs a folder for what it converts: set XDG_CACHE_HOME.")
            return
        if cache:  # torch's own is below /tmp, which computers empty when they start
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        allow_recompiling(_RECOMPILE_LIMIT)
        try:
            denoiser.compile_repeated_blocks(fullgraph=True, dynamic=False)
        except ValueError:  # it names none
            denoiser.compile(dynamic=False)

    def eager(self) -> Any:
        """Return a context in which the module runs uncompiled; on a CPU it always does."""
        if self._device.type == "cpu":
            return nullcontext()
        return torch.compiler.set_stance("force_eager")

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return the output, from the first failure on that of the uncompiled module."""
        if not self.failure:
            try:
                if self._device.type == "cpu":
                    return self._by_openvino(given, named)
                return self._denoiser(*given, **named)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compilers' errors have no common class
                said = as_clause(f"{type(error).__name__}: {error}")
                name = type(self._denoiser).__name__
                self._fail(f"failed for {name}, which computes without: {said}")
        with self.eager():
            return self._denoiser(*given, **named)

    def _fail(self, words: str) -> None:
        self.failure = f"compile: true {words}"
        self._models.clear()

    def _by_openvino(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[torch.Tensor]:
        leaves, tree = pytree.tree_flatten((given, named))
        # A number may differ from step to step.
        leaves = [torch.tensor(leaf) if isinstance(leaf, float) else leaf for leaf in leaves]
        call, tensors = _form_of(leaves, tree), _tensors_in(leaves)
        convert = partial(_convert, self._denoiser, leaves, tree)
        self._models[call] = model = self._models.pop(call, None) or self._model(call, convert)
        results = model([tensor.contiguous().numpy() for tensor in tensors])
        return (torch.from_numpy(results[0]).to(self._dtype),)

    def _model(self, call: str, convert: Callable[[], Any]) -> Any:
        """Return the compiled model for a shape, from the cache or converted now."""
        versions = _import_openvino().__version__, torch.__version__, diffusers.__version__
        described = repr((versions, type(self._denoiser).__name__, self._dtype, self._key, call))
        name = hashlib.sha256(described.encode()).hexdigest()[:32]
        assert self._cache
        folder, narrow = self._cache / name, self._dtype != torch.float32
        kept, core = _kept(folder), _core()
        each = _BYTES_TO_OPEN if kept else _BYTES_TO_CONVERT
        needed = each * sum(weight.numel() for weight in self._denoiser.parameters())
        while free_bytes(self._device)[0] < needed:
            if not self._models:
                raise MemoryError(f"{needed / 1e9:.1f} GB of memory have to be free")
            del self._models[next(iter(self._models))]
        if not kept:
            _keep(convert(), folder, narrow=narrow)
            gc.collect()  # the traced copy is in cycles
        narrow = narrow and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if narrow else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # other engines may have the first cores
        }
        return core.compile_model(kept or _kept(folder), "CPU", properties)


def _form_of(leaves: Sequence[Any], tree: pytree.TreeSpec) -> str:
    """Return the form of a call: shapes and types of its tensors, and its other arguments."""
    shapes = [(leaf.shape, leaf.dtype) if torch.is_tensor(leaf) else leaf for leaf in leaves]
    return repr((tree, shapes))


def _tensors_in(leaves: Sequence[Any]) -> list[torch.Tensor]:
    """Return a call's tensors in types that numpy has."""
    found = (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return [each.to(_NUMPYS.get(each.dtype, each.dtype)) for each in found]


class _Call(torch.nn.Module):
    """A denoiser that takes a call's tensors as flat arguments, and returns a tensor."""

    def __init__(self, denoiser: Any, leaves: Sequence[Any], tree: pytree.TreeSpec) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.leaves = leaves
        self.tree = tree

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        arguments, named = pytree.tree_unflatten(leaves, self.tree)
        output: torch.Tensor
        (output,) = self.denoiser(*arguments, **named)
        return output


def _convert(denoiser: Any, leaves: Sequence[Any], tree: pytree.TreeSpec) -> Any:
    """Return the module as OpenVINO's graph for this call's shapes."""
    # OpenVINO's CPU plugin computes NaN from graphs in bfloat16, so the graph is in float32.
    whole = all(weight.dtype == torch.float32 for weight in denoiser.parameters())
    module = _Call(denoiser if whole else widened(denoiser, torch.float32), leaves, tree)
    example = tuple(tensor.clone() for tensor in _tensors_in(leaves))
    trace: Any = torch.jit.trace
    # While tracing, torch warns that shapes become constants, as they should.
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        # OpenVINO itself would have the trace checked, which takes three times as long.
        graph = trace(module, example, check_trace=False)
        model = _import_openvino().convert_model(graph, example_input=example)
    model.reshape({at: list(t.shape) for at, t in zip(model.inputs, example, strict=True)})
    return model


def _keep(model: Any, folder: Path, *, narrow: bool) -> None:
    """Write a model to the cache atomically; `narrow`: with weights in float16."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_oldest(folder.parent)
    temporary = temporary_beside(folder)
    temporary.mkdir()
    try:
        _import_openvino().save_model(model, temporary / "model.xml", compress_to_fp16=narrow)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                sync_file(file)
        with suppress(OSError):  # another engine was faster
            temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _kept(folder: Path) -> Any:
    """Read a model from the cache. Returns None if it is not there; deletes it if it is damaged."""
    if not folder.is_dir():
        return None  # another engine may be about to write it
    try:
        os.utime(folder / "model.bin")  # the last used is deleted last
        # The file is mapped, so it takes no memory of its own.
        return _core().read_model(folder / "model.xml")
    except (FileNotFoundError, RuntimeError):  # who cleans caches may delete one file of two
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _delete_oldest(cache: Path) -> None:
    """Delete the least recently used models of the cache beyond its size limit."""
    total = 0
    with suppress(OSError):  # another engine deletes, too
        files = [(file.stat(), file.parent) for file in cache.glob("*/model.bin")]
        for stat, folder in sorted(files, key=lambda file: file[0].st_mtime, reverse=True):
            total += stat.st_size
            if total > _CACHE_BYTES:
                shutil.rmtree(folder.rename(temporary_beside(folder)))  # no half stays


@cache
def _core() -> Any:
    """Return OpenVINO's core, the same for as long as the process lives.

    Its CPU plugin gives the thread that loads it a stack for signals of its own, and frees that
    with the core, in whichever thread: the next signal to the first would end the process.
    """
    return _import_openvino().Core()


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send an event at once: it has a stub."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-untyped]

    return openvino


class Graphed:
    """A denoiser on a card; `replayed`, which others may reset, says whether a graph computed.

    It is called as the module is, with `return_dict=False`. A graph has the addresses of the
    weights: `forget` it when they change.
    """

    def __init__(self, denoiser: Any, device: torch.device) -> None:
        self._denoiser = denoiser
        self._device = device
        # What replays a graph, if anything does, by call, the last used last.
        self._graphs: dict[str, Callable[..., Any] | None] = {}
        self._pool: Any = None
        self._can_be_recorded = True
        self.replayed = False

    def forget(self) -> None:
        """Release the memory of all graphs."""
        self._graphs.clear()
        self._pool = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return the output; the module computes what cannot be recorded, or is not worth it."""
        leaves, tree = pytree.tree_flatten((given, named))
        call = _form_of(leaves, tree)
        if call not in self._graphs:
            if len(self._graphs) == _KEPT:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[call] = self._recorded(leaves, tree)
        self._graphs[call] = replay = self._graphs.pop(call)
        if replay is None:
            return self._denoiser(*given, **named)
        self.replayed = True
        return replay(leaves)

    def _recorded(self, leaves: Sequence[Any], tree: pytree.TreeSpec) -> Callable[..., Any] | None:
        """Record a graph with inputs of its own; return what copies others there and replays it."""
        if not self._can_be_recorded:
            return None
        device = self._device
        own = [leaf.to(device, copy=True) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        given, named = pytree.tree_unflatten(own, tree)
        call = partial(self._denoiser, *given, **named)
        graph = torch.cuda.CUDAGraph()
        try:
            if not self._waits_for_processor(call):
                return None
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            how: Any = {"stream": _side(self._device), "capture_error_mode": "thread_local"}
            with torch.cuda.graph(graph, pool=self._pool, **how):
                output = call()
        except torch.OutOfMemoryError:  # the module itself needs less
            return None
        except RuntimeError:
            self._can_be_recorded = False
            return None

        def replay(leaves: Sequence[Any]) -> Any:
            for mine, leaf in zip(own, leaves, strict=True):
                if torch.is_tensor(mine):
                    mine.copy_(leaf, non_blocking=True)
            graph.replay()
            return pytree.tree_map_only(torch.Tensor, torch.clone, output)

        return replay

    def _waits_for_processor(self, call: partial[Any]) -> bool:
        """Measure a call. Raises RuntimeError if it needs a number from the card."""
        side = _side(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            call()  # sets up what libraries need once
            side.synchronize()
            # torch raises RuntimeError where the processor waits for the card, without a warning.
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                torch.cuda.set_sync_debug_mode("error")
            try:
                began = perf_counter()
                call()
                started = perf_counter() - began
            finally:
                torch.cuda.set_sync_debug_mode("default")
            side.synchronize()
        return started >= _START_BOUND * (perf_counter() - began)


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for recordings: cuBLAS keeps 32 MB for each stream that it computed on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
