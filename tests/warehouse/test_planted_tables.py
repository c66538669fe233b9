"""Objects that a tenant's models have made at its loaded tables: no row is silently lost or doubled, and the error names object and remedy.

Each case runs the statement of the remedy; the next load then loads the source's rows.
"""

import contextlib
import re
from typing import Any

import duckdb
import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.errors import DestinationError, FabricError
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

T = "acme_raw_shop.items"
MERGE = {"primary_key": "id", "cursor": {"field": "seq"}}
APPEND = {"cursor": {"field": "seq"}, "write_disposition": "append"}
ROWS = [(1, "changed"), (2, "b"), (3, "c"), (4, "new")]


def write_trigger(when: str, body: str, table: str = T) -> list[str]:
    function = "acme_raw_shop.planted"
    return [
        f"create function {function}() returns trigger language plpgsql as $$ begin {body} end $$",
        f"create trigger planted {when} on {table} for each row execute function {function}()",
    ]


class Shop:
    """A tenant that has loaded three rows, of which one has changed since; one row is new and one cannot be loaded."""

    def __init__(self, sqlite: SourceDatabase, settings: Settings, warehouse: str | None, stream: dict[str, Any]) -> None:
        self.warehouse = warehouse
        sqlite.run("create table items (id integer, v text, seq integer, total integer)")
        sqlite.fill("items", [(1, "a", 1, 1), (2, "b", 2, 2), (3, "c", 3, 3)])
        self.tenant = Tenant(settings, sqlite.build_source(items={**stream, "schema_contract": {"data_type": "discard"}}), warehouse=warehouse)
        self.tenant.load()
        if "primary_key" in stream:
            sqlite.run("update items set v = 'changed', seq = 4 where id = 1")
        sqlite.fill("items", [(4, "new", 5, 4), (5, "bad", 6, "a dozen")])

    def plant(self, *statements: str) -> None:
        if self.warehouse:
            with contextlib.closing(psycopg2.connect(self.warehouse)) as connection, connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            return
        with duckdb.connect(str(naming.warehouse_file(self.tenant.settings.data_dir, "acme"))) as connection:
            for statement in statements:
                connection.execute(statement)

    def fail(self, *, full_refresh: bool = False) -> FabricError:
        with pytest.raises(FabricError) as failed:
            self.tenant.load(full_refresh=full_refresh)
        return failed.value

    def remedy(self, error: FabricError) -> None:
        """Do what the error's remedy says."""
        statements = [part for part in re.split(r"; (?:then )?|, and ", error.remedy) if part.startswith(("drop ", "alter ", "delete "))]
        assert statements, error
        self.plant(*statements)

    def check_whole(self, *, full_refresh: bool = False) -> None:
        report = self.tenant.load(full_refresh=full_refresh)["items"]
        assert (report.record.rows_rejected, report.warnings) == (0 if full_refresh else 1, ())
        assert self.tenant.read("items", "id", "v")[: len(ROWS)] == ROWS
        assert report.rows_total == len(ROWS) + full_refresh


