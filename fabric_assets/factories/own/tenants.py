"""A tenant of the fleet, as the translators of hand-written assets need it."""

from collections.abc import Mapping
from dataclasses import replace

from fabric_assets.config.folder import get_tenant_files
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.run_tags import TENANT_TAG
from fabric_assets.factories.translators import LAYER_TAG
from fabric_assets.settings import load_settings
from fabric_assets.suggestions import suggest


def load_tenant(name: str) -> TenantConfig:
    """Load a tenant's YAML, also one that this process does not serve.

    Raises:
        ConfigurationError: there is no such tenant, or its YAML is not valid.
    """
    settings = load_settings()
    if name not in (known := get_tenant_files(settings.tenants_dir).paths):
        raise ConfigurationError(f"there is no tenant {name}{suggest(name, sorted(known))}", remedy=f"name a tenant, or add {settings.tenants_dir / name}.yaml")
    fleet = load_fleet(replace(settings, tenants=(name,)))
    if name in fleet.broken:
        problems = "\n".join(str(problem) for problem in fleet.broken[name])
        raise ConfigurationError(f"the YAML of tenant {name} is not valid:\n{problems}", remedy="run `fabric validate`")
    return fleet.tenants[name].config


def build_tags(tenant: TenantConfig, layer: str) -> Mapping[str, str]:
    return {TENANT_TAG: tenant.tenant, LAYER_TAG: layer}
