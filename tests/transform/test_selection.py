"""Selectors of models, seeds and snapshots mean what they mean to dbt: the same table of them is put to `dbt ls`."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fabric_assets.config.tenant import TransformConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import evaluate_selections, prepare_graph
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests
from tests.transform.conftest import SEEDED, copy_project, make_tenant, write_files

# One worker parses the project once for all of them.
pytestmark = pytest.mark.xdist_group("selection")

SELECTORS_FILE = """selectors:
  - name: people
    description: What is about people, but for what staging does.
    definition:
      union:
        - {method: tag, value: people}
        - {method: fqn, value: marts.sales.orders, parents: true}
        - exclude: [{method: path, value: models/staging/shop/stg_orders.sql}]
  - name: both
    definition: {intersection: [{method: selector, value: people}, marts]}
  - {name: takings, definition: {method: fqn, value: orders}}
  - {name: of_earlier_runs, definition: {method: state, value: modified}}
  - {name: around_it, definition: {union: [marts, {method: selector, value: of_earlier_runs}]}}
"""
EXPOSURES = """exposures:
  - name: takings
    type: dashboard
    owner: {name: Sales}
    depends_on: [ref('orders')]
  - name: vips
    type: dashboard
    owner: {name: Sales}
    depends_on: [ref('acme__vip_customers'), ref('globex__vip_customers')]
"""
SELECTORS = (
    *("orders", "marts.sales.orders", "fabric.marts.sales.orders", "staging", "staging.shop", "marts.*", "marts.sales.*", "stg_*", "*omers", "ord?rs"),
    *("[op]*", "*", "fqn:marts", "fqn:fabric.staging", "tag:people", "tag:d*", "path:models/staging", "path:models/staging/", "path:./models/staging"),
    *("models/marts/sales", "models/marts/sales/orders.sql", "path:models/*/shop", "path:models/**/shop", "path:models/**"),
    *("path:models/staging/shop/staging.yml", "path:models/marts/**/orders.sql", "file:orders.sql", "file:stg_*", "orders.sql"),
    *("source:shop+", "source:shop+1", "source:shop.orders+", "source:fabric.shop.customers+1", "source:*.contacts+"),
    *("+orders", "1+orders", "2+people", "0+orders", "stg_orders+", "stg_orders+1", "+stg_orders+", "1+customers+1", "int_known_customers+", "+people"),
    *("staging,tag:people", "+orders,staging", "source:shop+,source:crm+", "stg_orders stg_customers", "stg_orders,staging  people"),
    *("@orders", "@stg_orders", "@source:crm", "resource_type:model", "resource_type:source+1", "package:fabric", "package:this", "package:f*"),
    *("config.materialized:table", "config.materialized:ephemeral+", "config.tags:daily", "config.schema:staging", "+exposure:takings", "1+exposure:*"),
    *("1+test_type:unit", "1+test_type:singular", "1+test_type:generic", "1+test_name:unique", "1+unit_test:an_order_of_a_hundred_is_large"),
    *("resource_type:seed", "resource_type:snapshot", "+resource_type:snapshot", "regions", "regions+", "path:seeds", "path:snapshots", "+customer_names"),
    *("customer_names+", "+names_per_customer", "config.materialized:seed", "config.materialized:snapshot", "tag:calendar", "@stg_customers", "lists"),
    *("access:protected", "version:none", "tag:people,config.materialized:table", "resource_type:model,marts", "selector:people", "selector:both"),
)
PATTERNS_OF_NAMES = ("stg_*", "ord?rs")
WRONG = {
    "stagin.shop": "the selector 'stagin.shop' matches no model; did you mean 'staging.shop'?",
    "tag:peopel": "did you mean 'tag:people'?",
    "exposure:taking": "did you mean 'exposure:takings'?",
    "acme__vip_customers": "matches no model",
    "orders,staging": "the selector 'orders,staging' matches no model",
    "config.materialized:tabel": "the selector 'config.materialized:tabel' matches no model",
    "tags:people": "uses the method 'tags', which dbt does not have; did you mean 'tag'? known: access, config, ",
    "resource_type:modell": "Invalid resource_type selector \"modell\"; did you mean 'model'?",
    "test_type:units": "Invalid test type selector units: expected",
    "source:a.b.c.d": "Invalid source selector value",
    "@orders+": '"@" prefix and "+" suffix are incompatible',
    "state:modified": "uses the method 'state', which depends on earlier runs",
    "+result:error": "uses the method 'result', which depends on earlier runs",
    "marts,source_status:fresher+": "depends on earlier runs: a tenant's models must not change with them; select by folder, tag or config instead",
    "selector:of_earlier_runs": "uses the method 'state', which depends on earlier runs",
    "selector:around_it": "uses the method 'state', which depends on earlier runs",
    "selector:peple": "names 'peple', which the project's selectors.yml does not have; did you mean 'people'?",
    "orders,": "'' is no dbt selector; write a model's name",
    "+": "'+' is no dbt selector",
    " ": "a selector is empty",
    "path:../../**": "looks outside of the dbt project; write the path from there",
    "path:/etc/*": "looks outside of the dbt project",
    "path:**x": "dbt cannot evaluate the selector 'path:**x': Invalid pattern",
    "config.__class__.__name__:x": "names a private part of dbt's",
}
# As tenant acme, each of these reaches for what globex alone has.
REACHING = (
    *("*", "fqn:*", "tenants", "path:models/tenants", "path:models/**", "package:this", "resource_type:model", "config.materialized:table"),
    *("customers+", "@customers", "1+exposure:vips", "+exposure:*", "access:protected", "version:none"),
)
NAMING = ("globex__vip_customers", "path:models/tenants/globex", "tenants.globex", "file:globex__*", "globex*")
# What `dbt ls` has no words for.
AROUND_NAMED = {"+selector:takings": "+orders", "@selector:takings": "@orders", "2+selector:takings,staging": "2+orders,staging"}
UNIONS = {
    (("staging", "marts"), ()),
    (("staging.crm", "customers"), ("staging.*",)),
    (("staging.crm",), ()),
    (("staging.crm",), ("tenants",)),
    (("orders",), ()),
    (("orders",), ("test_type:unit",)),
    (("orders",), ("test_name:unique",)),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The fixture project with exposures and a selectors.yml, parsed."""
    root = tmp_path_factory.mktemp("selection")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=copy_project(root / "project"), data_dir=root / "data")
    write_files(settings.dbt_project_dir, {name: text for name, text in SEEDED.items() if "/tenants/" not in name})
    (settings.dbt_project_dir / "selectors.yml").write_text(SELECTORS_FILE)
    (settings.dbt_project_dir / "models" / "marts" / "sales" / "exposures.yml").write_text(EXPOSURES)
    return settings


