"""CUDA graphs of the eager UNet: its kernels, recorded once for a shape and queued as one.

A step of a small batch launches over a thousand kernels, which takes a processor longer than the
card computes. A graph repeats them on the same addresses: inputs are copied into tensors of its
own, and its result is copied out.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from picowatch.engine.compiled.measuring import agree, example_of, seconds_of
from picowatch.engine.control.residuals import Residuals
from picowatch.engine.failures import out_of_memory
from picowatch.engine.memory.usage import free_bytes
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.options import GRAPHS_FAILURE
from picowatch.engine.unet.conditions import Encoded
from picowatch.engine.unet.denoise import EagerUnet, Inputs, Shape
from picowatch.engine.unet.kept import embedded, keep_outputs_of
from picowatch.recipe.request import LoraUse

# Trying and capturing takes about as long as ten steps.
WORTH_STEPS = 40
# Each has memory of its own for its inputs. Hires needs two at a time, guidance on a part of the
# steps two more.
_KEPT_GRAPHS = 4
# For the VAE, which cannot use a graph's memory, and for what steps compute beside the UNet.
_LEFT_FOR_PICTURES = 2 * 2**30
# Kernels that are as fast one by one (large batches) need no graph, which takes memory.
_LEAST_GAIN = 0.97


class GraphedUnet:
    """A loaded UNet with the weights and hooks that it has now, as a graph for one shape.

    Like every graph of a process it takes its memory from `pool`: none computes beside another, and
    no result stays in there.
    """

    compiled = False
    embeds_guidance = False

    def __init__(self, loaded: Loaded, shape: Shape, pool: Any) -> None:
        """Raises what torch raises if memory runs out, or if a kernel cannot be captured."""
        self.weights = weights_of(loaded)
        self._eager = EagerUnet(loaded.unet)
        self.dtype: torch.dtype = self._eager.dtype
        inputs = example_of(loaded.unet, shape)
        self._latents, self._prompts = inputs.latents, inputs.prompts
        self._residuals: Residuals = inputs.residuals or ()
        [self._timestep] = self._eager.foresee(inputs.timestep[None])
        # The sizes that SDXL is told are in a cache of few: the graph reads this very tensor.
        self._held: Any = self._prompts.added(self._latents)
        self._shown: weakref.ref[torch.Tensor] | None = None
        self._adding = True
        self._predict()  # also computes what is kept of the text, where the graph finds it
        self._graph, self._predicted = self._captured(pool)

    def _predict(self) -> torch.Tensor:
        residuals = self._residuals or None
        return self._eager(
            Inputs(self._latents, self._timestep, self._prompts, residuals=residuals)
        )

    def _captured(self, pool: Any) -> tuple[Any, torch.Tensor]:
        """The graph and its result. Another thread may allocate meanwhile.

        What libraries set up at their first call on a stream must not be captured.
        """
        current = torch.cuda.current_stream()
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._predict()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        # A capture that fails at its end leaves its own stream as the current one.
        with torch.cuda.stream(current), capture:
            predicted = self._predict()
        return graph, predicted

    def __call__(self, given: Inputs) -> torch.Tensor:
        """See `Unet`."""
        self._latents.copy_(given.latents)
        self._take_timestep(given.timestep)
        self._take_prompts(given.prompts)
        self._take_residuals(given.residuals)
        self._graph.replay()
        return self._predicted.clone()

    def foresee(self, timesteps: torch.Tensor) -> Sequence[torch.Tensor]:
        """See `Unet`."""
        return self._eager.foresee(timesteps)

    def release(self) -> None:
        """Give its memory back, once; it cannot be called any more."""
        if not self.released:
            torch.cuda.synchronize()
            self._graph.reset()
            del self._graph, self._predicted

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return not hasattr(self, "_graph")

    def _take_timestep(self, timestep: torch.Tensor) -> None:
        self._timestep.copy_(timestep)
        own = embedded(self._timestep)
        if own is None:
            return
        given = embedded(timestep)
        if given is None:  # of a pass that another kind of UNet began
            given = embedded(self.foresee(timestep[None])[0])
        assert given is not None
        own.become(given)

    def _take_prompts(self, prompts: Encoded) -> None:
        """Another text, with its keys and values; most steps have the one before."""
        if self._shown is not None and self._shown() is prompts.states:
            return
        self._prompts.states.copy_(prompts.states)
        if self._prompts.pooled is not None and prompts.pooled is not None:
            self._prompts.pooled.copy_(prompts.pooled)
        keep_outputs_of(prompts.states)
        for layer, output in keep_outputs_of(self._prompts.states).items():
            output.copy_(layer(prompts.states))
        self._shown = weakref.ref(prompts.states)

    def _take_residuals(self, residuals: Residuals | None) -> None:
        """Those of pooled maps are one pixel large. Zeros change nothing."""
        if residuals:
            for own, given in zip(self._residuals, residuals, strict=True):
                own.copy_(given)
        elif self._adding:
            for own in self._residuals:
                own.zero_()
        self._adding = bool(residuals)


_Weights = tuple[tuple[LoraUse, ...], tuple[int, ...]]


def weights_of(loaded: Loaded) -> _Weights:
    """What a graph computes with besides its inputs: the LoRAs, and where the weights are."""
    return loaded.loras.applied, tuple(one.data_ptr() for one in loaded.unet.parameters())


_Key = tuple[object, ...]


class CapturedUnets:
    """The graphs of this process: which shapes are worth one, and whether there is memory for it.

    Nothing is captured without a folder. A capture that fails is the last of the process: its
    reason is noted there for `doctor`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pool: Any = None
        self._drawn: set[_Key] = set()
        self._declined: set[_Key] = set()
        self._live: weakref.WeakKeyDictionary[GraphedUnet, _Key] = weakref.WeakKeyDictionary()
        self._pool_bytes = 0
        self.failure = ""

    def find(self, loaded: Loaded, shape: Shape, steps: float) -> GraphedUnet | None:
        """The graph for this shape, if it has one or if it is worth one for so many steps."""
        if self._folder is None or loaded.unet.device.type != "cuda" or loaded.embeds_guidance:
            return None
        key = (shape, loaded.family, loaded.unet.dtype, loaded.loras.applied)
        kept: GraphedUnet | None = loaded.graphs.pop(shape, None)
        if kept is None:
            worth = steps >= WORTH_STEPS or key in self._drawn
            self._drawn.add(key)
            if self.failure or not worth or key in self._declined:
                return None
            kept = self._try(loaded, shape, key)
        if kept is not None:
            loaded.graphs[shape] = kept  # the last used last
            while len(loaded.graphs) > _KEPT_GRAPHS:
                self.drop(loaded, next(iter(loaded.graphs)))
        return kept

    def drop_stale(self, loaded: Loaded) -> None:
        """Drop the graphs that compute with other weights than the UNet has now.

        Before each batch, also one without graphs: once weights or LoRAs are gone, others may come
        to their addresses.
        """
        if loaded.graphs:
            weights = weights_of(loaded)
            for shape, graph in list(loaded.graphs.items()):
                if graph.released or graph.weights != weights:
                    self.drop(loaded, shape)

    def drop(self, loaded: Loaded, shape: Shape, *, decline: bool = False) -> None:
        """Give one graph's memory back; `decline`: and capture no other one in its place."""
        graph = loaded.graphs.pop(shape)
        if decline:
            self._declined.add(self._live[graph])
        graph.release()

    def give_up(self) -> bool:
        """Memory ran out: give all graphs' memory back for good; False if there were none."""
        graphs = [graph for graph in self._live if not graph.released]
        for graph in graphs:
            self._declined.add(self._live[graph])
            graph.release()
        return bool(graphs)

    def _try(self, loaded: Loaded, shape: Shape, key: _Key) -> GraphedUnet | None:
        """A new graph, if it computes what the eager UNet does, and faster."""
        device = loaded.unet.device
        try:
            eager, example = EagerUnet(loaded.unet), example_of(loaded.unet, shape)
            eager_seconds = seconds_of(eager, example)
            if all(one.released for one in self._live):
                self._pool, self._pool_bytes = None, 0
            peak = torch.cuda.max_memory_allocated(device)
            computing = peak - torch.cuda.memory_allocated(device)
            if free_bytes(device) - self.held_bytes < 2 * computing + _LEFT_FOR_PICTURES:
                self._declined.add(key)
                return None
            graph = self._capture(loaded, shape, device)
            self._live[graph] = key
            wrong = not agree(graph, eager, example)
            if wrong or seconds_of(graph, example) > _LEAST_GAIN * eager_seconds:
                self._declined.add(key)
                graph.release()
                if wrong:
                    self._note("The graph's results differ from the plain UNet's.")
                return None
        # Whatever cannot be captured is computed by the eager UNet.
        except Exception as error:
            torch.cuda.synchronize()  # raises if the card cannot be used any more
            self._declined.add(key)
            if not _short_of_memory(error):
                self._note(f"{type(error).__name__}: {error}")
            return None
        with suppress(OSError):
            self._note_file().unlink(missing_ok=True)
        return graph

    def _capture(self, loaded: Loaded, shape: Shape, device: torch.device) -> GraphedUnet:
        """One more graph in the pool; torch empties its cache before a capture, too."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        graph = GraphedUnet(loaded, shape, self._pool)
        torch.cuda.empty_cache()
        self._pool_bytes += max(0, torch.cuda.memory_reserved(device) - before)
        return graph

    @property
    def held_bytes(self) -> int:
        """What graphs have in their pool: torch counts it as its cache, and so as free."""
        return 0 if all(one.released for one in self._live) else self._pool_bytes

    def _note(self, failure: str) -> None:
        self.failure = failure
        with suppress(OSError):
            self._note_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._note_file().write_text(f"torch {torch.__version__}: {failure}")

    def _note_file(self) -> Path:
        assert self._folder is not None
        return self._folder / GRAPHS_FAILURE


def _short_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, perhaps inside: the end of a capture fails then, too."""
    while isinstance(error, Exception):
        if out_of_memory(error):
            return True
        error = error.__context__
    return False
