"""A tenant's destination -> dbt's profiles.yml for one run, in the run's own folder.

The file names the password's variable, not the password: dbt itself reads `DBT_ENV_SECRET_*` for profiles alone, refuses it to models and strikes it from
its logs. A password is then neither on disk nor taken for Jinja or YAML.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import make_private_folder
from fabric_assets.transform.worker.manifest import DATABASE_PLACEHOLDER

PASSWORD_VARIABLE = "DBT_ENV_SECRET_FABRIC_PASSWORD"  # noqa: S105 - a name

# Parameters of a Postgres URL that dbt can pass on.
_POSTGRES_PARAMETERS = ("application_name", "connect_timeout", "keepalives_idle", "sslcert", "sslkey", "sslmode", "sslrootcert")
_POSTGRES_THREADS = 4


def get_database(destination: Mapping[str, Any]) -> str:
    return Path(destination["path"]).stem if destination["type"] == "duckdb" else destination["dbname"]


def write_profile(folder: Path, destination: Mapping[str, Any]) -> None:
    """Write profiles.yml, for its owner alone, and put the password where dbt finds it.

    Raises:
        ConfigurationError: the URL has a parameter that dbt cannot pass on.
    """
    if destination["type"] == "postgres":
        os.environ[PASSWORD_VARIABLE] = destination["password"]
    content = {"fabric": {"target": "fabric", "outputs": {"fabric": _build_output(destination, make_spill_folder(folder))}}}
    descriptor = os.open(folder / "profiles.yml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream)  # JSON is YAML


def build_placeholder(adapter: str, folder: Path) -> dict[str, Any]:
    """Make the destination under which the project is parsed; nothing connects to it."""
    if adapter == "duckdb":
        return {"type": "duckdb", "path": str(folder / f"{DATABASE_PLACEHOLDER}.duckdb")}
    return {"type": "postgres", "host": "localhost", "port": 5432, "user": "none", "password": "none", "dbname": DATABASE_PLACEHOLDER, "query": {}}


def make_spill_folder(folder: Path) -> Path:
    """Make the folder below the run's own that DuckDB may spill to: it holds nothing else, for models can write there."""
    return make_private_folder(folder / "spill")


def _build_output(destination: Mapping[str, Any], spill: Path) -> dict[str, Any]:
    if destination["type"] == "duckdb":
        # dbt-duckdb fails under more than one thread on one file (its issue 513). Every model names its own schema.
        lock = {"module": "fabric_assets.transform.worker.duckdb_plugin", "config": {"spill": str(spill)}}
        return {"type": "duckdb", "path": destination["path"], "schema": "main", "threads": 1, "plugins": [lock]}
    if unknown := sorted(set(destination["query"]) - set(_POSTGRES_PARAMETERS)):
        known = ", ".join(_POSTGRES_PARAMETERS)
        raise ConfigurationError(f"the destination's url has the parameter {unknown[0]}, which dbt cannot use", remedy=f"known: {known}")
    return {
        "type": "postgres",
        "host": destination["host"],
        "port": destination["port"],
        "user": destination["user"],
        "password": f"{{{{ env_var('{PASSWORD_VARIABLE}') }}}}",
        "dbname": destination["dbname"],
        "schema": "public",
        "threads": _POSTGRES_THREADS,
        **{name: int(value) if value.isdecimal() else value for name, value in destination["query"].items()},
    }
