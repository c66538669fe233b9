"""Dagster's SQLite event log, as fast as a run of hundreds of streams wants it: one connection a file, kept open.

Dagster opens and closes its file for every event, and each close of a last connection makes SQLite move the log into the file and
flush the disk several times: 40 ms and more per asset, more than its load takes. Kept open, with `synchronous = normal`, an event
outlives the process's death as before; only a power cut may cost the last events. Nothing of a warehouse depends on them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._core.storage.event_log import SqlEventLogStorageMetadata, SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

_BUSY_SECONDS = 30


class KeptEventLog(SqliteEventLogStorage):
    """`_connect` differs: everything else of Dagster's class goes through it, and holds its lock there.

    And what tables and columns there are, which Dagster looks up for each event, is looked up once: nothing of them goes while a run is on.
    """

    def __init__(self, base_dir: str) -> None:
        self._kept: dict[str, Any] = {}
        self._seen: set[str] = set()
        super().__init__(base_dir)

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._seen and super().has_table(table_name):
            self._seen.add(table_name)
        return table_name in self._seen

    def _has_asset_key_col_on_connection(self, conn: Any, column_name: str) -> bool:
        if column_name not in self._seen and super()._has_asset_key_col_on_connection(conn, column_name):
            self._seen.add(column_name)
        return column_name in self._seen

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        with self._db_lock:
            connection = self._kept.get(shard) or self._open(shard)
            with connection.begin():
                yield connection

    def dispose(self) -> None:
        super().dispose()
        with self._db_lock:
            self._close_all()

    def _open(self, shard: str) -> Any:
        from sqlalchemy import NullPool, create_engine, text

        engine = create_engine(
            self.conn_string_for_shard(shard),
            poolclass=NullPool,
            # Events come from whatever thread logs them, one at a time.
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )
        is_new = not Path(self.path_for_shard(shard)).exists()
        if not (is_new and self._make_shard(engine)):
            self._initdb(engine)
        if shard != INDEX_SHARD_NAME:
            # The run before this one is over.
            self._close_all(but=INDEX_SHARD_NAME)
        connection = engine.connect()
        connection.execute(text("pragma synchronous = normal"))
        connection.commit()
        self._kept[shard] = connection
        return connection

    def _make_shard(self, engine: Any) -> bool:
        """Make a run's file as Dagster does, at the version of the index: Dagster would import all its migrations to look it up."""
        from sqlalchemy import text

        index = self._kept.get(INDEX_SHARD_NAME) or self._open(INDEX_SHARD_NAME)
        with index.begin():
            version = index.execute(text("select version_num from alembic_version")).scalar()
        if version is None:
            return False
        with engine.connect() as connection:
            connection.execute(text("pragma journal_mode = wal"))
            connection.commit()
            # Python's driver begins none for the making of tables: each would be flushed to the disk by itself.
            connection.execute(text("begin"))
            SqlEventLogStorageMetadata.create_all(connection)
            connection.execute(text("create table if not exists alembic_version (version_num varchar(32) not null primary key)"))
            connection.execute(text("insert into alembic_version values (:version)"), {"version": version})
            connection.commit()
        return True

    def _close_all(self, *, but: str = "") -> None:
        for shard in [name for name in self._kept if name != but]:
            self._kept.pop(shard).close()


class KeptStorage(DagsterSqliteStorage):
    """Dagster's default storage, in the same place, with the event log above."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._event_log_storage = KeptEventLog(self._event_log_storage._base_dir)  # in Dagster's own choice of a folder

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "KeptStorage":
        return cls.from_local(inst_data=inst_data, **config_value)
