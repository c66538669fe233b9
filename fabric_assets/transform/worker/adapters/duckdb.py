"""dbt-duckdb: the tenant's file, opened under the same lock as everywhere else."""

from pathlib import Path
from typing import Any

from fabric_assets.drivers.duckdb_files import open_file
from fabric_assets.transform.worker.adapters.adapter import Adapter, Login
from fabric_assets.transform.worker.manifest import DATABASE_PLACEHOLDER


class DuckDb(Adapter):
    credentials = "dbt.adapters.duckdb.credentials:DuckDBCredentials"
    folds_names = True
    columns_query = """
        select schema_name, table_name, column_name, data_type
        from duckdb_columns()
        where database_name = current_database() and schema_name in ({})
        order by schema_name, table_name, column_index
    """

    def get_database(self, login: Login) -> str:
        return Path(login["path"]).stem

    def build_placeholder(self, folder: Path) -> dict[str, Any]:
        return {"type": self.name, "path": str(folder / f"{DATABASE_PLACEHOLDER}.duckdb")}

    def build_output(self, login: Login, *, spill: Path) -> dict[str, Any]:
        # dbt-duckdb fails with more than one thread on one file (its issue 513). Every model names its own schema.
        lock = {"module": "fabric_assets.transform.worker.adapters.duckdb_plugin", "config": {"spill": str(spill)}}
        return {"type": self.name, "path": login["path"], "schema": "main", "threads": 1, "plugins": [lock]}

    def get_password(self, login: Login) -> str | None:
        return None

    def connect(self, login: Login, *, spill: Path, read_only: bool) -> Any:
        return open_file(login["path"], read_only=read_only, spill=spill)

    def release(self) -> None:
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        # The file, which it would keep open for writing.
        DuckDBConnectionManager.close_all_connections()


ADAPTER = DuckDb
