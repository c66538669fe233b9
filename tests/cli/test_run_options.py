"""Wrong usage of `fabric run`, and where its Dagster keeps its settings."""

from importlib.metadata import version

import pytest
import yaml
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.instance.opening import prepare_home


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{version('etl-fabric')}\n")


@pytest.mark.parametrize("selection", ["", " , "])
def test_an_empty_selection_is_a_mistake_and_not_everything(settings_environ, write_tenant, selection):
    write_tenant("acme", {"sources": {"shop": {"type": "files", "path": "shop", "streams": {"orders": {"glob": "*.csv", "format": "csv"}}}}})
    error = CliRunner().invoke(app, ["run", "acme", "--select", selection]).exception
    assert isinstance(error, ConfigurationError)
    assert "--select is empty" in str(error)


@pytest.mark.parametrize(
    "options", [["raw/shop/orders,marts/none"], ["raw/shop/orders marts/none"], ["raw/shop/orders", "marts/none"], ["marts/none", "raw/shop/orders"]]
)
def test_each_part_of_a_selection_counts(settings_environ, write_tenant, options):
    write_tenant("acme", {"sources": {"shop": {"type": "files", "path": "shop", "streams": {"orders": {"glob": "*.csv", "format": "csv"}}}}})
    result = CliRunner().invoke(app, ["run", "acme", *(word for option in options for word in ("--select", option))])
    assert result.exit_code == 2
    assert "the selection 'marts/none' matches no asset" in result.stdout


def test_telemetry_is_off_from_whichever_folder_a_run_is_started(settings, tmp_path):
    home = prepare_home(settings, root=tmp_path)
    assert yaml.safe_load((home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
