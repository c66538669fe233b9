"""What a driver raised -> one of our errors, with the remedy that helps."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from fabric_assets.connectors.column_names import compose
from fabric_assets.errors import ConfigurationError, DestinationError, FabricError, InternalError, SourceError, SourceUnavailable
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.warehouse import Warehouse
from fabric_assets.settings import Settings
from tests.loading.shop import SourceDatabase, Tenant


@pytest.mark.parametrize("writing", [True, False])
def test_a_duckdb_without_memory_is_no_fault_of_the_rows_and_worth_another_try(settings: Settings, writing: bool) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with duckdb.connect(config={"memory_limit": "2MB", "temp_directory": ""}) as connection, pytest.raises(duckdb.OutOfMemoryException) as caught:
        connection.execute("create table rows_of_a_kilobyte as select i, repeat('x', 1000) as pad from range(1000000) as t(i)")
    error = build_error(caught.value, tenant=tenant, place="acme", writing=writing)
    assert isinstance(error, SourceUnavailable)
    assert "acme: this machine's memory is used up: Out of Memory Error" in error.message


def test_damage_that_a_load_comes_upon_is_called_damage(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    found = duckdb.IOException("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block at location 0")
    error = build_error(found, tenant=tenant, place="acme", writing=True)
    assert isinstance(error, DestinationError)
    assert error.message.startswith("acme: the tenant's DuckDB file is damaged: Corrupt database file")
    assert "restore the file from a backup" in error.remedy


@pytest.mark.parametrize("writing", [True, False])
def test_a_mistake_of_our_own_is_called_so_and_told_with_its_line(settings: Settings, writing: bool) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with pytest.raises(AttributeError) as caught:
        compose(5)  # type: ignore[arg-type]
    error = build_error(caught.value, tenant=tenant, place="acme", writing=writing)
    assert isinstance(error, InternalError)
    assert "acme: a fault of ETL Fabric (AttributeError at fabric_assets/connectors/column_names.py:" in error.message
    assert "report it" in error.remedy


def test_a_mistake_of_a_driver_is_none_of_ours(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    with pytest.raises(KeyError) as caught:
        {}["packet"]
    assert isinstance(build_error(caught.value, tenant=tenant, place="acme"), SourceError)


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
        from fabric_assets.connectors import sqlite_reader

        original = sqlite_reader.read
        monkeypatch.setattr(sqlite_reader, "read", read)
    else:
        place = {"begin": "group_load.StreamLoad.__init__", "take": "shaping.Shaper.shape", "commit": "stream_load.StreamLoad.finish"}[where]
        monkeypatch.setattr(f"fabric_assets.loading.{place}", fail)
    tenant = Tenant(settings, sqlite.build_source(orders={}) | {"timeout": "8s", "retries": {"max": 0}})
    with pytest.raises(kind) as caught:
        tenant.load()
    assert "took longer" not in str(caught.value)
    assert ("package is missing" in str(caught.value)) == isinstance(raised, ImportError)


@pytest.mark.parametrize("where", ["group_load.StreamLoad.__init__", "shaping.Shaper.shape", "load.open_source"])
def test_a_failure_that_the_ledger_cannot_take_is_said_in_one_form(
    sqlite: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise SourceError("gone")

    def drop_ledger(warehouse: Warehouse, *arguments: Any, **named: Any) -> Any:
        warehouse.run(lambda session: session.cursor().execute("drop table acme_fabric.loads"))
        return original(warehouse, *arguments, **named)

    sqlite.run("create table orders (id integer)")
    monkeypatch.setattr(f"fabric_assets.loading.{where}", fail)
    original = Warehouse.record_failure
    monkeypatch.setattr(Warehouse, "record_failure", drop_ledger)
    tenant = Tenant(settings, sqlite.build_source(orders={}))
    with pytest.raises(SourceError, match="^gone$"):
        tenant.load()
    (said,) = [message for message in tenant.messages if "ledger" in message]
    place, _, reason = said.partition(": the failure could not be written to the ledger: ")
    assert place == "tenant acme, source shop, stream orders"
    assert reason.startswith("the destination (duckdb) refuses the rows: ")
    assert "loads does not exist" in said
