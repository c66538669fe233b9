"""Tenant, source, stream and schedule names -> every name derived from them.

Derived names are built here only: two places would drift apart, and a drifted name could be another tenant's table. The snake_case
normaliser of dlt leaves a valid name as it is, so the warehouse shows the names that are declared.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

NAME_PATTERN = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
TENANT_LENGTH = (2, 30)
NAME_LENGTH = (1, 40)

# Names that would shadow a schema of the database, or one of the platform's own prefixes.
RESERVED_TENANTS = frozenset(
    {"fabric", "public", "information_schema", "main", "memory", "postgres", "dagster", "system", "temp", "template0", "template1", "all", "prepared"}
)
RESERVED_PREFIXES = ("pg_", "stg_", "rej_", "fabric_", "dlt_")
RESERVED_SUFFIXES = ("_staging",)

_NAME = re.compile(NAME_PATTERN)


def get_name_error(name: str, *, length: tuple[int, int] = NAME_LENGTH) -> str | None:
    """Describe what is wrong with a source, stream or schedule name; None if it is valid."""
    if not _NAME.fullmatch(name):
        return "must be lower-case letters, digits and single underscores, beginning with a letter (acme, acme_2)"
    if not length[0] <= len(name) <= length[1]:
        return f"must be {length[0]} to {length[1]} characters long, not {len(name)}"
    return None


def get_tenant_name_error(name: str) -> str | None:
    """Describe what is wrong with a tenant's name; None if it is valid."""
    if error := get_name_error(name, length=TENANT_LENGTH):
        return error
    if name in RESERVED_TENANTS:
        return "is reserved: it would shadow a schema or a word of the platform"
    if name.startswith(RESERVED_PREFIXES):
        return f"must not begin with any of {', '.join(RESERVED_PREFIXES)}: databases and the platform use these"
    if name.endswith(RESERVED_SUFFIXES):
        return "must not end with _staging: it would equal another tenant's dbt schema"
    return None


# --- datasets and schemas


def raw_dataset(tenant: str, source: str) -> str:
    return f"{tenant}_raw_{source}"


def pipeline(tenant: str, source: str) -> str:
    """Name the pipeline as which dlt sees a source."""
    return f"{tenant}__{source}"


def load_staging_dataset(tenant: str, source: str) -> str:
    return f"stg_{raw_dataset(tenant, source)}"


def platform_dataset(tenant: str) -> str:
    return f"{tenant}_fabric"


def dbt_schema(tenant: str, schema: str) -> str:
    return f"{tenant}_{schema}"


# dbt's own name, without the tenant's prefix, of the schema in which tests with `store_failures` keep the rows that fail.
TEST_SCHEMA = "dbt_test__audit"
# The schemas, without the tenant's prefix, of seeds by default, and of all snapshots. Nothing else lies there, since no run can build a snapshot's rows again.
SEED_SCHEMA, SNAPSHOT_SCHEMA = "seeds", "snapshots"


def get_published_schema_error(schema: str) -> str | None:
    """Describe why a schema is never published; None if it may be.

    Args:
        schema: without the tenant's prefix.
    """
    # Upper case counts too: DuckDB's names do not tell it apart.
    name = schema.lower()
    if name == "raw" or name.startswith("raw_"):
        return "is never published: raw schemas hold rows as they were loaded; publish a model of them"
    if name in ("fabric", TEST_SCHEMA):
        return "is never published: it holds the platform's own tables, or rows that were rejected or failed a test"
    return None


def is_named_like(tenant: str, name: str, dbt_schemas: Iterable[str]) -> bool:
    """Whether a schema has a name as the tenant's schemas have. It may still belong to somebody else, since anybody can choose such a name.

    Args:
        dbt_schemas: without the tenant's prefix.
    """
    source = name.removeprefix("stg_").removeprefix(raw_dataset(tenant, ""))
    if name in (raw_dataset(tenant, source), load_staging_dataset(tenant, source)):
        return get_name_error(source) is None
    return name in {platform_dataset(tenant), *(dbt_schema(tenant, schema) for schema in dbt_schemas)}


# --- Dagster


def raw_asset_key(tenant: str, source: str, stream: str) -> tuple[str, ...]:
    return (tenant, "raw", source, stream)


def model_asset_key(tenant: str, schema: str, model: str) -> tuple[str, ...]:
    """Build the asset key of a dbt model.

    Args:
        schema: the dbt schema without the tenant's prefix, e.g. `marts`.
    """
    return (tenant, schema, model)


def isolation_asset_key(tenant: str) -> tuple[str, ...]:
    """Build the key of the asset that has a tenant's isolation check; nothing materialises it."""
    return (tenant, "isolation")


def load_op(tenant: str, source: str) -> str:
    return f"{tenant}__{source}__load"


def transform_op(tenant: str) -> str:
    return f"{tenant}__transform"


# The isolation check, with one op, job and schedule for all tenants. No tenant can be called fabric.
ISOLATION_CHECK = "isolation"
ISOLATION_OP = "fabric__isolation__check"
ISOLATION_SCHEDULE = "fabric__isolation"

