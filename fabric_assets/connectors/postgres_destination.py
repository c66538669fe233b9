"""dlt's Postgres destination, with two faults repaired: a parquet file without rows fails its load, and a full refresh fails under dbt's views.

dlt 1.31 hands such a file's batches, of which there are none, to ADBC, which then asks for a schema. But an empty file is what
empties a replaced table, and what makes a stream's table exist before its first row.
"""

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from dlt.destinations.impl.postgres.factory import postgres
from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresParquetCopyJob

if TYPE_CHECKING:
    from dlt.common.destination.client import LoadJob
    from dlt.common.destination.typing import PreparedTableSchema


class ParquetCopyJob(PostgresParquetCopyJob):
    """Copies a parquet file's rows, if there are any."""

    def run(self) -> None:
        if pq.read_metadata(self._file_path).num_rows:
            super().run()


class FabricPostgresClient(PostgresClient):
    """dlt's client, which copies parquet by our job."""

    def create_load_job(self, table: "PreparedTableSchema", file_path: str, load_id: str, restore: bool = False) -> "LoadJob":
        job = super().create_load_job(table, file_path, load_id, restore)
        return ParquetCopyJob(file_path) if isinstance(job, PostgresParquetCopyJob) else job

    def drop_tables(self, *tables: str, delete_schema: bool = True) -> None:
        """Drop the tables of a full refresh with the views on them, as dbt does: Postgres drops none under a view, and dbt builds its own again."""
        with self.maybe_ddl_transaction():
            for table in tables:
                self.sql_client.execute_sql(f"DROP TABLE IF EXISTS {self.sql_client.make_qualified_table_name(table)} CASCADE")
            if delete_schema:
                self._delete_schema_in_storage(self.schema)


class FabricPostgres(postgres):
    """dlt's destination, which loads by our client."""

    @property
    def client_class(self) -> type[PostgresClient]:
        return FabricPostgresClient
