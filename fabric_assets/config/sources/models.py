"""The `sources:` block: one model per source type, told apart by `type`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from fabric_assets.config.base import (
    CheckedModel,
    Duration,
    FabricModel,
    Flag,
    HttpUrl,
    HttpUrlOrReference,
    Name,
    Path,
    RelationName,
    RetriesConfig,
    SecretRef,
    Text,
    Whole,
    check_data_path,
    format_duration,
    parse_duration,
    refuse,
)
from fabric_assets.config.sources.deletes import Deletes, DeletesConfig, find_delete_contradictions
from fabric_assets.config.sources.rest import AuthConfig, PaginatorConfig, RestStream, find_forgotten_children, find_orphans, is_credential, is_origin
from fabric_assets.config.sources.streams import ColumnNames, CursorConfig, RenamingStream, find_cursor_contradictions, find_same_columns
from fabric_assets.suggestions import suggest

_SCHEMES = ("s3", "gs", "az", "file")


def _check_timeout(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be at least 1s: no load ends in no time")
    return value


def _check_hold(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(days=1):
        raise ValueError("must be from 1s to 1d")
    return value


def _parse_late_rows(value: object) -> timedelta | None:
    if value is None or value is False:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError("must be a duration (0s, 1h, 1d), or false") from error


# None stands for `false`; a duration of 0s would look for late rows in each load.
LateRows = Annotated[
    timedelta | None,
    BeforeValidator(_parse_late_rows),
    PlainSerializer(lambda value: False if value is None else format_duration(value)),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d{1,6}(s|m|h|d)$"}, {"const": False}]}),
]


class SourceConfig(CheckedModel):
    """Base of every source."""

    # Whether a source of dlt extracts the rows; the kind `dlt` in Dagster's UI says so.
    is_extracted_by_dlt: ClassVar[bool] = False
    # Whether the rows are read before the load takes the tenant's lease.
    is_staged: ClassVar[bool] = False

    description: Text | None = Field(default=None, description="Shown on each of the source's assets.")
    retries: RetriesConfig = Field(default=RetriesConfig(), description="Tries after a failure that may pass.")
    timeout: Annotated[Duration, AfterValidator(_check_timeout)] = Field(
        default=timedelta(hours=1), description="Longest time that one load of the source may take."
    )
    max_connections: Whole = Field(default=4, ge=1, le=32, description="Streams that are read side by side, each over a connection of its own.")


class SqlCursor(CursorConfig):
    """A column of a table or view."""

    trust: Flag | None = Field(
        default=None, description="The column's order is the age of its rows, although it is text without dates, a flag or an enum, or has few values."
    )


class SqlStream(RenamingStream):
    """One table or view of a database."""

    table: RelationName | None = Field(default=None, description="Table or view; default: the stream's name.")
    columns: ColumnNames | None = Field(default=None, description="Columns to read; default: all.")
    where: Text | None = Field(default=None, description="SQL condition, in the source's dialect, on the rows to read.")
    cursor: SqlCursor | None = Field(default=None, description="Makes the load incremental.")
    deletes: Deletes = Field(default=DeletesConfig(), description="What happens to rows that the source no longer has; a mode as one word, or a mapping.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what would lose rows, or read columns that the key or the cursor needs but that are left out."""
        yield from super().find_contradictions()
        yield from find_cursor_contradictions(self, self.cursor, knows_keys=True)
        yield from find_delete_contradictions(self.deletes, self.disposition)
        yield from find_same_columns(self.columns or (), "columns")
        if self.columns:
            needed = [*(self.primary_key or ()), *([self.cursor.field] if self.cursor else [])]
            missing = dict.fromkeys(name for name in needed if name not in self.columns)
            if missing:
                yield ("columns",), f"leaves out {', '.join(missing)}, which the primary_key or the cursor needs"


