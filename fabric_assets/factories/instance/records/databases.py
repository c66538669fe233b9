"""A Dagster instance -> the databases of its storage, to count, delete and search in them by SQL.

Dagster's own calls would leave a deleted run's tags and file behind, and keep a wiped asset's key (ADR 0014). Dagster's storage has the same tables on
SQLite and Postgres; tables that an older version lacks are skipped.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dagster as dg

from fabric_assets.errors import DestinationUnavailable

# How long Dagster's other processes may hold a SQLite file.
_BUSY_SECONDS = 30


class Database:
    """One database: all of Postgres, or one SQLite file.

    Args:
        engine: SQLAlchemy's.
        shard: the run whose events this SQLite file holds; empty for a database of all runs.
    """

    def __init__(self, engine: Any, shard: str = "") -> None:
        # Dagster's own engine for Postgres commits each statement separately.
        self._engine = engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="READ COMMITTED")
        self.shard = shard

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def name(self) -> str:
        return Path(self._engine.url.database).name if self.is_sqlite else f"database {self._engine.url.database}"

    @property
    def file(self) -> Path | None:
        return Path(self._engine.url.database) if self.is_sqlite else None

    @cached_property
    def tables(self) -> dict[str, dict[str, str]]:
        """Each table with its columns, and their types in lower case."""
        import sqlalchemy

        inspector = sqlalchemy.inspect(self._engine)
        return {name: {column["name"]: str(column["type"]).lower() for column in inspector.get_columns(name)} for name in inspector.get_table_names()}

    def has(self, table: str, *columns: str) -> bool:
        return table in self.tables and all(column in self.tables[table] for column in columns)

    def get_text_columns(self, table: str) -> list[str]:
        return [name for name, kind in self.tables[table].items() if any(word in kind for word in ("char", "text", "json", "string", "clob"))]

    @contextmanager
    def begin(self) -> Iterator["Transaction"]:
        with self._engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql(f"pragma busy_timeout = {_BUSY_SECONDS * 1000}")
                # Deleted rows are overwritten, not only marked as free.
                connection.exec_driver_sql("pragma secure_delete = on")
            yield Transaction(connection)

    def compact(self) -> None:
        """Rewrite a SQLite file, so that it and its log contain no deleted or changed data, not even old data.

        Raises:
            DestinationUnavailable: another process keeps it open in a transaction.
        """
        if not self.is_sqlite:
            return
        deadline = time.monotonic() + _BUSY_SECONDS
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"pragma busy_timeout = {_BUSY_SECONDS * 1000}")
            connection.exec_driver_sql("vacuum")
            while connection.exec_driver_sql("pragma wal_checkpoint(truncate)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise DestinationUnavailable(
                        f"Dagster's {self.name} is held open by another process, and its log cannot be emptied",
                        remedy="stop what reads it (the UI, the daemon), then call this again: it goes on from here",
                    )
                time.sleep(0.1)

    def dispose(self) -> None:
        self._engine.dispose()


class Transaction:
    """A transaction, with SQL that has named parameters; a list is written as `in :name`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def ask(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._execute(sql, parameters)]

    def stream(self, sql: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """Yield rows that need not fit in memory."""
        result = self._execute(sql, parameters, stream_results=True, max_row_buffer=500)
        yield from (tuple(row) for row in result)

    def change(self, sql: str, **parameters: Any) -> int:
        return self._execute(sql, parameters).rowcount

    def _execute(self, sql: str, parameters: dict[str, Any], **options: Any) -> Any:
        import sqlalchemy

        lists = [sqlalchemy.bindparam(name, expanding=True) for name, value in parameters.items() if isinstance(value, list)]
        return self._connection.execute(sqlalchemy.text(sql).bindparams(*lists), parameters, execution_options=options)


def open_databases(instance: dg.DagsterInstance) -> list[Database]:
    """Open the databases of all runs: one of Postgres, or three files of SQLite."""
    # Only the event log has a separate connection for the data of all runs. Dagster's base classes have neither method, as a storage need not use SQL.
    runs, schedules, events = cast("tuple[Any, Any, Any]", (instance.run_storage, instance.schedule_storage, instance.event_log_storage))
    engines: dict[str, Any] = {}
    for connect in (runs.connect, schedules.connect, events.index_connection):
        with connect() as connection:
            engines.setdefault(connection.engine.url.render_as_string(hide_password=False), connection.engine)
    return [Database(engine) for engine in engines.values()]


def get_shard_folder(instance: dg.DagsterInstance) -> Path | None:
    """Return the folder with a file of events for each run, on SQLite; None where all runs share one database."""
    storage: Any = instance.event_log_storage
    return Path(storage.path_for_shard("any")).parent if hasattr(storage, "path_for_shard") else None


def open_shard(file: Path) -> Database:
    import sqlalchemy

    url = sqlalchemy.URL.create("sqlite", database=str(file))
    return Database(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool), shard=file.stem)


def list_shards(instance: dg.DagsterInstance, databases: Sequence[Database]) -> list[Path]:
    """List the files of single runs."""
    folder = get_shard_folder(instance)
    central = {database.name for database in databases}
    return sorted(file for file in folder.glob("*.db") if file.name not in central) if folder and folder.is_dir() else []
