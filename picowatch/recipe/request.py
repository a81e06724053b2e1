"""A request for one picture: every value fixed, nothing left to draw or to look up."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self, get_type_hints

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.fields import MAPPINGS, PICTURE_FIELDS, ROWS, ImageFields
from picowatch.recipe.parts import Control, Hires, Upscale
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.samplers import AUTOMATIC

# In metadata, but no part of the identity: they change no pixel.
_TOLD_ONLY = ("unexpanded_prompt", "unexpanded_negative_prompt")


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA and how strongly it acts; `hash` is the whole sha256 of its file.

    `family` is what the recipe says that it is for, "" where the file says it.
    """

    name: str
    hash: str
    weight: float
    family: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddingUse:
    """A textual inversion whose name is a word of the prompts."""

    name: str
    hash: str


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ControlUse(Control):
    """A ControlNet, what it follows, and the hashes of both; of the depth model, if it uses one."""

    model_hash: str = ""
    image_hash: str = ""
    depth_hash: str = ""

    @property
    def shared(self) -> tuple[object, ...]:
        """The values that are equal in all images of a batch: pictures and maps may differ.

        But canny is by itself: it weakens the ControlNet in the second pass of hires.
        """
        how = self.weight, self.start, self.end, self.mode, self.kind, self.preprocess == "canny"
        return self.model_hash, self.model, *how


@dataclass(frozen=True, kw_only=True)
class ImageRequest(ImageFields):
    """One picture to make. Its digest is its identity.

    It has every field of the table that changes pixels, under its name. Names are as the catalog
    gives them; hashes are whole sha256 hex digests of files, so that another file under the same
    name is another request. `sampler` is A1111's name without schedule type ("DPM++ 2M"), and
    "automatic" is decided in `schedule_type`, and so is the scale of `upscale`. `loras` are those
    of the recipe's field, then those that the prompt names with tags, in its order.
    """

    width: int = field()
    height: int = field()
    seed: int = field()
    checkpoint_hash: str
    vae_hash: str = ""
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    control: tuple[ControlUse, ...] = ()
    image_hash: str = ""
    mask_hash: str = ""
    hires_upscaler_hash: str = ""
    upscaler_hash: str = ""
    unexpanded_prompt: str = ""
    unexpanded_negative_prompt: str = ""

    def __post_init__(self) -> None:
        # 7 and 7.0 are the same request, but not the same JSON.
        for name in _FLOATS:
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of the fields that make the picture.

        Library versions are not part of it, nor is what prompts were before wildcards.
        """
        values = {name: value for name, value in self.as_dict().items() if name not in _TOLD_ONLY}
        return digest_of(values)

    @property
    def batch_key(self) -> str:
        """Images with equal keys can be rendered in one batch.

        Equal is every field that changes pixels, unless the table lets it differ within a batch,
        and the hashes of checkpoint, VAE and LoRAs. Start images and masks may differ, but all
        images have one or none has; so may the pictures that ControlNets follow. An image with
        `exact` shares with no other.
        """
        return repr(
            (
                *(_shared(getattr(self, name)) for name in _SAME_IN_BATCH),
                self.checkpoint_hash,
                self.vae_hash,
                self.hires_upscaler_hash,
                self.upscaler_hash,
                bool(self.image),
                bool(self.mask),
                self.digest if self.exact else None,
            )
        )

    def is_idle(self, name: str) -> bool:
        """Return whether a field changes nothing, because what it needs is not there."""
        if name not in ROWS:
            return False
        if not self.draws and name not in WITHOUT_DRAWING:
            return True
        needs = ROWS[name].needs
        return bool(needs) and not any(getattr(self, need) for need in needs)

    @property
    def draws(self) -> bool:
        """Return whether something is drawn. Otherwise the start image is only enlarged."""
        return bool(self.checkpoint)

    @property
    def upscalers(self) -> dict[str, str]:
        """The hashes of the models that enlarge for `hires` and at last, by their names."""
        hires = {self.hires.upscaler: self.hires_upscaler_hash} if self.hires else {}
        at_last = {self.upscale.model: self.upscaler_hash} if self.upscale else {}
        return {name: hash_ for name, hash_ in (hires | at_last).items() if hash_}

    @property
    def pictures(self) -> dict[str, str]:
        """The hashes of start image, mask and control images, by their paths as in the recipe."""
        named = {self.image: self.image_hash, self.mask: self.mask_hash}
        named |= {use.image: use.image_hash for use in self.control}
        return {path: digest for path, digest in named.items() if path}

    def with_names(self, names: Mapping[str, str]) -> Self:
        """The same request, in which pictures have other names: new ones, by the old ones."""
        return replace(
            self,
            image=names.get(self.image, self.image),
            mask=names.get(self.mask, self.mask),
            control=tuple(
                replace(use, image=names.get(use.image, use.image)) for use in self.control
            ),
        )

    def as_dict(self, *, with_off: bool = False) -> dict[str, Any]:
        """The fields as plain values, ready for JSON, without those that are idle or off."""
        return {
            name: _plain(value)
            for name, off in _OFF.items()
            if ((value := getattr(self, name)) != off or with_off) and not self.is_idle(name)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `as_dict`; unknown keys are an error, they would change the picture."""
        unknown = set(values) - set(_OFF)
        needed = _ALWAYS if values.get("checkpoint") else _ALWAYS - _DRAWING
        missing = needed - set(values)
        if unknown or missing:
            raise ValueError(
                f"fields of an image request: unknown {sorted(unknown)}, missing {sorted(missing)}"
            )
        parts = {name: _PARTS[name](value) for name, value in values.items() if name in _PARTS}
        return cls(**values | parts)


