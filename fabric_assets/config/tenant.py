"""One tenant's whole YAML as a frozen model; `config/loader.py` makes it."""

from pathlib import PurePosixPath
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from fabric_assets import naming
from fabric_assets.config.base import FabricModel, Name, SecretRef, Text
from fabric_assets.config.checks import AnyCheck
from fabric_assets.config.sources import AnySource


def _check_tenant_name(value: str) -> str:
    if error := naming.get_tenant_name_error(value):
        raise ValueError(error)
    return value


def _check_timezone(value: str) -> str:
    if not value or value.startswith("/") or ".." in PurePosixPath(value).parts:
        raise ValueError("is no IANA time zone (Europe/Berlin, UTC)")
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError("is no IANA time zone (Europe/Berlin, UTC)") from error
    return value


TenantName = Annotated[
    str,
    AfterValidator(_check_tenant_name),
    Field(json_schema_extra={"pattern": naming.NAME_PATTERN, "minLength": naming.TENANT_LENGTH[0], "maxLength": naming.TENANT_LENGTH[1]}),
]
Timezone = Annotated[str, AfterValidator(_check_timezone)]
Owner = Annotated[str, Field(pattern=r"^(team:[A-Za-z0-9_.-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$", description="An e-mail address, or team:<name>.")]


class DuckDbDestination(FabricModel):
    """One file per tenant: FABRIC_DATA_DIR/warehouse/<tenant>.duckdb."""

    type: Literal["duckdb"] = "duckdb"


class PostgresDestination(FabricModel):
    """A Postgres database, reached with a login of yours."""

    type: Literal["postgres"]
    url: SecretRef = Field(description="postgresql://user:password@host:port/database")


AnyDestination = Annotated[DuckDbDestination | PostgresDestination, Field(discriminator="type")]


class TransformConfig(FabricModel):
    """Which models of the shared dbt project the tenant gets; its own under models/tenants/<tenant>/ come by themselves."""

    select: tuple[Text, ...] = Field((), description="dbt selectors; a row of them is a union.")
    exclude: tuple[Text, ...] = Field((), description="dbt selectors of models to leave out.")
    vars: dict[Text, str | int | float | bool | None] = Field({}, description="dbt variables.")


class ScheduleConfig(FabricModel):
    """When what is materialised."""

    cron: Text = Field(description="Five fields: minute, hour, day of month, month, day of week.")
    timezone: Timezone | None = Field(None, description="Default: the tenant's.")
    target: Literal["all"] | tuple[Text, ...] = Field(
        "all", description="all, or selections below the tenant: raw/shop, marts, marts/orders; a leading + adds what is upstream, a trailing + what is downstream."
    )

    @field_validator("target", mode="before")
    @classmethod
    def _word_or_list(cls, value: object) -> object:
        if isinstance(value, str) and value != "all":
            raise ValueError("must be the word all, or a list of selections: [raw/shop, +marts]")
        if isinstance(value, list) and not value:
            raise ValueError("must name at least one selection")
        return value


class TenantConfig(FabricModel):
    """A customer: where the data comes from, where it goes, what is built from it and when."""

    version: Literal[1] = Field(description="Version of this format.")
    tenant: TenantName = Field(description="The tenant's name: the file's stem.")
    display_name: Text | None = Field(None, description="The customer's name as people write it.")
    owners: tuple[Owner, ...] = Field((), description="Owners of every asset of the tenant.")
    extends: tuple[Name, ...] = Field((), description="Templates in tenants/_templates, left to right; this file wins.")
    timezone: Timezone = Field("UTC", description="Default time zone of the schedules.")
    destination: AnyDestination = Field(DuckDbDestination(), description="Where the data goes.")
    sources: dict[Name, AnySource] = Field({}, description="Where the data comes from.")
    transform: TransformConfig | None = Field(None, description="The models of the tenant.")
    checks: dict[Text, tuple[AnyCheck, ...]] = Field({}, description="Checks per raw asset, keyed raw/<source>/<stream>.")
    schedules: dict[Name, ScheduleConfig] = Field({}, description="When the tenant's assets are materialised.")

    @model_validator(mode="after")
    def _checks_name_streams(self) -> "TenantConfig":
        known = {f"raw/{source}/{stream}" for source, config in self.sources.items() for stream in config.streams}
        for key in self.checks:
            if key not in known:
                raise ValueError(f"checks names {key}, which is no stream of this tenant; known: {', '.join(sorted(known)) or 'none'}")
        return self
