"""A fleet -> the rows of its declarations: one function for each word that `fabric list` takes."""

from collections.abc import Callable, Iterator

from fabric_assets import naming
from fabric_assets.config.checks import get_check_name
from fabric_assets.config.loader import Fleet, LoadedTenant
from fabric_assets.isolation.check import is_walled_by_us
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests

Row = dict[str, object]


def list_tenants(fleet: Fleet, _graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield every tenant, also the broken ones."""
    for name in sorted({*fleet.tenants, *fleet.broken}):
        if name in fleet.broken:
            yield {"tenant": name, "status": "broken", "display_name": None, "destination": None, "sources": None, "streams": None, "schedules": None}
            continue
        config = fleet.tenants[name].config
        yield {
            "tenant": name,
            "status": "ok",
            "display_name": config.display_name,
            "destination": config.destination.type,
            "sources": len(config.sources),
            "streams": sum(len(source.streams) for source in config.sources.values()),
            "schedules": len(config.schedules),
        }


def list_sources(fleet: Fleet, _graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield every source."""
    for name, loaded in fleet.tenants.items():
        for source, config in loaded.config.sources.items():
            yield {"tenant": name, "source": source, "type": config.type, "streams": len(config.streams), "dataset": naming.raw_dataset(name, source)}


def list_streams(fleet: Fleet, _graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield every stream with the keys that decide how it is loaded."""
    for name, loaded in fleet.tenants.items():
        for source, config in loaded.config.sources.items():
            for stream, declared in config.streams.items():
                cursor = getattr(declared, "cursor", None)
                yield {
                    "tenant": name,
                    "source": source,
                    "stream": stream,
                    "asset": "/".join(naming.raw_asset_key(name, source, stream)),
                    "write_disposition": declared.disposition,
                    "primary_key": list(declared.primary_key or ()),
                    "cursor": cursor.field if cursor else None,
                }


def list_models(fleet: Fleet, graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield the dbt models, seeds and snapshots of every tenant."""
    for name, loaded in fleet.tenants.items():
        for model in _select(loaded, graph):
            yield {
                "tenant": name,
                "asset": "/".join(naming.model_asset_key(name, model.schema, model.name)),
                "materialized": model.materialized,
                "description": model.description,
                "file": model.file,
            }


def list_schedules(fleet: Fleet, _graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield every schedule."""
    for name, loaded in fleet.tenants.items():
        for schedule, config in loaded.config.schedules.items():
            target = config.target if config.target == "all" else list(config.target)
            yield {"tenant": name, "schedule": schedule, "cron": config.cron, "timezone": config.timezone or loaded.config.timezone, "target": target}


def list_checks(fleet: Fleet, graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield the checks of each tenant: its isolation check, those of its YAML, then its dbt tests."""
    for name, loaded in fleet.tenants.items():
        walls = {"asset": "/".join(naming.isolation_asset_key(name)), "check": naming.ISOLATION_CHECK, "type": "isolation"}
        yield {"tenant": name, **walls, "severity": "error" if is_walled_by_us(loaded.config) else "warn", "blocking": False}
        for asset, checks in loaded.config.checks.items():
            for check in checks:
                yield {
                    "tenant": name,
                    "asset": f"{name}/{asset}",
                    "check": get_check_name(check, checks),
                    "type": check.type,
                    "severity": check.severity,
                    "blocking": check.blocking,
                }
        models = _select(loaded, graph)
        assets = {model.unique_id: "/".join(naming.model_asset_key(name, model.schema, model.name)) for model in models}
        for owner, tests in (get_tests(graph, loaded.config, models) if graph else {}).items():
            asset = assets.get(owner) or "/".join(naming.raw_asset_key(name, *owner.split(".", 1)))
            for test in tests:
                yield {
                    "tenant": name,
                    "asset": asset,
                    "check": test.name,
                    "type": "dbt source freshness" if test.kind == "freshness" else f"dbt {test.kind} test",
                    "severity": test.severity,
                    "blocking": False,
                }


LISTINGS: dict[str, Callable[[Fleet, ProjectGraph | None], Iterator[Row]]] = {
    "tenants": list_tenants,
    "sources": list_sources,
    "streams": list_streams,
    "models": list_models,
    "schedules": list_schedules,
    "checks": list_checks,
}
NEEDS_GRAPH = frozenset({"models", "checks"})


def _select(loaded: LoadedTenant, graph: ProjectGraph | None) -> tuple[ModelNode, ...]:
    if graph is None or loaded.config.transform is None:
        return ()
    return select_models(graph, tenant=loaded.config.tenant, transform=loaded.config.transform)