@pytest.fixture
def shop(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> Shop:
    return Shop(sqlite, settings, postgres_database, MERGE)


REFUSING = {
    "the constraint planted (CHECK ((id < 4)))": [f"alter table {T} add constraint planted check (id < 4)"],
    "the constraint items_id_fkey": [
        "create table acme_raw_shop.other (id bigint primary key)",
        "insert into acme_raw_shop.other values (1), (2), (3)",
        f"alter table {T} add foreign key (id) references acme_raw_shop.other",
    ],
    "a foreign key of acme_raw_shop.other to it": [
        f"create unique index on {T} (id)",
        f"alter table {T} add constraint known unique (id)",
        f"create table acme_raw_shop.other (id bigint references {T} (id))",
        "insert into acme_raw_shop.other values (1)",
    ],
    "the index planted": [f"update {T} set v = 'changed' where id = 2", f"create unique index planted on {T} (v)"],
    "the generated column v": [f"alter table {T} drop column v", f"alter table {T} add column v text generated always as ('x') stored"],
    "the not null column n": [f"alter table {T} add column n bigint not null default 1", f"alter table {T} alter column n drop default"],
    "the identity column n": [f"alter table {T} add column n bigint generated always as identity"],
    "the trigger planted": write_trigger("before delete", "return null;"),
    "the rule planted": [f"create rule planted as on delete to {T} do instead nothing"],
}


@pytest.mark.parametrize("named", REFUSING)
def test_postgres_objects_that_refuse_rows_are_named_with_the_statement_that_drops_them(shop: Shop, named: str) -> None:
    shop.plant(*REFUSING[named])
    before = shop.tenant.read("items", "id")
    error = shop.fail()
    assert type(error) is DestinationError
    assert f"{T} has {named}" in error.message
    assert shop.tenant.read("items", "id") == before
    shop.remedy(error)
    if named == "the generated column v":
        shop.tenant.load(full_refresh=True)
        assert shop.tenant.read("items", "id", "v")[:4] == ROWS
    elif named in {"the index planted", "the not null column n"}:
        assert shop.tenant.load()["items"].rows_total == 4
    else:
        shop.check_whole()


DUCKDB_REFUSING = {
    "the constraint CHECK((id < 4))": "id bigint check (id < 4), v varchar, seq bigint, total bigint",
    "the constraint UNIQUE(v)": "id bigint, v varchar unique, seq bigint, total bigint",
    "a generated column": "id bigint, v varchar generated always as ('x'), seq bigint, total bigint",
    "the column v of the type ENUM('a', 'b', 'c')": "id bigint, v enum('a', 'b', 'c'), seq bigint, total bigint",
}


@pytest.mark.parametrize("named", DUCKDB_REFUSING)
def test_the_error_names_a_duckdb_table_that_was_recreated_with_objects_that_refuse_rows(sqlite: SourceDatabase, settings: Settings, named: str) -> None:
    shop = Shop(sqlite, settings, None, MERGE)
    columns = "id, seq, total" if "generated" in named else "id, v, seq, total"
    made = [f"create table {T} ({DUCKDB_REFUSING[named]})", f"insert into {T} ({columns}) select {columns} from acme_raw_shop.former"]
    shop.plant(f"alter table {T} rename to former", *made)
    if "UNIQUE" in named:
        shop.plant(f"update {T} set v = 'changed' where id = 2")
    error = shop.fail()
    assert f"{T} has {named}" in error.message
    shop.remedy(error)
    shop.check_whole(full_refresh=True)


@pytest.mark.parametrize(
    ("warehouse", "kind"),
    [("duckdb", "view"), ("postgres", "view"), ("postgres", "materialized view"), ("postgres", "sequence")],
    indirect=["warehouse"],
)
@pytest.mark.parametrize("table", [T, "acme_fabric.stream_state", "acme_fabric.rejected_rows", "acme_raw_shop._dlt_loads"])
def test_another_object_in_the_place_of_a_table_is_named(sqlite: SourceDatabase, settings: Settings, warehouse: str | None, table: str, kind: str) -> None:
    shop, schema = Shop(sqlite, settings, warehouse, MERGE), table.partition(".")[0]
    made = f"create sequence {table}" if kind == "sequence" else f"create {kind} {table} as select * from {schema}.former"
    shop.plant(f"alter table {table} rename to former", made)
    for full_refresh in (False, True):
        error = shop.fail(full_refresh=full_refresh)
        assert f"{table} is a {kind}" in error.message
        assert error.remedy.replace('"', "") == f"drop {kind} {table}"
    shop.remedy(error)
    shop.plant(f"alter table {schema}.former rename to {table.partition('.')[2]}")
    shop.check_whole()


@pytest.mark.parametrize("table", ["stream_state", "loads", "rejected_rows", "imported_files"])
@pytest.mark.parametrize("kind", ["trigger", "rule"])
def test_objects_that_remove_rows_of_platform_tables_are_refused_before_a_rejected_row_is_lost(shop: Shop, table: str, kind: str) -> None:
    planted = f"acme_fabric.{table}"
    rule = [f"create rule planted as on insert to {planted} do instead nothing"]
    shop.plant(*(write_trigger("before insert or update", "return null;", planted) if kind == "trigger" else rule))
    error = shop.fail()
    assert f"{planted} has the {kind} planted" in error.message
    assert error.remedy == f"drop {kind} planted on {planted}"
    shop.remedy(error)
    shop.check_whole()
    assert shop.tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(1,)]


