"""What a node of a Ray cluster needs to render for the daemon. Imports no Ray and no torch."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.hashes import OnBlock, ignore_block
from picowatch.engine.child_main import MakeRenderer
from picowatch.engine.options import EngineOptions, cache_folder
from picowatch.engine.protocol import EngineLost, OnPreview, OnStep, RenderedImage
from picowatch.engine.versions import versions
from picowatch.errors import EngineStopped, ModelRefused, PicowatchError
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ImageRequest

_FOLDER = "picowatch-ray-"


class ClusterAway(PicowatchError):
    """The Ray cluster cannot be reached, or not used."""

    usual_remedy = "Start the cluster, or set executor: local."


class NodeUnfit(EngineLost):
    """A node that cannot be used as it is."""


def differences(there: dict[str, str]) -> str:
    """Say what a node's versions lack of ours; "" if they agree.

    What follows "+" is the build (torch 2.13.0+cpu): machines may differ in it. Ray itself refuses
    a node with another Python or Ray.
    """
    if "picowatch" not in there:
        return "picowatch is not installed there, or not where Ray runs"
    found = (
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in versions().items()
        if there.get(name, "").partition("+")[0] != version.partition("+")[0]
    )
    return ", ".join(found)


def new_folder() -> Path:
    """Make a temporary folder for this process; it is deleted once this process has ended.

    Sockets may lie in it, whose paths may have 107 bytes: Ray, too, takes /tmp.
    """
    delete_left_folders()
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp"))


def delete_left_folders() -> None:
    """Delete the folders of processes that ended; in a container they had this one's id, too."""
    for old in Path("/tmp").glob(f"{_FOLDER}*"):
        process = old.name.removeprefix(_FOLDER).partition("-")[0]
        is_mine = process == str(os.getpid())
        if is_mine or (process.isdecimal() and not psutil.pid_exists(int(process))):
            shutil.rmtree(old, ignore_errors=True)


def node_options(options: EngineOptions, start_images: Path) -> EngineOptions:
    """Return the daemon's options with folders of this node; the models folder is the same."""
    cache = cache_folder()
    return replace(
        options,
        hash_cache=cache.parent / "ray-hashes.json" if cache else None,
        cache=cache,
        start_images=start_images,
    )


def lacking(
    catalog: Catalog, batch: Sequence[ImageRequest], on_block: OnBlock = ignore_block
) -> str:
    """Say which model of a batch is missing or another file; "" if all are there."""
    for kind, name, digest in dict.fromkeys(_needs(batch)):
        try:
            if catalog.sha256(catalog.find(kind, name), on_block) != digest:
                return f"The {kind} {name!r} is a different file now than the one requested."
        except ModelRefused as refused:
            return refused.message
    return ""


def _needs(batch: Sequence[ImageRequest]) -> Iterator[tuple[Kind, str, str]]:
    """Every model that a batch is rendered with: kind, name, hash."""
    for request in batch:
        if request.checkpoint:
            yield "checkpoint", request.checkpoint, request.checkpoint_hash
        if request.vae != BAKED:
            yield "vae", request.vae, request.vae_hash
        yield from (("upscaler", *named) for named in request.upscalers.items())
        yield from (("lora", lora.name, lora.hash) for lora in request.loras)
        yield from (("embedding", one.name, one.hash) for one in request.embeddings)
        for use in request.control:
            yield "controlnet", use.model, use.model_hash
            if use.depth:
                yield "depth", use.depth, use.depth_hash


class NodeRenderer:
    """Renders on a node, once the batch's models were found there. Hashes are kept."""

    def __init__(
        self, make_renderer: MakeRenderer, options: EngineOptions, on_preview: OnPreview
    ) -> None:
        self._models = options.models
        self._catalog = Catalog(options.models, options.hash_cache)
        self._renderer = make_renderer(options, on_preview)

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Callable[[], bool],
        preview_seconds: float,
    ) -> list[RenderedImage]:
        """See `BatchRenderer.render`; raises NodeUnfit besides."""

        def show_life(_: int) -> None:
            if interrupted():
                raise EngineStopped("The batch was interrupted.")
            on_step(0, batch[0].steps)

        if words := lacking(self._catalog, batch, show_life):
            raise NodeUnfit(
                words,
                f"The models folder of picowatch has to be {self._models} there, too: share it, "
                "or copy what is missing.",
            )
        return self._renderer.render(batch, on_step, interrupted, preview_seconds)
