"""The parts that all YAML models share: the frozen base, names, durations, references to secrets.

`hide_input_in_errors` keeps a mistyped password out of every error text.
"""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from fabric_assets import naming

_DURATION = re.compile(r"^(\d+)(s|m|h|d)$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class FabricModel(BaseModel):
    """Base of every YAML model: immutable, no unknown keys, no input values in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


def _check_name(value: str) -> str:
    if error := naming.get_name_error(value):
        raise ValueError(error)
    return value


def parse_duration(value: object) -> timedelta:
    """Turn `30s`, `5m`, `26h` or `7d` into a timedelta.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(match[1]) > 6:
        raise ValueError("must be a whole number and a unit: 30s, 5m, 26h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Name = Annotated[
    str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": naming.NAME_PATTERN, "minLength": 1, "maxLength": naming.NAME_LENGTH[1]})
]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": r"^\d{1,6}(s|m|h|d)$", "examples": ["30s", "5m", "26h", "7d"]})
]


class SecretRef(FabricModel):
    """Where a secret is kept; exactly one of the three. Resolved only while a load runs."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)] | None = Field(None, description="Name of an environment variable.")
    secret: Name | None = Field(None, description="Name in the tenant's sealed store (`fabric secrets set`).")
    file: Text | None = Field(None, description="Path of a file that holds the value, relative to FABRIC_DATA_DIR.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_literal(cls, value: object) -> object:
        if not isinstance(value, dict | SecretRef):
            raise ValueError("must be a reference, never the value itself: {env: NAME}, {file: PATH} or {secret: NAME}")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if sum(part is not None for part in (self.env, self.secret, self.file)) != 1:
            raise ValueError("needs exactly one of env, secret, file")
        return self

    def describe(self) -> str:
        """Name the place, never the value: for messages."""
        kind, name = next((kind, name) for kind, name in self if name is not None)
        return {"env": f"environment variable {name}", "file": f"file {name}", "secret": f"sealed secret {name}"}[kind]


class RetriesConfig(FabricModel):
    """How often a load that failed for a passing reason is tried again."""

    max: int = Field(2, ge=0, le=20, description="Tries after the first one.")
    delay: Duration = Field(timedelta(seconds=10), description="Wait before the first repeat.")
    backoff: Literal["constant", "linear", "exponential"] = Field("exponential", description="How the wait grows from try to try.")
