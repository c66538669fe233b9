"""Environment variables -> one frozen `Settings`.

The settings are passed as arguments: nothing reads the environment at import time, so one process can have two settings.
FABRIC_PROVISION_URL is not a setting: `transform/entitlements.py` reads it for the commands that make and drop roles, and every other process forgets it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fabric_assets.errors import ConfigurationError


@dataclass(frozen=True)
class Settings:
    """The folders of this process and the tenants that it serves.

    Args:
        source_dirs: the folders, besides `data_dir`, in which tenants' YAML may name files of this machine; empty for all folders.
        tenants: globs over tenant names; `("*",)` serves all.
        location: the name, in workspace.yaml, of the code location that serves these tenants.
        secret_keys: Fernet keys, newest first; never printed.
        publish_dir: the folder of what readers of DuckDB tenants get; None for a process that publishes nothing.
        definitions: the module with the operators' own Dagster definitions; empty for none.
        connectors: the operators' list of connectors, which need not exist.
        connectors_dir: the folder of the connectors' environments; None for a process that runs none.
    """

    tenants_dir: Path
    dbt_project_dir: Path
    data_dir: Path
    source_dirs: tuple[Path, ...] = ()
    tenants: tuple[str, ...] = ("*",)
    strict: bool = False
    location: str = "fabric"
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    publish_dir: Path | None = None
    definitions: str = ""
    connectors: Path = Path("connectors.yaml")
    connectors_dir: Path | None = None

    def serves(self, tenant: str) -> bool:
        return any(fnmatchcase(tenant, pattern) for pattern in self.tenants)


def load_settings(environ: Mapping[str, str] | None = None, *, root: Path | None = None) -> Settings:
    """Read the settings; relative paths are relative to `root`.

    Args:
        environ: default: `os.environ`.
        root: default: the current folder.
    """
    env = os.environ if environ is None else environ
    base = (root or Path.cwd()).resolve()
    strict = env.get("FABRIC_STRICT", "0").strip() or "0"
    if strict not in {"0", "1"}:
        raise ConfigurationError("FABRIC_STRICT must be 0 or 1", remedy="set FABRIC_STRICT=1 to fail on a broken tenant, or unset it")
    data_dir = base / (env.get("FABRIC_DATA_DIR") or ".fabric")
    publish_dir = base / (env.get("FABRIC_PUBLISH_DIR") or "published")
    connectors_dir = base / (env.get("FABRIC_CONNECTORS_DIR") or "connectors")
    for name, folder in (("FABRIC_DATA_DIR", data_dir), ("FABRIC_PUBLISH_DIR", publish_dir)):
        if "?" in str(folder):
            raise ConfigurationError(f"{name}={folder} has a '?' in its path, after which DuckDB expects options", remedy="name a folder without '?'")
    _check_apart(data_dir.resolve(), publish_dir.resolve())
    return Settings(
        tenants_dir=base / (env.get("FABRIC_TENANTS_DIR") or "tenants"),
        dbt_project_dir=base / (env.get("FABRIC_DBT_PROJECT_DIR") or "dbt_project"),
        data_dir=data_dir,
        source_dirs=tuple(base / folder for folder in _split(env.get("FABRIC_SOURCE_DIRS"))),
        tenants=_split(env.get("FABRIC_TENANTS")) or ("*",),
        strict=strict == "1",
        location=env.get("FABRIC_LOCATION", "").strip() or "fabric",
        secret_keys=_split(env.get("FABRIC_SECRET_KEYS")),
        publish_dir=publish_dir,
        definitions=env.get("FABRIC_DEFINITIONS", "").strip(),
        connectors=base / (env.get("FABRIC_CONNECTORS") or "connectors.yaml"),
        connectors_dir=connectors_dir,
    )


def _check_apart(data_dir: Path, publish_dir: Path) -> None:
    if publish_dir.is_relative_to(data_dir) or data_dir.is_relative_to(publish_dir):
        raise ConfigurationError(
            f"FABRIC_PUBLISH_DIR={publish_dir} and FABRIC_DATA_DIR={data_dir} lie in one another: readers must not reach the platform's own files",
            remedy="set FABRIC_PUBLISH_DIR to a folder outside of FABRIC_DATA_DIR",
        )


def forget_provisioning() -> None:
    """Remove the login that creates roles from the environment of this process, and so of its children."""
    os.environ.pop("FABRIC_PROVISION_URL", None)


def _split(value: str | None) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in (value or "").split(",")) if part)
