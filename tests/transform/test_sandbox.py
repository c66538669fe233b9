"""What templates can reach: known names alone, listed for the versions of dbt that this was read from."""

from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from typing import Any

import pytest
from dbt.adapters.duckdb.column import DuckDBColumn
from dbt.adapters.duckdb.impl import DuckDBAdapter
from dbt.adapters.duckdb.relation import DuckDBRelation
from dbt.adapters.postgres.column import PostgresColumn
from dbt.adapters.postgres.impl import PostgresAdapter
from dbt.adapters.postgres.relation import PostgresRelation
from dbt.context.providers import ParseDatabaseWrapper, RelationProxy, RuntimeDatabaseWrapper
from dbt_common.clients.jinja import MacroFuzzEnvironment
from jinja2.exceptions import SecurityError

from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import get_prepared_file
from fabric_assets.transform.worker import sandbox
from fabric_assets.transform.worker.manifest import load_manifest

# Of another version somebody has to read what is new to templates, open or close it in worker/sandbox.py and here, and add the version.
READ = {"dbt-core": ("1.11", "1.12"), "dbt-adapters": ("1.24",), "dbt-duckdb": ("1.11",), "dbt-postgres": ("1.11",), "jinja2": ("3.1",)}
CLOSED_OF_RELATIONS = {
    *("create_from", "create_from_source", "create_ephemeral_from", "event_time_filter", "render_event_time_filtered", "get_function_config"),
    *("get_function_macro_name", "get_default_include_policy", "get_default_quote_policy", "path", "renameable_relations", "replaceable_relations"),
    *("ADDITIONAL_PROPERTIES", "Config", "from_dict", "from_msgpack", "to_dict", "to_msgpack", "json_schema", "validate", "replace"),
    *("get", "items", "keys", "values"),
}
CLOSED_OF_ADAPTERS = {"config", "store_relation", "run_sql_for_tests", "get_seed_file_path"}


def list_public(*classes: Any) -> set[str]:
    return {name for kind in classes for name in (*dir(kind), *getattr(kind, "__dataclass_fields__", ())) if not name.startswith("_")}


def list_open(kind: Any, names: Iterable[str]) -> set[str]:
    return {name for name in names if sandbox._is_open(kind, name, getattr(kind, name, None))}


def test_the_versions_of_dbt_are_ones_whose_names_were_read() -> None:
    installed = {package: ".".join(version(package).split(".")[:2]) for package in READ}
    assert {package: found for package, found in installed.items() if found not in READ[package]} == {}


def test_of_relations_the_names_that_are_open_are_known() -> None:
    public = list_public(DuckDBRelation, PostgresRelation)
    for kind in (DuckDBRelation, PostgresRelation, RelationProxy):
        assert list_open(kind, public) == public - CLOSED_OF_RELATIONS


def test_of_columns_the_names_that_are_open_are_known() -> None:
    public = list_public(DuckDBColumn, PostgresColumn)
    assert public <= sandbox._OF_COLUMNS
    assert list_open(DuckDBColumn, {*public, "mro", "from_api"}) == public


def test_of_adapters_the_names_that_are_open_are_known() -> None:
    available = {*DuckDBAdapter._available_, *PostgresAdapter._available_, "type", "dispatch", "commit", "Relation", "config"}
    for kind in (ParseDatabaseWrapper, RuntimeDatabaseWrapper):
        assert list_open(kind, available) == available - CLOSED_OF_ADAPTERS


def test_models_and_the_graph_are_plain_values(prepared: Settings) -> None:
    manifest = load_manifest(get_prepared_file(prepared))
    kinds = set[str]()

    def walk(value: Any) -> None:
        kinds.add(type(value).__name__)
        for part in [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
            walk(part)

    walk(manifest.flat_graph)
    walk([node.to_dict(omit_none=False) for node in [*manifest.nodes.values(), *manifest.sources.values()]])
    assert len(manifest.flat_graph["nodes"]) > 5
    # The last two are texts. dbt 1.12 makes the graph's dictionaries on demand, by a mapping whose nodes are closed.
    assert kinds - {"FlatGraphMapping"} <= {"dict", "list", "str", "int", "float", "bool", "NoneType", "ModelLanguage", "ValidatedStringMixin"}
    of_nodes = manifest.flat_graph["nodes"]
    assert type(of_nodes) is dict or list_open(type(of_nodes), ("inner_dict", "get", "items", "keys", "values")) == {"get", "items", "keys", "values"}


class Thing:
    """What no template has to see, but as its text."""

    name = "secret"

    def __str__(self) -> str:
        return "a thing"


@pytest.fixture
def render() -> Any:
    sandbox.close_sandbox()
    environment = MacroFuzzEnvironment()
    return lambda text, **values: environment.from_string(text).render({"thing": Thing(), **values})


@pytest.mark.parametrize(
    "template",
    [
        "{{ '{0.name}'.format(thing) }}",
        "{{ '{x.name}'.format(x=thing) }}",
        "{{ '{x[0].name}'.format(x=[thing]) }}",
        "{{ '{x.name}'.format_map({'x': thing}) }}",
        "{{ ('{0.name}' | attr('format'))(thing) }}",
        "{{ (['{0.name}'] | map(attribute='format') | list)[0](thing) }}",
        "{{ '{0.name}'['format'](thing) }}",
        "{{ '{0.__class__}'.format(thing) }}",
        "{{ '{0.__init__.__globals__}'.format(thing) }}",
        "{{ '{0[k].name}'.format({'k': thing}) }}",
        "{{ thing.name }}",
        "{{ thing | attr('name') }}",
        "{{ [thing] | map(attribute='name') | list }}",
    ],
)
def test_no_format_string_and_no_filter_reaches_into_an_object(render: Any, template: str) -> None:
    try:
        assert "secret" not in render(template)
    except SecurityError as error:
        assert "have no access to the attribute" in str(error) or "unsafe" in str(error)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ '{0} {1:.2f} {x[k][0]} {d.year}'.format('a', 1, x={'k': [3]}, d=day) }}", "a 1.00 3 2026"),
        ("{{ '{0}'.format(thing) }}", "a thing"),
        ("{{ '%s %(k)s' | replace('%s ', '') % {'k': 1} }} {{ '%s-%s' | format('a', thing) }}", "1 a-a thing"),
        ("{{ '{k}'.format_map({'k': 'v'}) }}", "v"),
    ],
)
def test_format_strings_of_plain_values_are_as_ever(render: Any, template: str, text: str) -> None:
    assert render(template, day=date(2026, 1, 2)) == text


@pytest.mark.parametrize("name", ["create_from_source", "__class__", "from_dict", "to_dict"])
def test_what_a_relation_refuses_as_an_attribute_is_no_item_of_it(render: Any, name: str) -> None:
    relation = DuckDBRelation.create(database="d", schema="s", identifier="i")
    for template in (f"{{{{ relation['{name}'] }}}}", f"{{{{ relation.get('{name}') }}}}", f"{{{{ relation['{name}'](1) }}}}"):
        with pytest.raises(SecurityError):
            render(template, relation=relation)


def test_dbt_utils_can_ask_a_relation_whether_it_is_one(render: Any) -> None:
    relation = DuckDBRelation.create(database="d", schema="s", identifier="i")
    text = (
        "{{ relation is mapping }} {{ relation.get('metadata', {}).type }} {{ relation['schema'] }} {{ relation.get('identifier') }} {{ relation.get('x', 1) }}"
    )
    assert render(text, relation=relation) == "True DuckDBRelation s i 1"
