"""A table of Postgres, loaded by the shortest script with dlt.

    python loads_peer_dlt.py default|batches SOURCE_URL DESTINATION FOLDER

`default` is what dlt's documentation begins with; `batches` the fastest that it can be taught: Arrow record batches read by ADBC, loaded as parquet.
DESTINATION is a Postgres URL or a DuckDB file.
"""

import sys
from collections.abc import Iterator

import dlt
import pyarrow as pa

way, source_url, destination, folder = sys.argv[1:]
pipeline = dlt.pipeline(
    "lineitem",
    pipelines_dir=folder,
    destination=dlt.destinations.postgres(destination) if destination.startswith("postgresql:") else dlt.destinations.duckdb(destination),
    dataset_name="raw",
)


@dlt.resource(name="lineitem", write_disposition="replace")
def batches() -> Iterator[pa.Table]:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(source_url) as connection, connection.cursor() as cursor:
        cursor.execute("select * from lineitem")
        for batch in cursor.fetch_record_batch():
            columns = [
                # ADBC gives numerics as text of a type of its own.
                column.storage.cast(pa.decimal128(15, 2)) if isinstance(column.type, pa.BaseExtensionType) else column
                for column in batch.columns
            ]
            yield pa.table(columns, names=batch.schema.names)


if way == "default":
    from dlt.sources.sql_database import sql_table

    pipeline.run(sql_table(source_url, table="lineitem"), write_disposition="replace")
else:
    pipeline.run(batches(), loader_file_format="parquet")