def digest_of(values: Mapping[str, object]) -> str:
    """sha256 over their canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _shared(value: Any) -> Any:
    """The part of a value that all images of a batch have: of ControlNets all but the pictures."""
    if isinstance(value, tuple):
        return tuple(part.shared if isinstance(part, ControlUse) else part for part in value)
    return value


def loras_beside_prompt(request: ImageRequest) -> tuple[LoraUse, ...]:
    """The LoRAs that the prompt does not name itself: a request holds them first."""
    _, tags = split_loras(request.prompt)
    return request.loras[: max(0, len(request.loras) - len(tags))]


def recipe_values(request: ImageRequest) -> dict[str, Any]:
    """The values of a recipe that makes the same request again, by field.

    Start image and mask are "none" where the request has none, and the prediction is "automatic",
    so that no default replaces it.
    """
    values = {
        field.name: getattr(request, field.name)
        for field in fields(ImageFields)
        if not request.is_idle(field.name)
    }
    values |= {name: values[name] or "none" for name in PICTURE_FIELDS if name in values}
    for name in MAPPINGS.keys() & values.keys():
        values[name] = asdict(values[name]) if values[name] else False
    if request.draws:
        values["prediction"] = request.prediction or AUTOMATIC
        values["loras"] = {use.name: _use_written(use) for use in loras_beside_prompt(request)}
        values["control"] = [_as_written(use) for use in request.control] or "none"
    return values


def _use_written(use: LoraUse) -> float | dict[str, Any]:
    return {"weight": use.weight, "family": use.family} if use.family else use.weight


def _as_written(use: ControlUse) -> dict[str, Any]:
    """A ControlNet as a recipe writes it, without what is as usual."""
    values = _without_defaults(use)
    return {name: value for name, value in values.items() if not name.endswith("_hash")}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [
            _without_defaults(part) if isinstance(part, ControlUse | LoraUse) else asdict(part)
            for part in value
        ]
    return asdict(value) if isinstance(value, Hires | Upscale) else value


def _off(name: str, default: Any) -> Any:
    """The value at which a field is off; a field that is added with one keeps all digests."""
    left_out = name in ROWS and ROWS[name].left_out
    return _NOT_OFF if default is MISSING or (default and not left_out) else default


def _without_defaults(use: ControlUse | LoraUse) -> dict[str, Any]:
    """So that options that are added later change no digest."""
    return {f.name: v for f in fields(use) if (v := getattr(use, f.name)) != f.default}


# The fields of an image that is enlarged and not drawn; its seed is 0, and its size the picture's.
WITHOUT_DRAWING = ("prompt", "image", "upscale", "width", "height", "seed", "exact")
_NOT_OFF = object()
_OFF = {field.name: _off(field.name, field.default) for field in fields(ImageRequest)}
_FLOATS = [name for name, kind in get_type_hints(ImageRequest).items() if kind is float]
_SAME_IN_BATCH = [name for name, row in ROWS.items() if row.changes_pixels and row.batch == "same"]
_ALWAYS = {
    name
    for name, off in _OFF.items()
    if off is _NOT_OFF and not (name in ROWS and ROWS[name].needs)
}
_DRAWING = ROWS.keys() - {*WITHOUT_DRAWING}
_PARTS: dict[str, Any] = {
    "loras": lambda found: tuple(LoraUse(**lora) for lora in found),
    "embeddings": lambda found: tuple(EmbeddingUse(**embedding) for embedding in found),
    "hires": lambda found: Hires(**found),
    "control": lambda found: tuple(ControlUse(**use) for use in found),
    "upscale": lambda found: Upscale(**found),
}
