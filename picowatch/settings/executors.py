"""The setting `executor`: where engines run."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from picowatch.settings.values import first_problem, not_boolean, yaml_value

MOST_ENGINES = 1024
_Number = BeforeValidator(not_boolean)


class LocalSettings(BaseModel):
    """Engines on this machine: one for each GPU, or a share of the cores each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: int = Field(1, ge=1, le=MOST_ENGINES)

    def __str__(self) -> str:
        return "local" if self.engines == 1 else f"local:{self.engines}"


class RaySettings(BaseModel):
    """Engines on the Ray cluster of which this machine is a node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("auto", description="auto, or the head's HOST:6379.")
    gpus_per_engine: Annotated[float, _Number] = Field(
        1, ge=0, le=64, description="0: engines that use the CPU."
    )
    cpus_per_engine: Annotated[float, _Number] = Field(1, gt=0, le=1024)
    engines: Literal["auto"] | Annotated[int, _Number, Field(ge=1, le=MOST_ENGINES)] = "auto"

    @field_validator("address")
    @classmethod
    def _is_no_ray_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray Client (ray://) is not used. Run `ray start --num-cpus=0 --address=HOST:6379` "
                "on this machine, and set address: auto"
            )
        return address

    def __str__(self) -> str:
        return "ray"


Executor = LocalSettings | RaySettings

EXECUTOR_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": r"^(local(:[1-9]\d*)?|ray)$"},
        {
            "type": "object",
            "properties": {"ray": RaySettings.model_json_schema()},
            "required": ["ray"],
            "additionalProperties": False,
        },
    ]
}


def executor_value(value: Any) -> Any:
    """`local`, `local:2`, `ray`, or a mapping `{ray: {address: …}}`; as text from flags, too."""
    if isinstance(value, Executor):
        return value
    if isinstance(value, str) and value.startswith("{"):
        value = yaml_value(value)
    try:
        if isinstance(value, str) and (found := re.fullmatch(r"local(?::(\d{1,5}))?", value)):
            return LocalSettings(engines=int(found[1] or 1))
        if value == "ray":
            return RaySettings()
        if (
            isinstance(value, dict)
            and [*value] == ["ray"]
            and isinstance(value["ray"], dict | None)
        ):
            return RaySettings.model_validate(value["ray"] or {})
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    raise ValueError("it must be local, local:N (N engines), ray, or {ray: {address: …}}")
