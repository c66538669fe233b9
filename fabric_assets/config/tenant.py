"""One tenant's whole YAML as a frozen model; `config/loader.py` makes it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, JsonValue, Tag, WithJsonSchema, model_validator

from fabric_assets import naming
from fabric_assets.config.base import OWNER, SELECTION, CheckedModel, Duration, FabricModel, Flag, Identifier, Name, Path, SecretRef, Size, Text, Whole, refuse
from fabric_assets.config.checks import AnyCheck, SourceRowCountCheck
from fabric_assets.config.cron import get_cron_error
from fabric_assets.config.references import TenantNames, find_dangling
from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.suggestions import build_hint


def _check_tenant_name(value: str) -> str:
    if error := naming.get_tenant_name_error(value):
        raise ValueError(error)
    return value


def _check_timezone(value: str) -> str:
    try:
        if value.startswith("/") or ".." in PurePosixPath(value).parts:
            raise ValueError
        ZoneInfo(value)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"is no IANA time zone{build_hint(value, available_timezones()) or ' (Europe/Berlin, UTC)'}") from error
    return value


def _check_cron(value: str) -> str:
    if error := get_cron_error(value):
        raise ValueError(error)
    return value


def _check_target(value: object) -> object:
    if value != "all" and not isinstance(value, list | tuple):
        raise ValueError("must be the word all, or a list of selections: [raw/shop, +marts]")
    return value


def _check_published_schema(value: str) -> str:
    if error := naming.get_published_schema_error(value):
        raise ValueError(error)
    return value


TenantName = Annotated[
    str,
    AfterValidator(_check_tenant_name),
    Field(json_schema_extra={"pattern": naming.NAME_PATTERN, "minLength": naming.TENANT_LENGTH[0], "maxLength": naming.TENANT_LENGTH[1]}),
]
Timezone = Annotated[Text, AfterValidator(_check_timezone)]
Owner = Annotated[str, Field(pattern=OWNER, max_length=200)]
Selection = Annotated[str, Field(pattern=SELECTION, max_length=200)]
Cron = Annotated[Text, AfterValidator(_check_cron), Field(json_schema_extra={"pattern": r"^\s*\S+(\s+\S+){4}\s*$", "examples": ["0 3 * * *"]})]
PublishedSchema = Annotated[Identifier, AfterValidator(_check_published_schema)]
Target = Annotated[
    Annotated[Literal["all"], Tag("word")] | Annotated[tuple[Selection, ...], Field(min_length=1, max_length=200), Tag("list")],
    Discriminator(lambda value: "word" if value == "all" else "list"),
    BeforeValidator(_check_target),
    WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string", "pattern": SELECTION}, "minItems": 1, "maxItems": 200}]}),
]


class PublishConfig(FabricModel):
    """What readers get of a tenant on DuckDB: FABRIC_PUBLISH_DIR/<tenant>/<tenant>.duckdb, written anew after each run that built models."""

    schemas: tuple[PublishedSchema, ...] = Field(
        default=("marts",), max_length=50, description="Schemas of the dbt project whose tables and views are published, as tables; [] for none."
    )
    max: Size = Field(default=5 * 1000**3, description="Largest published file; a larger one is not published: 500MB, 5GB.")


class DuckDbDestination(FabricModel):
    """One file per tenant: FABRIC_DATA_DIR/warehouse/<tenant>.duckdb."""

    type: Literal["duckdb"] = Field(default="duckdb", description="One DuckDB file per tenant; DuckDB 1.3 and newer open it.")
    publish: PublishConfig = Field(default=PublishConfig(), description="What is written into a second file, for readers.")
    # The file belongs to the tenant alone, without any role.
    managed: ClassVar[bool] = False


class PostgresLimits(FabricModel):
    """What the role of a managed destination may use of the server; `fabric provision` sets the limits."""

    statement_timeout: Duration = Field(
        default=timedelta(hours=1), description="Longest that one statement of a model or check may run; loads go by their source's `timeout`."
    )
    connections: Whole = Field(default=40, ge=2, le=1000, description="Connections that the tenant may hold at a time.")
    temp_files: Size = Field(default=10 * 1000**3, description="Disk that the sorts and joins of one connection may fill: 500MB, 10GB.")

    @model_validator(mode="after")
    def _consistent(self) -> "PostgresLimits":
        # 0 would mean no limit to Postgres, and it counts in milliseconds, with 32 bits.
        refuse([(("statement_timeout",), "must be from 1s to 24d")] if not timedelta(seconds=1) <= self.statement_timeout <= timedelta(days=24) else [])
        refuse([(("temp_files",), "must be from 1MB to 2000GB")] if not 1000**2 <= self.temp_files <= 2000 * 1000**3 else [])
        return self


class PostgresDestination(FabricModel):
    """A Postgres database, reached with a login of yours or, managed, with one that is the tenant's own."""

    type: Literal["postgres"] = Field(description="A Postgres database.")
    url: SecretRef = Field(description="Where the URL is kept: postgresql://user:password@host:port/database; of a managed one without user and password.")
    managed: Flag = Field(default=False, description="Whether role and schemas are made by `fabric provision`; the tenant connects as fabric_<tenant>.")
    isolation: Literal["schema", "database"] = Field(
        default="schema", description="Of a managed one: schemas of its own in the URL's database, or a database of its own, fabric_<tenant>."
    )
    limits: PostgresLimits = Field(default=PostgresLimits(), description="Of a managed one: what its role may use of the server.")
    # Readers connect to the server itself.
    publish: ClassVar[None] = None

    @model_validator(mode="after")
    def _consistent(self) -> "PostgresDestination":
        set_for_nothing = [] if self.managed else [key for key in ("isolation", "limits") if key in self.model_fields_set]
        refuse([((key,), "is for managed destinations: add managed: true, or drop it") for key in set_for_nothing])
        return self


