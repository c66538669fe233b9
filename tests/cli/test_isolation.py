"""`fabric isolation` and what `fabric list checks` says of it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabric_assets import naming
from fabric_assets.cli.app import app
from fabric_assets.config.loader import load_fleet
from fabric_assets.drivers.destinations import connect
from fabric_assets.settings import Settings

SHOP = {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {"orders": {"primary_key": "id"}}}


@pytest.fixture
def two_tenants(settings: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]) -> None:
    for tenant in ("acme", "globex"):
        write_tenant(tenant, {"sources": {"shop": SHOP}})
        connect(load_fleet(settings).tenants[tenant].config, settings).close()


@pytest.mark.usefixtures("two_tenants")
def test_isolated_tenants_exit_with_0() -> None:
    result = CliRunner().invoke(app, ["isolation", "--all"])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:3]] == [["acme", "yes"], ["globex", "yes"]]


@pytest.mark.usefixtures("two_tenants")
def test_a_leak_is_a_finding_that_is_named(settings: Settings) -> None:
    naming.warehouse_file(settings.data_dir, "acme").chmod(0o644)
    result = CliRunner().invoke(app, ["isolation", "*", "--json"])
    assert result.exit_code == 1
    found = {report["tenant"]: report for report in json.loads(result.stdout)["tenants"]}
    assert (found["acme"]["passed"], found["acme"]["severity"], found["globex"]["passed"]) == (False, "error", True)
    assert found["acme"]["succeeded"] == [{"action": "let other users of this machine read", "target": "acme.duckdb (mode 0644)", "reason": ""}]
    assert "acme: the tenant could let other users" in CliRunner().invoke(app, ["isolation", "acme"]).stdout


@pytest.mark.usefixtures("two_tenants")
def test_the_check_is_listed() -> None:
    result = CliRunner().invoke(app, ["list", "checks", "acme", "--json"])
    assert json.loads(result.stdout) == [
        {"tenant": "acme", "asset": "acme/isolation", "check": "isolation", "type": "isolation", "severity": "error", "blocking": False}
    ]


@pytest.mark.usefixtures("two_tenants")
def test_a_tenant_that_is_not_there_is_wrong_usage() -> None:
    assert isinstance(CliRunner().invoke(app, ["isolation", "acne"]).exception, Exception)
