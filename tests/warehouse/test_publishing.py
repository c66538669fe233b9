"""The file for readers: what it holds, what it never holds, and that it is whole whenever it is there."""

import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import PublishConfig
from fabric_assets.drivers.duckdb_files import make_file
from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.settings import Settings
from fabric_assets.warehouse.publishing import Published, publish_schemas

# Each type that DuckDB can keep in a column, but for ENUM, which becomes text.
VALUES = {
    "hugeint": "170141183460469231731687303715884105727::hugeint",
    "uhugeint": "340282366920938463463374607431768211455::uhugeint",
    "uuid": "'0d43e738-88b1-4d9b-9588-a00e1a810979'::uuid",
    "bit": "'10101'::bit",
    "time with time zone": "'12:00:00+02'::timetz",
    "timestamp with time zone": "'2026-01-02 03:04:05.678901+02'::timestamptz",
    "timestamp_ns": "'2026-01-02 03:04:05.123456789'::timestamp_ns",
    "interval": "interval '1 month 2 days 3 microseconds'",
    "json": """'{"a": 1.10}'::json""",
    "json[]": """['{"a": 1.10}'::json]""",
    "map": "map {'a': 1}",
    "struct": "{'a': 1, 'b': 'x'}",
    "array": "[1, 2]::int[2]",
    "union": "union_value(number := 1)",
    "decimal": "12345678901234567890.123456789::decimal(38, 9)",
    "blob": "'\\x00\\xFF'::blob",
    "bignum": "'1234567890123456789012345678901234567890'::bignum",
    "text": "'a' || chr(0) || 'ä'",
}


def change(settings: Settings, *statements: str, tenant: str = "acme") -> None:
    """Change a tenant's own file, as its loads and models would."""
    file = naming.warehouse_file(settings.data_dir, tenant)
    if not file.exists():
        file.parent.mkdir(mode=0o700, exist_ok=True)
        make_file(file)
    with duckdb.connect(str(file)) as connection:
        for statement in statements:
            connection.execute(statement)


def publish(settings: Settings, *, tenant: str = "acme", longest: timedelta = timedelta(minutes=5), only_of_views: bool = False, **config) -> Published:
    assert settings.publish_dir
    config = PublishConfig.model_validate(config)
    return publish_schemas(
        tenant, config, data_dir=settings.data_dir, publish_dir=settings.publish_dir, longest=longest, only_of_views=only_of_views
    )  # fmt: skip