AnyDestination = Annotated[DuckDbDestination | PostgresDestination, Field(discriminator="type")]


class TransformConfig(FabricModel):
    """Which models of the shared dbt project the tenant gets; its own models under models/tenants/<tenant>/ are always included."""

    select: tuple[Text, ...] = Field(default=(), max_length=200, description="dbt selectors, of any of dbt's methods; several are a union.")
    exclude: tuple[Text, ...] = Field(default=(), max_length=200, description="dbt selectors of models, and of tests, to leave out.")
    vars: dict[Text, JsonValue] = Field(default={}, description="dbt variables.")


class ScheduleConfig(FabricModel):
    """What is materialised, and when."""

    cron: Cron = Field(description="Five fields: minute, hour, day of month, month, day of week.")
    timezone: Timezone | None = Field(default=None, description="Default: the tenant's.")
    target: Target = Field(
        default="all",
        description="all, or selections below the tenant (raw/shop, marts/orders); a leading + adds what is upstream, a trailing + what is downstream.",
    )


class TenantConfig(CheckedModel):
    """A customer: where the data comes from, where it goes, what is built from it and when."""

    version: Literal[1] = Field(description="Version of this format.")
    tenant: TenantName = Field(description="The tenant's name: the file's stem.")
    display_name: Text | None = Field(default=None, description="The customer's name as people write it; shown in the UI beside the tenant's.")
    owners: tuple[Owner, ...] = Field(default=(), max_length=50, description="Owners of every asset of the tenant: e-mail addresses, or team:<name>.")
    extends: tuple[Name, ...] = Field(default=(), max_length=50, description="Templates in tenants/_templates, left to right; this file wins.")
    timezone: Timezone = Field(default="UTC", description="Default time zone of the schedules.")
    destination: AnyDestination = Field(default=DuckDbDestination(), description="Where the data goes.")
    sources: dict[Name, AnySource] = Field(default={}, max_length=200, description="Where the data comes from.")
    transform: TransformConfig | None = Field(default=None, description="The models of the tenant.")
    checks: dict[Text, tuple[AnyCheck, ...]] = Field(default={}, description="Checks per raw asset, keyed raw/<source>/<stream>.")
    schedules: dict[Name, ScheduleConfig] = Field(default={}, max_length=200, description="When the tenant's assets are materialised.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield unknown names, and names that a database would cut."""
        sources = {name: tuple(source.streams) for name, source in self.sources.items()}
        for key, checks in self.checks.items():
            source = self.sources.get(key.split("/")[1]) if key.count("/") == 2 else None
            for index, check in enumerate(checks):
                if isinstance(check, SourceRowCountCheck) and source is not None and source.type != "sql_database":
                    yield ("checks", key, index, "type"), "is for streams of a sql_database source, which counts its rows; use row_count"
        targets = {name: () if schedule.target == "all" else schedule.target for name, schedule in self.schedules.items()}
        yield from find_dangling(TenantNames(self.tenant, sources, tuple(self.checks), targets))
