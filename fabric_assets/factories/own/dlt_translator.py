"""dagster-dlt's translator for hand-written `@dlt_assets` of a tenant."""

import dagster as dg
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData

from fabric_assets.factories.own.tenants import build_tags, load_tenant
from fabric_assets.factories.translators import SOURCE_TAG, raw_key


class FabricDltTranslator(DagsterDltTranslator):
    """A translator that gives resources of a dlt source the keys, group, tags and owners of a tenant's raw tables.

    Args:
        tenant: its name.
        source: the third part of the assets' keys; by default the name of the dlt source.

    Raises:
        ConfigurationError: there is no such tenant, or its YAML is not valid.
    """

    def __init__(self, tenant: str, *, source: str | None = None) -> None:
        super().__init__()
        self._tenant, self._source = load_tenant(tenant), source

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        tenant, source = self._tenant, self._source or data.resource.source_name
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(
            key=raw_key(tenant.tenant, source, data.resource.name),
            deps=[],  # dagster-dlt's is an asset of the far end, which tenants with the same source would share
            group_name=tenant.tenant,
            owners=tenant.owners,
            tags={**spec.tags, **build_tags(tenant, "raw"), SOURCE_TAG: source},
        )
