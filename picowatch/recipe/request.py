"""A request for one picture: every value fixed, nothing left to draw or to look up."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as fields_of
from functools import cache, cached_property, partial
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe import fields
from picowatch.recipe.files import PICTURE_KINDS, NamedFile, as_written, files_of, with_pictures
from picowatch.recipe.parts import Control, Detail
from picowatch.recipe.prompts.grammar import lora_tags

# The values that identify an entry or an image: those that are not off. Ledgers and pictures hold
# their digests. A field or a part that is left out with its default changes no digest when it is
# added. Version 1 did not leave out all of them: what it wrote in any case is listed here, as
# history, and stays written. Nothing is added to these lists.
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
DIGEST_OMITS = {name: value for name, value in fields.DEFAULTS.items() if name not in _FIELDS}
# In the metadata, but no part of the identity: they change no pixel, or follow from hashes.
_TOLD_ONLY = (
    *("unexpanded_prompt", "unexpanded_negative_prompt", "notes"),
    *("given_size", "is_transparent", "size_warning", "replace", "name"),
)


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


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA, its strength, its file's whole sha256, and the `family` that the recipe gives."""

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
        """The values that must be equal in a batch; pictures and maps may differ."""
        # Canny gets batches of its own: it weakens the ControlNet in the second pass of hires.
        how = self.weight, self.start, self.end, self.mode, self.kind, self.preprocess == "canny"
        return self.model_hash, self.model, *how


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DetailUse(Detail):
    """What is drawn again, the hash of its finder, and what a prompt of its own names."""

    finder_hash: str = ""
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageRequest(fields.ImageFields):
    """One picture to make. Its digest is its identity.

    It has every field of the table that changes pixels, under its name. Names are as the catalog
    gives them; hashes are whole sha256 hex digests of files, so that another file under the same
    name is another request. `sampler` is A1111's name without schedule type ("DPM++ 2M");
    `schedule_type` is never "automatic", and `upscale` has a scale.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    width: int = field()
    height: int = field()
    seed: int = field()
    checkpoint_hash: str
    vae_hash: str = ""
    loras: tuple[LoraUse, ...] = ()  # of the recipe's field, then of the prompt's tags, in order
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
    given_size: tuple[int, int] | None = None  # of the picture of which only parts are drawn
    is_transparent: bool = False  # that picture is, and so is the result
    size_warning: str = ""  # that the size is less than the picture's
    unexpanded_prompt: str = ""
    unexpanded_negative_prompt: str = ""
    notes: dict[str, str] = field(default_factory=dict, hash=False)  # columns that begin with _

    def __post_init__(self) -> None:
        # 7 and 7.0 are the same request, but not the same JSON.
        for name in fields.FRACTIONS:
            object.__setattr__(self, name, float(getattr(self, name)))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical JSON of the fields that make the picture."""
        # Without libraries' versions, notes, prompts before wildcards and what a picture tells.
        values = self.as_dict().items()
        return digest_of({name: value for name, value in values if name not in _TOLD_ONLY})

    @property
    def batch_key(self) -> str:
        """The key of a batch: images with equal keys can be rendered together.

        It holds the models' hashes, and every field that changes pixels and is not off, unless the
        table lets it differ within a batch. Pictures may differ, but all images have a start image
        or none, and words find all masks or none. Images with references are drawn one by one, so
        their sizes may differ.
        """
        if self.is_copy:
            return COPIES
        controls = tuple(use.shared for use in self.control)
        values = {n: plain(n, v) for n in _SAME_IN_BATCH if (v := getattr(self, n)) != _OFF[n]}
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
                *(["cutout"] if self.cutout else []),
                *(["find"] if self.found_mask else []),
            )
        )

    @property
    def idle(self) -> set[str]:
        """The fields that change nothing, because none of the fields that they need is set."""
        if not self.draws:
            return fields.ROWS.keys() - {*WITHOUT_DRAWING}
        return fields.idle_fields(self)

    @property
    def draws(self) -> bool:
        """Return whether something is drawn. Otherwise the start image is only finished."""
        return bool(self.checkpoint)

    @property
    def seed_used(self) -> str:
        """The seed for people, "seed 5"; "" if nothing is drawn."""
        return f"seed {self.seed}" if self.draws else ""

    @property
    def is_copy(self) -> bool:
        """Return whether no model has a part in it: a picture is only resized or written again."""
        return not (self.draws or self.upscale or self.cutout)

    @property
    def may_be_transparent(self) -> bool:
        """Return whether anything in the result may be transparent."""
        before = not self.cutout.background if self.cutout else self.is_transparent
        return self.resize_to.is_transparent(before) if self.resize_to else before

    @property
    def redraws_a_part(self) -> bool:
        """Return whether something of the start image, or around it, is drawn and the rest kept."""
        return bool(self.mask or self.extend)

    @cached_property
    def files(self) -> tuple[NamedFile, ...]:
        """All files that it names, but LoRAs and embeddings."""
        return tuple(files_of(self, has_hashes=True))

    def files_of(self, *kinds: str) -> dict[str, str]:
        """Return the hashes of its files of these kinds, by their names."""
        return {file.name: file.sha256 for file in self.files if file.kind in kinds}

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
        return self.files_of(*PICTURE_KINDS)

    def in_format_of(self, other: Self) -> Self:
        """Return the request for this picture in another picture's file format and quality."""
        return replace(self, **{name: getattr(other, name) for name in fields.AS_FILE})

    def with_names(self, names: Mapping[str, str]) -> Self:
        """Return the request with its pictures renamed; `names` maps old names to new ones."""
        return replace(self, **with_pictures(self, lambda name: names.get(name, name)))

    def as_dict(self, *, with_off: bool = False) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON, without those that are idle or off."""
        idle = self.idle
        values = {name: getattr(self, name) for name in _OFF if name not in idle}
        return {n: plain(n, v) for n, v in values.items() if with_off or v != _OFF[n]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "ImageRequest":
        """Return the request that `as_dict` gave; unknown fields and bad values: ValueError."""
        return _adapter().validate_python(values)


# Built at its first use: it takes 10 ms, and few commands need it.
_adapter = cache(lambda: TypeAdapter(ImageRequest))


def loras_beside_prompt(of: ImageRequest | DetailUse) -> tuple[LoraUse, ...]:
    """Return the LoRAs that the prompt does not name: the first ones."""
    return of.loras[: max(0, len(of.loras) - len(lora_tags(of.prompt)))]


def recipe_values(request: ImageRequest) -> dict[str, Any]:
    """Return the values of a recipe, by field, that makes the same request in any folder."""
    request = request.with_names({path: as_written(path) for path in request.pictures})
    idle, values = request.idle, dict[str, Any]()
    for name, row in fields.ROWS.items():
        if row.changes_pixels and name not in idle:
            value = getattr(request, name)
            is_off = row.off is not None and value == fields.DEFAULTS[name]
            values[name] = row.off if is_off else plain(name, value)
    values |= {"mask": fields.ALPHA} if request.mask_is_alpha else {}
    if request.draws:
        values["loras"] = {
            use.name: {"weight": use.weight, "family": use.family} if use.family else use.weight
            for use in loras_beside_prompt(request)
        }
    if request.references:
        values["references"] = [use.image for use in request.references]
    for name in filter(partial(getattr, request), fields.LISTS):
        own = fields.PARTS[name]
        values[name] = [{part: item[part] for part in item if part in own} for item in values[name]]
    return values if request.draws else {name: values[name] for name in fields.FINISHED}


# The fields of an image that is not drawn, only enlarged or cut out; its seed is 0, and its size is
# the picture's.
WITHOUT_DRAWING = ("prompt", *fields.FINISHED, "replace", "name", "width", "height", "seed")
COPIES = "copies"  # the batch key of requests without a model
_NEVER = object()
_OFF = {
    own.name: DIGEST_OMITS.get(own.name, _NEVER) if own.name in fields.ROWS else own.default
    for own in fields_of(ImageRequest)
} | {"notes": {}}
_SAME_IN_BATCH = [
    name
    for name, row in fields.ROWS.items()
    if row.changes_pixels and row.same_in_batch and name != "control"
]
