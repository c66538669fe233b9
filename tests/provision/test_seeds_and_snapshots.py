"""Seeds and snapshots of tenants on Postgres: provisioned, walled, read and offboarded like every other schema of theirs."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow.parquet as pq
import pytest

from fabric_assets.config.base import SecretRef
from fabric_assets.isolation.check import check_isolation
from fabric_assets.security.secrets import resolve_secret
from tests.faults.processes import Case, Process
from tests.provision.conftest import ManagedWarehouse, build_tenant, run_fabric

pytestmark = [pytest.mark.xdist_group("provision"), pytest.mark.timeout(400)]

Start = Callable[..., Process]
SELECT = ["staging.shop", "product_prices", "ad_channels"]
PRICES = "select price, dbt_valid_to is null from acme_snapshots.product_prices where product_id = 'JAF-1' order by dbt_valid_from"
SCHEMAS = "select nspname::text from pg_namespace where nspname ~ '^acme_' order by 1"


def call(start: Start, *command: str, environ: Mapping[str, str] = {}) -> tuple[int | None, str]:
    process = start(Case(command=command), environ=environ)
    return process.wait(240), process.log + "".join(process.output)


def build(destination: dict[str, Any] | None = None, *, select: list[str]) -> dict[str, Any]:
    return build_tenant() | {"transform": {"select": select}} | ({"destination": destination} if destination else {})


def test_a_managed_tenants_seeds_and_snapshots_are_provisioned_walled_and_offboarded(
    warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path], start: Start, tmp_path: Path
) -> None:
    write_tenant("acme", build(select=["staging.shop"]))
    write_tenant("globex", build(select=["staging.shop"]))
    assert run_fabric("provision", "--all").code == 0
    write_tenant("acme", build(select=SELECT))
    code, text = call(start, "run", "acme")
    assert code == 1
    assert "there is no schema acme_seeds for its models or tests" in text
    assert "fabric provision acme" in text
    assert run_fabric("provision", "acme").code == 0
    for full_refresh in ([], ["--full-refresh"]):
        code, text = call(start, "run", "acme", *full_refresh)
        assert code == 0, text
        with sqlite3.connect(shop) as database:
            database.execute("update products set price = 1100 where sku = 'JAF-1'")
    assert run_fabric("provision", "acme", "--check").lines == []
    assert warehouse.run_as("acme", PRICES) == [(10, False), (11, True)]

    reader = {"user": "fabric_acme_bi", "password": resolve_secret(SecretRef(secret="warehouse_reader"), tenant="acme", settings=warehouse.settings)}
    assert warehouse.run(PRICES, **reader) == [(10, False), (11, True)]
    assert warehouse.run("select count(*) from acme_seeds.ad_channels", **reader) == [(4,)]
    for statement in (PRICES, "select * from acme_seeds.ad_channels", "delete from acme_snapshots.product_prices", "create table acme_seeds.t (i int)"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.run_as("globex", statement)
    report = check_isolation(warehouse.get_config("globex"), warehouse.settings)
    assert {attempt.target for attempt in report.attempts} >= {"acme_snapshots.product_prices", "acme_seeds.ad_channels", "schema acme_snapshots"}
    assert [str(attempt) for attempt in report.attempts if attempt.outcome != "denied"] == []

    answer = run_fabric("offboard", "acme", "--yes", "--json", "--export", str(tmp_path / "out"))
    assert answer.code == 0, answer.err
    deleted = {(each["schema"], each["table"]): each["rows"] for each in answer.json["deleted"]["relations"]}
    assert (deleted["acme_snapshots", "product_prices"], deleted["acme_seeds", "ad_channels"], deleted["acme_fabric", "snapshots"]) == (3, 4, 1)
    assert answer.json["proof"]["left"] == []
    assert warehouse.run(SCHEMAS) == []
    exported = pq.read_table(tmp_path / "out" / "acme" / "acme_snapshots" / "product_prices.parquet").to_pylist()
    assert sorted((row["product_id"], row["price"] == 11, row["dbt_valid_to"] is None) for row in exported) == [
        ("BEV-1", False, True),
        ("JAF-1", False, False),
        ("JAF-1", True, True),
    ]


def test_a_snapshot_that_the_tenant_no_longer_selects_is_offboarded_where_the_operators_login_made_it(
    warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_LOGIN", warehouse.get_url())
    destination = {"type": "postgres", "url": {"env": "WAREHOUSE_LOGIN"}}
    write_tenant("acme", build(destination, select=["+product_prices"]))
    code, text = call(start, "run", "acme")
    assert code == 0, text
    write_tenant("acme", build(destination, select=["staging.shop"]))
    code, text = call(start, "run", "acme", "--full-refresh")
    assert code == 0, text
    assert warehouse.run(PRICES) == [(10, True)]
    # Nobody's run has made these: a name alone proves nothing.
    warehouse.run("create schema acme_seeds", "create schema other_snapshots")
    answer = run_fabric("offboard", "acme", "--yes", "--json")
    assert answer.code == 0, answer.err
    assert warehouse.run(SCHEMAS) == [("acme_seeds",)]
    assert {(each["schema"], each["table"]) for each in answer.json["deleted"]["relations"]} >= {("acme_snapshots", "product_prices")}
