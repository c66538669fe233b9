"""A table of a source -> its primary keys and its own count of its rows, by which a load finds deletes.

The keys are read after the rows, at the present. A key that is missing then belongs to a row that the source no longer has.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fabric_assets.connectors.sql_database import readers as sql_readers
from fabric_assets.connectors.sql_database.columns import SqlColumn
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.errors import FabricError
from fabric_assets.rows.arrow_types import BIGINT
from fabric_assets.rows.batches import KeysRead, SourceKeys, StreamMemory

_COUNT = SqlColumn("rows", "count(*)", "BIGINT", BIGINT)


def read_keys(stream: str, database: Database, query: Query, *, key: Sequence[str], memory: StreamMemory, label: str) -> Iterator[SourceKeys | KeysRead]:
    """Read all keys and count the rows. A failure ends the read of the keys, not the load.

    Args:
        query: reads the stream's rows; its columns have their types.
    """
    identity = _identify(database, query, key)
    query = replace(query, bound=None, moment=None)
    keys = replace(query, columns=tuple(column for column in query.columns if column.name in key))
    try:
        before = count_rows(database, query, label=label)
        for table in sql_readers.read(database, keys, label=label):
            yield SourceKeys(stream, table)
        memory.source_rows = count_rows(database, query, label=label)
    except FabricError as error:
        yield KeysRead(stream, identity=identity, problem=f"the source's keys could not be read: {error.message}")
        return
    # Rows may come and go while the keys are read.
    yield KeysRead(stream, count=min(before, memory.source_rows), identity=identity)


def count_rows(database: Database, query: Query, *, label: str) -> int:
    """Count the rows that a stream would read without a cursor.

    Raises:
        SourceError, SourceUnavailable: the database refuses, or cannot be reached.
    """
    counting = replace(query, columns=(_COUNT,), bound=None, moment=None)
    return sum(value for table in sql_readers.read(database, counting, label=label) for value in table.column(0).to_pylist())


def _identify(database: Database, query: Query, key: Sequence[str]) -> str:
    """Identify what is read, and as whom: another login or condition may see fewer rows. A new password alone changes nothing."""
    url = database.url.set(password=None).render_as_string()
    return hashlib.sha256(json.dumps([url, database.schema, query.table, query.where, sorted(key)]).encode()).hexdigest()
