"""A tenant -> the report of its isolation check."""

from importlib import import_module

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import FabricError
from fabric_assets.isolation.report import Attempt, IsolationReport
from fabric_assets.settings import Settings


def is_walled_by_us(tenant: TenantConfig) -> bool:
    """Whether the platform made the tenant's login. Otherwise the operator made it, and decides what it may do."""
    return get_kind(tenant).has_file or tenant.destination.managed


def check_isolation(tenant: TenantConfig, settings: Settings) -> IsolationReport:
    """Try as the tenant to reach other data than its own. Nothing that succeeds is used or kept."""
    try:
        attempts, notes = import_module(get_kind(tenant).walls).try_walls(tenant, settings)
    except FabricError as error:
        attempts, notes = [Attempt("connect to", "the tenant's own data", "untried", error.message)], []
    return IsolationReport(tenant.tenant, tuple(attempts), walls_are_ours=is_walled_by_us(tenant), notes=tuple(notes))
