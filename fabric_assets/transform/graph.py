"""The prepared dbt project -> its models, tests and sources, as plain frozen objects.

It is read from a small `graph.json`: every process builds definitions, and importing dbt to read its manifest would cost each one seconds.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import get_fingerprint, get_graph_file, get_selections_file
from fabric_assets.transform.renames import Relation, list_replaced
from fabric_assets.transform.selections import Evaluation, Selection, read_selections

# source, stream
Origin = tuple[str, str]
# name -> (declared type or None, description)
Columns = dict[str, tuple[str | None, str]]


@dataclass(frozen=True)
class TestNode:
    """A data test, a unit test, or the test of a source's freshness.

    Args:
        unique_id: that of the source, for its freshness.
        column: the column that a generic test is declared on.
        depends_on_models: the models that it reads; ephemeral models are replaced by those that they read.
        schema: the schema, without the tenant's prefix, that stores the rows that it found; None unless it has `store_failures`.
        max_age_seconds: the shortest age that fails, of a source's freshness.
    """

    __test__: ClassVar[bool] = False  # pytest takes every Test* for its own

    unique_id: str
    name: str
    kind: Literal["data", "unit", "freshness"]
    severity: Literal["error", "warn"]
    column: str | None = None
    description: str = ""
    depends_on_models: tuple[str, ...] = ()
    depends_on_sources: tuple[Origin, ...] = ()
    schema: str | None = None
    max_age_seconds: int | None = None


@dataclass(frozen=True)
class ModelNode:
    """A model, a seed or a snapshot.

    Args:
        kind: dbt's resource type.
        name: its table's; without the tenant's prefix for a model of one tenant only.
        schema: without the tenant's prefix, e.g. `marts`.
        depends_on_models: the models whose tables it reads; ephemeral models, which have no table, are replaced by those that they read.
        file: relative to the dbt project.
        tenant: the only tenant that has it; None for a shared model.
        parents: unique ids of all that it refers to directly, including sources and ephemeral models.
        deprecation_date: the day, as `2027-06-30`, after which dbt counts the model as deprecated; None if it stays.
    """

    unique_id: str
    name: str
    schema: str
    fqn: tuple[str, ...]
    file: str
    materialized: str
    tags: tuple[str, ...] = ()
    description: str = ""
    columns: Columns = field(default_factory=dict)
    depends_on_models: tuple[str, ...] = ()
    depends_on_sources: tuple[Origin, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    tenant: str | None = None
    checks: tuple[TestNode, ...] = ()
    parents: tuple[str, ...] = ()
    kind: Literal["model", "seed", "snapshot"] = "model"
    deprecation_date: str | None = None

    @property
    def is_ephemeral(self) -> bool:
        return self.materialized == "ephemeral"


@dataclass(frozen=True)
class SourceNode:
    """A table of a dbt source: a raw stream of each tenant that declares it.

    Args:
        sensitive: columns, in lower case, that are tagged `sensitive`.
    """

    unique_id: str
    source: str
    stream: str
    fqn: tuple[str, ...]
    file: str
    tags: tuple[str, ...] = ()
    description: str = ""
    columns: Columns = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()
    checks: tuple[TestNode, ...] = ()


@dataclass(frozen=True)
class Mistake:
    """An error in a file that all tenants share.

    Args:
        file: relative to the dbt project.
    """

    file: str
    line: int
    message: str


@dataclass(frozen=True)
class ProjectGraph:
    """The facts of the dbt project that definitions, selectors and validation use.

    Args:
        models: by unique_id, parents before children; including ephemeral ones, seeds and snapshots.
        sources: by unique_id.
        unattached: tests that belong to no single asset, by dagster-dbt's rule: several parents and no `meta.dagster.ref.name`.
        mistakes: shared models that dbt cannot parse, by unique_id; the rest was parsed with stand-ins for them.
        selections: the results of tenants' blocks that have been evaluated.
        broken: tenants whose own files dbt cannot parse, or that break a rule -> the error; the project was parsed without these files.
    """

    models: dict[str, ModelNode]
    sources: dict[str, SourceNode] = field(default_factory=dict)
    unattached: tuple[TestNode, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)
    mistakes: dict[str, Mistake] = field(default_factory=dict)
    selections: dict[Selection, Evaluation] = field(default_factory=dict)

    @cached_property
    def own_models(self) -> dict[str, frozenset[str]]:
        """The unique ids of own models, by tenant."""
        found: dict[str, set[str]] = {}
        for unique_id, model in self.models.items():
            if model.tenant is not None:
                found.setdefault(model.tenant, set()).add(unique_id)
        return {tenant: frozenset(models) for tenant, models in found.items()}

    @cached_property
    def _listed(self) -> dict[frozenset[str], tuple[ModelNode, ...]]:
        return {}

    def list_models(self, chosen: frozenset[str]) -> tuple[ModelNode, ...]:
        """List the chosen models that have tables, parents before children. The list is kept, since most tenants share a few selections."""
        if chosen not in self._listed:
            self._listed[chosen] = tuple(model for unique_id, model in self.models.items() if unique_id in chosen and not model.is_ephemeral)
        return self._listed[chosen]

    @cached_property
    def stopped(self) -> dict[str, Mistake]:
        """The models that cannot be built, each with the mistake that stops it: its own, or that of a model below it."""
        found = dict(self.mistakes)
        for unique_id, model in self.models.items():  # parents come before children
            if unique_id not in found and (cause := next((found[parent] for parent in model.parents if parent in found), None)):
                found[unique_id] = cause
        return found

    @cached_property
    def renamed(self) -> dict[Relation, ModelNode]:
        """The shared models by the schema and name that each had in an earlier release."""
        shared = (model for model in self.models.values() if model.tenant is None)
        return {relation: model for model in shared for relation in list_replaced(model.meta)}

    @cached_property
    def renames(self) -> dict[Relation, Relation]:
        """The rename table by schema and name, which are the ends of asset keys."""
        return {relation: (model.schema, model.name) for relation, model in self.renamed.items()}

    @cached_property
    def streams(self) -> dict[str, dict[str, SourceNode]]:
        """The tables of dbt's sources, by source and stream."""
        found: dict[str, dict[str, SourceNode]] = {}
        for node in self.sources.values():
            found.setdefault(node.source, {})[node.stream] = node
        return found

    @cached_property
    def tests(self) -> dict[str, TestNode]:
        """All tests by unique_id."""
        owners = (*self.models.values(), *self.sources.values())
        return {test.unique_id: test for test in (*(test for owner in owners for test in owner.checks), *self.unattached)}

    @property
    def schemas(self) -> set[str]:
        """The schemas of all models, and of all tests that store the rows that they found; without a tenant's prefix."""
        return {node.schema for node in (*self.models.values(), *self.tests.values()) if node.schema}

    @property
    def source_checks(self) -> dict[Origin, tuple[TestNode, ...]]:
        """The tests of sources, which are checks of the raw assets."""
        return {(node.source, node.stream): node.checks for node in self.sources.values() if node.checks}


