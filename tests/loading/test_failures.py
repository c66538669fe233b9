"""What a driver raised -> one of our errors, with the remedy that helps."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from fabric_assets import masking
from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.errors import ConfigurationError, DestinationError, FabricError, InternalError, SourceError, SourceUnavailable
from fabric_assets.loading.drift import describe_drift
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.load import StreamFailure, join_failures
from fabric_assets.rows.column_names import compose
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.settings import Settings
from fabric_assets.warehouse.warehouse import Warehouse
from tests.support.shop import SourceDatabase, Tenant
from tests.support.tracebacks import read_traceback


@pytest.mark.parametrize("writing", [True, False])
def test_a_duckdb_without_memory_is_a_retriable_error_and_does_not_blame_the_rows(settings: Settings, writing: bool) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with duckdb.connect(config={"memory_limit": "2MB", "temp_directory": ""}) as connection, pytest.raises(duckdb.OutOfMemoryException) as caught:
        connection.execute("create table rows_of_a_kilobyte as select i, repeat('x', 1000) as pad from range(1000000) as t(i)")
    error = build_error(caught.value, tenant=tenant, settings=settings, where="acme", writing=writing)
    assert isinstance(error, SourceUnavailable)
    assert "acme: this machine's memory is used up: Out of Memory Error" in error.message


def test_a_damaged_file_that_a_load_finds_is_reported_as_damaged(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    found = duckdb.IOException("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block at location 0")
    error = build_error(found, tenant=tenant, settings=settings, where="acme", writing=True)
    assert isinstance(error, DestinationError)
    assert error.message.startswith("acme: the tenant's DuckDB file is damaged: Corrupt database file")
    assert "restore the file from a backup" in error.remedy


@pytest.mark.parametrize("writing", [True, False])
def test_an_internal_error_is_reported_as_such_with_its_line(settings: Settings, writing: bool) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with pytest.raises(AttributeError) as caught:
        compose(5)  # type: ignore[arg-type]
    error = build_error(caught.value, tenant=tenant, settings=settings, where="acme", writing=writing)
    assert isinstance(error, InternalError)
    assert "acme: a fault of ETL Fabric (AttributeError at fabric_assets/rows/column_names.py:" in error.message
    assert "report it" in error.remedy


def test_an_error_of_pythons_library_about_our_argument_is_an_internal_error(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with pytest.raises(TypeError) as caught:
        StreamNames("orders", layout={}, kept={"x"})  # type: ignore[arg-type] - json.loads takes no set
    error = build_error(caught.value, tenant=tenant, settings=settings, where="acme")
    assert isinstance(error, InternalError)
    assert "acme: a fault of ETL Fabric (TypeError at fabric_assets/rows/stream_names.py:" in error.message
    assert "found = json.loads(kept)" in error.traceback


def test_the_traceback_of_our_mistake_is_kept_without_secrets(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    masking.remember("hunter2hunter2")
    with pytest.raises(KeyError) as caught:
        list(describe_drift([SchemaChange("hunter2hunter2", "a", "type_changed", values=1)], SchemaContract(), tables={}, reads_all=False))
    error = build_error(caught.value, tenant=tenant, settings=settings, where="acme")
    assert "fabric_assets/loading/drift.py" in error.traceback
    assert "KeyError: '***'" in error.traceback.splitlines()[-1]
    assert "hunter2" not in f"{error}{error.traceback}"


# A name of a module that is not what the code takes it for, so that our own line fails.
FAULTS = {
    "reader": "connectors.sql_database.sqlite_reader._MOST_ROWS",
    "shaping": "loading.shaping.shaper.build_frame",
    "commit": "warehouse.transaction.ledger",
}


@pytest.mark.parametrize("where", FAULTS)
def test_an_internal_error_in_a_load_is_reported_as_such_and_nothing_is_kept(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    sqlite.run("create table orders (id integer)", "insert into orders values (1)", "create table items (id integer)", "insert into items values (1)")
    tenant = Tenant(settings, sqlite.build_source(orders={}, items={}) | {"retries": {"max": 0}}, warehouse=warehouse)
    module = f"fabric_assets/{'/'.join(FAULTS[where].split('.')[:-1])}.py"
    with monkeypatch.context() as patch:
        patch.setattr(f"fabric_assets.{FAULTS[where]}", None)
        with pytest.raises(InternalError) as caught:
            tenant.load()
    assert "2 of 2 streams failed" in caught.value.message
    assert f"a fault of ETL Fabric (TypeError at {module}:" in caught.value.message or f"(AttributeError at {module}:" in caught.value.message
    assert f'{module}", line ' in caught.value.traceback
    assert tenant.ask("select distinct status from acme_fabric.loads") == [("failed",)]
    # Each stream's row of the ledger names the file of its own fault.
    errors = [error for (error,) in tenant.ask("select error from acme_fabric.loads")]
    assert len({read_traceback(settings, "acme", error) for error in errors}) == len(errors) == 2
    assert all(error.partition("(traceback: ")[2].partition(")")[0] in caught.value.message for error in errors)
    tenant.load()
    assert (tenant.read("orders", "id"), tenant.read("items", "id")) == ([(1,)], [(1,)])


def test_an_internal_error_during_an_outage_is_retriable_and_keeps_its_traceback() -> None:
    outage = StreamFailure("a", SourceUnavailable("acme: no connection"))
    fault = StreamFailure("b", InternalError("acme: a fault of ETL Fabric", traceback="line 1\n"))
    refusal = StreamFailure("c", SourceError("acme: no such table"))
    joined = join_failures([refusal, fault, outage], of=3)
    assert (type(joined), joined.traceback) == (SourceUnavailable, "line 1\n")
    joined = join_failures([refusal, fault], of=2)
    assert (type(joined), joined.traceback) == (InternalError, "line 1\n")


def test_an_error_of_a_driver_is_not_an_internal_error(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with pytest.raises(KeyError) as caught:
        {}["packet"]
    assert isinstance(build_error(caught.value, tenant=tenant, settings=settings, where="acme"), SourceError)


class Panic(BaseException):
    """As Rust's libraries raise one: no Exception."""


