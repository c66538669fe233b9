"""Sources that a connector of the operators' list reads: `connectors.yaml` says what is installed, a tenant's YAML only names it."""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue

from fabric_assets.config.base import CONNECTOR, FabricModel, Flag, Identifier, Name, Path, SecretRef, Text, check_data_path
from fabric_assets.config.sources.models import SourceConfig
from fabric_assets.config.sources.rest import is_credential
from fabric_assets.config.sources.streams import ColumnNames, RenamingStream, WriteDisposition

_ARGUMENT_NAME = re.compile(r"[^.\s]+(\.[^.\s]+)*")


def _check_argument_name(value: str) -> str:
    if not _ARGUMENT_NAME.fullmatch(value):
        raise ValueError("must be the name of an argument, with dots for one within another (credentials.password)")
    return value


DataPath = Annotated[Text, AfterValidator(check_data_path)]
ConnectorName = Annotated[str, Field(pattern=CONNECTOR)]
ArgumentName = Annotated[Text, AfterValidator(_check_argument_name)]


class ConnectorSource(SourceConfig):
    """Base of the sources that a connector of the operators' list reads."""

    # The rows are read before the load takes the tenant's lease.
    is_staged: ClassVar[bool] = True

    connector: ConnectorName = Field(description="The connector's name in the operators' connectors.yaml.")
    arguments: dict[Text, JsonValue] = Field(default={}, max_length=200, description="The connector's own settings; no credentials in them.")
    secrets: dict[ArgumentName, SecretRef] = Field(
        default={}, max_length=50, description="The connector's settings that are secrets: where each is kept. Dots lead into a setting (credentials.password)."
    )
    folders: dict[Name, DataPath] = Field(
        default={},
        max_length=20,
        description="Folders that the connector may read, by a name: {name} in an argument stands for the path. Relative to FABRIC_DATA_DIR, or absolute.",
    )
    allow_private_network: Flag = Field(default=False, description="Whether the connector may reach a private network or this machine.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield credentials among the arguments, and settings that are given twice."""
        yield from _find_credentials(self.arguments, ("arguments",))
        for name in self.secrets:
            if _is_given(self.arguments, name.split(".")):
                yield ("secrets", name), "is among the arguments too; leave it out of one of the two"
        owners = dict[str, str]()
        for name, stream in getattr(self, "streams", {}).items():
            if (owner := owners.setdefault(stream.own_name or name, name)) != name:
                yield ("streams", name), f"reads what the stream {owner} reads; leave one of the two out"


def _find_credentials(arguments: JsonValue, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(arguments, dict):
        for name, value in arguments.items():
            if isinstance(value, str) and value and is_credential(name):
                yield (*path, name), "a credential belongs under secrets, as a reference"
            else:
                yield from _find_credentials(value, (*path, name))
    elif isinstance(arguments, list):
        for index, value in enumerate(arguments):
            yield from _find_credentials(value, (*path, index))


def _is_given(arguments: JsonValue, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(arguments, dict):
            # A setting that is given as a whole has no room for one within it.
            return True
        if part not in arguments:
            return False
        arguments = arguments[part]
    return True


class ReplicationKey(FabricModel):
    """The field by which a tap reads only what is new."""

    field: Identifier = Field(description="A field that the tap offers as replication key.")


class SingerStream(RenamingStream):
    """One stream of a Singer tap."""

    stream: Text | None = Field(default=None, description="The tap's own name of the stream; default: the stream's name.")
    replication: Literal["full_table", "incremental", "log_based"] | None = Field(
        default=None, description="How the tap reads the stream; default: as its catalog says, else incremental where a cursor is declared."
    )
    cursor: ReplicationKey | None = Field(default=None, description="The replication key; makes the load incremental.")
    columns: ColumnNames | None = Field(default=None, description="Fields to read beside those that the tap always gives; default: all.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: replace for a stream that the tap reads as a whole; else merge, which needs a key of the tap's or a primary_key."
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield a cursor that the replication does not use, and a merge that has a key only if the tap has one is allowed."""
        for path, message in super().find_contradictions():
            if path != ("write_disposition",):
                yield path, message
        if self.cursor and self.replication == "full_table":
            yield ("cursor",), "full_table reads the whole stream; drop the cursor, or use replication: incremental"

    @property
    def own_name(self) -> str | None:
        """The connector's own name of the stream, if it is another one."""
        return self.stream


class SingerSource(ConnectorSource):
    """A Singer tap."""

    type: Literal["singer"] = Field(description="A Singer tap that the operators installed.")
    streams: dict[Name, SingerStream] = Field(min_length=1, max_length=2000, description="The tap's streams to load, by the name that they get.")


class DltStream(RenamingStream):
    """One resource of a dlt source."""

    resource: Text | None = Field(default=None, description="The source's own name of the resource; default: the stream's name.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: as the resource says; merge needs a primary_key of the resource's or of the YAML."
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what does not fit; a merge that has a key only if the resource has one is allowed."""
        for path, message in super().find_contradictions():
            if path != ("write_disposition",):
                yield path, message

    @property
    def own_name(self) -> str | None:
        """The connector's own name of the stream, if it is another one."""
        return self.resource


class DltSource(ConnectorSource):
    """A dlt source."""

    is_extracted_by_dlt: ClassVar[bool] = True

    type: Literal["dlt"] = Field(description="A dlt source that the operators installed.")
    streams: dict[Name, DltStream] = Field(min_length=1, max_length=2000, description="The source's resources to load, by the name that they get.")


class AirbyteStream(RenamingStream):
    """One stream of an Airbyte connector."""

    stream: Text | None = Field(
        default=None, description="The connector's own name of the stream, with its namespace if it has one (public.orders); default: the stream's name."
    )
    replication: Literal["full_table", "incremental"] | None = Field(
        default=None, description="How the connector reads the stream; default: incremental where a cursor is declared or the connector has its own."
    )
    cursor: ReplicationKey | None = Field(default=None, description="The field by which the connector reads only what is new.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: replace for a stream that is read as a whole; else merge, which needs a key of the connector's or a primary_key."
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield a cursor that the replication does not use; a merge that has a key only if the connector has one is allowed."""
        for path, message in super().find_contradictions():
            if path != ("write_disposition",):
                yield path, message
        if self.cursor and self.replication == "full_table":
            yield ("cursor",), "full_table reads the whole stream; drop the cursor, or use replication: incremental"

    @property
    def own_name(self) -> str | None:
        """The connector's own name of the stream, if it is another one."""
        return self.stream


class AirbyteSource(ConnectorSource):
    """An Airbyte connector."""

    type: Literal["airbyte"] = Field(description="An Airbyte connector or low-code manifest that the operators installed.")
    streams: dict[Name, AirbyteStream] = Field(min_length=1, max_length=2000, description="The connector's streams to load, by the name that they get.")


AnyConnectorSource = SingerSource | DltSource | AirbyteSource
