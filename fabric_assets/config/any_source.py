"""Every type of source, told apart by `type`."""

from typing import Annotated

from pydantic import Field

from fabric_assets.config.files import FilesSource
from fabric_assets.config.imports import CsvImportSource
from fabric_assets.config.sources import RestApiSource, SqlDatabaseSource

AnySource = Annotated[SqlDatabaseSource | RestApiSource | FilesSource | CsvImportSource, Field(discriminator="type")]
