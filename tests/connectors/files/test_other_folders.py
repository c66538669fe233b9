"""A folder under another name is the same folder. Folders of processes and devices are refused, and no load reads or moves another source's files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.other_folders import OtherFolders, _get_id
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from tests.support.shop import Tenant

Write = Callable[..., Path]
# From here a process finds every folder under a name of its own.
PROCESS = "/proc/self/root"
COLUMNS = {"columns": {"id": {}}}


def build_source(kind: str, path: str) -> dict[str, Any]:
    stream = {"glob": "*.csv", **({"format": "csv"} if kind == "files" else COLUMNS)}
    return {"type": kind, "path": path, "streams": {"rows": stream}}


@pytest.fixture
def drops(settings: Settings, write_tenant: Write, tmp_path: Path) -> Path:
    """A folder with a file, into which people drop for globex, beside one that globex only reads."""
    for name in ("drops", "prices"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "a.csv").write_text("id\n1\n")
        (tmp_path / name / "deep" / "b.csv").write_text("id\n2\n")
    sources = {"shop": build_source("csv_import", str(tmp_path / "drops")), "prices": build_source("files", str(tmp_path / "prices"))}
    write_tenant("globex", {"sources": sources})
    return tmp_path / "drops"


@pytest.mark.parametrize(
    "path",
    [
        *(f"{PROCESS}/srv", "/proc", f"/{PROCESS}/srv", "/./proc/self/cwd", "/proc/../proc/1/root", "/srv/../proc/self", "///proc/self"),
        *("/sys/x", "/dev/shm", "/run/secrets", "/var/run/secrets", "/var/../run/x", f"file://{PROCESS}/srv", "file:////proc/x"),
    ],
)
@pytest.mark.parametrize("kind", ["files", "csv_import"])
def test_validation_refuses_folders_of_the_machine_however_they_are_written(settings: Settings, write_tenant: Write, kind: str, path: str) -> None:
    write_tenant("acme", {"sources": {"shop": build_source(kind, path)}})
    write_tenant("globex", {"sources": {"shop": build_source(kind, "/srv/process")}})
    fleet = load_fleet(settings)
    assert set(fleet.tenants) == {"globex"}
    assert {problem.path for problem in fleet.broken["acme"]} == {"sources.shop.path"}
    assert any("where this machine keeps processes, devices and secrets" in problem.message for problem in fleet.broken["acme"])


@pytest.mark.parametrize("below", ["", "deep"])
@pytest.mark.parametrize("kind", ["files", "csv_import"])
def test_no_load_reads_another_tenants_dropped_files_through_a_link(settings: Settings, drops: Path, tmp_path: Path, kind: str, below: str) -> None:
    (tmp_path / "alias").symlink_to(drops)
    tenant = Tenant(settings, build_source(kind, str(tmp_path / "alias" / below)))
    with pytest.raises(ConfigurationError, match=f"{'lies in' if below else 'is'} the inbox of tenant globex's source shop"):
        tenant.load()
    assert (drops / below).is_dir()
    assert sorted(path.name for path in drops.rglob("*.csv")) == ["a.csv", "b.csv"]


def test_a_glob_that_leads_into_another_tenants_inbox_is_refused(settings: Settings, drops: Path, tmp_path: Path) -> None:
    source = build_source("files", str(tmp_path))
    source["streams"]["rows"]["glob"] = "drops/*.csv"
    with pytest.raises(ConfigurationError, match="holds the inbox of tenant globex's source shop"):
        Tenant(settings, source).load()


def test_a_folder_that_is_only_read_may_be_shared_but_no_file_may_be_moved_out(settings: Settings, drops: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "prices")
    assert Tenant(settings, build_source("files", str(tmp_path / "alias"))).load()["rows"].rows_loaded == 1
    with pytest.raises(ConfigurationError, match="is the folder of tenant globex's source prices"):
        Tenant(settings, build_source("csv_import", str(tmp_path / "alias"))).load()
    assert (tmp_path / "prices" / "a.csv").exists()


def test_the_tenant_whose_inbox_it_is_loads_whatever_another_one_declares(settings: Settings, drops: Path, write_tenant: Write) -> None:
    for path in (str(drops), f"{PROCESS}{drops}"):
        write_tenant("acme", {"sources": {"shop": build_source("files", path)}})
        assert Tenant(settings, build_source("csv_import", str(drops)), name="globex").load().keys() == {"rows"}


@pytest.mark.parametrize("kind", ["device", "pipe", "link to nothing", "folder"])
def test_an_entry_of_the_tenants_folder_that_is_not_a_file_stops_no_load(settings: Settings, drops: Path, kind: str) -> None:
    for folder in (settings.tenants_dir, settings.tenants_dir / "_templates"):
        file = folder / "evil.yaml"
        folder.mkdir(exist_ok=True)
        if kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/zero" if kind == "device" else "/nowhere")
    tenant = Tenant(settings, build_source("csv_import", str(drops)), name="globex")
    assert tenant.load().keys() == {"rows"}
    # The wall stands all the same.
    assert find(settings, "files", drops) == "is the inbox of tenant globex's source shop"


def find(settings: Settings, kind: str, folder: Path, *, below: bool = True) -> str:
    config = TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"shop": build_source(kind, str(folder))}}).sources["shop"]
    found = OtherFolders(SourceContext("acme", "shop", config, (), settings)).find(folder, below=below)
    return f"{found[0]} {found[1]}" if found else ""


def test_folders_are_compared_by_device_and_inode(settings: Settings, drops: Path, tmp_path: Path) -> None:
    """A mount is a folder that no name gives away; PROCESS is one that is always there."""
    mounted = Path(PROCESS)
    assert find(settings, "files", mounted / str(drops)[1:]) == "is the inbox of tenant globex's source shop"
    assert find(settings, "files", mounted / str(drops / "deep")[1:]) == "lies in the inbox of tenant globex's source shop"
    assert find(settings, "files", mounted / str(tmp_path)[1:]) == "holds the inbox of tenant globex's source shop"
    assert find(settings, "files", mounted / str(tmp_path)[1:], below=False) == "", "a single file that lies there is opened"
    assert find(settings, "files", mounted / str(tmp_path / "prices")[1:]) == ""
    home = settings.data_dir / "inbox" / "globex"
    home.mkdir(parents=True)
    assert find(settings, "files", mounted / str(home)[1:]) == "is the inbox of tenant globex"


def test_folders_of_two_devices_are_two_though_their_inodes_are_one_number() -> None:
    first, second = Path("/proc"), Path("/sys")
    assert first.stat().st_ino == second.stat().st_ino
    assert _get_id(first) != _get_id(second)


def test_what_is_declared_is_read_again_when_a_file_changes(settings: Settings, drops: Path, write_tenant: Write) -> None:
    assert find(settings, "files", drops) != ""
    write_tenant("globex", {"sources": {"ads": build_source("csv_import", "inbox/globex/other")}})
    assert find(settings, "files", drops) == ""
