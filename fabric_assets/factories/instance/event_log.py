"""Dagster's SQLite event log, fast enough for a run of hundreds of streams: one connection a file, kept open, and few transactions.

Dagster opens and closes its file for every event. Each close of the last connection makes SQLite move the log into the file and flush the disk several
times. This takes 40 ms and more per asset, longer than its load. Here the connection stays open, with `synchronous = normal`: an event survives the death
of the process, and only a power cut may lose the last events. No data in a warehouse depends on them.

Plans, outputs and materialisations of assets, of which a run has hundreds, are gathered, and stored together after at most a fifth of a second.
Each transaction releases Python's interpreter lock a dozen times, and the loading threads take it. Gathered events are stored before any other event, and
before this process reads the log. A process that dies may lose them, as if it had died a fifth of a second earlier.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import AssetKeyTable, SqlEventLogStorageMetadata, SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._time import datetime_from_timestamp

_BUSY_SECONDS = 30
_GATHER_SECONDS, _GATHERED_EVENTS = 0.2, 100
# The index of all runs has a copy of these events, and a row per asset.
_OF_ASSETS = frozenset({dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION})
_GATHERED = _OF_ASSETS | {dg.DagsterEventType.STEP_OUTPUT}


class KeptEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log with connections that stay open, and gathered events.

    It overrides `_connect`, through which all other methods go and in which they hold the lock, and `store_event`. It also looks up only once whether a
    table exists, which Dagster does for each event: no table is dropped during a run.
    """

    def __init__(self, base_dir: str) -> None:
        self._kept: dict[str, Any] = {}
        self._seen: set[str] = set()
        # Events with their rows: those not stored yet, and those stored in their run's file but not in the index.
        self._waiting: list[tuple[dg.EventLogEntry, dict[str, Any]]] = []
        self._unindexed: list[tuple[dg.EventLogEntry, dict[str, Any]]] = []
        self._timer: threading.Timer | None = None
        super().__init__(base_dir)

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._seen and super().has_table(table_name):
            self._seen.add(table_name)
        return table_name in self._seen

    def store_event(self, event: dg.EventLogEntry) -> None:
        if event.dagster_event_type not in _GATHERED:
            super().store_event(event)
            return
        row = self._event_to_row(event)
        with self._db_lock:
            if self._waiting and self._waiting[0][0].run_id != event.run_id:
                self._store_waiting()
            self._waiting.append((event, row))
            if len(self._waiting) >= _GATHERED_EVENTS:
                self._store_waiting()
            elif self._timer is None:
                self._timer = threading.Timer(_GATHER_SECONDS, self._store_late)
                self._timer.daemon = True
                self._timer.start()

    def _store_late(self) -> None:
        with self._db_lock:
            self._timer = None
            try:
                self._store_waiting()
            except Exception:  # noqa: BLE001 - the events stay in the list; the next call that stores or reads meets the error, and can report it
                return

    def _store_waiting(self) -> None:
        """Store the gathered events; the caller holds the lock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            connection = self._get(self._waiting[0][0].run_id)
            with connection.begin():
                _insert(connection, SqlEventLogStorageTable.insert(), [row for _, row in self._waiting])
            self._unindexed += [(event, row) for event, row in self._waiting if event.dagster_event_type in _OF_ASSETS]
            self._waiting = []
        if self._unindexed:
            connection = self._get(INDEX_SHARD_NAME)
            with connection.begin():
                self._index(connection, self._unindexed)
            self._unindexed = []

    def _index(self, connection: Any, entries: list[tuple[dg.EventLogEntry, dict[str, Any]]]) -> None:
        """Write to the index what Dagster's own `store_event` writes for each event, without serialising the event again."""
        tags, assets = list[dict[str, Any]](), dict[str, dict[str, Any]]()
        for event_id, (event, row) in zip(_insert(connection, SqlEventLogStorageTable.insert(), [row for _, row in entries]), entries, strict=True):
            tag = {"event_id": event_id, "asset_key": row["asset_key"], "event_timestamp": row["timestamp"]}
            tags += [{**tag, "key": key, "value": value} for key, value in (self._tags_for_asset_event(event) or {}).items()]
            asset = assets.setdefault(row["asset_key"], {"asset_key": row["asset_key"], "last_materialization": None})
            asset |= {"last_run_id": event.run_id, "last_materialization_timestamp": datetime_from_timestamp(event.timestamp)}
            if event.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                asset["last_materialization"] = f'{{"__class__": "EventLogRecord", "event_log_entry": {row["event"]}, "storage_id": {event_id}}}'
        if tags:
            connection.execute(AssetEventTagsTable.insert(), tags)
        _insert(connection, _build_upsert(), list(assets.values()))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        with self._db_lock:
            self._store_waiting()
            with (connection := self._get(shard)).begin():
                yield connection

    def dispose(self) -> None:
        super().dispose()
        with self._db_lock:
            self._store_waiting()
            self._close_all()

    def _get(self, shard: str) -> Any:
        return self._kept.get(shard) or self._open(shard)

    def _open(self, shard: str) -> Any:
        from sqlalchemy import NullPool, create_engine, text

        engine = create_engine(
            self.conn_string_for_shard(shard),
            poolclass=NullPool,
            # Any thread may log events, one at a time.
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )
        is_made = _has_version(engine) if Path(self.path_for_shard(shard)).exists() else self._make_shard(engine)
        if not is_made:
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
        """Create a run's file as Dagster does, at the version of the index."""
        from sqlalchemy import text

        index = self._get(INDEX_SHARD_NAME)
        with index.begin():
            version = index.execute(text("select version_num from alembic_version")).scalar()
        if version is None:
            return False
        with engine.connect() as connection:
            connection.execute(text("pragma journal_mode = wal"))
            connection.commit()
            # Python's driver begins no transaction for `create table`: each statement would be flushed to the disk separately.
            connection.execute(text("begin"))
            SqlEventLogStorageMetadata.create_all(connection)
            connection.execute(text("create table if not exists alembic_version (version_num varchar(32) not null primary key)"))
            connection.execute(text("insert into alembic_version values (:version)"), {"version": version})
            connection.commit()
        return True

    def _close_all(self, *, but: str = "") -> None:
        for shard in [name for name in self._kept if name != but]:
            self._kept.pop(shard).close()


