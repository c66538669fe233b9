"""The names of all tenants -> those that two tenants would share: a shared schema is one customer reading the other's data."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from fabric_assets import naming
from fabric_assets.config.base import Path
from fabric_assets.config.references import Outline

_DBT_SCHEMAS = ("staging", "intermediate", "marts")


def find_collisions(outlines: Iterable[Outline]) -> Iterator[tuple[str, Path, str]]:
    """Yield tenant, path and reason of each name that is another tenant's, too; both tenants are named."""
    owners: dict[tuple[str, str], list[tuple[str, Path]]] = defaultdict(list)
    for outline in outlines:
        for kind, name, path in _get_names(outline):
            owners[kind, name].append((outline.tenant, path))
    told: set[tuple[str, Path, str]] = set()
    for (kind, name), holders in owners.items():
        for tenant, path in holders:
            for other in sorted({holder for holder, _ in holders} - {tenant}):
                if (tenant, path, other) not in told:
                    told.add((tenant, path, other))
                    yield tenant, path, f"makes the {kind} {name}, which is also tenant {other}'s: rename one of the two"


def get_rivals(served: Iterable[str], all_: Mapping[str, object]) -> list[str]:
    """Names of tenants that are not served here but could share a name with one that is.

    A clash takes two tenants of which one's name begins with the other's and goes on with _raw, or _ro: so few files have to be read to make sure.
    """
    mine = set(served)
    rivals = set()
    for name in all_:
        for head in _get_heads(name):
            if head in all_ and (head in mine) != (name in mine):
                rivals.add(name if head in mine else head)
    return sorted(rivals)


def _get_heads(name: str) -> Iterator[str]:
    if name.endswith("_ro"):
        yield name.removesuffix("_ro")
    ended = f"{name}_"  # acme_raw is a rival of acme, too: its `marts` and acme's source `marts` both make acme_raw_marts
    start = ended.find("_raw_")
    while start > 0:
        yield ended[:start]
        start = ended.find("_raw_", start + 1)


def _get_names(outline: Outline) -> Iterator[tuple[str, str, Path]]:
    tenant = outline.tenant
    for source in outline.sources:
        yield "dataset", naming.raw_dataset(tenant, source), ("sources", source)
        yield "dataset", naming.load_staging_dataset(tenant, source), ("sources", source)
    yield "dataset", naming.platform_dataset(tenant), ("tenant",)
    for schema in _DBT_SCHEMAS:
        yield "dataset", naming.dbt_schema(tenant, schema), ("tenant",)
    yield "DuckDB file", f"{tenant}.duckdb", ("tenant",)
    yield "role", naming.owner_role(tenant), ("tenant",)
    yield "role", naming.reader_role(tenant), ("tenant",)
