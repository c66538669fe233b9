"""The parts that all YAML models share: the frozen base, text, names, durations, references to secrets.

`hide_input_in_errors` keeps a mistyped password out of every error text. Patterns are checked by pydantic's core, not in Python: a fleet has
hundreds of thousands of names. PATTERNS says what each pattern means, in the words that `config/messages.py` shows.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PlainSerializer, Strict, Tag, WithJsonSchema, model_validator

from fabric_assets import naming

Path = tuple[str | int, ...]

NAME = naming.NAME_PATTERN
NO_CONTROL = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
IDENTIFIER = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
ENVIRONMENT_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
HTTP_URL = r"^https?://[^\s@]+$"
# The second half is Dagster's own rule: what it refuses must not reach it.
OWNER = r"^(team:[A-Za-z0-9_.-]+|[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$"
# `stripe@2` is a second entry of the list: how a tenant stays with an older version.
CONNECTOR = r"^[a-z][a-z0-9_]{0,49}(@[a-z0-9_.]{1,20})?$"
SELECTION = r"^\+?[A-Za-z0-9_*?]+(/[A-Za-z0-9_*?]+){0,2}\+?$"

PATTERNS = {
    NAME: "must be lower-case letters, digits and single underscores, beginning with a letter (acme, acme_2)",
    NO_CONTROL: "must not contain control characters",
    IDENTIFIER: "must not contain control characters or line breaks",
    ENVIRONMENT_VARIABLE: "must be the name of an environment variable: letters, digits and underscores",
    HTTP_URL: "must be an http:// or https:// address without credentials",
    OWNER: "must be an e-mail address or team:<name>",
    CONNECTOR: "must be a name of connectors.yaml: lower-case letters, digits and underscores, perhaps with a version (stripe@2)",
    SELECTION: "must be a selection such as raw/shop, marts/orders, +marts or raw/shop+",
}

_DURATION = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SIZE = re.compile(r"^(\d{1,6})(KB|MB|GB)$")
_SIZES = {"KB": 1000, "MB": 1000**2, "GB": 1000**3}


class FabricModel(BaseModel):
    """Base of every YAML model: immutable, no unknown keys, no input values in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class LocatedError(ValueError):
    """The findings of a validator: each a path below its model, to which an editor should jump, and a message."""

    def __init__(self, *findings: tuple[Path, str]) -> None:
        super().__init__("; ".join(message for _, message in findings))
        self.findings = findings


def refuse(findings: Iterable[tuple[Path, str]]) -> None:
    """Raise a rule's findings, if there are any.

    Raises:
        LocatedError: there are findings.
    """
    if found := tuple(findings):
        raise LocatedError(*found)


class CheckedModel(FabricModel):
    """Base of models whose fields must also fit each other."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        # One validator for a whole family: pydantic runs a base's and a child's one after the other, and stops at the first that raises.
        refuse(self.find_contradictions())
        return self

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the path of each key that does not fit the others, and the reason."""
        yield from ()


