"""A tenant's Postgres destination -> its complete login, and connections.

Each part of a login is set here, because libpq takes missing parts from the process's environment, which could be another tenant's.
"""

from functools import cached_property
from typing import Any
from urllib.parse import unquote

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.config.tenant import PostgresDestination, TenantConfig
from fabric_assets.drivers.destinations import Destination, Report
from fabric_assets.drivers.tls import get_tls_remedy
from fabric_assets.errors import ConfigurationError, DestinationError, DestinationUnavailable, FabricError, SecretError
from fabric_assets.security.postgres_login import complete_login, refuse_foreign_logins
from fabric_assets.security.postgres_session import open_session
from fabric_assets.settings import Settings

CONNECT_TIMEOUT_SECONDS = 15


class Postgres(Destination):
    """A database on a server. The operator provides the login; a managed destination has a login of the tenant."""

    @cached_property
    def login(self) -> dict[str, Any]:
        """The complete login; resolved once.

        Raises:
            ConfigurationError, SecretError: see `parse_postgres_url`.
        """
        return parse_postgres_url(self.tenant, self.settings)

    @property
    def database(self) -> str:
        return self.login["dbname"]

    def is_there(self) -> bool:
        return True

    def connect(self, *, read_only: bool = False) -> Any:
        import psycopg2

        extra = {key: value for key, value in self.login["query"].items() if key not in {"options", "connect_timeout", "client_encoding"}}
        login = {key: self.login[key] for key in ("host", "port", "dbname", "user", "password")}
        parameters = complete_login({**login, "connect_timeout": CONNECT_TIMEOUT_SECONDS, **extra})
        try:
            return open_session(parameters, {"default_transaction_read_only": "on"} if read_only else {}, where=describe_postgres(self.tenant))
        except psycopg2.Error as error:
            raise get_postgres_error(self.tenant, str(error)) from None

    def get_dbt_login(self) -> dict[str, Any]:
        return dict(self.login)


def open_destination(tenant: TenantConfig, settings: Settings, *, report: Report | None = None) -> Postgres:
    return Postgres(tenant, settings, report=report)


def explain_damage(reason: str, text: str, where: str) -> FabricError | None:
    """Return None: a server reports damaged files to its own operator."""
    return None


def get_block(tenant: TenantConfig) -> PostgresDestination:
    """Get the `destination:` block of a tenant with Postgres.

    Raises:
        TypeError: it is another destination's.
    """
    if not isinstance(tenant.destination, PostgresDestination):
        raise TypeError(tenant.destination.type)
    return tenant.destination


def describe_postgres(tenant: TenantConfig) -> str:
    """Name a tenant's Postgres destination, for messages."""
    return f"tenant {tenant.tenant}: the destination (postgres)"


def get_missing_schema_remedy(tenant: TenantConfig) -> str:
    """Return the remedy if a schema is missing and the login may not create it."""
    return f"fabric provision {tenant.tenant}" if tenant.destination.managed else "grant the login CREATE on the database, or make the schema for it"


def refuse_other_encodings(connection: Any, tenant: TenantConfig) -> None:
    """Make sure that a Postgres database can hold any text.

    Raises:
        DestinationError: its encoding is not UTF8, which lacks letters, or counts one letter as several.
    """
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        name = connection.info.dbname
        raise DestinationError(
            f"{describe_postgres(tenant)}: the database {name} has the encoding {encoding}, which cannot hold every text exactly; it must be UTF8",
            remedy="make another one and name it in the destination's url: create database NAME encoding 'UTF8' template template0 lc_collate 'C' lc_ctype 'C'",
        )


def get_postgres_error(tenant: TenantConfig, text: str) -> FabricError:
    """Build the error of a failed connection. A refused login is permanent; other failures may pass."""
    reason = " ".join(text.split())
    where = describe_postgres(tenant)
    if remedy := get_tls_remedy(reason):
        return DestinationError(f"{where} gives no trusted TLS connection: {reason}", remedy=remedy)
    is_managed = tenant.destination.managed
    provision = f"fabric provision {tenant.tenant}"
    if any(word in reason for word in ("authentication failed", "no password supplied", "no pg_hba.conf entry", "is not permitted to log in")):
        again = f"{provision}; if that finds nothing to do: fabric secrets remove {tenant.tenant} {naming.WAREHOUSE_LOGIN}, then provision once more"
        return DestinationError(f"{where} refuses the login: {reason}", remedy=again if is_managed else "check the user and password in the destination's url")
    if "permission denied for database" in reason:
        grant = "grant the login of the destination's url CONNECT on the database"
        return DestinationError(f"{where} denies access: {reason}", remedy=provision if is_managed else grant)
    if "does not exist" in reason:
        return DestinationError(f"{where} refuses: {reason}", remedy=provision if is_managed else "create it, or correct the destination's url")
    return DestinationUnavailable(f"{where} cannot be reached: {reason}", remedy="check host, port and network of the destination's url")