@pytest.mark.parametrize("where", ["begin", "read", "read_later", "take", "commit"])
@pytest.mark.parametrize(("raised", "kind"), [(ImportError("No module named 'x'"), ConfigurationError), (Panic("boom"), FabricError)])
def test_whatever_ends_a_thread_the_load_does_not_wait_for_its_time_out(
    sqlite: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str, raised: BaseException, kind: type[FabricError]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise raised

    def read(*_: Any, **__: Any) -> Iterator[Any]:
        if where == "read_later":
            yield from original(*_, **__)
        raise raised

    sqlite.run("create table orders (id integer)", "insert into orders values (1)")
    if where.startswith("read"):
        from fabric_assets.connectors.sql_database import sqlite_reader

        original = sqlite_reader.read
        monkeypatch.setattr(sqlite_reader, "read", read)
    else:
        step = {"begin": "group_load.StreamLoad.__init__", "take": "shaping.shaper.Shaper.shape", "commit": "stream_load.StreamLoad.finish"}[where]
        monkeypatch.setattr(f"fabric_assets.loading.{step}", fail)
    tenant = Tenant(settings, sqlite.build_source(orders={}) | {"timeout": "8s", "retries": {"max": 0}})
    with pytest.raises(kind) as caught:
        tenant.load()
    assert "took longer" not in str(caught.value)
    assert ("package is missing" in str(caught.value)) == isinstance(raised, ImportError)


@pytest.mark.parametrize("where", ["group_load.StreamLoad.__init__", "shaping.shaper.Shaper.shape", "leased_load.open_source"])
def test_a_failure_that_the_ledger_cannot_record_is_always_reported_in_the_same_form(
    sqlite: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise SourceError("gone")

    def drop_ledger(warehouse: Warehouse, *arguments: Any, **named: Any) -> Any:
        warehouse.run(lambda session: session.ask("drop table acme_fabric.loads"))
        return original(warehouse, *arguments, **named)

    sqlite.run("create table orders (id integer)")
    monkeypatch.setattr(f"fabric_assets.loading.{where}", fail)
    original = Warehouse.record_failure
    monkeypatch.setattr(Warehouse, "record_failure", drop_ledger)
    tenant = Tenant(settings, sqlite.build_source(orders={}))
    with pytest.raises(SourceError, match="^gone$"):
        tenant.load()
    (said,) = [message for message in tenant.messages if "ledger" in message]
    where, _, reason = said.partition(": the failure could not be written to the ledger: ")
    assert where == "tenant acme, source shop, stream orders"
    assert reason.startswith("the destination (duckdb) refuses the rows: ")
    assert "loads does not exist" in said
