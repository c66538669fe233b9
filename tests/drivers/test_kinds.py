"""What a destination type declares of itself."""

import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import ADAPTERS, DEFAULT_ADAPTER, KINDS, get_kind, get_kind_of_type
from fabric_assets.errors import ConfigurationError
from fabric_assets.rows.value_forms import OLDER_FORMS


def test_an_unknown_type_is_refused_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        get_kind_of_type("postgre")
    assert caught.value.message == "no destination type 'postgre'; did you mean 'postgres'? known: duckdb, postgres"


def test_a_tenant_without_a_destination_has_a_file() -> None:
    kind = get_kind(TenantConfig.model_validate({"version": 1, "tenant": "acme"}))
    assert (kind.has_file, kind.has_one_writer, kind.dbt_adapter) == (True, True, DEFAULT_ADAPTER)
    assert DEFAULT_ADAPTER in ADAPTERS


@pytest.mark.parametrize("destination_type", KINDS)
def test_only_forms_that_rows_can_have_are_rewritten(destination_type: str) -> None:
    assert KINDS[destination_type].rewrites.keys() <= OLDER_FORMS.keys()
    assert all(kind and "{column}" in sql for kind, sql in KINDS[destination_type].rewrites.values())
