"""One line per source type and destination kind: all that a new one needs to be held to the contract."""

from tests.contract import destinations
from tests.contract.airbyte import AirbyteConnector
from tests.contract.databases import DuckDb, MariaDb, Postgres, Sqlite
from tests.contract.dlt import DltSource
from tests.contract.files import Csv, DroppedCsv, DroppedWorkbook, Json, Jsonl, Parquet
from tests.contract.rest_api import RestApi
from tests.contract.singer import SingerTap
from tests.contract.source import Destination, Source

SOURCES: dict[str, type[Source]] = {
    "sqlite": Sqlite,
    "duckdb": DuckDb,
    "postgres": Postgres,
    "mariadb": MariaDb,
    "rest_api": RestApi,
    "csv": Csv,
    "jsonl": Jsonl,
    "json": Json,
    "parquet": Parquet,
    "csv_import": DroppedCsv,
    "xlsx_import": DroppedWorkbook,
    "singer": SingerTap,
    "dlt": DltSource,
    "airbyte": AirbyteConnector,
}
DESTINATIONS: dict[str, type[Destination]] = {"duckdb": destinations.DuckDb, "postgres": destinations.Postgres}
FOLLOWING = [(source, destination) for source, kind in SOURCES.items() if kind.follows_deletes for destination in DESTINATIONS]
EVERY_PAIR = [(source, destination) for source in SOURCES for destination in DESTINATIONS]
