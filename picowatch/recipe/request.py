"""What one picture is made from: every value fixed, nothing left to draw or to look up."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Self

from picowatch.recipe.prompts.grammar import split_loras

# In metadata, but no part of the identity: they change no pixel.
_TOLD_ONLY = ("unexpanded_prompt", "unexpanded_negative_prompt")


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA and how strongly it acts; `hash` is the whole sha256 of its file."""

    name: str
    hash: str
    weight: float


@dataclass(frozen=True, slots=True)
class EmbeddingUse:
    """A textual inversion whose name is a word of the prompts."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class StartImage:
    """Where img2img begins: path as the recipe names it, sha256 of its bytes, how to fit it."""

    path: str
    hash: str
    denoising_strength: float
    resize: str


@dataclass(frozen=True, slots=True)
class Mask:
    """What is redrawn of the start image: white is, or black if inverted; blur in pixels."""

    path: str
    hash: str
    blur: int
    invert: bool


@dataclass(frozen=True, slots=True)
class Hires:
    """The second, larger pass. `steps` 0 means as many as the first pass."""

    scale: float
    steps: int
    denoising_strength: float
    upscaler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One picture to make. Its digest is its identity.

    Names are as the catalog gives them; hashes are whole sha256 hex digests of the model
    files, so that another file under the same name is another request. `sampler` is A1111's
    name without schedule type ("DPM++ 2M"), `schedule_type` one of samplers.SCHEDULE_TYPES
    with "automatic" already decided. `width` and `height` are pixels, `clip_skip` is A1111's
    number (1 skips nothing). `loras` are those of the recipe's field, then those that the
    prompt names with tags, in its order.
    """

    prompt: str
    negative_prompt: str
    checkpoint: str
    checkpoint_hash: str
    vae: str
    vae_hash: str
    sampler: str
    schedule_type: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    seed: int
    clip_skip: int
    exact: bool
    # Fields below came later: where they hold their default, digests are as they were before.
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    start_image: StartImage | None = None
    mask: Mask | None = None
    hires: Hires | None = None
    shrink_to_fit: bool = False
    unexpanded_prompt: str = ""
    unexpanded_negative_prompt: str = ""

    def __post_init__(self) -> None:
        # 7 and 7.0 are the same request, but not the same JSON.
        object.__setattr__(self, "cfg_scale", float(self.cfg_scale))

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of the fields that make the picture.

        Library versions are not part of it, nor is what prompts were before wildcards.
        """
        values = {name: value for name, value in self.as_dict().items() if name not in _TOLD_ONLY}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON; later ones only where they say something."""
        values = {name: getattr(self, name) for name in _NAMES}
        return {
            name: _plain(value)
            for name, value in values.items()
            if name not in _LATER or value != _LATER[name]
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `as_dict`; unknown keys are an error, they would change the picture."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields of an image request: {sorted(unknown)}")
        parts = {name: _PARTS[name](value) for name, value in values.items() if name in _PARTS}
        return cls(**values | parts)


def loras_beside_prompt(request: ImageRequest) -> tuple[LoraUse, ...]:
    """The LoRAs that the prompt does not name itself: a request holds them first."""
    _, tags = split_loras(request.prompt)
    return request.loras[: max(0, len(request.loras) - len(tags))]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [asdict(part) for part in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


_NAMES = tuple(field.name for field in fields(ImageRequest))
_LATER: dict[str, Any] = {
    "loras": (),
    "embeddings": (),
    "start_image": None,
    "mask": None,
    "hires": None,
    "shrink_to_fit": False,
    "unexpanded_prompt": "",
    "unexpanded_negative_prompt": "",
}
_PARTS: dict[str, Any] = {
    "loras": lambda found: tuple(LoraUse(**lora) for lora in found),
    "embeddings": lambda found: tuple(EmbeddingUse(**embedding) for embedding in found),
    "start_image": lambda found: StartImage(**found),
    "mask": lambda found: Mask(**found),
    "hires": lambda found: Hires(**found),
}
