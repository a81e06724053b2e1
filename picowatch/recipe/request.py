"""A request for one picture: every value fixed, nothing left to draw or to look up."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property, partial
from typing import Any, ClassVar, Self, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.control import Control
from picowatch.recipe.fields import (
    ALPHA,
    DETAIL,
    FINISHED,
    LISTS,
    MAPPINGS,
    OFF,
    PARTS,
    PICTURE_FIELDS,
    ROWS,
    ImageFields,
    idle_fields,
)
from picowatch.recipe.parts import Cutout, Detail, Find, without_defaults
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.samplers import AUTOMATIC

# In the metadata, but no part of the identity: they change no pixel, or follow from hashes.
_TOLD_ONLY = (
    *("unexpanded_prompt", "unexpanded_negative_prompt", "notes"),
    *("given_size", "is_transparent", "size_warning"),
)


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA and how strongly it acts; `hash` is the whole sha256 of its file.

    `family` is the one that the recipe gives, "" where the file tells it.
    """

    name: str
    hash: str
    weight: float
    family: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceUse:
    """A reference picture, by its path as in the recipe and the sha256 of its bytes."""

    image: str
    hash: str


@dataclass(frozen=True, slots=True)
class EmbeddingUse:
    """A textual inversion whose name is a word of the prompts."""

    name: str
    hash: str


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ControlUse(Control):
    """A ControlNet, what it follows, and the hashes of both and of its depth model, if any."""

    model_hash: str = ""
    image_hash: str = ""
    depth_hash: str = ""

    @property
    def shared(self) -> tuple[object, ...]:
        """The values that must be equal in a batch; pictures and maps may differ.

        Canny gets batches of its own, since it weakens the ControlNet in the second pass of hires.
        """
        how = self.weight, self.start, self.end, self.mode, self.kind, self.preprocess == "canny"
        return self.model_hash, self.model, *how


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DetailUse(Detail):
    """What is drawn again, and the hash of its finder.

    With a prompt of its own it has all its LoRAs and embeddings.
    """

    finder_hash: str = ""
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageRequest(ImageFields):
    """One picture to make. Its digest is its identity.

    It has every field of the table that changes pixels, under its name. Names are as the catalog
    gives them; hashes are whole sha256 hex digests of files, so that another file under the same
    name is another request. `sampler` is A1111's name without schedule type ("DPM++ 2M");
    `schedule_type` is never "automatic", and `upscale` has a scale. `given_size` is the size of the
    picture of which only parts are drawn, and the result `is_transparent` where that picture is.
    `size_warning` says that the size is less than the picture's. `loras` are those of the
    recipe's field, then those of the tags in the prompt, in its order. `notes` are the columns of a
    table that begin with an underscore.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    width: int = field()
    height: int = field()
    seed: int = field()
    checkpoint_hash: str
    vae_hash: str = ""
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    control: tuple[ControlUse, ...] = ()
    detail: tuple[DetailUse, ...] = ()
    references: tuple[ReferenceUse, ...] = ()
    image_hash: str = ""
    mask_hash: str = ""
    mask_finder_hash: str = ""
    hires_upscaler_hash: str = ""
    upscaler_hash: str = ""
    cutout_hash: str = ""
    given_size: tuple[int, int] | None = None
    is_transparent: bool = False
    size_warning: str = ""
    unexpanded_prompt: str = ""
    unexpanded_negative_prompt: str = ""
    notes: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # 7 and 7.0 are the same request, but not the same JSON.
        for name in _FLOATS:
            object.__setattr__(self, name, float(getattr(self, name)))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical JSON of the fields that make the picture.

        Versions of libraries are not part of it, nor are notes, prompts before wildcards and what
        follows from a picture.
        """
        values = {name: value for name, value in self._stored.items() if name not in _TOLD_ONLY}
        return digest_of(values)

    @property
    def batch_key(self) -> str:
        """The key of a batch: images with equal keys can be rendered together.

        It holds every field that changes pixels and is not off, unless the table lets it differ
        within a batch, and the hashes of checkpoint, VAE and LoRAs. Start images and masks may
        differ, but all images have one or none has. The pictures that ControlNets follow may
        differ, too, and so may the sizes of images with references, which are drawn one by one. An
        image with `exact` gets a batch of its own.
        """
        controls = tuple(use.shared for use in self.control)
        values = {
            name: value for name in _SAME_IN_BATCH if (value := getattr(self, name)) != _OFF[name]
        }
        if self.references:
            del values["width"], values["height"]
        return repr(
            (
                *values.items(),
                controls,
                self.checkpoint_hash,
                self.vae_hash,
                self.hires_upscaler_hash,
                self.upscaler_hash,
                "references" if self.references else bool(self.image),
                self.redraws_a_part,
                self.digest if self.exact else None,
            )
        )

    @property
    def idle(self) -> set[str]:
        """The fields that change nothing, because none of the fields that they need is set."""
        if not self.draws:
            return ROWS.keys() - {*WITHOUT_DRAWING}
        return idle_fields(partial(getattr, self))

    @property
    def draws(self) -> bool:
        """Return whether something is drawn. Otherwise the start image is only finished."""
        return bool(self.checkpoint)

    @property
    def size_before_upscale(self) -> tuple[int, int]:
        """Width and height of the drawn picture, or of the given one."""
        return self.given_size or self.drawn_size

    @property
    def redraws_a_part(self) -> bool:
        """Return whether something of the start image, or around it, is drawn and the rest kept."""
        return bool(self.mask or self.extend)

    @property
    def upscalers(self) -> dict[str, str]:
        """The hashes of the models that enlarge for `hires` and at the end, by their names."""
        hires = {self.hires.upscaler: self.hires_upscaler_hash} if self.hires else {}
        at_last = {self.upscale.model: self.upscaler_hash} if self.upscale else {}
        return {name: hash_ for name, hash_ in (hires | at_last).items() if hash_}

    @property
    def finders(self) -> dict[str, str]:
        """The hashes of the models that find things by words, by their names."""
        mask = {self.found_mask.model: self.mask_finder_hash} if self.found_mask else {}
        cutout = self.cutout if self.cutout and self.cutout.find else None
        details = {use.model: use.finder_hash for use in self.detail}
        return mask | details | ({cutout.model: self.cutout_hash} if cutout else {})

    @property
    def masked(self) -> tuple[str, str]:
        """Path and hash of the start image, or else of the first reference."""
        looked_at = [(use.image, use.hash) for use in self.references[:1]]
        return (self.image, self.image_hash) if self.image else next(iter(looked_at), ("", ""))

    @property
    def mask_is_alpha(self) -> bool:
        """Return whether the masked picture is its own mask, by what is transparent in it."""
        return bool(self.mask) and self.mask == self.masked[0]

    @property
    def pictures(self) -> dict[str, str]:
        """The hashes of all pictures that it names, by their paths as in the recipe."""
        named = {self.image: self.image_hash, self.painted_mask: self.mask_hash}
        named |= {use.image: use.hash for use in self.references}
        named |= {use.image: use.image_hash for use in self.control}
        return {path: digest for path, digest in named.items() if path}

    def with_names(self, names: Mapping[str, str]) -> Self:
        """Return the request with its pictures renamed; `names` maps old names to new ones."""
        return replace(
            self,
            image=names.get(self.image, self.image),
            mask=names.get(self.painted_mask, self.mask),
            references=tuple(
                replace(use, image=names.get(use.image, use.image)) for use in self.references
            ),
            control=tuple(
                replace(use, image=names.get(use.image, use.image)) for use in self.control
            ),
        )

    def as_dict(self, *, with_off: bool = False) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON, without those that are idle or off."""
        return self._plain(with_off=True) if with_off else dict(self._stored)

    @cached_property
    def _stored(self) -> dict[str, Any]:
        return self._plain(with_off=False)

    def _plain(self, *, with_off: bool) -> dict[str, Any]:
        idle = self.idle
        values = {
            name: value
            for name, off in _OFF.items()
            if ((value := getattr(self, name)) != off or with_off) and name not in idle
        }
        return values | {name: _plain(values[name]) for name in _STRUCTURED & values.keys()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "ImageRequest":
        """Return the request that `as_dict` gave; unknown fields and bad values: ValueError."""
        return _adapter().validate_python(values)


@cache
def _adapter() -> TypeAdapter[ImageRequest]:
    """Return the adapter, built at its first use: it takes 10 ms, and few commands need it."""
    return TypeAdapter(ImageRequest)


def digest_of(values: Mapping[str, object]) -> str:
    """Return the sha256 of the canonical JSON of values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [without_defaults(one) for one in value]
    if isinstance(value, Find):
        return without_defaults(value)
    if isinstance(value, Cutout):
        return value.stored()
    return asdict(value) if value and not isinstance(value, str) else value