@pytest.fixture(scope="module")
def graph(project: Settings) -> ProjectGraph:
    """The project's graph with everything that this module selects: evaluated in one process, as a fleet's selections are."""
    wanted = [
        *(make_tenant("initech", select=[selector]) for selector in (*SELECTORS, *WRONG, *AROUND_NAMED, *AROUND_NAMED.values())),
        *(make_tenant("initech", select=["orders"], exclude=[selector]) for selector in WRONG),
        *(make_tenant(tenant, select=list(select), exclude=list(exclude)) for tenant in ("initech", "acme", "globex") for select, exclude in UNIONS),
        *(make_tenant("acme", select=[selector]) for selector in (*REACHING, *NAMING)),
    ]
    return prepare_graph(wanted, project)


@pytest.fixture(scope="module")
def answers(project: Settings, graph: ProjectGraph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What `dbt ls` says to each selector, asked in one process."""
    folder = tmp_path_factory.mktemp("ls")
    (folder / "profiles.yml").write_text(f"fabric: {{target: d, outputs: {{d: {{type: duckdb, path: {folder}/x.duckdb}}}}}}")
    script = f"""
import json, sys
from dbt.cli.main import dbtRunner
options = ["--project-dir", {str(project.dbt_project_dir)!r}, "--profiles-dir", {str(folder)!r}, "--target-path", {str(folder)!r},
           "--log-path", {str(folder)!r}, "--quiet"]
manifest = dbtRunner().invoke(["parse", *options]).result
found = {{}}
for selector in json.loads(sys.argv[1]):
    how = ["--selector", selector.split(":")[1]] if selector.startswith("selector:") else ["--select", *selector.split()]
    kinds = [word for kind in ("model", "seed", "snapshot") for word in ("--resource-type", kind)]
    outcome = dbtRunner(manifest=manifest).invoke(["ls", *options, *kinds, "--output", "name", *how])
    assert outcome.success, (selector, outcome.exception)
    found[selector] = outcome.result
open({str(folder / "answers.json")!r}, "w").write(json.dumps(found))
"""
    subprocess.run([sys.executable, "-c", script, json.dumps(SELECTORS)], check=True, capture_output=True, timeout=240)
    return {selector: set(names) for selector, names in json.loads((folder / "answers.json").read_text()).items()}


def select(graph: ProjectGraph, *selectors: str, tenant: str = "initech", exclude: tuple[str, ...] = ()) -> list[str]:
    return [model.fqn[-1] for model in select_models(graph, tenant=tenant, transform=TransformConfig(select=selectors, exclude=exclude))]


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_names_the_models_that_dbt_names(selector: str, graph: ProjectGraph, answers: dict[str, set[str]]) -> None:
    visible = {model.fqn[-1] for model in graph.models.values() if not model.is_ephemeral and model.tenant is None}
    expected = answers[selector] & visible
    if not expected and selector in PATTERNS_OF_NAMES and version("dbt-core") == "1.11.2":
        pytest.skip("dbt 1.11.2, the oldest one, finds no model by a pattern of its name")
    assert expected, "a selector that dbt finds nothing for proves nothing"
    assert set(select(graph, selector)) == expected


@pytest.mark.parametrize(("named", "plain"), AROUND_NAMED.items())
def test_operators_around_a_named_selector_mean_what_they_mean_around_what_it_names(graph: ProjectGraph, named: str, plain: str) -> None:
    assert select(graph, named) == select(graph, plain)


def test_parents_come_before_children(graph: ProjectGraph) -> None:
    names = select(graph, "staging", "marts")
    assert names.index("stg_orders") < names.index("orders")
    assert names.index("stg_customers") < names.index("people")


def test_a_list_is_a_union_less_what_is_excluded(graph: ProjectGraph) -> None:
    assert set(select(graph, "staging.crm", "customers", exclude=("staging.*",))) == {"customers"}


def test_a_tenants_own_models_are_its_alone_and_come_by_themselves(graph: ProjectGraph) -> None:
    assert select(graph, "staging.crm", tenant="acme") == ["stg_contacts", "acme__vip_customers"]
    assert set(select(graph, "staging.crm", tenant="globex")) == {"stg_contacts", "globex__orders_by_day", "globex__vip_customers"}
    assert select(graph, "staging.crm") == ["stg_contacts"]
    assert select(graph, tenant="acme") == ["acme__vip_customers"]
    assert select(graph, tenant="initech") == []
    assert select(graph, "staging.crm", tenant="acme", exclude=("tenants",)) == ["stg_contacts"]


@pytest.mark.parametrize("selector", REACHING)
def test_no_selector_reaches_another_tenants_models(graph: ProjectGraph, selector: str) -> None:
    models = select_models(graph, tenant="acme", transform=TransformConfig(select=(selector,)))
    assert "acme" in {model.tenant for model in models}
    assert {model.tenant for model in models} <= {None, "acme"}


@pytest.mark.parametrize("selector", NAMING)
def test_another_tenants_models_are_not_there_even_for_the_message(graph: ProjectGraph, selector: str) -> None:
    with pytest.raises(ConfigurationError, match="matches no model") as caught:
        select(graph, selector, tenant="acme")
    assert "globex" not in str(caught.value).replace(f"'{selector}'", "")


@pytest.mark.parametrize(("selector", "message"), WRONG.items())
def test_a_selector_that_is_wrong_or_finds_nothing_is_an_error_that_helps(graph: ProjectGraph, selector: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        select(graph, selector)
    assert message in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        select(graph, "orders", exclude=(selector,))
    assert message in str(caught.value)


def test_tests_come_with_their_models_and_go_where_exclude_names_them(graph: ProjectGraph) -> None:
    def list_tests(*exclude: str) -> set[str]:
        tenant = make_tenant("initech", select=["orders"], exclude=list(exclude))
        assert tenant.transform
        models = select_models(graph, tenant="initech", transform=tenant.transform)
        assert [model.name for model in models] == ["orders"]
        return {test.name for tests in get_tests(graph, tenant, models).values() for test in tests}

    everything = {"unique_orders_order_id", "accepted_values_orders_order_size__small__large", "an_order_of_a_hundred_is_large"}
    assert list_tests() >= everything - {"an_order_of_a_hundred_is_large"}
    assert list_tests() - list_tests("test_name:unique") == {"unique_orders_order_id"}


def test_a_selector_of_tests_alone_selects_no_model_and_says_so(project: Settings, graph: ProjectGraph) -> None:
    graph = evaluate_selections([make_tenant("initech", select=["test_type:unit"])], graph, project)
    with pytest.raises(ConfigurationError, match="matches no model, only: unit test; tests come with the models that they read"):
        select(graph, "test_type:unit")


def test_loading_the_graph_and_selecting_import_no_dbt(project: Settings, graph: ProjectGraph) -> None:
    script = f"""
import sys
from pathlib import Path
from fabric_assets.config.tenant import TransformConfig
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform import build, evaluation, project, validation
root = Path({str(project.data_dir)!r})
settings = Settings(tenants_dir=root, dbt_project_dir=Path({str(project.dbt_project_dir)!r}), data_dir=root)
assert select_models(load_graph(settings), tenant="initech", transform=TransformConfig(select=("+orders",)))
heavy = {{"dbt", "dlt", "sqlglot", "duckdb", "psycopg2", "sqlalchemy", "pyarrow", "dagster"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)
