"""The isolation check of tenants on DuckDB: green as files and lock are made, red when either is not."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers import destinations, duckdb_files
from fabric_assets.isolation.check import check_isolation
from fabric_assets.isolation.report import IsolationReport
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import warehouse_lease
from tests.isolation.conftest import make_tenant
from tests.support.duckdb_traps import plant_traps


@pytest.fixture
def acme(settings: Settings) -> TenantConfig:
    """A tenant whose file lies beside another's."""
    tenants = {name: make_tenant(name, {"type": "duckdb"}) for name in ("acme", "globex")}
    for tenant in tenants.values():
        destinations.connect(tenant, settings).close()
    return tenants["acme"]


def list_found(report: IsolationReport) -> list[str]:
    return [str(attempt) for attempt in report.list("succeeded")]


def test_files_and_lock_as_they_are_made_are_green(acme: TenantConfig, settings: Settings) -> None:
    report = check_isolation(acme, settings)
    assert [str(attempt) for attempt in report.attempts if attempt.outcome != "denied"] == []
    tried = {str(attempt) for attempt in report.attempts}
    assert {"attach globex.duckdb", "attach another database", "read /etc/passwd with read_csv", "install an extension"} <= tried
    assert (report.passed, report.severity) == (True, "error")


def test_the_tenants_own_file_is_tried_with_whatever_its_models_have_planted(acme: TenantConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    file = naming.warehouse_file(settings.data_dir, "acme")
    with duckdb.connect(str(file)) as connection:
        assert plant_traps(connection) > 1_000
    report = check_isolation(acme, settings)
    assert (report.passed, report.notes) == (True, ())
    # The negative control: where the file alone is open, the check sees it. Here as the lock once was, which asked the file.
    opened = duckdb_files.lock

    def ask_first(connection: duckdb.DuckDBPyConnection, **sizes: Any) -> None:
        if connection.execute("select current_setting('lock_configuration')").fetchone() == (False,):
            opened(connection, **sizes)

    monkeypatch.setattr(duckdb_files, "lock", ask_first)
    assert {"attach globex.duckdb", "read /etc/passwd with read_csv"} <= set(list_found(check_isolation(acme, settings)))


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_open_in_the_tenants_own_file_alone_is_seen_in_each_way_to_open_it(
    acme: TenantConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme"))) as connection:
        connection.execute("create macro only_here() as true")
    lock = duckdb_files.lock

    def leave_open(connection: duckdb.DuckDBPyConnection, **sizes: Any) -> None:
        try:
            (found,) = connection.execute("select only_here() and readonly from duckdb_databases() where database_name = 'acme'").fetchall()
        except duckdb.CatalogException:
            found = (None,)
        if found != (read_only,):
            lock(connection, **sizes)

    monkeypatch.setattr(duckdb_files, "lock", leave_open)
    assert {"attach globex.duckdb", "read /etc/passwd with read_csv"} <= set(list_found(check_isolation(acme, settings)))


def test_a_run_that_has_the_tenants_file_does_not_hold_up_the_check(acme: TenantConfig, settings: Settings) -> None:
    with warehouse_lease("acme", settings):
        report = check_isolation(acme, settings)
    assert (report.passed, report.notes) == (True, ("a run had acme.duckdb open: all was tried in a scratch file alone",))
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme"))):
        report = check_isolation(acme, settings)
    assert report.passed
    assert "in a scratch file alone, since acme.duckdb" in report.message


@pytest.mark.parametrize(("what", "mode"), [("acme.duckdb", 0o640), ("acme.duckdb", 0o604), ("", 0o755)])
def test_a_file_that_others_can_read_is_a_leak(acme: TenantConfig, settings: Settings, what: str, mode: int) -> None:
    path = settings.data_dir / "warehouse" / what
    path.chmod(mode)
    report = check_isolation(acme, settings)
    assert (report.passed, report.severity) == (False, "error")
    assert list_found(report) == [f"let other users of this machine read {path.name} (mode {mode:04o})"]


@pytest.fixture
def published(acme: TenantConfig, settings: Settings) -> Path:
    """The published file of a tenant, beside another one's."""
    assert settings.publish_dir
    for name in ("acme", "globex"):
        file = naming.published_file(settings.publish_dir, name)
        make_private_folder(file.parent)
        duckdb_files.make_file(file)
        file.chmod(0o600)
    return naming.published_file(settings.publish_dir, "acme")


def test_published_files_of_other_tenants_are_tried_too(acme: TenantConfig, settings: Settings, published: Path) -> None:
    report = check_isolation(acme, settings)
    tried = {str(attempt) for attempt in report.list("denied")}
    own = ["folder acme (mode 0700)", "file acme.duckdb (mode 0600)"]
    assert {"attach the published globex.duckdb", *(f"let other users of this machine read the published {name}" for name in own)} <= tried
    assert "attach the published acme.duckdb" not in tried
    assert report.passed


@pytest.mark.parametrize(("what", "mode", "passes"), [("file", 0o604, False), ("folder", 0o755, False), ("folder", 0o2750, True), ("file", 0o640, True)])
def test_a_published_file_may_be_its_groups_but_nobody_elses(
    acme: TenantConfig, settings: Settings, published: Path, what: str, mode: int, *, passes: bool
) -> None:
    path = published if what == "file" else published.parent
    path.chmod(mode)
    report = check_isolation(acme, settings)
    found = [] if passes else [f"let other users of this machine read the published {what} {path.name} (mode {mode:04o})"]
    assert (list_found(report), report.passed) == (found, passes)


def test_each_part_of_the_lock_is_missed(acme: TenantConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the lock the same statements work."""
    monkeypatch.setattr(duckdb_files, "_LOCK", ())
    found = set(list_found(check_isolation(acme, settings)))
    assert {
        "attach another database",
        "attach globex.duckdb",
        "read a file with read_csv",
        "read a file with read_text",
        "read /etc/passwd with read_csv",
        "read the environment with read_text",
        "list a folder with glob",
        "write a file with copy",
        "write a folder with export",
        "unlock the configuration",
        "lift the limit of memory",
    } <= found
    monkeypatch.setattr(duckdb_files, "_LOCK", ("set enable_external_access = false",))  # and nothing that holds it
    assert "lift the limit of memory" in list_found(check_isolation(acme, settings))


def test_a_locked_connection_spills_only_into_its_spill_folder(tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    with duckdb.connect(str(tmp_path / "own.duckdb")) as connection:
        connection.execute("set memory_limit = '100MB'")
        duckdb_files.lock(connection, spill=spill)
        assert connection.execute("select current_setting('memory_limit')").fetchall() == [("59.5 MiB",)]
        connection.execute(
            "create table own.main.large as select range as number, hash(range) as digest, repeat('x', 20) || range as text from range(1_000_000)"
        )
        rows = connection.execute("select count(*) from (select row_number() over (order by text desc) as number from large) where number > 5").fetchall()
        used = connection.execute("select sum(size) from duckdb_temporary_files() where path like ?", [f"{spill}/%"]).fetchall()
    assert rows == [(999_995,)]
    assert used
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"spill", "own.duckdb", "own.duckdb.wal"}] == []


def test_connections_that_read_a_tenants_data_are_locked_as_well(acme: TenantConfig, settings: Settings) -> None:
    """A view may be redefined to read a file after it was made; its reader has the platform's rights."""
    with destinations.connect(acme, settings, read_only=True) as connection:
        with pytest.raises(duckdb.PermissionException):
            connection.execute("select * from read_text('/etc/hostname')")
        assert connection.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
        with destinations.connect(acme, settings, read_only=True) as second:
            assert second.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
