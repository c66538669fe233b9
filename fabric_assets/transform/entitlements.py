"""A tenant's config and the dbt project's graph -> what the tenant should have on its Postgres server, and the login that may create it.

FABRIC_PROVISION_URL is read here alone, by the commands that provision and offboard: a field of Settings would be in every process.
"""

import os
from collections.abc import Mapping

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.masking import remember
from fabric_assets.security.roles.entitlements import ServerEntitlements, ServerLogin
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests

PROVISION_VARIABLE = "FABRIC_PROVISION_URL"
# Created for every managed tenant, so that a tenant that selects its first model need not be provisioned again.
_DBT_SCHEMAS = ("staging", "intermediate", "marts")


def list_schemas(tenant: TenantConfig, graph: ProjectGraph | None) -> tuple[str, ...]:
    """List the schemas that a tenant's loads, models and tests need.

    Args:
        graph: None where no tenant has models, or the project could not be read.
    """
    name = tenant.tenant
    models = select_models(graph, tenant=name, transform=tenant.transform) if graph is not None and tenant.transform is not None else ()
    tests = get_tests(graph, tenant, models) if graph is not None else {}
    names = [naming.platform_dataset(name)]
    for source in tenant.sources:
        names += [naming.raw_dataset(name, source), naming.load_staging_dataset(name, source)]
    # With a login of the operator's, a schema of such a name may belong to somebody else. Only models make it the tenant's.
    usual = _DBT_SCHEMAS if tenant.destination.managed or (tenant.transform is not None and graph is None) else ()
    stored = sorted({test.schema for owned in tests.values() for test in owned if test.schema})
    # A test that was deleted from the project leaves its rows. Only dbt makes a schema of this name, so it is the tenant's without a declaration.
    left = (naming.TEST_SCHEMA,) if tenant.transform is not None and not tenant.destination.managed else ()
    names += [naming.dbt_schema(name, schema) for schema in (*usual, *(model.schema for model in models), *stored, *left)]
    return tuple(dict.fromkeys(names))


def build_entitlements(tenant: TenantConfig, graph: ProjectGraph | None, settings: Settings) -> ServerEntitlements:
    """Build what a tenant of a Postgres destination should have there.

    Raises:
        ConfigurationError: the destination's url is not a url, or has a login although the destination is managed.
        SecretError: the url's secret is not found.
        TypeError: the destination is not Postgres.
    """
    from fabric_assets.drivers.postgres_destination import get_block, read_address

    destination = get_block(tenant)
    limits = destination.limits
    return ServerEntitlements(
        tenant=tenant.tenant,
        database=read_address(tenant, settings)["dbname"],
        schemas=list_schemas(tenant, graph),
        hidden=frozenset(naming.load_staging_dataset(tenant.tenant, source) for source in tenant.sources),
        has_own_database=destination.managed and destination.isolation == "database",
        statement_timeout=limits.statement_timeout,
        connections=limits.connections,
        temp_file_bytes=limits.temp_files,
    )


def read_provision_url(environ: Mapping[str, str] | None = None) -> str:
    """Read FABRIC_PROVISION_URL, empty where it is not set, and mask its password in all texts from now on.

    Args:
        environ: default `os.environ`.
    """
    text = (os.environ if environ is None else environ).get(PROVISION_VARIABLE, "").strip()
    if text:
        remember(text)
    return text


def get_server_login(tenant: TenantConfig, settings: Settings, environ: Mapping[str, str] | None = None) -> ServerLogin:
    """Give the login that may create and drop what a tenant has: FABRIC_PROVISION_URL where it is managed, else the destination's own.

    Args:
        environ: default `os.environ`.

    Raises:
        ConfigurationError: FABRIC_PROVISION_URL is not set, or its server is not that of the destination's url.
    """
    from fabric_assets.drivers.postgres_destination import get_block, parse_postgres_url, read_address, split_postgres_url

    destination = get_block(tenant)
    if not destination.managed:
        return _build_login(f"tenant {tenant.tenant}: the destination", parse_postgres_url(tenant, settings))
    text = read_provision_url(environ)
    if not text:
        raise ConfigurationError(
            f"{PROVISION_VARIABLE} is not set, and tenant {tenant.tenant} has a managed destination",
            remedy="set it to a login that may create roles: postgresql://user:password@host:port/database",
        )
    login = split_postgres_url(text, PROVISION_VARIABLE)
    if not login["user"]:
        raise ConfigurationError(f"{PROVISION_VARIABLE} has no user", remedy="write it as postgresql://user:password@host:port/database")
    address = read_address(tenant, settings)
    if (_simplify_host(address["host"]), address["port"]) != (_simplify_host(login["host"]), login["port"]):
        raise ConfigurationError(
            f"tenant {tenant.tenant}: the destination's url ({destination.url.describe()}) is of the server {address['host']}:{address['port']},"
            f" but {PROVISION_VARIABLE} is of {login['host']}:{login['port']}",
            remedy="write the host alike in both; for several servers run the command once for each, with its tenants",
        )
    return _build_login(PROVISION_VARIABLE, login)


def _simplify_host(host: str) -> str:
    name = host.lower().rstrip(".")
    return "127.0.0.1" if name in {"localhost", "::1", "[::1]"} else name


def _build_login(origin: str, parts: Mapping[str, object]) -> ServerLogin:
    return ServerLogin(
        origin=origin,
        host=str(parts["host"]),
        port=int(str(parts["port"])),
        database=str(parts["dbname"]),
        user=str(parts["user"]),
        password=str(parts["password"]),
        query=dict(parts["query"]),  # type: ignore[call-overload]
    )
