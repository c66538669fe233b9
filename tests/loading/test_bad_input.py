"""Each thing that can be wrong about a source or a destination ends in one message that names it, and what to do."""

import re
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import (
    ConfigurationError,
    DataError,
    DestinationError,
    DestinationUnavailable,
    FabricError,
    SecretError,
    SourceError,
    SourceUnavailable,
)
from fabric_assets.settings import Settings
from tests.support.services import get_free_port
from tests.support.shop import SourceDatabase, Tenant, write_secret_file

ORDERS = "create table orders (id integer, amount decimal(10,2), updated_at timestamp null)"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"table": "order"}, "the source has no table 'order'; did you mean 'orders'? known: orders"),
        (
            {"table": "orders", "columns": ["id", "amout"]},
            "table orders: the source has no column 'amout'; did you mean 'amount'? known: amount, id, updated_at",
        ),
        ({"table": "orders", "primary_key": "ID"}, "no primary_key column 'ID'; did you mean 'id'?"),
        ({"table": "orders", "primary_key": "id", "cursor": {"field": "update_at"}}, "no cursor field 'update_at'; did you mean 'updated_at'?"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(database: SourceDatabase, settings: Settings, stream: dict[str, Any], message: str) -> None:
    database.run(ORDERS)
    error = _fail(SourceError, Tenant(settings, database.build_source(good={"table": "orders"}, bad=stream)))
    assert str(error).startswith("tenant acme, source shop, stream bad")
    assert message in str(error)
    assert error.remedy


def test_a_wrong_schema_is_answered_with_the_nearest_right_one(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create schema sales", "create table sales.orders (id integer)", "insert into sales.orders values (1)")
    tenant = Tenant(settings, {**source.build_source(orders={}), "schema": "sale"})
    assert "no schema 'sale'; did you mean 'sales'?" in str(_fail(SourceError, tenant))
    tenant.source["schema"] = "sales"
    assert tenant.load()["orders"].rows_total == 1


def test_a_schema_without_a_table_that_the_login_sees_is_answered_with_the_rights(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create schema hidden")
    error = _fail(SourceError, Tenant(settings, {**source.build_source(orders={}), "schema": "hidden"}))
    assert "the source has no table 'orders'; known: none" in str(error)
    assert "usage on the schema" in error.remedy


def test_a_table_without_columns_is_not_called_missing(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table bare ()")
    with pytest.raises(SourceError, match="the table 'bare' has no columns"):
        Tenant(settings, database.build_source(bare={})).load()


@pytest.mark.parametrize(("where", "words"), [("amounts > 1", "amounts"), ("amount > > 1", ""), ("amount like '%10%' and nosuch(id) = 1 -- note", "")])
def test_a_wrong_where_is_named_with_the_databases_own_words(database: SourceDatabase, settings: Settings, where: str, words: str) -> None:
    database.run(ORDERS)
    error = _fail(SourceError, Tenant(settings, database.build_source(good={"table": "orders", "where": "amount > 1 -- note"}, orders={"where": where})))
    assert error.message.startswith(f"tenant acme, source shop, stream orders: where: the database refuses the condition {where}: ")
    assert words in error.message and "LINE 1" not in error.message and "1 = 0" not in error.message.partition("near")[0]
    assert error.remedy == "correct the stream's where: a condition on the table's columns, in the database's own SQL"


def test_a_query_that_fails_beside_a_right_where_does_not_blame_it(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table rows_of as select 0 as id", "create view orders as select 1 / id as share from rows_of")
    error = _fail(SourceError, Tenant(settings, source.build_source(orders={"where": "true"})))
    assert "the database answers with an error: " in error.message and "division by zero" in error.message


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_an_unreachable_source_may_be_tried_again(settings: Settings, scheme: str) -> None:
    write_secret_file(settings, "shop_url", f"{scheme}://reader:hunter2@127.0.0.1:{get_free_port()}/shop")
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}})
    error = _fail(SourceUnavailable, tenant)
    assert "tenant acme, source shop: the database cannot be reached" in str(error)
    assert "hunter2" not in _get_all_text(error)
    (row,) = tenant.ask("select stream, status, error, retriable, loaded_at is not null from acme_fabric.loads")
    assert row == ("orders", "failed", str(error), True, True)


def test_a_refused_login_is_not_tried_again(mariadb_url: str, settings: Settings) -> None:
    write_secret_file(settings, "shop_url", re.sub(r"//[^@]*@", "//nobody:hunter2@", mariadb_url))
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}})
    error = _fail(SourceError, tenant)
    assert "refuses the login" in str(error)
    assert "hunter2" not in _get_all_text(error)


def test_a_missing_database_file_is_named(settings: Settings, tmp_path: Path) -> None:
    write_secret_file(settings, "shop_url", f"sqlite:///{tmp_path}/absent.sqlite")
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}})
    assert "absent.sqlite does not exist" in str(_fail(SourceError, tenant))
    assert not (tmp_path / "absent.sqlite").exists()


