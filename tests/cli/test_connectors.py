"""`fabric connectors`, and what `fabric validate` says of sources that name a connector."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.connectors.bridge.process.confinement import find_gap
from fabric_assets.errors import ConfigurationError
from tests.support.taps import only_wheels_of


@pytest.fixture
def site(installed_tap: Mapping[str, Path], settings_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of connectors.yaml, whose one connector is installed."""
    for name, path in installed_tap.items():
        monkeypatch.setenv(f"FABRIC_{name.upper()}", str(path))
    return installed_tap["connectors"].parent


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["connectors", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_connectors_are_listed_and_shown(site: Path) -> None:
    assert run("list").stdout.splitlines()[1].split() == ["rows", "singer", "tap-rows==1.0", "yes", "yes"]
    described = {"name": "rows", "type": "singer", "requirements": ["tap-rows==1.0"], "executable": "tap-rows", "installed": True, "confined": True}
    assert json.loads(run("list", "--json").stdout) == [described]
    assert "folder   string  yes       Folder of the rows." in run("show", "rows").stdout
    shown = json.loads(run("show", "rows", "--json").stdout)
    assert shown["packages"] == ["tap-rows==1.0"]
    assert shown["settings"]["required"] == ["folder", "region"]


def test_an_installation_that_changes_nothing_says_so(site: Path) -> None:
    with only_wheels_of(site):
        assert run("install", "--frozen").stdout == "rows: unchanged, 1 packages\n"
    with pytest.raises(ConfigurationError, match="there is no connector 'row'; did you mean 'rows'"):
        run("install", "row")


@pytest.mark.skipif(find_gap() is not None, reason="this kernel has no Landlock that covers the network")
def test_a_check_tells_what_is_confined_and_what_is_wrong(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("check")
    assert whole.exit_code == 0
    assert "Landlock version" in whole.stdout
    assert "not confined: what a connector sends to public addresses" in whole.stdout
    (tmp_path / "connectors.yaml").write_text((site / "connectors.yaml").read_text().replace("1.0", "2.0"))
    monkeypatch.setenv("FABRIC_CONNECTORS", str(tmp_path / "connectors.yaml"))
    wrong = run("check", "--json")
    assert wrong.exit_code == 1
    finding = "connectors.lock does not hold it as connectors.yaml says; run `fabric connectors install`"
    assert json.loads(wrong.stdout)["findings"] == [{"connector": "rows", "finding": finding}]


def test_validate_finds_unknown_connectors_and_settings_with_their_lines(site: Path, write_tenant: Callable[..., Path]) -> None:
    source: dict[str, Any] = {"type": "singer", "connector": "rows", "arguments": {"folder": "x"}, "streams": {"orders": {}}}
    write_tenant("acme", {"sources": {"crm": source}})
    write_tenant("globex", {"sources": {"crm": {**source, "connector": "row"}}})
    write_tenant("initech", {"sources": {"crm": {**source, "arguments": {"foldr": "x"}}}})
    result = CliRunner().invoke(app, ["validate", "--json"])
    assert result.exit_code == 2
    found = {(Path(each["file"]).stem, each["path"]): each["message"] for each in json.loads(result.stdout)}
    assert found.keys() == {("globex", "sources.crm.connector"), ("initech", "sources.crm.arguments.foldr"), ("initech", "sources.crm.arguments")}
    assert "there is no connector 'row'; did you mean 'rows'" in found["globex", "sources.crm.connector"]
    assert "has no setting 'foldr'; did you mean 'folder'" in found["initech", "sources.crm.arguments.foldr"]
    assert all(each["line"] > 1 for each in json.loads(result.stdout))
