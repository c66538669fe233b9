"""Cursors whose order is not the age of their rows: refused for a new stream, a warning for one that was loaded before."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fabric_assets.connectors.cursor_proof import CursorProof
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.rows.arrow_types import TEXT
from fabric_assets.settings import Settings
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, Tenant


def make_tenant(database: SourceDatabase, settings: Settings, **cursor: Any) -> Tenant:
    return Tenant(settings, {**database.build_source(rows={"primary_key": "id", "cursor": {"field": "c", **cursor}}), "late_rows": False})


def fill(database: SourceDatabase, *values: str, declared: str = "varchar(60)") -> None:
    database.run(f"create table {quote(database)} (id integer, c {declared})")
    for number, value in enumerate(values):
        database.fill(quote(database), [(number, value)])


def quote(database: SourceDatabase) -> str:
    return "`rows`" if "mysql" in database.url else '"rows"'


WORDS = {
    "words": ("card", "cash", "paypal"),
    "numbers of several widths": ("9", "10", "11"),
    "numbers without a leading zero": ("100", "101", "999"),
    "numbers of one digit": ("1", "2", "3"),
    "named numbers": ("evt_9", "evt_10"),
    "days of another order": ("01.02.2024", "31.01.2024"),
    "an empty text among dates": ("2024-01-31", ""),
    "random ids": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "0b1eebc9-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "hours of twelve": ("2024-01-31 01:00 PM", "2024-01-31 11:00 AM"),
    "several zones": ("2024-01-31T10:00:00+02:00", "2024-01-31T09:00:00Z"),
}
ORDERED = {
    "days": ("2024-01-31", "2024-02-01"),
    "months": ("2024-01", "2024-02"),
    "moments": ("2024-01-31T10:00:00Z", "2024-02-01T10:00:00Z"),
    "moments of another spelling": ("2024-01-31 10:00:00.123456", "2024-02-01 10:00:00"),
    "moments with an offset": ("2024-01-31T10:00:00+02:00", "2024-02-01T10:00+02:00"),
    "times": ("09:00:00", "10:30"),
    "numbers with zeros": ("00009", "00010", "99999"),
    "compact days": ("20240131", "20240201"),
    "compact moments": ("20240131100000", "20240201100000"),
    "broken numbers": ("0009.5", "0010.25"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_text_that_does_not_grow_with_time_is_refused_as_a_cursor(sqlite: SourceDatabase, settings: Settings, kind: str) -> None:
    fill(sqlite, *WORDS[kind])
    tenant = make_tenant(sqlite, settings)
    with pytest.raises(DataError, match="stream rows: the cursor c holds") as caught:
        tenant.load()
    assert "cursor: {field: c, trust: true}" in caught.value.remedy
    assert tenant.ask("select count(*) from information_schema.tables where table_schema = 'acme_raw_shop' and table_name = 'rows'") == [(0,)]
    trusting = make_tenant(sqlite, settings, trust=True)
    assert trusting.load()["rows"].rows_total == len(WORDS[kind])
    assert trusting.load()["rows"].warnings == ()


@pytest.mark.parametrize("kind", ORDERED)
def test_text_whose_order_is_its_age_is_a_cursor(sqlite: SourceDatabase, settings: Settings, kind: str) -> None:
    fill(sqlite, *ORDERED[kind][:-1])
    tenant = make_tenant(sqlite, settings)
    tenant.load()
    sqlite.fill("rows", [(9, ORDERED[kind][-1]), (10, None)])
    report = tenant.load()["rows"]
    assert (report.rows_total, report.warnings) == (len(ORDERED[kind]) + 1, ())


def test_each_database_refuses_words(database: SourceDatabase, settings: Settings) -> None:
    fill(database, "card", "cash")
    with pytest.raises(DataError, match="the cursor c holds 'card', which is not a date, a time or a number with leading zeros"):
        make_tenant(database, settings).load()


def test_each_database_takes_dates_and_padded_numbers(database: SourceDatabase, settings: Settings) -> None:
    fill(database, "0098", "0099")
    tenant = make_tenant(database, settings)
    tenant.load()
    database.fill(quote(database), [(7, "0100")])
    assert tenant.load()["rows"].rows_total == 3
    # One digit more comes before all of them: it is met, and said, in each load.
    database.fill(quote(database), [(8, "00000")])
    (warning,) = tenant.load()["rows"].warnings
    assert "the cursor c holds numbers as text of 4 and of 5 digits: 10 comes before 9: new rows with a lower value are never loaded" in warning


@pytest.mark.parametrize("kind", ["enum", "domain over an enum", "boolean"])
def test_flags_and_enums_are_refused_by_their_declaration(postgres_database: str, mariadb_url: str, settings: Settings, kind: str, tmp_path: Path) -> None:
    postgres = SourceDatabase(postgres_database, settings)
    postgres.run("create type method as enum ('2024-01-01', '2024-01-02')", "create domain way as method")
    declared = {"enum": "method", "domain over an enum": "way", "boolean": "boolean"}[kind]
    value = "true" if kind == "boolean" else "'2024-01-01'"
    postgres.run(f"create table rows (id integer, c {declared})", f"insert into rows values (1, {value})")
    tenant = make_tenant(postgres, settings)
    shown = {"enum": "ENUM method", "domain over an enum": ".*", "boolean": "BOOLEAN"}[kind]
    with pytest.raises((DataError, ConfigurationError), match=f"the cursor c has the type {shown}, whose values do not grow with time"):
        tenant.load()
    if kind != "boolean":
        assert make_tenant(postgres, settings, trust=True).load()["rows"].rows_total == 1


@pytest.mark.parametrize("declared", ["enum('2024-01-01', '2024-01-02')", "set('2024-01-01')", "boolean"])
def test_flags_and_enums_of_mariadb_are_refused(mariadb_url: str, settings: Settings, declared: str) -> None:
    mariadb = SourceDatabase(mariadb_url, settings)
    mariadb.run(f"create table `rows` (id integer, c {declared})", f"insert into `rows` values (1, {'1' if declared == 'boolean' else repr('2024-01-01')})")
    with pytest.raises(DataError, match="the cursor c has the type .*, whose values do not grow with time"):
        make_tenant(mariadb, settings).load()
    assert make_tenant(mariadb, settings, trust=True).load()["rows"].rows_total == 1


@pytest.mark.parametrize("declared", ["enum('2024-01-01', '2024-01-02')", "boolean"])
def test_flags_and_enums_of_duckdb_are_refused(tmp_path: Path, settings: Settings, declared: str) -> None:
    duck = DuckSource(tmp_path / "shop.duckdb", settings)
    duck.run(f'create table "rows" (id integer, c {declared})', f'insert into "rows" values (1, {"true" if declared == "boolean" else repr("2024-01-01")})')
    with pytest.raises((DataError, ConfigurationError), match="the cursor c has the type"):
        make_tenant(duck, settings).load()


def test_a_stream_that_was_loaded_before_is_warned_for_one_release(sqlite: SourceDatabase, settings: Settings) -> None:
    fill(sqlite, "card", "cash")
    make_tenant(sqlite, settings, trust=True).load()
    # As it was loaded by the version before: its state has a value, and nothing vouches for the cursor.
    tenant = make_tenant(sqlite, settings)
    for full_refresh in (False, True):
        sqlite.fill("rows", [(7 + full_refresh, "paypal")])
        report = tenant.load(full_refresh=full_refresh)["rows"]
        (warning,) = report.warnings
        assert "the cursor c holds 'ca" in warning
        assert "From the next minor version on such a load is refused" in warning
        assert "trust: true" in warning
        assert report.rows_loaded > 0


@pytest.mark.parametrize(("declared", "expression", "warns"), [("integer", "i % 3", True), ("integer", "i", False), ("date", "date('2024-01-01')", False)])
def test_few_values_in_many_rows_are_a_warning_of_the_first_load(
    sqlite: SourceDatabase, settings: Settings, declared: str, expression: str, warns: bool
) -> None:
    sqlite.run(f"create table rows (id integer, c {declared})")
    sqlite.run(f"with recursive n(i) as (select 1 union all select i + 1 from n where i < 8332) insert into rows select i, {expression} from n")
    tenant = make_tenant(sqlite, settings)
    report = tenant.load()["rows"]
    assert report.rows_total == 8332
    assert [warning.partition(".")[0] for warning in report.warnings] == (["the cursor c has 3 values in 8,332 rows"] if warns else [])
    assert tenant.load()["rows"].warnings == ()
    assert make_tenant(sqlite, settings, trust=True).load(full_refresh=True)["rows"].warnings == ()


def test_a_few_rows_prove_nothing(sqlite: SourceDatabase, settings: Settings) -> None:
    fill(sqlite, "1", "1", "1", "2", declared="integer")
    assert make_tenant(sqlite, settings).load()["rows"].warnings == ()


def test_a_column_with_nulls_stays_a_cursor(database: SourceDatabase, settings: Settings) -> None:
    fill(database, "2024-01-31")
    database.fill(quote(database), [(5, None)])
    tenant = make_tenant(database, settings)
    assert tenant.load()["rows"].rows_total == 2


@pytest.mark.parametrize("last", [None, "0098"], ids=["in one load", "since the last one"])
def test_numbers_of_another_width_are_met_also_where_no_batch_has_both(last: str | None) -> None:
    warnings: list[str] = []
    proof = CursorProof("c", TEXT, is_new=last is None, where="here", warnings=warnings)
    proof.begin(last)
    if last is None:
        proof.check(pa.chunked_array([["0098"]]))
        with pytest.raises(DataError, match="of 4 and of 5 digits"):
            proof.check(pa.chunked_array([["00099"]]))
    else:
        proof.check(pa.chunked_array([["00099"]]))
        assert "of 4 and of 5 digits" in warnings[0]
