"""What one picture is made from: every value fixed, nothing left to draw or to look up."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One picture to make. Its digest is its identity.

    Names are as the catalog gives them; hashes are whole sha256 hex digests of the model
    files, so that another file under the same name is another request. `sampler` is A1111's
    name without schedule type ("DPM++ 2M"), `schedule_type` one of samplers.SCHEDULE_TYPES
    with "automatic" already decided. `width` and `height` are pixels, `clip_skip` is A1111's
    number (1 skips nothing).
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

    def __post_init__(self) -> None:
        # 7 and 7.0 are the same request, but not the same JSON.
        object.__setattr__(self, "cfg_scale", float(self.cfg_scale))

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON of all fields; library versions are not part of it."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `as_dict`; unknown keys are an error, they would change the picture."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields of an image request: {sorted(unknown)}")
        return cls(**values)
