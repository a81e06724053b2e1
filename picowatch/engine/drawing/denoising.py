"""What draws with a checkpoint: its kind of family, and what else the batch sets up around it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from picowatch.engine.drawing.draw import Denoising, Job
from picowatch.engine.drawing.edit import EditDenoising
from picowatch.engine.drawing.flow import FlowDenoising
from picowatch.engine.drawing.unet import UnetDenoising, seamless
from picowatch.engine.model.compile import Compiled
from picowatch.engine.model.loaded import Loaded
from picowatch.recipe.request import ImageRequest


@contextmanager
def denoising_with(loaded: Loaded, job: Job, first: ImageRequest) -> Iterator[Denoising]:
    """Give what draws with a checkpoint; an interrupted batch leaves no changes behind."""
    kind: type[Denoising] = UnetDenoising if loaded.row.kind == "unet" else FlowDenoising
    if first.references:
        kind = EditDenoising
    compiled = isinstance(job.accelerated, Compiled)
    eager = loaded.compiled.eager() if loaded.compiled and not compiled else nullcontext()
    # Compiled code cannot be watched.
    look = job.work.raise_if_interrupted
    watched = nullcontext() if compiled else loaded.parts.watched(look)
    repeating = seamless(loaded.parts.modules if first.tiling else [])
    try:
        with eager, watched, repeating:
            yield kind(loaded, job)
    finally:
        loaded.parts.send_back()
