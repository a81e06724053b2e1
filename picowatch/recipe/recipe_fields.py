"""The fields of a recipe: types, limits, defaults, aliases and what the docs say of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import WithJsonSchema

from picowatch.recipe.samplers import DEFAULT_SAMPLER

MAX_SEED = 2**32 - 1
RANDOM: Literal["random"] = "random"

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Pixels = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]
_WEIGHT_SCHEMA: JsonDict = {"type": "number", "minimum": -10, "maximum": 10}
Loras = Annotated[
    tuple[tuple[str, float], ...],
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": _WEIGHT_SCHEMA},
                {"type": "array"},
                {"type": "string"},
            ]
        }
    ),
]


class HiresFields(BaseModel):
    """What the mapping `hires` can say; `upscaler` is one of hires.UPSCALERS."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    scale: float = Field(default=2.0, ge=1, le=4, allow_inf_nan=False)
    steps: int = Field(default=0, ge=0, le=150)
    denoising_strength: float = Field(default=0.7, ge=0, le=1, allow_inf_nan=False)
    upscaler: str = "Latent"


HiresOrNone = Annotated[
    HiresFields | None,
    WithJsonSchema({"anyOf": [HiresFields.model_json_schema(), {"type": "boolean"}]}),
]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a sweep: what it varies, and its values as short texts, in order."""

    label: str
    values: tuple[str, ...]


Axes = Annotated[
    tuple[Axis, ...],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "array"}, {"type": "string"}]},
        }
    ),
]
ScheduleType = Literal[
    "automatic", "karras", "exponential", "beta", "uniform", "sgm_uniform", "leading"
]


def _also(*aliases: str, default: str | None = None, takes: str | None = None) -> JsonDict:
    """What the docs and the schema say beyond the type: aliases, defaults and values in words."""
    extra: JsonDict = {"aliases": list(aliases)}
    extra |= {"default_text": default} if default else {}
    return extra | {"takes_text": takes} if takes else extra


class RecipeFields(BaseModel):
    """What one entry can say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str = Field(
        description="What to draw. A1111 weights `(word:1.2)`, `[word]` and `BREAK`, "
        "`<lora:name:0.8>`, embeddings by name, wildcards `{a|b}`, `{2$$a|b|c}` and `__name__`; "
        "up to 20,000 characters.",
    )
    negative_prompt: str = Field(
        default="",
        description="What to keep out of the picture.",
        json_schema_extra=_also("negative", default="empty"),
    )
    checkpoint: str = Field(
        default="",
        description="A name in models/checkpoints (ending optional, a unique beginning is "
        "enough); demo is the embedded one.",
        json_schema_extra=_also(
            "model",
            "ckpt",
            "sd_model",
            default="the setting checkpoint; else the only one installed; else, with none "
            "installed, demo",
        ),
    )
    vae: str = Field(
        default="baked",
        description="A name in models/vae, or baked: the checkpoint's own.",
    )
    loras: Loras = Field(
        default=(),
        description="LoRAs from models/loras with their weights, beside those in the prompt.",
        json_schema_extra=_also(
            "lora", default="none", takes="`{name: weight}` or a list of names; −10 to 10"
        ),
    )
    sampler: str = Field(
        default=DEFAULT_SAMPLER,
        description="A1111's or diffusers' name, case and spaces forgiven; a schedule type may "
        "stand in it (DPM++ 2M Karras).",
        json_schema_extra=_also("sampler_name"),
    )
    schedule_type: ScheduleType = Field(
        default="automatic",
        description="How the steps are spaced.",
        json_schema_extra=_also(default="as the sampler says"),
    )
    steps: int = Field(default=24, ge=1, le=150, description="Denoising steps.")
    cfg_scale: float = Field(
        default=7.5,
        ge=1,
        le=30,
        allow_inf_nan=False,
        description="How closely to follow the prompt.",
        json_schema_extra=_also("guidance_scale", "cfg"),
    )
    width: Pixels | None = Field(
        default=None,
        description="Pixels, a multiple of 8; or both at once as size: 512x768.",
        json_schema_extra=_also(default="the checkpoint's native size"),
    )
    height: Pixels | None = Field(
        default=None,
        description="Pixels, a multiple of 8; or both at once as size: 512x768.",
        json_schema_extra=_also(default="the checkpoint's native size"),
    )
    seed: Seed | Literal["random"] | tuple[Seed, ...] = Field(
        default=RANDOM,
        description="The same seed gives the same picture. random (or -1) draws one; a list "
        "makes one image each.",
    )
    count: int = Field(
        default=1, ge=1, le=1000, description="How many images; image i uses seed+i."
    )
    clip_skip: int = Field(default=1, ge=1, le=4, description="A1111's number; 1 skips nothing.")
    image: str = Field(
        default="",
        description="Start image (img2img): a path beside the recipe, or under inbox/ or outbox/.",
        json_schema_extra=_also("init_image", default="none"),
    )
    denoising_strength: float = Field(
        default=0.75,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How far to go away from the start image; without one, from the first pass "
        "of hires.",
        json_schema_extra=_also("strength"),
    )
    resize: Literal["crop", "fit", "stretch"] = Field(
        default="crop", description="How the start image is brought to the size."
    )
    mask: str = Field(
        default="",
        description="What of the start image is redrawn: white is. A path like that of image.",
        json_schema_extra=_also(default="none"),
    )
    mask_blur: int = Field(default=4, ge=0, le=64, description="Pixels the mask's edge is soft.")
    mask_invert: bool = Field(default=False, description="true: black is redrawn.")
    hires: HiresOrNone = Field(
        default=None,
        description="A second, larger pass. scale 1 to 4 (2); steps 0 to 150 (0: as many as the "
        "first pass); denoising_strength 0 to 1 (0.7); upscaler Latent, Latent (nearest), Latent "
        "(nearest-exact), Latent (bicubic), Latent (antialiased), Lanczos or Nearest (Latent).",
        json_schema_extra=_also(
            "hires_fix",
            default="off",
            takes="`{scale, steps, denoising_strength, upscaler}`, each optional, or true",
        ),
    )
    sweep: Axes = Field(
        default=(),
        description="Every combination of these values, with the same seed, and a contact sheet. "
        'Any field that changes the image; a piece of the prompt as `"prompt: old": [new, '
        'newer]`; also `"lora: name"` and `"hires: scale"`.',
        json_schema_extra=_also(
            default="off", takes="`{field: [values]}` or `{field: from..to step s}`"
        ),
    )
    grid: bool = Field(default=False, description="true: also one contact sheet of the images.")
    shrink_to_fit: bool = Field(
        default=False,
        description="true: out of memory may shrink size and steps, which is recorded.",
    )
    exact: bool = Field(
        default=False,
        description="true: the same pixels always, at the price of speed (batch 1, eager, "
        "deterministic algorithms).",
    )
    priority: int = Field(
        default=0, ge=-1_000_000, le=1_000_000, description="Whole number; higher goes first."
    )
