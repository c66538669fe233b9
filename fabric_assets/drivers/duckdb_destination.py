"""A tenant with a DuckDB file of its own -> connections to that file."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import Destination, Report
from fabric_assets.drivers.duckdb_damage import build_damage_error, is_damage
from fabric_assets.errors import DestinationError, FabricError
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings


class DuckDb(Destination):
    """The tenant's file; it needs no login."""

    @property
    def file(self) -> Path:
        return naming.warehouse_file(self.settings.data_dir, self.tenant.tenant)

    @property
    def database(self) -> str:
        return self.file.stem

    def is_there(self) -> bool:
        return self.file.exists()

    def connect(self, *, read_only: bool = False) -> Any:
        import duckdb

        from fabric_assets.drivers.duckdb_files import build_open_error, open_file
        from fabric_assets.drivers.duckdb_readers import open_when_free

        path, name = self.file, self.tenant.tenant
        if not path.exists():
            if read_only:
                raise DestinationError(f"tenant {name}: nothing has been loaded yet, {path.name} does not exist", remedy="load the tenant's sources first")
            ensure_file(path)
        try:
            if read_only:
                # A reader may read a tenant's view; a writer runs only our statements.
                return open_file(path, read_only=True)
            return open_when_free(lambda: open_file(path, sizes_may_change=True), path, report=self.report)
        except duckdb.Error as error:
            raise build_open_error(error, f"tenant {name}: {path.name}") from None

    def get_dbt_login(self) -> dict[str, Any]:
        if not self.file.exists():  # no sources, or before the first load; a file that DuckDB creates would be readable by everyone
            self.connect().close()
        return {"path": str(self.file)}


def open_destination(tenant: TenantConfig, settings: Settings, *, report: Report | None = None) -> DuckDb:
    return DuckDb(tenant, settings, report=report)


def explain_damage(reason: str, text: str, where: str) -> FabricError | None:
    return build_damage_error(reason, f"{where}: the tenant's DuckDB file") if is_damage(text) else None


def ensure_file(path: Path) -> None:
    """Create a tenant's DuckDB file, which only its owner can ever read."""
    from fabric_assets.drivers.duckdb_files import make_file

    make_private_folder(path.parent)
    path.parent.chmod(0o700)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        make_file(made)
        made.chmod(0o600)
        # A link, not a rename: that would overwrite a file that another process has made and filled meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