def read(settings: Settings, sql: str, *, tenant: str = "acme") -> list[tuple]:
    assert settings.publish_dir
    with duckdb.connect(str(naming.published_file(settings.publish_dir, tenant)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def acme(settings: Settings) -> Settings:
    """A tenant with a table and a view in its marts, and with what is never published."""
    change(
        settings,
        *("create schema acme_marts", "create schema acme_staging", "create schema acme_raw_shop", "create schema acme_fabric"),
        "create table acme_raw_shop.orders as select 1 as id, 'Ada' as customer",
        "create table acme_fabric.rejected_rows as select 'a row' as row",
        "create table acme_marts.orders as select id, 10 * id as total from range(1, 4) as t(id)",
        "create view acme_staging.stg_orders as select * from acme_raw_shop.orders",
        "create view acme_marts.revenue as select sum(total)::bigint as revenue from acme_marts.orders",
        "create macro acme_marts.twice(a) as 2 * a",
    )
    return settings


# --- what it holds


def test_tables_and_views_of_the_marts_are_tables_of_the_file_and_nothing_else_is_in_it(acme: Settings) -> None:
    published = publish(acme)
    assert published.file == naming.published_file(acme.publish_dir, "acme")
    assert (published.tables, published.rows, published.bytes) == (2, 4, published.file.stat().st_size)
    tables = "select schema_name || '.' || table_name from duckdb_tables() order by 1"
    assert read(acme, tables) == [("acme_marts.orders",), ("acme_marts.revenue",)]
    assert read(acme, "select * from acme_marts.orders order by id") == [(1, 10), (2, 20), (3, 30)]
    assert read(acme, "from acme_marts.revenue") == [(60,)]
    assert read(acme, "select count(*) from duckdb_views() where not internal") == [(0,)]
    assert read(acme, "select count(*) from duckdb_functions() where not internal") == [(0,)]
    schemas = "select schema_name from duckdb_schemas() where not internal and database_name = 'acme' order by 1"
    assert read(acme, schemas) == [("acme_marts",)]


def test_the_yaml_chooses_the_schemas(acme: Settings) -> None:
    publish(acme, schemas=["staging", "marts"])
    assert read(acme, "select distinct schema_name from duckdb_tables() order by 1") == [("acme_marts",), ("acme_staging",)]
    assert read(acme, "from acme_staging.stg_orders") == [(1, "Ada")]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_of_each_type_are_published_as_they_are(settings: Settings, value: str) -> None:
    change(settings, "create schema acme_marts", f"create table acme_marts.t as select {value} as v union all by name select null as v")
    publish(settings)
    shown = "select typeof(v), v::varchar from acme_marts.t order by 2"
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme")), read_only=True) as connection:
        assert read(settings, shown) == connection.execute(shown).fetchall()


def test_macros_that_a_model_has_planted_do_not_change_what_is_published(acme: Settings) -> None:
    change(acme, "create macro main.duckdb_tables() as table select 'acme_raw_shop' as schema_name, 'orders' as table_name, 'acme' as database_name")
    change(acme, "create macro main.current_database() as 'none'")
    publish(acme)
    assert read(acme, "select table_name from duckdb_tables() order by 1") == [("orders",), ("revenue",)]


def test_names_that_need_quotes_are_published(settings: Settings) -> None:
    change(settings, "create schema acme_marts", 'create table acme_marts."a ""b"".c" as select 1 as "x ""y"""')
    publish(settings)
    assert read(settings, 'select "x ""y""" from acme_marts."a ""b"".c"') == [(1,)]


def test_a_load_of_raw_rows_publishes_only_where_a_view_may_show_them(acme: Settings) -> None:
    change(acme, "drop view acme_marts.revenue")
    assert publish(acme, only_of_views=True) == Published()
    assert not (naming.published_file(acme.publish_dir, "acme")).exists()
    change(acme, "create view acme_marts.people as select customer from acme_raw_shop.orders")
    assert publish(acme, only_of_views=True).tables == 2
    assert read(acme, "from acme_marts.people") == [("Ada",)]


@pytest.mark.parametrize("no_more", ["schemas", "tables"])
def test_where_nothing_is_to_be_published_any_more_the_old_file_goes(acme: Settings, no_more: str) -> None:
    publish(acme)
    if no_more == "tables":
        change(acme, "drop schema acme_marts cascade")
    assert publish(acme, schemas=[] if no_more == "schemas" else ["marts"]) == Published()
    assert [*naming.published_dir(acme.publish_dir, "acme").iterdir()] == []


# --- who reads it

READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
for line in sys.stdin:
    print(connection.sql(line).fetchall(), flush=True)
"""


def test_folder_and_file_are_their_owners_alone(acme: Settings) -> None:
    published = publish(acme)
    modes = [path.stat().st_mode & 0o7777 for path in (acme.publish_dir, published.file.parent, published.file)]
    assert modes == [0o700, 0o700, 0o600]


def test_an_operators_mode_of_the_folder_is_kept_and_given_to_each_new_file(acme: Settings) -> None:
    file = publish(acme).file
    file.parent.chmod(0o2750)
    assert publish(acme).file.stat().st_mode & 0o7777 == 0o640
    assert (file.parent.stat().st_mode & 0o7777, file.stat().st_gid) == (0o2750, file.parent.stat().st_gid)


def test_a_reader_with_the_file_open_reads_the_old_rows_while_the_next_one_reads_the_new_ones(acme: Settings) -> None:
    file = publish(acme).file
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin and reader.stdout

        def ask(sql: str) -> str:
            reader.stdin.write(f"{sql}\n")
            reader.stdin.flush()
            return reader.stdout.readline()

        assert ask("select count(*) from acme_marts.orders") == "[(3,)]\n"
        change(acme, "insert into acme_marts.orders values (4, 40)")
        publish(acme)
        assert ask("select sum(total) from acme_marts.orders") == "[(60,)]\n"
        assert read(acme, "select sum(total) from acme_marts.orders") == [(100,)]
        reader.stdin.close()


def test_the_log_of_a_reader_that_wrote_is_not_applied_to_the_next_file(acme: Settings) -> None:
    file = publish(acme).file
    writer = "import duckdb, sys, os\nc = duckdb.connect(sys.argv[1])\nc.sql('create table mine as select 1 as x')\nos._exit(0)"
    subprocess.run([sys.executable, "-c", writer, str(file)], check=True)
    assert file.with_name("acme.duckdb.wal").exists()
    publish(acme)
    assert read(acme, "select table_name from duckdb_tables() order by 1") == [("orders",), ("revenue",)]
    assert [path.name for path in file.parent.iterdir()] == ["acme.duckdb"]


# --- what cannot be published


def test_more_than_max_is_not_written_and_readers_keep_the_old_file(acme: Settings) -> None:
    publish(acme)
    change(acme, "insert into acme_marts.orders select i, hash(i) % 1000000 from range(2000000) as t(i)")
    with pytest.raises(DestinationError, match=r"would take more than 1,000,000 bytes.*; readers keep the file of 20") as caught:
        publish(acme, max="1MB")
    assert "raise destination.publish.max" in caught.value.remedy
    assert read(acme, "select count(*) from acme_marts.orders") == [(3,)]


def test_a_view_without_end_is_ended_by_max_and_leaves_no_file(acme: Settings) -> None:
    change(acme, "create view acme_marts.endless as select hash(a.i, b.i) as x from range(1000000) as a(i), range(1000000) as b(i)")
    with pytest.raises(DestinationError, match="more than 5,000,000 bytes.*; there is no older file"):
        publish(acme, max="5MB")
    assert [*naming.published_dir(acme.publish_dir, "acme").iterdir()] == []


def test_a_view_that_computes_without_end_is_ended_in_time(acme: Settings) -> None:
    change(acme, "create view acme_marts.endless as select count(*) as n from range(100000000000) as a, range(1000000) as b")
    with pytest.raises(DestinationError, match="reading the published schemas took more than 1 s"):
        publish(acme, longest=timedelta(seconds=1))


def test_a_view_that_fails_is_named_without_the_value_that_it_failed_at(acme: Settings) -> None:
    publish(acme)
    change(acme, "create view acme_marts.broken as select customer::integer as number from acme_raw_shop.orders")
    with pytest.raises(DestinationError) as caught:
        publish(acme)
    assert "acme.duckdb for readers is not written: acme_marts.broken cannot be read: Conversion Error" in caught.value.message
    assert "Ada" not in str(caught.value)
    assert read(acme, "select count(*) from acme_marts.orders") == [(3,)]


def test_a_view_of_a_table_that_is_gone_is_named_with_the_table(acme: Settings) -> None:
    change(acme, "create view acme_marts.people as select * from acme_raw_shop.orders", "drop table acme_raw_shop.orders")
    with pytest.raises(DestinationError, match=r"acme_marts\.people cannot be read: .*orders does not exist"):
        publish(acme)


def test_a_folder_that_cannot_be_written_is_an_error_that_keeps_the_old_file(acme: Settings) -> None:
    file = publish(acme).file
    old = file.read_bytes()
    # Root may write into any folder, so a file takes the place of the tenant's.
    kept = file.parent.rename(file.parent.with_name("kept"))
    file.parent.write_text("")
    with pytest.raises(DestinationUnavailable, match="acme.duckdb for readers cannot be written: "):
        publish(acme)
    assert (kept / "acme.duckdb").read_bytes() == old


FULL = """
import resource, sys
from pathlib import Path
from fabric_assets.config.tenant import PublishConfig
from fabric_assets.warehouse.publishing import publish_schemas
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # each write behind it fails, as on a full disk
try:
    publish_schemas("acme", PublishConfig(), data_dir=Path(sys.argv[1]), publish_dir=Path(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error.message)
"""


def test_a_full_disk_is_an_error_that_keeps_the_old_file_and_leaves_no_other(acme: Settings) -> None:
    publish(acme)
    change(acme, "insert into acme_marts.orders select i, hash(i) % 1000000 from range(2000000) as t(i)")
    assert naming.warehouse_file(acme.data_dir, "acme").stat().st_size > 300_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run([sys.executable, "-c", FULL, str(acme.data_dir), str(acme.publish_dir)], capture_output=True, text=True, check=True)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limits
    assert done.stdout.startswith("DestinationUnavailable tenant acme: acme.duckdb for readers cannot be written: "), done.stdout + done.stderr
    assert "; readers keep the file of 20" in done.stdout
    assert [path.name for path in naming.published_dir(acme.publish_dir, "acme").iterdir()] == ["acme.duckdb"]
    assert read(acme, "select count(*) from acme_marts.orders") == [(3,)]


PUBLISH = """
import sys
from pathlib import Path
from fabric_assets.config.tenant import PublishConfig
from fabric_assets.warehouse.publishing import publish_schemas
print("begun", flush=True)
publish_schemas("acme", PublishConfig(), data_dir=Path(sys.argv[1]), publish_dir=Path(sys.argv[2]))
"""


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.97, 1.0])
def test_a_process_that_is_killed_while_it_publishes_leaves_the_old_file_or_the_new_one(acme: Settings, share: float) -> None:
    publish(acme)
    change(acme, "insert into acme_marts.orders select i, hash(i) % 1000000 from range(1000000) as t(i)")
    command = [sys.executable, "-c", PUBLISH, str(acme.data_dir), str(acme.publish_dir)]
    began = time.monotonic()
    publish_schemas("timing", PublishConfig(), data_dir=copy_as(acme, "timing"), publish_dir=acme.publish_dir)
    seconds = time.monotonic() - began
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        time.sleep(seconds * share)
        os.kill(process.pid, signal.SIGKILL)
    assert read(acme, "select count(*) from acme_marts.orders")[0][0] in {3, 1_000_003}
    publish(acme)
    assert read(acme, "select count(*), sum(id) from acme_marts.orders") == [(1_000_003, 6 + 999_999 * 500_000)]
    assert [path.name for path in naming.published_dir(acme.publish_dir, "acme").iterdir()] == ["acme.duckdb"]


def copy_as(settings: Settings, tenant: str) -> Path:
    """A tenant with the same rows; gives its data folder."""
    file = naming.warehouse_file(settings.data_dir, tenant)
    file.write_bytes(naming.warehouse_file(settings.data_dir, "acme").read_bytes())
    with duckdb.connect(str(file)) as connection:
        connection.execute("create schema timing_marts; create table timing_marts.orders as from acme_marts.orders")
    return settings.data_dir
