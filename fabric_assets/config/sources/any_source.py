"""Every type of source, told apart by `type`."""

from typing import Annotated

from pydantic import Field

from fabric_assets.config.sources.connectors import AirbyteSource, DltSource, SingerSource
from fabric_assets.config.sources.files import FilesSource
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.sources.models import RestApiSource, SqlDatabaseSource

AnySource = Annotated[SqlDatabaseSource | RestApiSource | FilesSource | CsvImportSource | SingerSource | DltSource | AirbyteSource, Field(discriminator="type")]