def test_a_missing_secret_names_the_place_and_nothing_is_loaded(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"env": "NO_SUCH_URL"}, "streams": {"orders": {}}})
    assert "NO_SUCH_URL" in str(_fail(SecretError, tenant))


def test_an_invalid_url_is_not_echoed(settings: Settings) -> None:
    write_secret_file(settings, "shop_url", "hunter2 is my password")
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}})
    error = _fail(ConfigurationError, tenant)
    assert "file shop_url" in str(error) and "hunter2" not in _get_all_text(error)


def test_a_dialect_without_driver_is_named(settings: Settings) -> None:
    write_secret_file(settings, "shop_url", "oracle://u:p@127.0.0.1/x")
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}})
    assert "no driver for a oracle url" in str(_fail(ConfigurationError, tenant))


def test_more_rejected_rows_than_allowed_fail_the_stream_and_are_kept(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run(ORDERS, "insert into orders values (1, 1, null)")
    tenant = Tenant(settings, database.build_source(orders={"primary_key": "id", "rejects": {"max": "40%"}}), warehouse=warehouse)
    tenant.load()
    database.run("insert into orders values (null, 2, null), (3, 3, null)")
    assert tenant.load()["orders"].rows_rejected == 1, "one of three is not more than 40%"
    database.run("insert into orders values (null, 5, null), (null, 6, null)")
    error = _fail(DataError, tenant)
    assert "3 of 5 rows cannot be loaded, more than rejects.max allows" in str(error) and "fabric rejects list acme" in error.remedy
    assert tenant.read("orders", "id") == [(1,), (3,)]
    assert tenant.ask("select status, rows_read, rows_loaded, rows_rejected from acme_fabric.loads order by started_at desc limit 1") == [("failed", 5, 0, 3)]
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(3,)]


def test_a_null_cursor_stops_an_append_and_leaving_it_out_on_purpose_heals_it(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS, "insert into orders values (1, 1, '2024-01-01 10:00:00')")
    stream = {"write_disposition": "append", "cursor": {"field": "updated_at"}}
    tenant = Tenant(settings, database.build_source(orders=stream))
    tenant.load()
    database.run("insert into orders values (2, 1, null)")
    assert "1 rows have no updated_at" in str(_fail(DataError, tenant))
    tenant.source["streams"]["orders"]["where"] = "updated_at is not null"
    assert tenant.load()["orders"].rows_total == 1


@pytest.mark.parametrize(
    ("cursor", "message"),
    [
        ({"field": "updated_at", "lag": 5}, "its lag must be a duration such as 5m"),
        ({"field": "updated_at", "initial": "yesterday"}, "cursor.initial does not read as timestamp"),
        ({"field": "id", "lag": "5m"}, "its lag must be a number"),
    ],
)
def test_a_cursor_that_does_not_suit_its_column_is_refused(database: SourceDatabase, settings: Settings, cursor: dict[str, Any], message: str) -> None:
    database.run(ORDERS, "insert into orders values (1, 1, '2024-01-01 10:00:00')")
    tenant = Tenant(settings, database.build_source(orders={"primary_key": "id", "cursor": cursor}))
    assert message in str(_fail(ConfigurationError, tenant))


