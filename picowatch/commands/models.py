"""`picowatch models`: what is installed, and what was refused and why."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from picowatch.catalog import Catalog, Model, Refused, embedded
from picowatch.catalog.encoders import TRANSFORMER, families_of
from picowatch.catalog.finders import DOES
from picowatch.catalog.parts import completed_by
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from picowatch.files.safe_paths import is_file, is_folder
from picowatch.recipe.messages.suggestions import listed
from picowatch.settings.settings import Settings
from picowatch.streams import harmless

_INPAINTING_INPUTS = 9
_BY_ITSELF = (
    "drawn by diffusers' {}, without a row of its own: sizes, previews and memory are guesses"
)
ADAPTERS = ("lora", "embedding", "controlnet")  # of use with some checkpoints only
# What is told of a model besides its name, kind, path and size, where its file does not say it.
_UNKNOWN: dict[str, Any] = {
    "hash": None, "native_size": None, "base_model": "", "trigger_words": [], "family": "",
    "variant": "", "pipeline": "", "by_name": False, "stored": "", "prediction": "",
    "zero_snr": False, "scale": None, "inpainting": False, "inside": [], "completed_by": [],
    "missing": None, "refused": None,
}  # fmt: skip


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Print the inventory. Each model is read once for its hash, here or by the daemon."""
    settings = load()
    keep = is_folder(settings.state_folder)  # a list creates no outbox
    catalog = Catalog(settings.models, settings.hash_cache, keep_hashes=keep)
    inventory = catalog.scan()
    ours = map(embedded, ("checkpoint", "upscaler", "cutout", "controlnet", "segmentation"))
    found: list[Model | Refused] = [*ours, *inventory.models, *inventory.refused]
    rows = (_row(catalog, model) for model in found)
    if options.json:
        print(json.dumps(list(rows), indent=1))
    else:
        for line in chain.from_iterable(map(_lines, rows)):
            print(harmless(line), flush=True)  # the next model may be read for minutes
    if not is_folder(settings.models) and not inventory.refused:
        missing = f"There is no models folder {settings.models.absolute()}."
        print(harmless(f"picowatch: {missing}"), file=sys.stderr)
    return 0


def _lines(row: dict[str, Any]) -> Iterator[str]:
    """A line for each model, and below it what its file says of it, or what is missing."""
    if row["refused"]:
        yield f"{row['kind']:12}  {row['name']}  refused: {row['refused']}"
        return
    size = f"{row['native_size']}x{row['native_size']}" if row["native_size"] else ""
    columns = (f"{row['kind']:12}", f"{row['name']:24}", f"{row['bytes'] / 1e6:>8.1f} MB")
    yield "  ".join(filter(None, (*columns, (row["hash"] or "")[:10], size, _family(row))))
    if row["pipeline"]:
        yield f"{'':14}{_BY_ITSELF.format(row['pipeline'])}"
    for label, text in (
        ("trained on", row["base_model"]),
        ("trigger words", ", ".join(row["trigger_words"])),
        ("inside", ", ".join(row["inside"])),
        ("completed by", ", ".join(row["completed_by"])),
        ("missing", row["missing"]),
    ):
        if text:
            yield f"{'':14}{label}: {text}"


def _family(row: dict[str, Any]) -> str:
    """What a model belongs to or is for, and what is special about a checkpoint."""
    if row["kind"] == "vae":
        return f"for {listed(families_of(row['variant']))}"
    if row["kind"] == "segmentation":
        return f"{row['variant']}, {DOES[row['variant']]}"
    if row["scale"]:
        return f"{row['variant']}, {row['scale']}x"
    if not row["family"]:
        return ", ".join(filter(None, (row["variant"], row["stored"])))
    name = FAMILIES[row["family"]].name
    if row["kind"] in ADAPTERS:
        return ", ".join(filter(None, (f"for {name}", row["variant"])))
    if row["variant"]:
        name += f" ({row['variant']}{', by its name' if row['by_name'] else ''})"
    special = (
        row["stored"],
        "inpainting" if row["inpainting"] else "",
        "v-prediction" if row["prediction"] == "v_prediction" else "",
        "zero terminal SNR" if row["zero_snr"] else "",
    )
    return ", ".join(filter(None, (name, *special)))


def _row(catalog: Catalog, model: Model | Refused) -> dict[str, Any]:
    """A model as JSON; a refused file has the reason, and nothing that is read from inside it."""
    size = model.path.lstat().st_size if is_file(model.path) else None
    row = {"name": model.name, "kind": model.kind, "path": str(model.path), "bytes": size}
    row |= _UNKNOWN
    if isinstance(model, Refused):
        return row | {"refused": model.reason}
    try:
        digest = None if model.missing else catalog.sha256(model)
    except ModelRefused as refused:  # it is being copied, or is gone
        return row | {"refused": refused.message}
    row |= {name: getattr(model, name) or row[name] for name in row if hasattr(model, name)}
    kind = FAMILIES[model.family].kind if model.family else ""
    inside = (name for name, _ in model.contents if name != TRANSFORMER)
    return row | {
        "path": str(model.path),
        "pipeline": model.family if kind == "general" else "",
        "hash": digest,
        "trigger_words": list(model.trigger_words),
        "prediction": "v_prediction" if model.velocity_beside else model.prediction,
        "inpainting": model.in_channels == _INPAINTING_INPUTS,
        "inside": [*inside] if kind != "unet" else [],
        "completed_by": completed_by(model),
    }