def test_a_trigger_that_changes_values_is_a_warning_of_each_load(shop: Shop) -> None:
    shop.plant(*write_trigger("before insert", "new.v := upper(new.v); return new;"))
    for rows in (4, 1):
        report = shop.tenant.load()["items"]
        assert report.record.rows_read == rows
        (warning,) = report.warnings
        assert f"{T} has the trigger planted, which no load has made and which can change the rows of loads" in warning
        assert f"drop trigger planted on {T}" in warning
    shop.plant(f"alter table {T} disable trigger planted")
    assert shop.tenant.load()["items"].warnings == ()


@pytest.mark.parametrize("change", [f"insert into {T} select new.id + 50, new.v, new.seq", f"delete from {T} where id = 2"])
@pytest.mark.parametrize("full_refresh", [False, True])
def test_a_trigger_that_adds_rows_or_takes_some_away_is_found_by_counting(
    sqlite: SourceDatabase, settings: Settings, postgres_database: str, change: str, full_refresh: bool
) -> None:
    shop = Shop(sqlite, settings, postgres_database, APPEND)
    shop.plant(*write_trigger("after insert", f"if pg_trigger_depth() = 1 then {change}; end if; return null;"))
    if full_refresh:
        # Of the table's own types, so that the table itself takes the new rows.
        sqlite.run("delete from items where id = 5")
    error = shop.fail(full_refresh=full_refresh)
    assert f"{T} has the trigger planted" in error.message
    assert shop.tenant.read("items", "id") == [(1,), (2,), (3,)]
    shop.remedy(error)
    assert shop.tenant.load(full_refresh=full_refresh)["items"].rows_total == 4


def test_files_whose_rows_a_rule_keeps_from_being_replaced_are_not_doubled(settings: Settings, postgres_database: str) -> None:
    folder = settings.data_dir / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id\n1\n2\n")
    tenant = Tenant(settings, {"type": "files", "path": "in", "streams": {"items": {"glob": "*.csv", "format": "csv"}}}, warehouse=postgres_database)
    tenant.load()
    tenant.change(f"create rule planted as on delete to {T} do instead nothing")
    (folder / "a.csv").write_text("id\n1\n2\n3\n")
    report = tenant.load()["items"]
    assert f"{T} has the rule planted" in report.warnings[0]
    assert report.rows_total == 5, "said, and not in silence"


def test_rows_that_forced_row_security_hides_are_an_error(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    role = f"plain_{postgres_database.rpartition('/')[2]}"
    with contextlib.closing(psycopg2.connect(postgres_database)) as admin, admin, admin.cursor() as cursor:
        cursor.execute(f"create role {role} login")
        cursor.execute(f"grant create on database {postgres_database.rpartition('/')[2]} to {role}")
    try:
        shop = Shop(sqlite, settings, re.sub(r"//[^@]*@", f"//{role}@", postgres_database), MERGE)
        for table in (T, "acme_fabric.rejected_rows", "acme_fabric.stream_state"):
            shop.plant(f"alter table {table} enable row level security, force row level security")
            shop.plant(f"create policy looks on {table} for select using (false)", f"create policy writes on {table} for insert with check (true)")
            error = shop.fail()
            assert f"{table} has forced row security" in error.message
            shop.remedy(error)
        shop.check_whole()
    finally:
        with contextlib.closing(psycopg2.connect(postgres_database)) as admin, admin, admin.cursor() as cursor:
            cursor.execute(f"drop owned by {role} cascade")
            cursor.execute(f"drop role {role}")


@pytest.mark.parametrize("damage", ["state = '{nope'", "state = null", "state = '[1]'", "version = null"])
def test_a_damaged_state_is_named_with_its_remedy(sqlite: SourceDatabase, settings: Settings, warehouse: str | None, damage: str) -> None:
    shop = Shop(sqlite, settings, warehouse, MERGE)
    shop.plant(f"update acme_fabric.stream_state set {damage}")
    error = shop.fail()
    assert type(error) is DestinationError
    assert "acme_fabric.stream_state has a damaged row for shop.items" in error.message
    shop.remedy(error)
    shop.check_whole(full_refresh=True)


def test_a_second_row_of_a_state_is_named(sqlite: SourceDatabase, settings: Settings) -> None:
    shop = Shop(sqlite, settings, None, MERGE)
    state = "acme_fabric.stream_state"
    shop.plant(f"alter table {state} rename to former", f"create table {state} as from acme_fabric.former union all from acme_fabric.former")
    error = shop.fail()
    assert "acme_fabric.stream_state has 2 rows for shop.items" in error.message
    shop.remedy(error)
    shop.check_whole(full_refresh=True)
