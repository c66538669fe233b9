"""A tenant's `destination:` block -> connections to its data.

Each part of a login is set here: libpq fills what is left out from the process's environment, which would be another tenant's.
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fabric_assets import naming
from fabric_assets.config.tenant import DuckDbDestination, PostgresDestination, TenantConfig
from fabric_assets.errors import ConfigurationError, DestinationError, DestinationUnavailable, FabricError
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings

CONNECT_TIMEOUT_SECONDS = 15


def connect(tenant: TenantConfig, settings: Settings, *, read_only: bool = False) -> Any:
    """Open a DB-API connection to the tenant's data (duckdb or psycopg2), its session in UTC.

    Raises:
        DestinationError: nothing has been loaded yet, or the login is refused.
        DestinationUnavailable: no connection.
    """
    if isinstance(tenant.destination, DuckDbDestination):
        return _connect_duckdb(tenant, settings, read_only=read_only)
    import psycopg2

    url = parse_postgres_url(tenant, tenant.destination, settings)
    options = "-ctimezone=UTC" + (" -cdefault_transaction_read_only=on" if read_only else "")
    extra = {key: value for key, value in url["query"].items() if key not in {"options", "connect_timeout"}}
    try:
        return psycopg2.connect(
            host=url["host"],
            port=url["port"],
            dbname=url["dbname"],
            user=url["user"],
            password=url["password"],
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options=options,
            **extra,
        )
    except psycopg2.OperationalError as error:
        raise get_postgres_error(tenant, str(error)) from None


def get_database_name(tenant: TenantConfig, settings: Settings) -> str:
    """The first part of a fully qualified table name: the DuckDB file's stem, or the Postgres database."""
    if isinstance(tenant.destination, DuckDbDestination):
        return naming.warehouse_file(settings.data_dir, tenant.tenant).stem
    return parse_postgres_url(tenant, tenant.destination, settings)["dbname"]


def get_postgres_error(tenant: TenantConfig, text: str) -> FabricError:
    """Say in plain words why Postgres could not be reached; a refused login is permanent, the rest may pass."""
    reason = " ".join(text.split())
    place = f"tenant {tenant.tenant}: the destination (postgres)"
    if any(word in reason for word in ("authentication failed", "no password supplied", "no pg_hba.conf entry")):
        return DestinationError(f"{place} refuses the login: {reason}", remedy="check the user and password in the destination's url")
    if "does not exist" in reason:
        return DestinationError(f"{place} refuses: {reason}", remedy="create it, or correct the destination's url")
    return DestinationUnavailable(f"{place} cannot be reached: {reason}", remedy="check host, port and network of the destination's url")


def parse_postgres_url(tenant: TenantConfig, destination: PostgresDestination, settings: Settings) -> dict[str, Any]:
    """Split a destination's url into complete parts, for drivers and for dbt: whatever it leaves out is set here, never looked up elsewhere."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from fabric_assets.security.secrets import resolve_secret

    place = f"tenant {tenant.tenant}: the destination's url ({destination.url.describe()})"
    remedy = "write it as postgresql://user:password@host:port/database"
    try:
        url = make_url(resolve_secret(destination.url, tenant=tenant.tenant, settings=settings).strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{place} is no database URL", remedy=remedy) from None
    if url.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigurationError(f"{place} is for {url.drivername}, but the destination's type is postgres", remedy=remedy)
    query = {key: value if isinstance(value, str) else value[-1] for key, value in url.query.items()}
    host = url.host or unquote(query.pop("host", ""))
    if not host or not url.username or not url.database:
        raise ConfigurationError(f"{place} lacks a host, a user or a database", remedy=remedy)
    return {"host": host, "port": url.port or 5432, "dbname": url.database, "user": url.username, "password": url.password or "", "query": query}


def _ensure_warehouse_file(tenant: TenantConfig, settings: Settings) -> Path:
    """Create the tenant's DuckDB file, readable by its owner alone."""
    import duckdb

    path = naming.warehouse_file(settings.data_dir, tenant.tenant)
    make_private_folder(path.parent)
    path.parent.chmod(0o700)
    if not path.exists():
        duckdb.connect(str(path)).close()
        path.chmod(0o600)
    return path


def _connect_duckdb(tenant: TenantConfig, settings: Settings, *, read_only: bool) -> Any:
    import duckdb

    path = naming.warehouse_file(settings.data_dir, tenant.tenant)
    if not path.exists():
        if read_only:
            raise DestinationError(f"tenant {tenant.tenant}: nothing has been loaded yet, {path.name} does not exist", remedy="load the tenant's sources first")
        _ensure_warehouse_file(tenant, settings)
    try:
        connection = duckdb.connect(str(path), read_only=read_only)
    except duckdb.IOException as error:
        raise DestinationUnavailable(
            f"tenant {tenant.tenant}: {path.name} is open in another program: {error}", remedy="close it there, then try again"
        ) from None
    connection.execute("set TimeZone = 'UTC'")
    return connection
