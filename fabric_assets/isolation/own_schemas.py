"""A schema's name -> which of all tenants of a server it belongs to."""

from collections.abc import Collection


def is_own_schema(schema: str, tenant: str, tenants: Collection[str]) -> bool:
    """Whether this tenant's name is the longest one that the schema begins with: `acme_b_marts` is acme_b's if there is an acme_b, otherwise acme's."""
    name = schema.removeprefix("stg_")
    owners = [other for other in {*tenants, tenant} if name.startswith(f"{other}_")]
    return bool(owners) and max(owners, key=len) == tenant


def is_any_tenants(schema: str, tenants: Collection[str]) -> bool:
    """Whether a schema's name is one that a schema of one of the tenants has."""
    name = schema.removeprefix("stg_")
    return any(name.startswith(f"{tenant}_") for tenant in tenants)
