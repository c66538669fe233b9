"""Each stream keeps the version of its value forms: old tables the first one, new tables and full refreshes the present one."""

import json
from pathlib import Path

import pytest

from fabric_assets.connectors.value_forms import CURRENT, FIRST
from fabric_assets.settings import Settings
from tests.loading.shop import SourceDatabase, Tenant

MERGE = {"primary_key": "id"}


def forget_versions(tenant: Tenant) -> None:
    """Bring the platform's tables to the shape in which the release before versions left them."""
    for table in ("stream_state", "loads"):
        tenant.change(f"alter table acme_fabric.{table} drop column value_forms")


def get_version(tenant: Tenant, stream: str = "orders") -> tuple[int, int]:
    """What the state says, and what the last load says."""
    (state,) = tenant.ask(f"select value_forms from acme_fabric.stream_state where stream = '{stream}'")
    (load,) = tenant.ask(f"select value_forms from acme_fabric.loads where stream = '{stream}' order by loaded_at desc limit 1")
    return state[0], load[0]


@pytest.fixture
def tenant(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> Tenant:
    sqlite.run("create table orders (id integer primary key)", "insert into orders values (1)")
    return Tenant(settings, sqlite.build_source(orders=MERGE), warehouse=warehouse)


def test_a_new_table_has_the_present_forms(tenant: Tenant) -> None:
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)


def test_a_table_of_an_earlier_release_keeps_its_forms_until_a_full_refresh(tenant: Tenant) -> None:
    tenant.load()
    forget_versions(tenant)
    for _ in range(2):
        tenant.load()
        assert get_version(tenant) == (FIRST, FIRST)
    tenant.load(full_refresh=True)
    assert get_version(tenant) == (CURRENT, CURRENT)


def test_a_table_that_was_dropped_by_hand_is_made_with_the_present_forms(tenant: Tenant) -> None:
    tenant.load()
    forget_versions(tenant)
    tenant.load()
    tenant.change("drop table acme_raw_shop.orders")
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)


@pytest.mark.parametrize("version", [FIRST, CURRENT])
def test_a_state_that_is_lost_takes_no_version_with_it(tenant: Tenant, version: int) -> None:
    tenant.load()
    if version == FIRST:
        forget_versions(tenant)
        tenant.load()
    tenant.change("delete from acme_fabric.stream_state")
    tenant.load()
    assert get_version(tenant) == (version, version)


def test_a_full_refresh_that_meets_no_rows_keeps_the_columns_and_their_forms(warehouse: str | None, settings: Settings) -> None:
    folder = settings.data_dir / "exports"
    folder.mkdir()
    write_lines(folder / "a.jsonl", {"id": 1})
    source = {"type": "files", "path": "exports", "streams": {"orders": {"glob": "*.jsonl", "format": "jsonl", "primary_key": "id"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    write_lines(folder / "a.jsonl")
    tenant.load(full_refresh=True)
    assert tenant.ask("select count(*) from acme_raw_shop.orders") == [(0,)]
    assert get_version(tenant) == (FIRST, FIRST)


def write_lines(path: Path, *rows: dict[str, int]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