class SqlDatabaseSource(SourceConfig):
    """A database that SQLAlchemy can reach; sqlite, duckdb, postgres and mysql/mariadb are tested for real."""

    type: Literal["sql_database"] = Field(description="A database that SQLAlchemy can reach.")
    url: SecretRef = Field(description="Where the SQLAlchemy URL is kept, e.g. postgresql://user:password@host/db or duckdb:///path.")
    schema_: RelationName | None = Field(default=None, alias="schema", description="Schema of the tables; default: the login's own.")
    consistent: Flag = Field(
        default=False, description="MySQL and MariaDB: read all streams at one moment, one after the other over one connection. Postgres does so anyway."
    )
    late_rows: LateRows = Field(
        default=timedelta(days=1),
        description="Postgres: shortest time between two searches for rows that were committed late, where no open transaction was seen; false: no search.",
    )
    snapshot_hold: Annotated[Duration, AfterValidator(_check_hold)] = Field(
        default=timedelta(minutes=10), description="Postgres: longest time that the streams of a load wait for each other to read one moment."
    )
    streams: dict[Name, SqlStream] = Field(min_length=1, max_length=2000, description="The tables to load, by the name that they get.")


class RestApiSource(SourceConfig):
    """An HTTP API that answers in JSON."""

    type: Literal["rest_api"] = Field(description="An HTTP API that answers in JSON.")
    base_url: HttpUrlOrReference = Field(description="Where every path begins; no credentials in it. A reference where it differs between environments.")
    headers: dict[Text, Text] = Field(default={}, description="Headers of every request; no credentials: those belong under auth.")
    auth: AuthConfig | None = Field(default=None, description="How requests prove who they are.")
    paginator: PaginatorConfig | None = Field(default=None, description="Default for all streams.")
    allow_private_network: Flag = Field(default=False, description="Whether the API may be in a private network or on this machine.")
    allowed_origins: tuple[HttpUrl, ...] = Field(
        default=(), max_length=20, description="Where links and redirects may lead beside base_url, e.g. https://cdn.example.com; no login goes there."
    )
    max_connections: Whole = Field(default=1, ge=1, le=32, description="Endpoints that are read at a time; a child is read with its parent.")
    streams: dict[Name, RestStream] = Field(min_length=1, max_length=2000, description="The endpoints to load, by the name that they get.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield headers that are credentials, addresses that are not origins, and streams whose parent is not declared."""
        for header in self.headers:
            if is_credential(header):
                yield ("headers", header), "a credential belongs under auth, as a reference"
        for index, url in enumerate(self.allowed_origins):
            if not is_origin(url):
                yield ("allowed_origins", index), "must be scheme, host and port alone, e.g. https://cdn.example.com"
        yield from find_orphans({name: stream.templates for name, stream in self.streams.items()})
        yield from find_forgotten_children(self.streams)


class S3Credentials(FabricModel):
    """Login of an S3 bucket, or of a store that speaks S3."""

    access_key_id: SecretRef = Field(description="Where the access key's id is kept.")
    secret_access_key: SecretRef = Field(description="Where the secret access key is kept.")
    endpoint_url: HttpUrlOrReference | None = Field(default=None, description="For stores other than AWS.")
    region: Text | None = Field(default=None, description="The bucket's region.")


def _check_files_path(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in _SCHEMES:
        raise ValueError(f"unknown scheme '{scheme[:20]}'{suggest(scheme, _SCHEMES)}, or a plain folder")
    if "@" in rest.partition("/")[0]:
        raise ValueError("must hold no credentials: they belong under credentials, as references")
    return check_data_path(value)


class FolderSource(SourceConfig):
    """Base of the sources whose rows lie in files."""

    path: Annotated[Text, AfterValidator(_check_files_path)] = Field(description="Folder (relative to FABRIC_DATA_DIR) or bucket URL: s3://, gs://, az://.")
    credentials: S3Credentials | None = Field(default=None, description="For buckets; default: what the machine's own environment gives.")

    @model_validator(mode="after")
    def _credentials_have_a_bucket(self) -> "FolderSource":
        if self.credentials and not self.path.startswith("s3://"):
            refuse([(("credentials",), "are for s3:// paths; drop them")])
        return self
