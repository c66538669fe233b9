"""Selectors mean what they mean to dbt: the same table of them is put to `dbt ls`."""

import subprocess
import sys
from pathlib import Path

import pytest

from fabric_assets.config.tenant import TransformConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ProjectGraph, load_graph
from fabric_assets.transform.selection import select_models

# One worker asks dbt once for all of them.
pytestmark = pytest.mark.xdist_group("selection")

SELECTORS = (
    "orders",
    "marts.sales.orders",
    "fabric.marts.sales.orders",
    "staging",
    "staging.shop",
    "marts.*",
    "marts.sales.*",
    "stg_*",
    "*omers",
    "ord?rs",
    "[op]*",
    "fqn:marts",
    "fqn:fabric.staging",
    "tag:people",
    "tag:d*",
    "path:models/staging",
    "path:models/staging/",
    "path:./models/staging",
    "models/marts/sales",
    "models/marts/sales/orders.sql",
    "path:models/*/shop",
    "path:models/**/shop",
    "path:models/**",
    "path:models/staging/shop/staging.yml",
    "path:models/marts/**/orders.sql",
    "file:orders.sql",
    "file:stg_*",
    "orders.sql",
    "source:shop+",
    "source:shop+1",
    "source:shop.orders+",
    "source:fabric.shop.customers+1",
    "source:*.contacts+",
    "+orders",
    "1+orders",
    "2+people",
    "0+orders",
    "stg_orders+",
    "stg_orders+1",
    "+stg_orders+",
    "1+customers+1",
    "int_known_customers+",
    "+people",
    "staging,tag:people",
    "+orders,staging",
    "source:shop+,source:crm+",
    "stg_orders stg_customers",
)


@pytest.fixture(scope="module")
def answers(prepared_project: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What `dbt ls` says to each selector, asked in one process."""
    folder = tmp_path_factory.mktemp("ls")
    (folder / "profiles.yml").write_text(f"fabric: {{target: d, outputs: {{d: {{type: duckdb, path: {folder}/x.duckdb}}}}}}")
    script = f"""
import json, sys
from dbt.cli.main import dbtRunner
options = ["--project-dir", {str(prepared_project.dbt_project_dir)!r}, "--profiles-dir", {str(folder)!r}, "--target-path", {str(folder)!r},
           "--log-path", {str(folder)!r}, "--quiet"]
manifest = dbtRunner().invoke(["parse", *options]).result
found = {{}}
for selector in json.loads(sys.argv[1]):
    outcome = dbtRunner(manifest=manifest).invoke(["ls", *options, "--resource-type", "model", "--output", "name", "--select", selector])
    assert outcome.success, (selector, outcome.exception)
    found[selector] = outcome.result
open({str(folder / "answers.json")!r}, "w").write(json.dumps(found))
"""
    import json

    subprocess.run([sys.executable, "-c", script, json.dumps(SELECTORS)], check=True, capture_output=True, timeout=240)
    return {selector: set(names) for selector, names in json.loads((folder / "answers.json").read_text()).items()}


@pytest.fixture
def graph(prepared_project: Settings) -> ProjectGraph:
    return load_graph(prepared_project)


def select(graph: ProjectGraph, *selectors: str, tenant: str = "initech", exclude: tuple[str, ...] = ()) -> list[str]:
    return [model.fqn[-1] for model in select_models(graph, tenant=tenant, transform=TransformConfig(select=selectors, exclude=exclude))]


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_names_the_models_that_dbt_names(selector: str, graph: ProjectGraph, answers: dict[str, set[str]]) -> None:
    visible = {model.fqn[-1] for model in graph.models.values() if not model.is_ephemeral and model.tenant is None}
    expected = answers[selector] & visible
    assert expected, "a selector that dbt finds nothing for proves nothing"
    assert set(select(graph, selector)) == expected


def test_parents_come_before_children(graph: ProjectGraph) -> None:
    names = select(graph, "staging", "marts")
    assert names.index("stg_orders") < names.index("orders")
    assert names.index("stg_customers") < names.index("people")


def test_a_list_is_a_union_less_what_is_excluded(graph: ProjectGraph) -> None:
    assert set(select(graph, "staging.crm", "customers", exclude=("stg_*",))) == {"customers"}


def test_a_tenants_own_models_are_its_alone_and_come_by_themselves(graph: ProjectGraph) -> None:
    assert select(graph, "staging.crm", tenant="acme") == ["stg_contacts", "acme__vip_customers"]
    assert set(select(graph, "staging.crm", tenant="globex")) == {"stg_contacts", "globex__orders_by_day", "globex__vip_customers"}
    assert select(graph, "staging.crm") == ["stg_contacts"]
    assert select(graph, tenant="acme") == ["acme__vip_customers"]
    assert select(graph, "staging.crm", tenant="acme", exclude=("tenants",)) == ["stg_contacts"]
    assert "globex__vip_customers" not in select(graph, "customers+", tenant="acme")


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("stagin.shop", "the selector 'stagin.shop' matches no model; did you mean 'staging.shop'?"),
        ("tag:peopel", "did you mean 'tag:people'?"),
        ("acme__vip_customers", "matches no model"),
        ("orders,staging", "the selector 'orders,staging' matches no model"),
        ("config.materialized:table", "uses the method 'config.materialized'; known: file, fqn, path, source, tag"),
        ("state:modified", "uses the method 'state'"),
        ("tags:people", "did you mean 'tag'?"),
        ("@orders", "uses @, which is not supported"),
        ("orders,", "'' is no dbt selector"),
        ("+", "'+' is no dbt selector"),
        (" ", "a selector is empty"),
    ],
)
def test_a_selector_that_is_wrong_or_finds_nothing_is_an_error_that_helps(graph: ProjectGraph, selector: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        select(graph, selector)
    assert message in str(caught.value)
    with pytest.raises(ConfigurationError):
        select(graph, "orders", exclude=(selector,))


def test_loading_the_graph_and_selecting_import_no_dbt(prepared_project: Settings) -> None:
    script = f"""
import sys
from pathlib import Path
from fabric_assets.config.tenant import TransformConfig
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform import build, project, validation
root = Path({str(prepared_project.data_dir)!r})
settings = Settings(tenants_dir=root, dbt_project_dir=Path({str(prepared_project.dbt_project_dir)!r}), data_dir=root)
assert select_models(load_graph(settings), tenant="acme", transform=TransformConfig(select=("+orders",)))
heavy = {{"dbt", "dlt", "sqlglot", "duckdb", "psycopg2", "sqlalchemy", "pyarrow", "dagster"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)
