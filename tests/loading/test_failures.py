"""What a driver raised -> one of our errors, with the remedy that helps."""

import duckdb
import pytest

from fabric_assets.errors import DestinationError, SourceUnavailable
from fabric_assets.loading.failures import build_error
from fabric_assets.settings import Settings
from tests.loading.shop import Tenant


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
