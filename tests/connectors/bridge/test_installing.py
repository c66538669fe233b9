"""The operators' list: what is locked and installed, and what becomes of an installation that is killed, tampered with or wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.config.connectors_file import load_connectors
from fabric_assets.config.sources.connectors import SingerSource
from fabric_assets.connectors.bridge.installing.building import BUILDING, Installed, install
from fabric_assets.connectors.bridge.installing.checking import find_findings
from fabric_assets.connectors.bridge.installing.environments import get_environment, get_folder, hold_environment
from fabric_assets.connectors.bridge.installing.specs import find_mistakes
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.faults.processes import wait_until
from tests.support.taps import TAP, build_wheel, only_wheels_of

ENTRY = "{type: singer, requirements: [tap-rows==1.0], executable: tap-rows}"


@pytest.fixture
def site(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A site whose list names the tap, of which there are two versions."""
    build_wheel(tmp_path)
    build_wheel(
        tmp_path,
        version="2.0",
        text=TAP.replace('"region": {', '"zone": {"type": "string"}, "area": {').replace('"required": ["folder", "region"]', '"required": ["folder", "zone"]'),
    )
    settings = replace(settings, connectors=tmp_path / "connectors.yaml", connectors_dir=tmp_path / "connectors")
    write(settings, f"rows: {ENTRY}")
    with only_wheels_of(tmp_path):
        yield settings
    for path in [tmp_path / "connectors", *(tmp_path / "connectors").rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


def write(settings: Settings, *entries: str) -> None:
    settings.connectors.write_text("connectors:\n" + "".join(f"  {entry}\n" for entry in entries))


def install_all(settings: Settings, *, frozen: bool = False) -> dict[str, Installed]:
    connectors = load_connectors(settings)
    return {done.name: done for done in install(settings, connectors, names=list(connectors), frozen=frozen, report=lambda line: None)}


def list_environments(settings: Settings) -> set[str]:
    return {path.name for path in get_folder(settings).iterdir() if path.is_dir()}


def test_a_connector_is_locked_with_hashes_and_installed_read_only(site: Settings) -> None:
    assert install_all(site) == {"rows": Installed("rows", "installed", 1)}
    (line,) = json.loads(site.connectors.with_suffix(".lock").read_text())["connectors"]["rows"]["requirements"]
    assert line.startswith("tap-rows==1.0 --hash=sha256:")
    environment = get_environment(site, "rows")
    assert environment.spec and environment.spec["required"] == ["folder", "region"]
    modes = {path.stat().st_mode & 0o222 for path in environment.folder.rglob("*") if not path.is_symlink()}
    assert modes == {0}
    found = subprocess.run([environment.python, "-I", environment.executable, "--about"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["name"] == "tap-rows"
    assert install_all(site, frozen=True) == {"rows": Installed("rows", "unchanged", 1)}
    assert list(find_findings(site, "rows", load_connectors(site)["rows"])) == []


def test_a_second_entry_keeps_an_older_version_and_a_new_one_says_what_has_changed(site: Settings) -> None:
    install_all(site)
    first = get_environment(site, "rows").folder
    write(site, f"rows: {ENTRY.replace('1.0', '2.0')}", f"rows@1: {ENTRY}")
    changes = install_all(site)["rows"].changes
    assert changes == ("the setting zone is new", "the setting area is new", "the setting region is gone", "the setting zone is required now")
    assert get_environment(site, "rows@1").folder == first
    assert get_environment(site, "rows").folder != first
    write(site, f"rows: {ENTRY.replace('1.0', '2.0')}")
    install_all(site)
    assert list_environments(site) == {get_environment(site, "rows").folder.name}
    assert not os.path.lexists(site.connectors_dir / "rows@1")  # type: ignore[operator]


def test_an_environment_that_a_run_holds_is_removed_by_a_later_installation(site: Settings) -> None:
    install_all(site)
    with hold_environment(held := get_environment(site, "rows")):
        write(site, f"rows: {ENTRY.replace('1.0', '2.0')}")
        install_all(site)
        assert held.folder.name in list_environments(site)
    install_all(site)
    assert held.folder.name not in list_environments(site)


def test_frozen_refuses_what_the_lock_file_does_not_hold(site: Settings) -> None:
    with pytest.raises(ConfigurationError, match="connectors.lock does not hold the connector rows as connectors.yaml says") as caught:
        install_all(site, frozen=True)
    assert "without --frozen" in caught.value.remedy
    install_all(site)
    write(site, f"rows: {ENTRY.replace('1.0', '2.0')}")
    with pytest.raises(ConfigurationError, match="does not hold the connector rows"):
        install_all(site, frozen=True)


def test_a_package_whose_hash_is_not_the_locked_one_is_not_installed(site: Settings, tmp_path: Path) -> None:
    install_all(site)
    shutil.rmtree(site.connectors_dir)  # type: ignore[arg-type]
    shutil.rmtree(tmp_path / "cache")
    build_wheel(tmp_path, text=TAP + "# tampered with\n")
    with pytest.raises(ConfigurationError, match=r"(?s)the connector rows cannot be installed. uv says:.*[Hh]ash") as caught:
        install_all(site, frozen=True)
    assert caught.value.remedy
    assert list_environments(site) == set()


def test_a_changed_file_of_an_environment_is_found(site: Settings) -> None:
    install_all(site)
    (module,) = get_environment(site, "rows").folder.rglob("tap_rows.py")
    module.chmod(0o644)
    module.write_text("print('mine')")
    assert list(find_findings(site, "rows", load_connectors(site)["rows"])) == [
        f"tap_rows.py is not the file that was installed; delete {get_environment(site, 'rows').folder} and run `fabric connectors install`"
    ]


def test_a_package_that_is_not_there_and_one_without_the_program_are_told_apart(site: Settings) -> None:
    write(site, "gone: {type: singer, requirements: [tap-gone], executable: tap-gone}")
    with pytest.raises(ConfigurationError, match=r"(?s)the connector gone cannot be resolved. uv says:.*tap-gone"):
        install_all(site)
    write(site, "rows: {type: singer, requirements: [tap-rows==1.0], executable: tap-other}")
    with pytest.raises(ConfigurationError, match="the packages of the connector rows install no program tap-other"):
        install_all(site)


def test_source_packages_are_built_only_if_the_entry_allows_it(site: Settings, tmp_path: Path) -> None:
    source = tmp_path / "tap_source-1.0"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('built')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tap-source\nVersion: 1.0\n")
    shutil.make_archive(str(tmp_path / "tap_source-1.0"), "gztar", tmp_path, source.name)
    shutil.rmtree(source)
    write(site, "source: {type: singer, requirements: [tap-source==1.0], executable: tap-source}")
    with pytest.raises(ConfigurationError, match=r"(?s)cannot be resolved") as caught:
        install_all(site)
    assert "built" not in caught.value.message
    assert "`build: true`" in caught.value.remedy


INSTALL = """
import sys
from fabric_assets.cli.app import run_command
sys.argv = ["fabric", "connectors", "install"]
sys.exit(run_command())
"""


def start(site: Settings) -> "subprocess.Popen[str]":
    environ = {"FABRIC_CONNECTORS": str(site.connectors), "FABRIC_CONNECTORS_DIR": str(site.connectors_dir), "FABRIC_DATA_DIR": str(site.data_dir)}
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL], env={**os.environ, **environ}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("moment", ["building", "built"])
def test_a_killed_installation_is_finished_by_the_next(moment: str, site: Settings) -> None:
    with start(site) as installing:
        if moment == "building":
            wait_until(lambda: list(site.connectors_dir.glob(f"environments/{BUILDING}*")))  # type: ignore[union-attr]
        else:
            wait_until(lambda: [path for path in site.connectors_dir.glob("environments/*") if path.is_dir() and not path.name.startswith(".")])  # type: ignore[union-attr]
        installing.send_signal(signal.SIGKILL)
    assert set(install_all(site)) == {"rows"}
    assert get_environment(site, "rows").executable.is_file()
    assert [path.name for path in get_folder(site).iterdir() if path.name.startswith(".")] == []
    assert list(find_findings(site, "rows", load_connectors(site)["rows"])) == []


def test_two_installations_at_once_end_with_one_environment(site: Settings) -> None:
    both = [start(site) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(line for text in said for line in text.splitlines() if line.startswith("rows")) == [
        "rows: installed, 1 packages",
        "rows: unchanged, 1 packages",
    ]


def test_a_connector_that_is_not_installed_or_not_listed_is_named_with_the_remedy(site: Settings) -> None:
    with pytest.raises(ConfigurationError, match="the connector rows is not installed") as caught:
        get_environment(site, "rows")
    assert caught.value.remedy == "run `fabric connectors install`"
    with pytest.raises(ConfigurationError, match="there is no connector 'row'; did you mean 'rows'"):
        get_environment(site, "row")
    site.connectors.unlink()
    assert load_connectors(site) == {}


def test_environments_lie_outside_of_the_platforms_data(site: Settings) -> None:
    inside = replace(site, connectors_dir=site.data_dir / "connectors")
    with pytest.raises(ConfigurationError, match="lie in one another: connectors must not reach the platform's own files"):
        install_all(inside)


def test_settings_are_checked_against_what_the_connector_says(site: Settings) -> None:
    install_all(site)
    spec = get_environment(site, "rows").spec
    source = SingerSource.model_validate({"type": "singer", "connector": "rows", "arguments": {"foldre": "x", "token": ""}, "streams": {"orders": {}}})
    assert list(find_mistakes(spec, source)) == [
        (("arguments", "foldre"), "the connector rows has no setting 'foldre'; did you mean 'folder'? known: code, folder, names, region, skip, token"),
        (("arguments", "token"), "is a secret, says the connector: it belongs under secrets, as a reference"),
        (("arguments",), "lacks 'folder', which the connector rows needs"),
    ]
