"""A fleet -> rows of what is declared: one function per word of `fabric list`."""

from collections.abc import Callable, Iterator

from fabric_assets import naming
from fabric_assets.config.checks import get_check_name
from fabric_assets.config.loader import Fleet
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selection import select_models

Row = dict[str, object]


def list_tenants(fleet: Fleet, _graph: ProjectGraph | None) -> Iterator[Row]:
    """Yield every tenant, the broken ones too."""
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
    """Yield every stream with what decides how it is loaded."""
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
    """Yield the dbt models of every tenant."""
    for name, model in _get_models(fleet, graph):
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
    """Yield the checks of raw streams, then the dbt tests of models."""
    for name, loaded in fleet.tenants.items():
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
    for name, model in _get_models(fleet, graph):
        for test in model.checks:
            asset = "/".join(naming.model_asset_key(name, model.schema, model.name))
            yield {"tenant": name, "asset": asset, "check": test.name, "type": f"dbt {test.kind} test", "severity": test.severity, "blocking": False}


LISTINGS: dict[str, Callable[[Fleet, ProjectGraph | None], Iterator[Row]]] = {
    "tenants": list_tenants,
    "sources": list_sources,
    "streams": list_streams,
    "models": list_models,
    "schedules": list_schedules,
    "checks": list_checks,
}
NEEDS_GRAPH = frozenset({"models", "checks"})


def _get_models(fleet: Fleet, graph: ProjectGraph | None) -> Iterator[tuple[str, ModelNode]]:
    for name, loaded in fleet.tenants.items():
        if graph is not None and loaded.config.transform is not None:
            for model in select_models(graph, tenant=name, transform=loaded.config.transform):
                yield name, model
