"""Dagster's SQLite event log, as fast as a run of hundreds of streams wants it: one connection a file, kept open, and few transactions.

Dagster opens and closes its file for every event, and each close of a last connection makes SQLite move the log into the file and
flush the disk several times: 40 ms and more per asset, more than its load takes. Kept open, with `synchronous = normal`, an event
outlives the process's death; only a power cut may cost the last events. Nothing of a warehouse depends on them.

What a run has by the hundred (plans, outputs and materialisations of assets) is gathered and stored together, a fifth of a second
later at most: each transaction lets go of Python's interpreter lock a dozen times, and the threads that load take it. Whatever is
asked of the log by this process, and every other event, finds it stored; a process that dies may take that fifth of a second with
it, which is as if it had died before.
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
# Of these the index of all runs keeps a copy, and a row per asset.
_OF_ASSETS = frozenset({dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION})
_GATHERED = _OF_ASSETS | {dg.DagsterEventType.STEP_OUTPUT}


class KeptEventLog(SqliteEventLogStorage):
    """`_connect` differs: everything else of Dagster's class goes through it, and holds its lock there; and `store_event`.

    And whether there is a table, which Dagster looks up for each event, is looked up once: none goes while a run is on.
    """

    def __init__(self, base_dir: str) -> None:
        self._kept: dict[str, Any] = {}
        self._seen: set[str] = set()
        # Events with their rows: not stored yet; stored in their run's file, and not in the index yet.
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
            except Exception:  # noqa: BLE001 - they wait on, and whoever stores or asks next meets the error where it can be told
                return

    def _store_waiting(self) -> None:
        """For who holds the lock."""
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
        """What Dagster's own `store_event` does there for each event, without spelling it anew."""
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
            # Events come from whatever thread logs them, one at a time.
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
        """Make a run's file as Dagster does, at the version of the index."""
        from sqlalchemy import text

        index = self._get(INDEX_SHARD_NAME)
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


def _has_version(engine: Any) -> bool:
    """Whether a file was made to its end; Dagster would import all its migrations to find out."""
    from sqlalchemy import text

    with engine.connect() as connection:
        is_begun = connection.execute(text("select count(*) from sqlite_master where name = 'alembic_version'")).scalar()
        return bool(is_begun and connection.execute(text("select version_num from alembic_version")).scalar())


def _insert(connection: Any, statement: Any, rows: list[dict[str, Any]]) -> list[int]:
    """Insert rows many at a time, which SQLAlchemy does where it is asked for their numbers: row by row each would wait for Python's lock.

    SQLite numbers them as they are listed; in which order it gives the numbers back it does not say.
    """
    return sorted(connection.execute(statement.returning(statement.table.c.id), rows).scalars())


def _build_upsert() -> Any:
    """An asset's row made, or brought up to date; a plan leaves its materialisation as it is."""
    from sqlalchemy import func
    from sqlalchemy.dialects.sqlite import insert

    statement = insert(AssetKeyTable)
    new, materialisation = statement.excluded, func.coalesce(statement.excluded.last_materialization, AssetKeyTable.c.last_materialization)
    values = {"last_run_id": new.last_run_id, "last_materialization_timestamp": new.last_materialization_timestamp, "last_materialization": materialisation}
    return statement.on_conflict_do_update(index_elements=["asset_key"], set_=values)


class KeptStorage(DagsterSqliteStorage):
    """Dagster's default storage, in the same place, with the event log above."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._event_log_storage = KeptEventLog(self._event_log_storage._base_dir)  # in Dagster's own choice of a folder

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "KeptStorage":
        return cls.from_local(inst_data=inst_data, **config_value)
