"""One entry of a recipe file with everything decided but the random seed."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from picowatch.recipe.installed import BAKED
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import DEFAULT_SAMPLER

MAX_SEED = 2**32 - 1
RANDOM: Literal["random"] = "random"

# The sha256 of a file that a recipe names. Kinds: "checkpoint", "vae", "lora", "embedding",
# "image" and "mask"; whatever it raises goes through to the caller.
HashOf = Callable[[str, str], str]

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Pixels = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]
ScheduleType = Literal["automatic", "karras", "exponential", "beta", "uniform", "sgm_uniform"]


def _also(*aliases: str, default: str | None = None) -> JsonDict:
    """What the docs and the schema say beyond the type: aliases, and a default that depends."""
    extra: JsonDict = {"aliases": list(aliases)}
    return extra | {"default_text": default} if default else extra


class Recipe(BaseModel):
    """One entry: what it asks for, and where it stands in its file.

    As `read_recipes` gives it everything is resolved: `checkpoint` and `vae` are names that are
    installed, `sampler` has no schedule type in its name, `schedule_type` is decided, `width`
    and `height` are set. Only a random seed is still to be drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str = Field(
        description="What to draw. A1111 weights (word:1.2), [word] and BREAK; any length.",
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
    exact: bool = Field(
        default=False,
        description="true: the same pixels always, at the price of speed (batch 1, eager, "
        "deterministic algorithms).",
    )
    priority: int = Field(
        default=0, ge=-1_000_000, le=1_000_000, description="Whole number; higher goes first."
    )

    # Where it stands in its file: the entry's number from 0, and its line from 1.
    place: SkipJsonSchema[int] = Field(default=0, exclude=True, repr=False)
    line: SkipJsonSchema[int] = Field(default=1, exclude=True, repr=False)

    @property
    def size(self) -> str:
        """ "512x768"."""
        return f"{self.width}x{self.height}"

    @property
    def wants_random_seed(self) -> bool:
        """Whether a seed has to be drawn before its images can be made."""
        return self.seed == RANDOM

    @property
    def image_count(self) -> int:
        """How many images the entry asks for."""
        return len(self.seed) if isinstance(self.seed, tuple) else self.count

    def digest(self, hash_of: HashOf) -> str:
        """The entry's identity: two saves hold the same entry if it is the same.

        sha256 over all resolved values, count and seed as written ("random" stays "random"),
        and the hashes of the files they name; priority and the place in the file do not count.
        """
        values = self.model_dump(mode="json", exclude={"priority"})
        values |= {
            "checkpoint_hash": hash_of("checkpoint", self.checkpoint),
            "vae_hash": self._vae_hash(hash_of),
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def image_requests(self, hash_of: HashOf, drawn_seed: int | None = None) -> list[ImageRequest]:
        """One request an image: image i has seed+i (wrapping), or the list's i-th seed.

        `drawn_seed` is what was drawn for a random seed, and is not looked at otherwise.
        """
        return [self._request(seed, hash_of) for seed in self._seeds(drawn_seed)]

    def _vae_hash(self, hash_of: HashOf) -> str:
        return "" if self.vae == BAKED else hash_of("vae", self.vae)

    def _seeds(self, drawn_seed: int | None) -> list[int]:
        if isinstance(self.seed, tuple):
            return list(self.seed)
        first = self.seed if isinstance(self.seed, int) else drawn_seed
        if first is None:
            raise ValueError("a recipe with a random seed needs the seed that was drawn")
        return [(first + image) % (MAX_SEED + 1) for image in range(self.count)]

    def _request(self, seed: int, hash_of: HashOf) -> ImageRequest:
        if self.width is None or self.height is None:
            raise ValueError("a recipe without a size has not been resolved")
        return ImageRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            checkpoint=self.checkpoint,
            checkpoint_hash=hash_of("checkpoint", self.checkpoint),
            vae=self.vae,
            vae_hash=self._vae_hash(hash_of),
            sampler=self.sampler,
            schedule_type=self.schedule_type,
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            width=self.width,
            height=self.height,
            seed=seed,
            clip_skip=self.clip_skip,
            exact=self.exact,
        )


def no_hash(kind: str, name: str) -> str:
    """A `hash_of` where hashes do not matter, because the requests are only shown."""
    return ""
