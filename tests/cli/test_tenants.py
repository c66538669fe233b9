"""TENANT arguments: names, globs, --all."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from fabric_assets.cli.console.each_tenant import run_for_each
from fabric_assets.cli.tenants import get_tenants, narrow
from fabric_assets.config.loader import Fleet, load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.settings import Settings


@pytest.fixture
def fleet(settings: Settings, write_tenant: Callable[..., Path]) -> Fleet:
    for name in ("acme", "acme_two", "globex"):
        write_tenant(name, {})
    write_tenant("initech", {"owner": "nobody"})
    return load_fleet(settings)


def test_names_and_globs_are_resolved_in_order_and_once(fleet: Fleet) -> None:
    assert get_tenants(fleet, ["globex", "acme*", "acme"], all_=False) == ("acme", "acme_two", "globex")


def test_all_is_every_tenant_also_the_broken_ones(fleet: Fleet) -> None:
    assert get_tenants(fleet, None, all_=True) == ("acme", "acme_two", "globex", "initech")


def test_a_command_without_a_tenant_is_refused(fleet: Fleet) -> None:
    with pytest.raises(ConfigurationError, match="name at least one tenant, or use --all"):
        get_tenants(fleet, [], all_=False)


def test_a_name_or_glob_that_matches_nothing_is_refused_with_a_suggestion(fleet: Fleet) -> None:
    with pytest.raises(ConfigurationError, match="'globx' is no tenant here; did you mean 'globex'"):
        get_tenants(fleet, ["acme", "globx"], all_=False)
    with pytest.raises(ConfigurationError, match="'z\\*' is no tenant here"):
        get_tenants(fleet, ["z*"], all_=False)


def test_a_fleet_is_narrowed_to_names(fleet: Fleet) -> None:
    narrowed = narrow(fleet, ["acme", "initech"])
    assert (list(narrowed.tenants), list(narrowed.broken)) == (["acme"], ["initech"])


@pytest.mark.usefixtures("settings_environ")
def test_a_failure_of_one_tenant_stops_no_other(write_tenant: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("acme", "globex", "initech"):
        write_tenant(name, {})
    done = list[str]()

    def work(config: TenantConfig, settings: Settings) -> None:
        if config.tenant == "acme":  # an error of the driver, which nobody has made one of ours
            duckdb.connect().execute("select * from acme_fabric.loads")
        if config.tenant == "globex":
            raise DataError("tenant globex: no rows", remedy="load it")
        done.append(config.tenant)

    assert run_for_each(None, True, None, None, work) == 1
    assert done == ["initech"]
    told = capsys.readouterr().err
    assert "error: tenant acme: the destination (duckdb)" in told and "acme_fabric" in told
    assert "tenant globex: no rows" in told