def parse_duration(value: object) -> timedelta:
    """Turn `30s`, `5m`, `26h` or `7d` into a timedelta.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a whole number and a unit: 30s, 5m, 26h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_duration(value: timedelta) -> str:
    """Write a duration as the YAML does, in its largest whole unit."""
    seconds = int(value.total_seconds())
    unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0 and (seconds or unit == "s"))
    return f"{seconds // _SECONDS[unit]}{unit}"


def _parse_size(value: object) -> object:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError("must be a whole number of bytes, or one with a unit: 500KB, 10MB, 2GB")
    return int(match[1]) * _SIZES[match[2]] if match else value


def _check_bytes(value: str) -> str:
    # Postgres keeps 63 bytes of a name, so two longer names could become the same.
    if len(value.encode()) > 63:
        raise ValueError(f"must be at most 63 bytes long, as databases cut longer names; it has {len(value.encode())}")
    return value


def check_data_path(value: str) -> str:
    """Refuse a relative path that climbs out of FABRIC_DATA_DIR, or into the platform's own folders: other tenants' data is there."""
    if "://" in value:
        return value
    path = PurePosixPath(value)
    if ".." in path.parts:
        raise ValueError("must not contain ..")
    if not path.is_absolute() and (not path.parts or path.parts[0] in naming.PLATFORM_FOLDERS):
        raise ValueError(f"must lie in a folder of FABRIC_DATA_DIR that is not the platform's own ({', '.join(sorted(naming.PLATFORM_FOLDERS))})")
    return value


def check_secret_path(value: str) -> str:
    """Refuse a path that is not below FABRIC_DATA_DIR: a tenant's YAML could name any file of the machine, and a host to send it to."""
    if "://" in value or PurePosixPath(value).is_absolute():
        raise ValueError("must be relative to FABRIC_DATA_DIR: mount the file below it")
    check_data_path(value)
    if PurePosixPath(value).parts[0] in naming.SECRETLESS_FOLDERS:
        raise ValueError("must not lie in the inbox, which holds what customers send")
    return value


def _check_variable(value: str) -> str:
    if value.startswith(naming.PLATFORM_VARIABLES):
        raise ValueError("belongs to the platform and is never given to a source; name a variable of the tenant's own")
    return value


Name = Annotated[str, Field(pattern=NAME, min_length=naming.NAME_LENGTH[0], max_length=naming.NAME_LENGTH[1])]
Text = Annotated[str, Field(min_length=1, max_length=4000, pattern=NO_CONTROL)]
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=IDENTIFIER), AfterValidator(_check_bytes)]
# Read only, so what the destination would cut off does not matter.
RelationName = Annotated[str, Field(min_length=1, max_length=200, pattern=IDENTIFIER)]
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,6}(s|m|h|d)$", "examples": ["30s", "5m", "26h", "7d"]}),
]
Size = Annotated[
    int,
    BeforeValidator(_parse_size),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SIZE.pattern, "examples": ["10MB"]}, {"type": "integer", "minimum": 1}]}),
]


class SecretRef(FabricModel):
    """Where a secret is kept: {env: NAME}, {secret: NAME} or {file: PATH}. Resolved only while a load runs."""

    env: Annotated[str, Field(pattern=ENVIRONMENT_VARIABLE, max_length=200), AfterValidator(_check_variable)] | None = Field(
        default=None, description="Name of an environment variable."
    )
    secret: Name | None = Field(default=None, description="Name in the tenant's sealed store (`fabric secrets set`).")
    file: Annotated[Text, AfterValidator(check_secret_path)] | None = Field(
        default=None, description="Path of a file that holds the value, relative to FABRIC_DATA_DIR."
    )

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
        """Say where the secret is kept, for messages; never its value."""
        kind, name = next((kind, name) for kind, name in self if name is not None)
        return {"env": f"environment variable {name}", "file": f"file {name}", "secret": f"sealed secret {name}"}[kind]


def _text_or_reference(value: object) -> str:
    return "reference" if isinstance(value, dict | SecretRef) else "text"


Reference = Annotated[SecretRef, Tag("reference")]
TextOrReference = Annotated[Annotated[Text, Tag("text")] | Reference, Discriminator(_text_or_reference)]
HttpUrl = Annotated[str, Field(pattern=HTTP_URL, max_length=2000)]
HttpUrlOrReference = Annotated[Annotated[HttpUrl, Tag("text")] | Reference, Discriminator(_text_or_reference)]


class RetriesConfig(FabricModel):
    """How often a load that failed for a passing reason is tried again."""

    max: Whole = Field(default=2, ge=0, le=20, description="Tries after the first one.")
    delay: Duration = Field(default=timedelta(seconds=10), description="Wait before the first repeat.")
    backoff: Literal["constant", "linear", "exponential"] = Field(default="exponential", description="How the wait grows from try to try.")
