"""What a driver raised -> one of our errors, with the remedy that helps."""

import duckdb
import pytest

from fabric_assets.errors import SourceUnavailable
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
