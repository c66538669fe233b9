"""dbt-duckdb's connection -> locked before any model uses it. dbt-duckdb loads this module because the profile names it."""

from pathlib import Path
from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin
from duckdb import DuckDBPyConnection

from fabric_assets.drivers.duckdb_files import NO_DOWNLOADS, lock, wait_for_file


class Plugin(BasePlugin):
    """The plugin, which dbt-duckdb finds by this name."""

    def initialize(self, plugin_config: dict[str, str]) -> None:
        self._spill = Path(plugin_config["spill"])

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        config.update(NO_DOWNLOADS)
        # dbt-duckdb opens the file right after this call.
        wait_for_file(Path(creds.path))

    def configure_connection(self, conn: DuckDBPyConnection) -> None:
        lock(conn, spill=self._spill)
