"""The `sources:` block: one model per source type, told apart by `type`."""

from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fabric_assets.config.base import Duration, FabricModel, Name, RetriesConfig, SecretRef, Text
from fabric_assets.config.rest import AuthConfig, PaginatorConfig, RestStream, check_parents
from fabric_assets.config.streams import ColumnNames, CursorConfig, StreamConfig, WriteDisposition, check_cursor, get_duplicates


class SourceConfig(FabricModel):
    """Base of every source."""

    description: Text | None = Field(None, description="Shown on each of the source's assets.")
    retries: RetriesConfig = Field(RetriesConfig(), description="Tries after a failure that may pass.")
    timeout: Duration = Field(timedelta(hours=1), description="Longest time that one load of the source may take.")


class SqlStream(StreamConfig):
    """One table or view of a database."""

    table: Text | None = Field(None, description="Table or view; default: the stream's name.")
    columns: ColumnNames | None = Field(None, description="Columns to read; default: all.")
    where: Text | None = Field(None, description="SQL condition, in the source's dialect, on the rows to read.")
    cursor: CursorConfig | None = Field(None, description="Makes the load incremental.")

    @model_validator(mode="after")
    def _consistent(self) -> "SqlStream":
        check_cursor(self, self.cursor)
        if self.columns:
            if doubles := get_duplicates(self.columns):
                raise ValueError(f"columns names {doubles[0]} twice")
            needed = [*(self.primary_key or ()), *([self.cursor.field] if self.cursor else [])]
            if missing := [name for name in needed if name not in self.columns]:
                raise ValueError(f"columns leaves out {', '.join(missing)}, which the primary_key or the cursor needs")
        return self


class SqlDatabaseSource(SourceConfig):
    """A database that SQLAlchemy can reach; sqlite, postgres and mysql/mariadb are tested for real."""

    type: Literal["sql_database"]
    url: SecretRef = Field(description="SQLAlchemy URL, e.g. postgresql://user:password@host/db.")
    schema_: Text | None = Field(None, alias="schema", description="Schema of the tables; default: the login's own.")
    streams: dict[Name, SqlStream] = Field(min_length=1, max_length=2000)


class RestApiSource(SourceConfig):
    """An HTTP API that answers in JSON."""

    type: Literal["rest_api"]
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)] | SecretRef = Field(
        description="Where every path begins; no credentials in it. A reference where it differs from place to place."
    )
    headers: dict[Text, Text] = Field({}, description="Headers of every request; no credentials: those belong under auth.")
    auth: AuthConfig | None = Field(None, description="How requests prove who they are.")
    paginator: PaginatorConfig | None = Field(None, description="Default for all streams.")
    streams: dict[Name, RestStream] = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _consistent(self) -> "RestApiSource":
        for header in self.headers:
            if header.lower() in {"authorization", "cookie", "proxy-authorization", "x-api-key"}:
                raise ValueError(f"headers must not hold {header}: a credential belongs under auth, as a reference")
        check_parents(self.streams)
        return self


class S3Credentials(FabricModel):
    """Login of an S3 bucket, or of a store that speaks S3."""

    access_key_id: SecretRef
    secret_access_key: SecretRef
    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | SecretRef | None = Field(None, description="For stores other than AWS.")
    region: Text | None = None


class FileStream(StreamConfig):
    """The files of one shape; each row also carries its file, the file's SHA-256 and its row number."""

    glob: Text = Field(description="Pattern below the source's path, e.g. tickets/*.jsonl.")
    format: Literal["csv", "jsonl", "parquet"]
    write_disposition: WriteDisposition | None = Field(None, description="Default: merge where a primary key is declared; else append, keyed by file and row number.")

    @property
    def disposition(self) -> WriteDisposition:
        return self.write_disposition or ("merge" if self.primary_key else "append")

    @model_validator(mode="after")
    def _stays_below_the_path(self) -> "FileStream":
        if self.glob.startswith("/") or ".." in PurePosixPath(self.glob).parts:
            raise ValueError("glob must stay below the source's path: no leading / and no ..")
        return self


class FilesSource(SourceConfig):
    """Files in a folder or bucket; each run loads the new and the changed ones."""

    type: Literal["files"]
    path: Annotated[str, Field(min_length=1, max_length=2000)] = Field(description="Folder (relative to FABRIC_DATA_DIR) or bucket URL: s3://, gs://, az://.")
    credentials: S3Credentials | None = Field(None, description="For buckets; default: what the machine's own environment gives.")
    streams: dict[Name, FileStream] = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _consistent(self) -> "FilesSource":
        scheme, separator, _ = self.path.partition("://")
        if separator and scheme not in {"s3", "gs", "az", "file"}:
            raise ValueError(f"path has the unknown scheme {scheme}; known: s3, gs, az, file, or a plain folder")
        if self.credentials and scheme != "s3":
            raise ValueError("credentials are for s3:// paths")
        return self


AnySource = Annotated[SqlDatabaseSource | RestApiSource | FilesSource, Field(discriminator="type")]
