"""The setting `executor`: where engines run."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from picowatch.settings.values import not_boolean, unknown_setting, wanted_value, yaml_value

MOST_ENGINES = 1024


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
    gpus_per_engine: float = Field(1, ge=0, le=64, description="0: engines that use the CPU.")
    cpus_per_engine: float = Field(1, gt=0, le=1024)
    engines: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_ENGINES)] = "auto"

    _numbers_are_not_booleans = field_validator(
        "gpus_per_engine", "cpus_per_engine", "engines", mode="before"
    )(not_boolean)

    @field_validator("address")
    @classmethod
    def _is_no_ray_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise PydanticCustomError(
                "ray_client",
                "Ray Client (ray://) is not used. Run `ray start --num-cpus=0 --address=HOST:6379` "
                "on this machine, and set address: auto",
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
    if isinstance(value, str) and value.startswith("{"):
        value = yaml_value(value)
    if value == "local":
        return LocalSettings()
    if isinstance(value, str) and (found := re.fullmatch(r"local:(\d{1,5})", value)):
        return _checked(LocalSettings, {"engines": int(found[1])}, engines="the number of engines")
    if value == "ray":
        return RaySettings()
    if isinstance(value, dict) and [*value] == ["ray"] and isinstance(value["ray"], dict | None):
        return _checked(RaySettings, value["ray"] or {})
    if isinstance(value, Executor):
        return value
    raise ValueError("it must be local, local:N (N engines), ray, or {ray: {address: …}}")


def _checked(kind: type[BaseModel], values: dict[str, Any], **shown: str) -> BaseModel:
    """The settings of an executor; what is wrong with them in one line.

    `shown` are names as they are written in it, where they are others.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            raise ValueError(unknown_setting(name, kind.model_fields).rstrip(".")) from error
        if problem["type"] == "ray_client":
            raise ValueError(f"{name}: {problem['msg']}") from error
        schema = kind.model_json_schema()["properties"][name]
        number = next((one for one in schema.get("anyOf", ()) if one["type"] == "integer"), None)
        wanted = wanted_value(number or schema, values[name])
        if number:
            wanted = f"{wanted}, or auto"
        raise ValueError(f"{shown.get(name, name)}: {wanted}") from error
