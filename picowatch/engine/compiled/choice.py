"""Which UNet computes a batch's steps: a compiled one, a graph, or the eager one."""

from picowatch.engine.compiled.compiled import CompiledUnets
from picowatch.engine.compiled.graphs import CapturedUnets
from picowatch.engine.compiled.measuring import example_of, seconds_of
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.unet.denoise import EagerUnet, Shape, Unet


class OtherUnets:
    """What an engine may compute with instead of eager UNets; `slower` are compiled shapes."""

    def __init__(self, compiled: CompiledUnets, graphs: CapturedUnets) -> None:
        self.compiled = compiled
        self.graphs = graphs
        self.slower: set[tuple[str, Shape]] = set()


class BatchUnets:
    """Gives a batch its UNets, one for each shape, and remembers which; with `eager` only eager.

    `batches` like it are queued behind it.
    """

    def __init__(self, others: OtherUnets, loaded: Loaded, batches: float, *, eager: bool) -> None:
        self._others = others
        self._loaded = loaded
        self._batches = batches
        self._eager = eager
        self._chosen: dict[Shape, Unet] = {}

    def __call__(self, shape: Shape, steps: int) -> Unet:
        """The UNet for so many steps of this shape."""
        if shape not in self._chosen:
            self._chosen[shape] = self._choose(shape, steps)
        return self._chosen[shape]

    def _choose(self, shape: Shape, steps: int) -> Unet:
        """The fastest that there is.

        On a CPU that is the compiled one. On a card a graph has to be faster than the eager UNet to
        be kept, and where there is a compiled one besides, both are measured, once in a process:
        the slower one gives its memory back.
        """
        loaded, graphs = self._loaded, self._others.graphs
        if self._eager:
            return EagerUnet(loaded.unet)
        compiled = self._others.compiled.find(loaded, shape) if self._may_compile(shape) else None
        known = compiled is not None and compiled.beats_graphs
        graph = None if known else graphs.find(loaded, shape, steps * (1 + self._batches))
        if compiled and graph:
            inputs = example_of(loaded.unet, shape)
            compiled.beats_graphs = seconds_of(compiled, inputs) < seconds_of(graph, inputs)
            if compiled.beats_graphs:
                graphs.drop(loaded, shape, decline=True)
                return compiled
            self._others.slower.add((loaded.family, shape))
            del loaded.compiled[shape]
            return graph
        return compiled or graph or EagerUnet(loaded.unet)

    def _may_compile(self, shape: Shape) -> bool:
        loaded = self._loaded
        return loaded.can_be_compiled and (loaded.family, shape) not in self._others.slower

    @property
    def all_compiled(self) -> bool:
        """Whether every step of the batch was computed by a compiled UNet."""
        return bool(self._chosen) and all(unet.compiled for unet in self._chosen.values())

    def consider(self, seconds: float) -> None:
        """Perhaps compile what was not compiled: the batch took `seconds`."""
        for shape, unet in self._chosen.items():
            if not self._eager and not unet.compiled and self._may_compile(shape):
                self._others.compiled.consider(
                    self._loaded, shape, seconds, seconds * self._batches
                )
