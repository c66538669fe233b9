"""A tenant -> all that it has outside of Dagster's storage, counted before anything is deleted; and what is left of it afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import FabricError, SecretError
from fabric_assets.offboarding import buckets
from fabric_assets.offboarding.destinations import Destinations
from fabric_assets.offboarding.local_data import count_local_data, find_local_data, get_foreign_paths
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Relation, Warehouse
from fabric_assets.own_faults import is_own_fault
from fabric_assets.security.secrets import list_secrets
from fabric_assets.settings import Settings


@dataclass(frozen=True)
class OffboardingRequest:
    """A request to offboard one tenant, with what is known of it.

    Args:
        config: None where its YAML no longer exists or cannot be read.
        unknown: what cannot be searched, in words.
    """

    tenant: str
    config: TenantConfig | None
    settings: Settings
    matcher: TenantNameMatcher
    destinations: Destinations
    unknown: tuple[str, ...] = ()


def survey(request: OffboardingRequest, *, runs: Sequence[str]) -> dict[str, Any]:
    """Count tables, files, objects and secrets."""
    tenant, settings = request.tenant, request.settings
    relations, database, unreadable = [], {}, []
    local_data = find_local_data(tenant, settings.data_dir, request.config, runs, names=request.matcher.found_in_file, publish_dir=settings.publish_dir)
    for warehouse in request.destinations.warehouses:
        found, reason = _list_relations(warehouse)
        relations += found
        unreadable += [reason] if reason else []
        database |= {kind: names for kind, names in warehouse.describe().items() if names}
    return {
        "destination": request.destinations.kind,
        "found": {
            "relations": [{"schema": each.schema, "table": each.name, "kind": each.kind, "rows": each.rows} for each in relations],
            "database": database,
            "files": {kind: count for kind, count in count_local_data(local_data).items() if count["files"]},
            "buckets": {path: count for path, count in _count_objects(request).items() if count["objects"]},
            "secrets": _list_secrets(request),
        },
        "outside": [
            *request.unknown,
            *request.destinations.unknown,
            *(entry for warehouse in request.destinations.warehouses for entry in warehouse.find_namesakes()),
            *(entry for warehouse in request.destinations.warehouses for entry in warehouse.find_uncounted()),
            *(f"rows of {reason}" for reason in unreadable),
            *(f"{path}, which its YAML names and which is not the platform's" for path in get_foreign_paths(tenant, settings.data_dir, request.config)),
        ],
    }


def is_empty(found: Mapping[str, Any]) -> bool:
    return not any(found.values())


def delete_destination(request: OffboardingRequest) -> None:
    """Delete the data in databases and buckets, while the secrets for their logins still exist."""
    for warehouse in request.destinations.warehouses:
        warehouse.delete()
    if not request.destinations.is_gone:
        buckets.delete_objects(request.config, request.settings)


def find_left_at_destination(request: OffboardingRequest) -> list[str]:
    """Search databases and buckets again, and describe what is left."""
    left = [entry for warehouse in request.destinations.warehouses if warehouse.has_catalog for entry in warehouse.find_left()]
    return left + [f"{count['objects']} objects in {path}" for path, count in _count_objects(request).items() if count["objects"]]


def _count_objects(request: OffboardingRequest) -> dict[str, dict[str, int]]:
    return {} if request.destinations.is_gone else buckets.count_objects(request.config, request.settings)


def describe_left_paths(local_data: Mapping[str, Sequence[Path]]) -> list[str]:
    return [f"{kind}: {path}" for kind, paths in local_data.items() for path in paths]


def _list_secrets(request: OffboardingRequest) -> list[str]:
    try:
        return [*list_secrets(request.tenant, settings=request.settings)]
    except SecretError:  # a damaged store is deleted as well as a sound one
        return ["(the sealed store cannot be read)"]


def _list_relations(warehouse: Warehouse) -> tuple[list[Relation], str]:
    """List a warehouse's relations; give the reason where a file cannot be read.

    A damaged file can be deleted all the same. A database that does not answer is an error.
    """
    if warehouse.has_catalog:
        return warehouse.list_relations(), ""
    try:
        return warehouse.list_relations(), ""
    except FabricError:
        raise
    except Exception as error:
        if is_own_fault(error):
            raise
        # Any error that DuckDB raises for a broken file.
        return [], f"{warehouse.location}, which cannot be read ({type(error).__name__})"
