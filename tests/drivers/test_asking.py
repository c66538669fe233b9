"""One way to ask a database: the same rows from each destination, and nothing where nothing is yet."""

from fabric_assets.drivers.asking import has_table
from fabric_assets.drivers.destinations import open_ask
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant


def test_a_loaded_tenant_answers_alike_from_each_destination(sqlite: SourceDatabase, settings: Settings, warehouse: str | None) -> None:
    sqlite.run("create table orders (id integer)", "insert into orders values (1), (2)")
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=warehouse)
    tenant.load()
    with open_ask(tenant.config, settings) as ask:
        assert ask("select id from acme_raw_shop.orders order by id") == [(1,), (2,)]
        assert ask("select id from acme_raw_shop.orders where id = 3") == []
        assert [has_table(ask, "acme_raw_shop", table) for table in ("orders", "order's")] == [True, False]


def test_a_tenant_without_a_file_answers_with_nothing(sqlite: SourceDatabase, settings: Settings) -> None:
    with open_ask(Tenant(settings, sqlite.build_source(orders={})).config, settings) as ask:
        assert (ask("select 1"), has_table(ask, "acme_fabric", "loads")) == ([], False)
    assert not (settings.data_dir / "warehouse" / "acme.duckdb").exists()
