"""The values that identify an entry or an image: those that are not off, ready for JSON.

Ledgers and pictures hold the digests of them. A field or a part that is left out with its default
changes no digest when it is added. Version 1 did not leave out all of them: what it wrote in any
case is listed here, as history, and stays written. Nothing is added to these lists.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from picowatch.recipe.fields import DEFAULTS

_FIELDS = (
    *("prompt", "vae", "sampler", "schedule_type", "steps", "cfg_scale", "seed", "clip_skip"),
    *("denoising_strength", "resize", "mask_blur", "count"),
)
Parts = Mapping[str, Collection[str]]
OF_IMAGES: Parts = {
    "hires": ("scale", "steps", "denoising_strength", "upscaler"),
    "upscale": ("model", "scale"),
}
OF_ENTRIES: Parts = {
    **OF_IMAGES,
    "control": (
        *("image", "model", "preprocess", "weight", "start", "end", "mode", "kind"),
        *("low", "high", "threshold", "radius", "depth", "preview"),
    ),
    "detail": (
        *("find", "confidence", "grow", "model", "count", "denoising_strength", "prompt"),
        *("negative_prompt", "steps", "mask_padding", "mask_blur", "size"),
    ),
}
# The values at which fields are left out.
DIGEST_OMITS = {name: value for name, value in DEFAULTS.items() if name not in _FIELDS}


def plain(field: str, value: Any, written: Parts = OF_IMAGES) -> Any:
    """Return a field's value, ready for JSON, without the parts that are defaults."""
    if isinstance(value, tuple):
        return [plain(field, element, written) for element in value]
    rows = getattr(value, "__dataclass_fields__", None)
    if rows is None:
        return value
    always = written.get(field, ())
    parts = {
        name: part
        for name, part in asdict(value).items()
        if name in always or getattr(value, name) != rows[name].default
    }
    # Digests stay those of the time when a cutout could only name its model.
    return parts["model"] if field == "cutout" and [*parts] == ["model"] else parts


def digest_of(values: Mapping[str, object]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