def loras_beside_prompt(of: ImageRequest | DetailUse) -> tuple[LoraUse, ...]:
    """Return the LoRAs that the prompt does not name: the first ones."""
    _, tags = split_loras(of.prompt)
    return of.loras[: max(0, len(of.loras) - len(tags))]


def recipe_values(request: ImageRequest) -> dict[str, Any]:
    """Return the values of a recipe that makes the same request again, by field.

    Start image and mask are "none" where the request has none, and the prediction is "automatic",
    so that no default replaces it.
    """
    idle = request.idle
    values = {
        field.name: _plain(getattr(request, field.name))
        if field.name in (*MAPPINGS, "mask")
        else getattr(request, field.name)
        for field in fields(ImageFields)
        if field.name not in idle
    }
    values |= {name: values[name] or "none" for name in PICTURE_FIELDS if name in values}
    values |= {"mask": ALPHA} if request.mask_is_alpha else {}
    values |= {name: values[name] or False for name in MAPPINGS if name in values}
    if values.get("mask_padding", 0) is None:
        values["mask_padding"] = "none"
    if request.draws:
        values["prediction"] = request.prediction or AUTOMATIC
        values["loras"] = {
            use.name: {"weight": use.weight, "family": use.family} if use.family else use.weight
            for use in loras_beside_prompt(request)
        }
        values["references"] = [use.image for use in request.references] or "none"
        values[DETAIL] = [
            {name: v for name, v in without_defaults(use).items() if name in PARTS[DETAIL]}
            for use in request.detail
        ] or "none"
        values["control"] = [
            {name: v for name, v in without_defaults(use).items() if not name.endswith("_hash")}
            for use in request.control
        ] or "none"
    return values


# The fields of an image that is not drawn, only enlarged or cut out; its seed is 0, and its size is
# the picture's.
WITHOUT_DRAWING = ("prompt", *FINISHED, "width", "height", "seed")
_NEVER = object()
_OFF = {
    field.name: OFF.get(field.name, _NEVER) if field.name in ROWS else field.default
    for field in fields(ImageRequest)
} | {"notes": {}}
_FLOATS = [name for name, kind in get_type_hints(ImageRequest).items() if kind is float]
_SAME_IN_BATCH = [
    name
    for name, row in ROWS.items()
    if row.changes_pixels and row.same_in_batch and name != "control"
]
_STRUCTURED = {"loras", "embeddings", "references", "mask", *LISTS, *MAPPINGS}
