"""Models folders with tiny flow families, and what recipes for them request."""

import json
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from picowatch.catalog import Catalog
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.load import read_processor
from picowatch.engine.protocol import OnPreview, unseen
from picowatch.families import FAMILIES
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import circle, keep_file, plain_options
from tests.engine.tiny_flows import FOLDERS, folder_until_exit, tiny_flow
from tests.engine.tiny_modular import INDEX, scripted_modular
from tests.recipe.reading import read

SIDE = 64
# What each recipe for a checkpoint has to say.
_OWN = {"FLUX.1-Fill-dev": "image: start.png\nmask: mask.png"}


@cache
def flow_models(name: str, folder: Path | None = None) -> Path:
    """Return a models folder with this checkpoint, a start image and a mask.

    The checkpoint is a tiny one, unless its folder is given.
    """
    models = folder_until_exit("flow-")
    (models / "checkpoints").mkdir()
    (models / "checkpoints" / name).symlink_to(folder or tiny_flow(name))
    circle(SIDE).save(models / "start.png")
    square().save(models / "mask.png")
    return models


def edits_only(name: str) -> bool:
    tiny = FOLDERS[name]
    references = FAMILIES[tiny.family].variant(tiny.variant).references
    return references is not None and references.required


def square() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).rectangle((16, 16, 47, 47), fill=255)
    return mask


def scripted(kind: Any, name: str, **parts: Any) -> Any:
    """Return a tiny folder's pipeline as a script loads it, with some parts replaced."""
    folder = tiny_flow(name)
    if (folder / INDEX).is_file():
        return scripted_modular(folder)
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("processor", "text_processor"):
        if (kind_of_processor := index.get(part, [None])[-1]) is not None:
            parts[part] = read_processor(folder / part, kind_of_processor)
    if index.get("tokenizer", [None])[-1] != "PixtralProcessor":
        pipeline = kind.from_pretrained(folder, local_files_only=True, **parts)
    else:  # without torchvision diffusers reads none of it
        index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
        listed = {part: entry for part, entry in index.items() if isinstance(entry, list)}
        kinds = {part: getattr(import_module(entry[0]), entry[1]) for part, entry in listed.items()}
        read = {part: reader.from_pretrained(folder / part) for part, reader in kinds.items()}
        pipeline = kind(**read)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def flow_renderer(models: Path, on_preview: OnPreview = unseen, **options: Any) -> Renderer:
    return Renderer(replace(plain_options(models), **options), on_preview)


def requests_of(models: Path, checkpoint: str, text: str) -> list[ImageRequest]:
    """Return the requests of a recipe for this checkpoint: small, exact and in two steps."""
    usual = {"steps": "2", "seed": "7", "exact": "true", "size": f"{SIDE}x{SIDE}"}
    lines = [f"{name}: {value}" for name, value in usual.items()]
    lines += _OWN.get(checkpoint, "").splitlines()
    lines = [line for line in lines if f"\n{line.partition(':')[0]}:" not in f"\n{text}"]
    recipe = "\n".join([f"checkpoint: {checkpoint}", *lines, text])
    (found,) = read(recipe, inventory=_catalog_of(models).inventory())
    return found.image_requests(lambda kind, name: hash_of(models, kind, name))


def hash_of(models: Path, kind: Any, name: str) -> str:
    if kind in ("image", "mask"):
        return keep_file(models, (models / Path(name).name).read_bytes())
    catalog = _catalog_of(models)
    return catalog.sha256(catalog.find(kind, name))


@cache
def _catalog_of(models: Path) -> Catalog:
    """Return a cached catalog of a folder, which reads only changed files again."""
    return Catalog(models, models / "hashes.sqlite")
