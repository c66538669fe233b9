"""dlt reads a managed tenant's raw dataset: as the tenant's own role, and as a login that may only read."""

from collections.abc import Callable
from pathlib import Path

import dlt
import pytest

from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest
from tests.provision.conftest import ManagedWarehouse, build_tenant, run_fabric
from tests.support.dlt_reader import attach, compare

pytestmark = [pytest.mark.xdist_group("provision"), pytest.mark.timeout(300)]


def test_dlt_reads_as_the_tenants_role_and_as_a_reader(warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path], tmp_path: Path) -> None:
    write_tenant("acme", build_tenant())
    assert run_fabric("provision", "acme").code == 0
    reports = list(run_load(LoadRequest(warehouse.get_config("acme"), "shop", (), warehouse.settings)))
    warehouse.run("create role analyst login password 'analyst'", "grant fabric_acme_ro to analyst")
    logins = {"fabric_acme": warehouse.get_password("acme"), "analyst": "analyst"}
    try:
        for user, password in logins.items():
            pipeline = attach(dlt.destinations.postgres(warehouse.get_url(user, password)), tmp_path / user)
            assert compare(pipeline, warehouse.run) == {report.stream: report.rows_total for report in reports}
            pipeline.sync_destination()
    finally:
        warehouse.run("revoke fabric_acme_ro from analyst", "drop role analyst")