def load_graph(settings: Settings) -> ProjectGraph:
    """Read the prepared project's graph with the evaluated selections of tenants. A file that has not changed is read once.

    Raises:
        ConfigurationError: the project is not prepared, or has changed since.
    """
    file = get_graph_file(settings)
    remedy = "run `fabric validate`: it parses the dbt project"
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        raise ConfigurationError(f"the dbt project {settings.dbt_project_dir} is not prepared: {file} is missing", remedy=remedy) from None
    try:
        fingerprint, graph = _read_once(file, changed)
    except (OSError, ValueError, LookupError, TypeError):
        raise ConfigurationError(f"the prepared dbt project is damaged: {file} cannot be read", remedy=remedy) from None
    if fingerprint != get_fingerprint(settings):
        raise ConfigurationError(f"the dbt project {settings.dbt_project_dir} has changed since it was prepared", remedy=remedy)
    return replace(graph, selections=read_selections(get_selections_file(settings), fingerprint=fingerprint))


def read_graph(file: Path) -> tuple[str, ProjectGraph]:
    """Read a graph, and the fingerprint of the project that it was made of."""
    content = json.loads(file.read_text())
    graph = ProjectGraph(
        models={raw["unique_id"]: _build_model(raw) for raw in content["models"]},
        sources={raw["unique_id"]: _build_source(raw) for raw in content["sources"]},
        unattached=tuple(_build_test(raw) for raw in content["unattached"]),
        broken=content.get("broken", {}),
        mistakes={unique_id: Mistake(**raw) for unique_id, raw in content["mistakes"].items()},
    )
    return content["fingerprint"], graph


@lru_cache(maxsize=8)
def _read_once(file: Path, _changed: int) -> tuple[str, ProjectGraph]:
    return read_graph(file)


def dump_graph(graph: ProjectGraph, *, fingerprint: str) -> str:
    """Write the graph as the JSON that `load_graph` reads."""
    content = {
        "fingerprint": fingerprint,
        "models": [asdict(model) for model in graph.models.values()],
        "sources": [asdict(source) for source in graph.sources.values()],
        "unattached": [asdict(test) for test in graph.unattached],
        "broken": graph.broken,
        "mistakes": {unique_id: asdict(mistake) for unique_id, mistake in graph.mistakes.items()},
    }
    return json.dumps(content, default=str)


def _build_model(raw: dict[str, Any]) -> ModelNode:
    return ModelNode(**{**raw, **_build_described(raw), **_build_inputs(raw), "parents": tuple(raw["parents"])})


def _build_source(raw: dict[str, Any]) -> SourceNode:
    return SourceNode(**{**raw, **_build_described(raw), "sensitive": tuple(raw["sensitive"])})


def _build_described(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "fqn": tuple(raw["fqn"]),
        "tags": tuple(raw["tags"]),
        "columns": {name: (kind, description) for name, (kind, description) in raw["columns"].items()},
        "checks": tuple(_build_test(test) for test in raw["checks"]),
    }


def _build_test(raw: dict[str, Any]) -> TestNode:
    return TestNode(**raw | _build_inputs(raw))


def _build_inputs(raw: dict[str, Any]) -> dict[str, Any]:
    origins = tuple((source, stream) for source, stream in raw["depends_on_sources"])
    return {"depends_on_models": tuple(raw["depends_on_models"]), "depends_on_sources": origins}