# The check of a dbt source's freshness, and the one schedule that runs those of all tenants.
SOURCE_FRESHNESS_CHECK = "source_freshness"
SOURCE_FRESHNESS_SCHEDULE = "fabric__source_freshness"


def schedule(tenant: str, name: str) -> str:
    return f"{tenant}__{name}"


def inbox_sensor(tenant: str, source: str) -> str:
    return f"{tenant}__{source}__inbox"


def pool(tenant: str) -> str:
    """Return the name of the pool for everything that writes a tenant's warehouse: DuckDB allows one writing process a file."""
    return f"{tenant}__warehouse"


# --- working names and files, private to a tenant (and source)

# Processes and their environments, devices, sockets, mounted secrets: no source may read there.
MACHINE_FOLDERS = ("/proc", "/sys", "/dev", "/run", "/var/run")
# Folders of FABRIC_DATA_DIR that no tenant's YAML may name: they hold other tenants' rows, secrets and runs.
PLATFORM_FOLDERS = frozenset({"warehouse", "dbt", "loads", "locks", "secrets", "dagster", "offboarded", "errors"})
# No secret may come from these folders either: the inbox holds what customers send.
SECRETLESS_FOLDERS = PLATFORM_FOLDERS | {"inbox"}
# The platform's own variables, also secrets, which no tenant's reference may name.
PLATFORM_VARIABLES = ("FABRIC_", "DAGSTER_")


def is_platform_path(data_dir: Path, path: Path) -> bool:
    """Whether a path lies in one of the platform's folders; both are resolved."""
    return path.is_relative_to(data_dir) and path != data_dir and path.relative_to(data_dir).parts[0] in PLATFORM_FOLDERS


def warehouse_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "warehouse" / f"{tenant}.duckdb"


def published_dir(publish_dir: Path, tenant: str) -> Path:
    """Return the folder of what a tenant's readers get."""
    return publish_dir / tenant


def published_file(publish_dir: Path, tenant: str) -> Path:
    return published_dir(publish_dir, tenant) / f"{tenant}.duckdb"


def inbox_dir(data_dir: PurePath, tenant: str) -> PurePath:
    """Return the folder for a tenant's dropped files, unless its YAML names another; the folder belongs to the tenant in any case."""
    return data_dir / "inbox" / tenant


def files_dir(data_dir: Path, tenant: str, source: str) -> Path:
    """Return the folder for a load's copies of a source's files; they are deleted when the load ends."""
    return data_dir / "loads" / tenant / source


def dbt_dir(data_dir: Path, tenant: str) -> Path:
    """Return the folder of dbt's files, with one folder for each run, which is deleted when the run ends."""
    return data_dir / "dbt" / tenant


def errors_dir(data_dir: Path, tenant: str | None = None) -> Path:
    """Return the folder of the tracebacks of the platform's own faults.

    Args:
        tenant: the tenant whose work failed. An empty name stands for work of no single tenant, whose folder no tenant can have, as names never begin with
            `_`. None stands for the folder above all of these.
    """
    folder = data_dir / "errors"
    return folder if tenant is None else folder / (tenant or "_platform")


def lock_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "locks" / f"{tenant}.lock"


def run_marks_dir(data_dir: Path) -> Path:
    """Return the folder with a file for each running `fabric run`, named after the run and locked by its process."""
    return data_dir / "locks" / "runs"


def sealed_secrets_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "secrets" / f"{tenant}.json"


def offboarding_journal(data_dir: Path, tenant: str) -> Path:
    """Return the file that exists while the tenant is being offboarded."""
    return data_dir / "offboarded" / f"{tenant}.journal.json"


def offboarding_certificate(data_dir: Path, tenant: str) -> Path:
    """Return the file that exists once the tenant was offboarded; the same certificate as Markdown is beside it."""
    return data_dir / "offboarded" / f"{tenant}.json"


def dagster_home(data_dir: Path) -> Path:
    """Return the default DAGSTER_HOME, which all tenants share."""
    return data_dir / "dagster"


# --- Postgres


def owner_role(tenant: str) -> str:
    return f"fabric_{tenant}"


def reader_role(tenant: str) -> str:
    return f"fabric_{tenant}_ro"


def bi_role(tenant: str) -> str:
    """Return the login that reads a tenant's schemas: the only member of the readers' role that we create."""
    return f"fabric_{tenant}_bi"


def list_roles(tenant: str) -> tuple[str, str, str]:
    """List all roles of a tenant with a managed destination."""
    return owner_role(tenant), reader_role(tenant), bi_role(tenant)


def tenant_database(tenant: str) -> str:
    """Return the database of a managed destination with `isolation: database`."""
    return f"fabric_{tenant}"


# The sealed secrets that hold the passwords of the owner's role and of the login that reads.
WAREHOUSE_LOGIN, WAREHOUSE_READER = "warehouse_login", "warehouse_reader"
