"""dagster-dbt's translator for hand-written `@dbt_assets` of a tenant."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings

from fabric_assets import naming
from fabric_assets.factories.own.tenants import build_tags, load_tenant
from fabric_assets.factories.translators import raw_key

DbtProps = Mapping[str, Any]


class FabricDbtTranslator(DagsterDbtTranslator):
    """A translator that gives the nodes of a dbt project the keys, group, tags and owners of a tenant's models.

    A source `shop` is the tenant's raw tables of that source, so its models join the tenant's lineage.

    Args:
        tenant: its name.

    Raises:
        ConfigurationError: there is no such tenant, or its YAML is not valid.
    """

    def __init__(self, tenant: str, *, settings: DagsterDbtTranslatorSettings | None = None) -> None:
        super().__init__(settings=settings)
        self._tenant = load_tenant(tenant)

    def get_asset_key(self, dbt_resource_props: DbtProps) -> dg.AssetKey:
        props, tenant = dbt_resource_props, self._tenant.tenant
        if props["resource_type"] == "source":
            return raw_key(tenant, props["source_name"], props["name"])
        return dg.AssetKey(naming.model_asset_key(tenant, self._get_layer(props), props.get("alias") or props["name"]))

    def get_group_name(self, dbt_resource_props: DbtProps) -> str:
        return self._tenant.tenant

    def get_owners(self, dbt_resource_props: DbtProps) -> Sequence[str]:
        return self._tenant.owners

    def get_tags(self, dbt_resource_props: DbtProps) -> Mapping[str, str]:
        return {**super().get_tags(dbt_resource_props), **build_tags(self._tenant, self._get_layer(dbt_resource_props))}

    def _get_layer(self, props: DbtProps) -> str:
        """Return the dbt schema without the tenant's prefix."""
        return "raw" if props["resource_type"] == "source" else props["schema"].removeprefix(f"{self._tenant.tenant}_")