def test_a_lag_on_a_text_cursor_is_refused_by_the_first_load(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table visits (id integer primary key, visited text)", "insert into visits values (1, '2024-01-01T10:00:00')")
    tenant = Tenant(settings, sqlite.build_source(visits={"primary_key": "id", "cursor": {"field": "visited", "lag": "5m"}}))
    error = str(_fail(ConfigurationError, tenant))
    assert "a lag needs a timestamp, date or number" in error and "visits" in error


def test_two_columns_with_one_normalised_name_get_different_columns(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run('create table odd ("a b" integer, "a_b" integer)', "insert into odd values (1, 2)")
    tenant = Tenant(settings, sqlite.build_source(odd={}))
    tenant.load()
    assert tenant.read("odd", "a_b_2", "a_b") == [(1, 2)]


def test_an_unreachable_destination_may_be_tried_again(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS)
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=f"postgresql://loader:hunter2@127.0.0.1:{get_free_port()}/warehouse")
    error = _fail(DestinationUnavailable, tenant)
    assert "the destination (postgres) cannot be reached" in str(error)
    assert "hunter2" not in _get_all_text(error)


def test_a_missing_database_of_the_destination_is_named(sqlite: SourceDatabase, settings: Settings, postgres_url: str) -> None:
    sqlite.run(ORDERS)
    error = _fail(DestinationError, Tenant(settings, sqlite.build_source(orders={}), warehouse=postgres_url.rsplit("/", 1)[0] + "/absent"))
    assert 'database "absent" does not exist' in str(error)


def test_a_destination_without_rights_says_so(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    import psycopg2

    sqlite.run(ORDERS)
    admin = psycopg2.connect(postgres_database)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("drop role if exists powerless")
        cursor.execute("create role powerless login password 'hunter2'")
    admin.close()
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=postgres_database.replace("postgres:postgres@", "powerless:hunter2@"))
    error = _fail(DestinationError, tenant)
    assert "there is no schema acme_fabric, and the login may not make it" in str(error) and "grant" in error.remedy


@pytest.mark.parametrize(("lacks", "answer"), [("table", "permission denied for table orders"), ("database", "permission denied for database")])
def test_the_error_of_a_postgres_login_without_rights_names_the_grant(postgres_database: str, settings: Settings, lacks: str, answer: str) -> None:
    owner = SourceDatabase(postgres_database, settings)
    name = postgres_database.rpartition("/")[2]
    owner.run(ORDERS, "drop role if exists blind", "create role blind login password 'hunter2'", f'revoke all on database "{name}" from public')
    if lacks == "table":
        owner.run(f'grant connect on database "{name}" to blind')
    blind = SourceDatabase(postgres_database.replace("postgres:postgres@", "blind:hunter2@"), settings)
    error = _fail(SourceError, Tenant(settings, blind.build_source(orders={})))
    assert "the database denies access" in str(error) and answer in str(error)
    assert error.remedy.startswith("grant the login of the source's url the right to read")


@pytest.mark.parametrize(("lacks", "answer"), [("table", "command denied to user"), ("database", "to database")])
def test_the_error_of_a_mariadb_login_without_rights_names_the_grant(mariadb_url: str, settings: Settings, lacks: str, answer: str) -> None:
    owner = SourceDatabase(mariadb_url, settings)
    name = mariadb_url.rpartition("/")[2].partition("?")[0]
    user = f"{name}_blind"
    owner.run(ORDERS, "create table seen (id integer)", f"create user {user}@'%%' identified by 'hunter2'")
    if lacks == "table":
        owner.run(f"grant select on `{name}`.seen to {user}@'%%'", f"grant insert on `{name}`.orders to {user}@'%%'")
    try:
        blind = SourceDatabase(re.sub(r"//.*@", f"//{user}:hunter2@", mariadb_url), settings)
        error = _fail(SourceError, Tenant(settings, blind.build_source(orders={})))
    finally:
        owner.run(f"drop user {user}@'%%'")
    assert "the database denies access" in str(error) and answer in str(error)
    assert error.remedy.startswith("grant the login of the source's url the right to read")


def test_the_error_of_a_destination_that_may_not_be_opened_names_the_grant(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    sqlite.run(ORDERS)
    owner = SourceDatabase(postgres_database, settings)
    name = postgres_database.rpartition("/")[2]
    owner.run("drop role if exists outsider", "create role outsider login password 'hunter2'", f'revoke all on database "{name}" from public')
    write_secret_file(settings, "shop_url", sqlite.url)
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=postgres_database.replace("postgres:postgres@", "outsider:hunter2@"))
    error = _fail(DestinationError, tenant)
    assert "permission denied for database" in str(error)
    assert error.remedy == "grant the login of the destination's url CONNECT on the database"


def test_a_load_that_takes_too_long_is_ended(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table big (id integer, body text)")
    sqlite.fill("big", [(number, "x" * 1000) for number in range(20_000)])
    slow = "(select count(*) from big b where b.body < big.body || 'y') >= 0"
    tenant = Tenant(settings, {**sqlite.build_source(big={"where": slow}), "timeout": "1s"})
    assert "took longer than its timeout of 1 s" in str(_fail(SourceUnavailable, tenant))


def test_a_statement_that_takes_too_long_is_ended_by_the_server(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table one (id integer)", "insert into one values (1)")
    tenant = Tenant(settings, {**source.build_source(one={"where": "pg_sleep(20) is not null"}), "timeout": "1s"})
    assert "took longer than its timeout of 1 s" in str(_fail(SourceUnavailable, tenant))


def test_a_copied_dataset_does_not_write_into_the_original(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    import psycopg2

    sqlite.run(ORDERS, "insert into orders values (1, 1, null)")
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=postgres_database)
    tenant.load()
    copy = Tenant(settings, tenant.source, warehouse=postgres_database, name="copy")
    connection = psycopg2.connect(postgres_database)
    with connection, connection.cursor() as cursor:
        for schema in ("raw_shop", "fabric"):
            cursor.execute(f"create schema copy_{schema}")
            cursor.execute("select table_name from information_schema.tables where table_schema = %s", (f"acme_{schema}",))
            for (table,) in cursor.fetchall():
                cursor.execute(f"create table copy_{schema}.{table} as select * from acme_{schema}.{table}")
    connection.close()
    sqlite.run("insert into orders values (2, 1, null)")
    copy.load()
    assert copy.read("orders", "id") == [(1,), (2,)]
    assert tenant.read("orders", "id") == [(1,)]


def _fail(kind: type[FabricError], tenant: Tenant, **options: Any) -> FabricError:
    with pytest.raises(kind) as caught:
        tenant.load(**options)
    return caught.value


def _get_all_text(error: BaseException) -> str:
    """What any handler could print of an error: its chain and its attributes."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        parts += [str(current), repr(current), repr(vars(current))]
        current = current.__cause__ or current.__context__
    return "\n".join(parts)