def parse_postgres_url(tenant: TenantConfig, settings: Settings) -> dict[str, Any]:
    """Resolve a destination's complete login, for drivers and dbt. Parts that the url leaves out get a value here.

    Raises:
        ConfigurationError: the url is not valid, or has a login although the destination is managed.
        SecretError: the url, or the login of a managed destination, is nowhere; it is `fabric provision` that seals the latter.
    """
    from fabric_assets.security.secrets import list_secrets, resolve_secret

    name, destination = tenant.tenant, get_block(tenant)
    where = f"tenant {name}: the destination's url ({destination.url.describe()})"
    address = read_address(tenant, settings)
    if not destination.managed:
        if not address["user"]:
            raise ConfigurationError(
                f"{where} has no user", remedy="write it as postgresql://user:password@host:port/database, or let the destination be managed: true"
            )
        return address
    if naming.WAREHOUSE_LOGIN not in list_secrets(name, settings=settings):
        raise SecretError(f"tenant {name}: the destination is managed, and its login has not been made yet", remedy=f"fabric provision {name}")
    password = resolve_secret(SecretRef(secret=naming.WAREHOUSE_LOGIN), tenant=name, settings=settings)
    return address | {"user": naming.owner_role(name), "password": password}


def read_address(tenant: TenantConfig, settings: Settings) -> dict[str, Any]:
    """Split a destination's url; that of a managed destination has no user and password.

    Raises:
        ConfigurationError: it is no url, or has a login although the destination is managed.
        SecretError: it is nowhere.
    """
    from fabric_assets.security.secrets import resolve_secret

    destination = get_block(tenant)
    where = f"tenant {tenant.tenant}: the destination's url ({destination.url.describe()})"
    login = "" if destination.managed else "user:password@"
    parts = split_postgres_url(resolve_secret(destination.url, tenant=tenant.tenant, settings=settings), where, login=login)
    if not destination.managed:
        return parts
    if parts["user"] or parts["password"]:
        raise ConfigurationError(
            f"{where} carries a login, but the destination is managed: the tenant connects as {naming.owner_role(tenant.tenant)}",
            remedy="take user and password out of the url, or drop managed: true",
        )
    return parts | ({"dbname": naming.tenant_database(tenant.tenant)} if destination.isolation == "database" else {})


def split_postgres_url(text: str, where: str, *, login: str = "user:password@") -> dict[str, Any]:
    """Split a URL into host, port, dbname, user, password (empty if missing) and query.

    Args:
        where: what the URL is, for messages.
        login: how it should have been written.

    Raises:
        ConfigurationError: it is not a URL of Postgres, or lacks a host or a database.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    remedy = f"write it as postgresql://{login}host:port/database"
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{where} is not a database URL", remedy=remedy) from None
    if url.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigurationError(f"{where} is for {url.drivername}, but must be for postgres", remedy=remedy)
    query = {key: value if isinstance(value, str) else value[-1] for key, value in url.query.items()}
    # libpq would also accept these from the query.
    host, user, password = (query.pop(key, "") for key in ("host", "user", "password"))
    if "dbname" in query:
        raise ConfigurationError(f"{where} has the parameter dbname, which is not allowed there", remedy=remedy)
    refuse_foreign_logins(query, where)
    host, user = url.host or unquote(host), url.username or user
    if "@" in host:
        raise ConfigurationError(f"{where} has a character in its password that ends the password", remedy="write @ as %40, / as %2F, ? as %3F and # as %23")
    if not host or not url.database:
        raise ConfigurationError(f"{where} lacks a host or a database", remedy=remedy)
    return {"host": host, "port": url.port or 5432, "dbname": url.database, "user": user, "password": url.password or password, "query": query}
