"""A tenant -> where its rows may be: its DuckDB file, and the Postgres server of its YAML. Without a YAML file, FABRIC_PROVISION_URL names the server."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.config.folder import get_tenant_files
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.drivers.postgres_destination import parse_postgres_url, split_postgres_url
from fabric_assets.errors import ConfigurationError, FabricError, SecretError
from fabric_assets.offboarding.duckdb_file import DuckDbFile
from fabric_assets.offboarding.journal import PROVED, read_journal
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Warehouse
from fabric_assets.security.roles.entitlements import ServerEntitlements, ServerLogin
from fabric_assets.security.secrets import list_secrets, resolve_secret
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import PROVISION_VARIABLE, build_entitlements, get_server_login, read_provision_url
from fabric_assets.transform.evaluation import evaluate_selections
from fabric_assets.transform.graph import ProjectGraph, load_graph

UNKNOWN = (
    f"a Postgres warehouse: there is no YAML that says where, and {PROVISION_VARIABLE} is not set. If the tenant had one, bring its YAML back (or set"
    f" {PROVISION_VARIABLE}, with its database), move this certificate away and offboard it again"
)
_UNPREPARED = "schemas of dbt models other than staging, intermediate and marts: the dbt project could not be read"


@dataclass(frozen=True)
class Destinations:
    """The warehouses that hold, or may hold, the tenant's data.

    Args:
        unknown: what could not be searched, in words.
        is_gone: whether an earlier call has proved that all of it is gone. The secrets that would open it may be gone too, so it is not searched again.
    """

    warehouses: tuple[Warehouse, ...]
    kind: str
    unknown: tuple[str, ...] = ()
    is_gone: bool = False


def build_name_matcher(tenant: str, settings: Settings, graph: ProjectGraph | None) -> TenantNameMatcher:
    """Build the matcher of the tenant's name, which leaves out all other tenants' names."""
    return TenantNameMatcher(tenant, others=_list_tenants(settings), schemas=graph.schemas if graph else ())


def get_graph(config: TenantConfig | None, settings: Settings) -> tuple[ProjectGraph | None, tuple[str, ...]]:
    """Load the dbt project. Give what is unknown without it, in words, where it cannot be read."""
    if config is not None and config.transform is None:
        return None, ()
    try:
        graph = load_graph(settings)
        return (evaluate_selections([config], graph, settings) if config is not None else graph), ()
    except FabricError:
        return None, (_UNPREPARED,) if config is not None else ()


def find_destinations(tenant: str, config: TenantConfig | None, settings: Settings, *, matcher: TenantNameMatcher, graph: ProjectGraph | None) -> Destinations:
    """Find where the tenant's rows may be. A DuckDB file counts even if the destination is another one by now.

    Raises:
        ConfigurationError: the login that can drop the tenant's data is missing, or one of its roles may be another tenant's.
    """
    journal = read_journal(naming.offboarding_journal(settings.data_dir, tenant))
    if journal is not None and PROVED in journal.steps:
        return Destinations((), journal.steps["survey"]["destination"], is_gone=True)
    file = naming.warehouse_file(settings.data_dir, tenant)
    files: tuple[Warehouse, ...] = (DuckDbFile(tenant, file),) if file.exists() else ()
    if config is None:
        if text := read_provision_url():
            parts = split_postgres_url(text, PROVISION_VARIABLE)
            login = _build_login(PROVISION_VARIABLE, parts)
            _refuse_shared_roles(tenant, matcher.others)
            entitlements = ServerEntitlements(tenant, login.database, ())
            from fabric_assets.offboarding.postgres_schemas import PostgresSchemas

            reader = _get_sealed_login(tenant, login, settings)
            server = PostgresSchemas(matcher, entitlements, login=login, reader=reader, is_managed=True)
            return Destinations((*files, server), "unknown: there is no YAML")
        return Destinations(files, "unknown: there is no YAML", (UNKNOWN,))
    destination = config.destination
    if get_kind(config).has_file:
        return Destinations(files, destination.type)
    from fabric_assets.offboarding.postgres_schemas import PostgresSchemas

    server = PostgresSchemas(
        matcher,
        build_entitlements(config, graph, settings),
        login=get_server_login(config, settings),
        reader=_get_reader(config, settings) if destination.managed else None,
        is_managed=destination.managed,
    )
    return Destinations((*files, server), f"{destination.type}, {'managed' if destination.managed else 'with a login of the operator'}")


def _refuse_shared_roles(tenant: str, others: Iterable[str]) -> None:
    """Refuse roles that may be another tenant's: `fabric_acme_ro` may be acme's or acme_ro's. For a tenant with YAML, the loader has checked this."""
    own = {*naming.list_roles(tenant)}
    for other in sorted(others):
        if shared := own & {*naming.list_roles(other)}:
            raise ConfigurationError(
                f"there is no YAML of {tenant}, and the role {', '.join(shared)} that it would have is tenant {other}'s",
                remedy=f"unset {PROVISION_VARIABLE}: then Postgres is left alone, and all else of {tenant} goes",
            )


def _get_reader(config: TenantConfig, settings: Settings) -> ServerLogin | None:
    try:
        return _build_login("the tenant's login", parse_postgres_url(config, settings))
    except SecretError:  # it was never made, or is gone already: then nothing can be read with it either
        return None


def _get_sealed_login(tenant: str, server: ServerLogin, settings: Settings) -> ServerLogin | None:
    """Give the own login of a tenant without YAML, if its password is still sealed."""
    try:
        if naming.WAREHOUSE_LOGIN not in list_secrets(tenant, settings=settings):
            return None
        password = resolve_secret(SecretRef(secret=naming.WAREHOUSE_LOGIN), tenant=tenant, settings=settings)
    except SecretError:
        return None
    return replace(server, origin="the tenant's login", user=naming.owner_role(tenant), password=password)


def _build_login(origin: str, parts: dict) -> ServerLogin:
    return ServerLogin(origin, parts["host"], parts["port"], parts["dbname"], parts["user"], parts["password"], dict(parts["query"]))


def _list_tenants(settings: Settings) -> Iterable[str]:
    """List the tenants of all code locations, by the names of their files.

    Raises:
        ConfigurationError: the folder does not exist. Without knowing the other tenants, their data cannot be left alone.
    """
    return [*get_tenant_files(settings.tenants_dir).paths]