def _has_version(engine: Any) -> bool:
    """Whether a file was created completely; Dagster would import all its migrations to find out."""
    from sqlalchemy import text

    with engine.connect() as connection:
        is_begun = connection.execute(text("select count(*) from sqlite_master where name = 'alembic_version'")).scalar()
        return bool(is_begun and connection.execute(text("select version_num from alembic_version")).scalar())


def _insert(connection: Any, statement: Any, rows: list[dict[str, Any]]) -> list[int]:
    """Insert many rows at a time, which SQLAlchemy does when it is asked for their ids. Row by row, each insert would wait for Python's lock.

    SQLite numbers the rows in their order, but may return the ids in another order.
    """
    return sorted(connection.execute(statement.returning(statement.table.c.id), rows).scalars())


def _build_upsert() -> Any:
    """Build the statement that inserts or updates an asset's row; a planned materialisation does not change the last one."""
    from sqlalchemy import func
    from sqlalchemy.dialects.sqlite import insert

    statement = insert(AssetKeyTable)
    new, materialisation = statement.excluded, func.coalesce(statement.excluded.last_materialization, AssetKeyTable.c.last_materialization)
    values = {"last_run_id": new.last_run_id, "last_materialization_timestamp": new.last_materialization_timestamp, "last_materialization": materialisation}
    return statement.on_conflict_do_update(index_elements=["asset_key"], set_=values)


class KeptStorage(DagsterSqliteStorage):
    """Dagster's default storage, in the same folder, with the event log above."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._event_log_storage = KeptEventLog(self._event_log_storage._base_dir)  # in the folder that Dagster has chosen

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "KeptStorage":
        return cls.from_local(inst_data=inst_data, **config_value)
