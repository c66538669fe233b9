"""How DuckDB files are opened: locked whatever is in them, with DuckDB's own functions, and with a clear reason where they cannot be opened."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

import fabric_assets
from fabric_assets import naming
from fabric_assets.drivers.destinations import connect
from fabric_assets.drivers.duckdb_files import build_open_error, lock, make_file, open_engine, open_file
from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.settings import Settings
from tests.isolation.conftest import make_tenant
from tests.support.duckdb_traps import plant_traps

PACKAGE = Path(fabric_assets.__file__).parent


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A file in which a tenant has planted all that it can."""
    file = tmp_path / "acme.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("create schema acme_raw_shop; create table acme_raw_shop.orders as select 1 as id, 'one' as name")
        plant_traps(connection)
        assert connection.execute("select current_setting('lock_configuration')").fetchall() == [("trap",)]
    return file


def test_no_other_module_opens_duckdb() -> None:
    opening = re.compile(r"\b(duckdb|_duckdb)\s*\.\s*(connect|sql|query|execute|default_connection|from_\w+|read_\w+)\s*\(|from _?duckdb import .*\bconnect\b")
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if opening.search(path.read_text())}
    assert found == {"drivers/duckdb_files.py"}


@pytest.mark.parametrize("read_only", [False, True])
def test_objects_in_a_file_replace_neither_the_lock_nor_duckdbs_functions(trapped: Path, read_only: bool) -> None:
    with open_file(trapped, read_only=read_only) as opened, contextlib.closing(opened.cursor()) as cursor:
        for connection in (opened, cursor):
            with pytest.raises(duckdb.PermissionException):
                connection.execute("select * from read_text('/etc/hostname')")
            with pytest.raises(duckdb.PermissionException):
                connection.execute("attach '/tmp/other.duckdb'")
            for statement in ("set enable_external_access = true", "reset lock_configuration", "set memory_limit = '1TB'", "set allowed_configs = ['threads']"):
                with pytest.raises(duckdb.InvalidInputException, match="has been locked"):
                    connection.execute(statement)
            assert ask(connection, "select current_setting('TimeZone'), current_setting('lock_configuration')") == ("UTC", True)
            assert ask(connection, "select count(*), sum(id) + 1, [1, 2][1], {'a': 'b'}.a || 'c', coalesce(null, max(name)) from acme_raw_shop.orders") == (
                *(1, 2, 1, "bc", "one"),
            )
            assert ask(connection, "select 1 = 2, 'a' like 'b', cast('{\"a\": 1}' as json) ->> 'a', row_number() over (order by 1)") == (False, False, "1", 1)
            assert ask(connection, "select string_agg(table_name, ',') from duckdb_tables() where not internal") == ("orders",)
            assert ask(connection, "select current_database(), typeof(now()), extract(year from date '2026-01-02')") == (
                *("acme", "TIMESTAMP WITH TIME ZONE", 2026),
            )


def ask(connection: Any, sql: str) -> tuple[Any, ...]:
    (row,) = connection.execute(sql).fetchall()
    return row


def test_a_second_connection_of_the_process_is_locked_as_the_first_one_is(trapped: Path) -> None:
    with open_file(trapped) as first, open_file(trapped) as second:
        assert ask(second, "select count(*) from acme_raw_shop.orders") == (1,)
        with pytest.raises(duckdb.PermissionException):
            second.execute("select * from read_text('/etc/hostname')")
        assert ask(first, "select count(*) from acme_raw_shop.orders") == (1,)


def test_the_lock_takes_no_other_error_for_an_answer(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "acme.duckdb")) as connection:
        with pytest.raises(duckdb.ParserException):
            lock(connection, memory="much")
        connection.execute("set enable_external_access = false")
        with pytest.raises(duckdb.Error):
            lock(connection, spill=tmp_path / "spill")


def test_sizes_may_change_where_no_statement_is_a_tenants(tmp_path: Path, settings: Settings) -> None:
    with open_file(tmp_path / "acme.duckdb", sizes_may_change=True) as connection:
        connection.execute("set memory_limit = '100MB'; set threads = 1; reset threads")
        with pytest.raises(duckdb.InvalidInputException, match="has been locked"):
            connection.execute("set enable_external_access = true")
    tenant = make_tenant("acme", {"type": "duckdb"})
    with connect(tenant, settings) as connection:
        connection.execute("set threads = 1")
    with connect(tenant, settings, read_only=True) as connection, pytest.raises(duckdb.InvalidInputException, match="has been locked"):
        connection.execute("set threads = 1")


def test_duckdb_without_a_file_downloads_nothing() -> None:
    with open_engine() as connection:
        assert ask(connection, "select current_setting('autoinstall_known_extensions'), current_setting('autoload_known_extensions')") == (False, False)


# --- a file that cannot be opened


def _overwrite(file: Path, start: int, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(content)


DAMAGES = {
    "another file's bytes": lambda file: file.write_bytes(os.urandom(5_000)),
    "nothing": lambda file: file.write_bytes(b""),
    "a damaged header": lambda file: _overwrite(file, 0, os.urandom(5_000)),
    "a damaged version": lambda file: _overwrite(file, 12, b"\x63"),
    "the first blocks alone": lambda file: os.truncate(file, 8_192),
    "the first half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "SQLite": lambda file: file.write_bytes(b"SQLite format 3\0" + bytes(4_096)),
    "a damaged log": lambda file: _overwrite(file.with_name(f"{file.name}.wal"), 20, os.urandom(30)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}
FILL = (
    "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('create table main.t as select range as a from range(300000)'); c.execute('checkpoint')"
)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_called_damaged_and_is_not_tried_again(settings: Settings, damage: str, read_only: bool) -> None:
    tenant = make_tenant("acme", {"type": "duckdb"})
    connect(tenant, settings).close()
    file = naming.warehouse_file(settings.data_dir, "acme")
    subprocess.run([sys.executable, "-c", f"{FILL}; c.execute('insert into main.t values (1)'); os._exit(0)", str(file)], check=True)
    if damage != "a damaged log":
        with duckdb.connect(str(file)) as connection:
            connection.execute("checkpoint")
    DAMAGES[damage](file)
    with pytest.raises(DestinationError, match="tenant acme: acme.duckdb is damaged") as caught:
        connect(tenant, settings, read_only=read_only)
    assert "restore the file from a backup" in caught.value.remedy


def test_a_file_in_use_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "acme.duckdb"
    make_file(file)
    holder = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(duckdb.IOException) as caught:
            open_file(file)
        process.stdin.close()
    error = build_open_error(caught.value, "tenant acme: acme.duckdb")
    assert isinstance(error, DestinationUnavailable)
    assert error.message.startswith("tenant acme: acme.duckdb is open in another program:")


def test_any_other_reason_is_reported_unchanged() -> None:
    newer = "Trying to read a database file with version number 99, but we can only read versions between 64 and 67."
    assert build_open_error(duckdb.IOException(newer), "x").message == f"x was written by a newer DuckDB: {newer}"
    full = build_open_error(duckdb.IOException("No space left on device"), "x")
    assert (type(full), full.message) == (DestinationUnavailable, "x cannot be opened: No space left on device")
