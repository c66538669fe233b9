"""Tenant, source, stream and schedule names -> every name derived from them (contract section 3).

The one place where a derived name is made: two places would drift apart, and a drifted name is another tenant's table.
A valid name is a fixed point of dlt's snake_case normaliser, so what is declared is what the warehouse shows.
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
    """Say what is wrong with a source, stream or schedule name; None if nothing is."""
    if not _NAME.fullmatch(name):
        return "must be lower-case letters, digits and single underscores, beginning with a letter (acme, acme_2)"
    if not length[0] <= len(name) <= length[1]:
        return f"must be {length[0]} to {length[1]} characters long, not {len(name)}"
    return None


def get_tenant_name_error(name: str) -> str | None:
    """Say what is wrong with a tenant's name; None if nothing is."""
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


def load_staging_dataset(tenant: str, source: str) -> str:
    return f"stg_{raw_dataset(tenant, source)}"


def platform_dataset(tenant: str) -> str:
    return f"{tenant}_fabric"


def dbt_schema(tenant: str, schema: str) -> str:
    return f"{tenant}_{schema}"


# dbt's own name, without the tenant's prefix, of the schema where tests with `store_failures` keep the rows that they found.
TEST_SCHEMA = "dbt_test__audit"


def is_named_like(tenant: str, name: str, dbt_schemas: Iterable[str]) -> bool:
    """Whether a schema has a name that the tenant's would have. It need not be the tenant's for that: anybody can have given it.

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
    """Args:
    schema: the dbt schema without the tenant's prefix, e.g. `marts`.
    """
    return (tenant, schema, model)


def isolation_asset_key(tenant: str) -> tuple[str, ...]:
    """What the check of a tenant's walls is a check of; nothing materialises it."""
    return (tenant, "isolation")


def load_op(tenant: str, source: str) -> str:
    return f"{tenant}__{source}__load"


def transform_op(tenant: str) -> str:
    return f"{tenant}__transform"


# The check of every tenant's walls; one op, job and schedule for all tenants: none is called fabric.
ISOLATION_CHECK = "isolation"
ISOLATION_OP = "fabric__isolation__check"
ISOLATION_SCHEDULE = "fabric__isolation"


def schedule(tenant: str, name: str) -> str:
    return f"{tenant}__{name}"


def inbox_sensor(tenant: str, source: str) -> str:
    return f"{tenant}__{source}__inbox"


def pool(tenant: str) -> str:
    """The pool of everything that writes a tenant's warehouse: DuckDB takes one writer process a file."""
    return f"{tenant}__warehouse"


# --- working names and files, private to a tenant (and source)

# Folders of FABRIC_DATA_DIR that no tenant's YAML may name: they hold other tenants' rows, secrets and runs.
# Processes and their environments, devices, sockets, mounted secrets: no source reads there.
MACHINE_FOLDERS = ("/proc", "/sys", "/dev", "/run", "/var/run")
PLATFORM_FOLDERS = frozenset({"warehouse", "dbt", "loads", "locks", "secrets", "dagster", "offboarded", "errors"})
# Nor may a secret come from there: the inbox holds what customers send.
SECRETLESS_FOLDERS = PLATFORM_FOLDERS | {"inbox"}
# Variables of the platform's own, secrets among them, which no tenant's reference may name.
PLATFORM_VARIABLES = ("FABRIC_", "DAGSTER_")


def is_platform_path(data_dir: Path, path: Path) -> bool:
    """Whether a path lies in one of the platform's folders; both are resolved."""
    return path.is_relative_to(data_dir) and path != data_dir and path.relative_to(data_dir).parts[0] in PLATFORM_FOLDERS


def warehouse_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "warehouse" / f"{tenant}.duckdb"


def inbox_dir(data_dir: PurePath, tenant: str) -> PurePath:
    """What a tenant's customers drop lies here, unless its YAML says otherwise; the folder is the tenant's in any case."""
    return data_dir / "inbox" / tenant


def files_dir(data_dir: Path, tenant: str, source: str) -> Path:
    """Holds what a load has copied of a source's files, until it ends."""
    return data_dir / "loads" / tenant / source


def dbt_dir(data_dir: Path, tenant: str) -> Path:
    """Holds one folder a run, removed when the run ends."""
    return data_dir / "dbt" / tenant


def errors_dir(data_dir: Path, tenant: str | None = None) -> Path:
    """Holds the tracebacks of the platform's own faults.

    Args:
        tenant: whose work failed; empty for the folder of what is no single tenant's, None for the folder of all. No tenant's name begins with `_`.
    """
    folder = data_dir / "errors"
    return folder if tenant is None else folder / (tenant or "_platform")


def lock_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "locks" / f"{tenant}.lock"


def run_marks_dir(data_dir: Path) -> Path:
    """Holds a file for each `fabric run` that goes on, locked by its process and named after the run."""
    return data_dir / "locks" / "runs"


def sealed_secrets_file(data_dir: Path, tenant: str) -> Path:
    return data_dir / "secrets" / f"{tenant}.json"


def offboarding_journal(data_dir: Path, tenant: str) -> Path:
    """Stands while the tenant is being offboarded."""
    return data_dir / "offboarded" / f"{tenant}.journal.json"


def offboarding_certificate(data_dir: Path, tenant: str) -> Path:
    """Stands when it has been; the same as Markdown lies beside it."""
    return data_dir / "offboarded" / f"{tenant}.json"


def dagster_home(data_dir: Path) -> Path:
    """The default DAGSTER_HOME, of all tenants."""
    return data_dir / "dagster"


# --- Postgres


def owner_role(tenant: str) -> str:
    return f"fabric_{tenant}"


def reader_role(tenant: str) -> str:
    return f"fabric_{tenant}_ro"


def bi_role(tenant: str) -> str:
    """The login that reads a tenant's schemas: the one member of its readers' role that we make."""
    return f"fabric_{tenant}_bi"


def list_roles(tenant: str) -> tuple[str, str, str]:
    """All roles of a tenant with a managed destination."""
    return owner_role(tenant), reader_role(tenant), bi_role(tenant)


def tenant_database(tenant: str) -> str:
    """Of a managed destination with `isolation: database`."""
    return f"fabric_{tenant}"


# The sealed secrets that hold the passwords of the owner's role and of the login that reads.
WAREHOUSE_LOGIN, WAREHOUSE_READER = "warehouse_login", "warehouse_reader"
