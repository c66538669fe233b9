"""A schema's name -> whether it is a tenant's, among all tenants of a server."""

from collections.abc import Collection


def is_own_schema(schema: str, tenant: str, tenants: Collection[str]) -> bool:
    """Whether the longest tenant's name that the schema begins with is this one: `acme_b_marts` is acme_b's, where there is an acme_b, else acme's."""
    name = schema.removeprefix("stg_")
    owners = [other for other in {*tenants, tenant} if name.startswith(f"{other}_")]
    return bool(owners) and max(owners, key=len) == tenant


def is_any_tenants(schema: str, tenants: Collection[str]) -> bool:
    """Whether a schema has a name that one of the tenants' would have."""
    name = schema.removeprefix("stg_")
    return any(name.startswith(f"{tenant}_") for tenant in tenants)
