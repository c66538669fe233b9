"""Models that got new names: what the old names select, before and after the old models are gone, and what is warned of."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.selection import select_keys
from fabric_assets.config.tenant import TransformConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import evaluate_selections, prepare_graph
from fabric_assets.transform.fleet import get_parents, validate_fleet
from fabric_assets.transform.graph import ProjectGraph, load_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.selection import select_models
from tests.transform.conftest import build_tenant, copy_project, get_raw_statements, make_tenant, run_duckdb, write_files
from tests.transform.test_validation import SOURCES

# Its projects are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("renames")

OLD = ("models/staging/shop/stg_orders.sql", "models/staging/crm/stg_contacts.sql", "models/staging/renamed.yml")
RENAMED = """
models:
  - {name: int_contacts, config: {schema: intermediate, meta: {fabric: {replaces: [staging.stg_contacts]}}}}
"""
DEPRECATED = """
models:
  - {name: stg_orders, deprecation_date: 2027-06-30, config: {tags: [deprecated]}}
  - {name: stg_contacts, deprecation_date: 2027-06-30, config: {tags: [deprecated]}}
"""
FILES = {
    OLD[0]: "select *\nfrom {{ ref('stg_shop__orders') }}\n",
    OLD[1]: "select *\nfrom {{ ref('int_contacts') }}\n",
    OLD[2]: DEPRECATED,
    "models/renamed.yml": RENAMED,
    "models/staging/crm/stg_crm__contacts.sql": "select id as contact_id, email from {{ source('crm', 'contacts') }}",
    "models/intermediate/crm/int_contacts.sql": "select contact_id, lower(email) as email from {{ ref('stg_crm__contacts') }}",
}
# An own model of acme that reads an old name.
TAKINGS = "-- by day\nselect ordered_at, amount\nfrom {{ ref('stg_orders') }}\n"
OWN = {"models/tenants/acme/acme__takings.sql": TAKINGS}
# Each select and exclude, with what it selects while the old models are there, and later.
NEW, BOTH = {"stg_shop__orders"}, {"stg_shop__orders", "stg_orders"}
BELOW = {"orders", "order_log", "customers", "wrong_case"}
CONTACTS = {"stg_crm__contacts", "int_contacts"}
SELECTIONS: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[set[str], set[str]]] = {
    (("stg_orders",), ()): (BOTH, NEW),
    (("staging.shop.stg_orders",), ()): (BOTH, NEW),
    (("path:models/staging/shop/stg_orders.sql",), ()): (BOTH, NEW),
    (("stg_orders.sql",), ()): (BOTH, NEW),
    (("stg_orders+1",), ()): ({*BOTH, *BELOW}, {*NEW, *BELOW}),
    (("stg_orders,staging.shop",), ()): (BOTH, NEW),
    (("stg_shop__orders",), ()): (BOTH, NEW),
    (("stg_ord*",), ()): (BOTH, NEW),
    (("staging.shop",), ("stg_ord*",)): ({"stg_customers"}, {"stg_customers"}),
    (("+order_log",), ()): ({*BOTH, "order_log"}, {*NEW, "order_log"}),
    (("staging.shop",), ("stg_orders",)): ({"stg_customers"}, {"stg_customers"}),
    (("staging.shop",), ("tag:deprecated",)): ({"stg_customers", *NEW}, {"stg_customers", *NEW}),
    (("staging.crm",), ()): ({*CONTACTS, "stg_contacts"}, {"stg_crm__contacts"}),
    (("staging",), ("staging.crm",)): ({"stg_customers", *BOTH}, {"stg_customers", *NEW}),
}


def write_project(root: Path, *, left_out: tuple[str, ...] = (), own: dict[str, str] | None = None) -> Settings:
    """Copy the fixture project with new names, without the own models of its tenants."""
    project = copy_project(root / "project")
    (project / "models/staging/shop/stg_orders.sql").rename(project / "models/staging/shop/stg_shop__orders.sql")
    (project / "models/staging/crm/stg_contacts.sql").unlink()
    shutil.rmtree(project / "models/tenants")
    for file in [*project.rglob("*.sql"), *project.rglob("*.yml")]:
        file.write_text(file.read_text().replace("ref('stg_orders')", "ref('stg_shop__orders')").replace("ref('stg_contacts')", "ref('int_contacts')"))
    staging = project / "models/staging/shop/staging.yml"
    staging.write_text(
        staging.read_text().replace("- name: stg_orders", "- name: stg_shop__orders\n    config: {meta: {fabric: {replaces: [staging.stg_orders]}}}")
    )
    write_files(project, {name: text for name, text in {**FILES, **(own or {})}.items() if name not in left_out})
    return Settings(tenants_dir=root / "tenants", dbt_project_dir=project, data_dir=root / "data")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Settings]:
    """The project while the old models are there, and after they are gone; parsed, with all of SELECTIONS evaluated."""
    found = {
        "present": write_project(tmp_path_factory.mktemp("present"), own=OWN),
        "gone": write_project(tmp_path_factory.mktemp("gone"), left_out=OLD, own={"models/tenants/hooli/hooli__takings.sql": TAKINGS}),
    }
    tenants = [make_tenant("globex", select=list(select), exclude=list(exclude)) for select, exclude in SELECTIONS]
    for settings in found.values():
        prepare_graph(tenants, settings)
    return found


@pytest.mark.parametrize(("selection", "expected"), SELECTIONS.items())
def test_an_old_name_selects_the_new_model_and_its_view_as_long_as_there_is_one(
    projects: dict[str, Settings], selection: tuple[tuple[str, ...], tuple[str, ...]], expected: tuple[set[str], set[str]]
) -> None:
    for settings, names in zip(projects.values(), expected, strict=True):
        transform = TransformConfig(select=selection[0], exclude=selection[1])
        assert {model.name for model in select_models(load_graph(settings), tenant="globex", transform=transform)} == names


def load(settings: Settings, write_tenant: Callable[..., Path], project: Settings, **body: Any) -> tuple[Any, ProjectGraph]:
    """Write the tenant acme, and give it with the graph in which its selection is evaluated."""
    write_tenant("acme", {"sources": SOURCES, **body})
    loaded = load_fleet(replace(settings, dbt_project_dir=project.dbt_project_dir)).tenants["acme"]
    return loaded, evaluate_selections([loaded.config], load_graph(project), project)


@pytest.mark.parametrize("state", ["present", "gone"])
def test_a_schedule_whose_target_is_an_old_key_goes_on_with_the_new_one(
    state: str, projects: dict[str, Settings], settings: Settings, write_tenant: Callable[..., Path]
) -> None:
    schedules = {"hourly": {"cron": "0 * * * *", "target": ["staging/stg_orders", "+staging/stg_orders+"]}}
    loaded, graph = load(settings, write_tenant, projects[state], transform={"select": ["stg_orders", "order_log"]}, schedules=schedules)
    assert validate_fleet(load_fleet(settings), graph).broken == {}
    parents = get_parents(loaded, select_models(graph, tenant="acme", transform=loaded.config.transform))
    views = {("acme", "staging", "stg_orders")} if state == "present" else set()
    new = {("acme", "staging", "stg_shop__orders")}
    for selection in ("staging/stg_orders", "staging/stg_ord*", "st*/stg_orders"):
        assert set(select_keys(parents, "acme", [selection], renames=graph.renames)) == new | views
    around = set(select_keys(parents, "acme", ["+staging/stg_orders+"], renames=graph.renames))
    assert {("acme", "raw", "shop", "orders"), ("acme", "marts", "order_log")} | new | views <= around
    with pytest.raises(ConfigurationError, match="'staging/stg_contacts' matches no asset"):
        select_keys(parents, "acme", ["staging/stg_contacts"], renames=graph.renames)


def test_validate_warns_of_own_models_that_read_an_old_name_and_of_old_names_in_the_yaml(
    projects: dict[str, Settings], settings: Settings, write_tenant: Callable[..., Path], settings_environ: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = {"hourly": {"cron": "0 * * * *", "target": ["+staging/stg_orders", "marts"]}}
    transform = {"select": ["+stg_orders", "staging.crm marts.sales,order_log"], "exclude": ["stg_contacts"]}
    for name in ("acme", "globex"):
        write_tenant(name, {"sources": SOURCES, "transform": {**transform, "exclude": []}, "schedules": schedules})
    project = projects["present"]
    monkeypatch.setenv("FABRIC_DBT_PROJECT_DIR", str(project.dbt_project_dir))
    monkeypatch.setenv("FABRIC_DATA_DIR", str(project.data_dir))
    done = CliRunner().invoke(app, ["validate", "--json"])
    assert done.exit_code == 0, done.output
    found = [(Path(each["file"]).name, each["line"], each["path"], each["message"], each["severity"]) for each in json.loads(done.stdout)]
    lines = {line.strip(): number for number, line in enumerate((settings.tenants_dir / "acme.yaml").read_text().splitlines(), 1)}
    of_yaml = [
        (lines["- +stg_orders"], "transform.select.0", "warning: '+stg_orders' is an earlier name of '+stg_shop__orders': write that", "warning"),
        (
            lines["- +staging/stg_orders"],
            "schedules.hourly.target.0",
            "warning: '+staging/stg_orders' is an earlier name of '+staging/stg_shop__orders': write that",
            "warning",
        ),
    ]
    own = "warning: refs stg_orders, which is deprecated (deprecation_date 2027-06-30): use ref('stg_shop__orders')"
    assert found == [("acme__takings.sql", 3, "", own, "warning"), *(("acme.yaml", *each) for each in of_yaml), *(("globex.yaml", *each) for each in of_yaml)]


def test_an_own_model_that_reads_a_name_that_is_gone_is_told_the_new_one(projects: dict[str, Settings]) -> None:
    broken = load_graph(projects["gone"]).broken
    assert list(broken) == ["hooli"]
    assert "models/tenants/hooli/hooli__takings.sql" in broken["hooli"]
    assert broken["hooli"].endswith("stg_orders was renamed: use ref('stg_shop__orders')")


def test_an_old_name_is_built_beside_the_new_model_and_an_own_model_that_reads_it(projects: dict[str, Settings], tmp_path: Path) -> None:
    project = projects["present"]
    shutil.copytree(project.data_dir / "dbt" / "prepared", tmp_path / "dbt" / "prepared")
    settings = replace(project, data_dir=tmp_path)
    run_duckdb(settings, "acme", *get_raw_statements("acme", amounts=[10, 20]))
    models = build_tenant(settings, make_tenant("acme", select=["staging", "intermediate"])).models
    names = ("stg_orders", "stg_shop__orders", "takings")
    assert [(models[name].status, models[name].rows) for name in names] == [("success", 2)] * 3


def test_wrong_entries_of_the_rename_table_are_refused_with_their_files(tmp_path: Path) -> None:
    project = write_project(tmp_path, left_out=OLD[2:])
    write_files(
        project.dbt_project_dir,
        {
            "models/marts/sales/wrong.sql": "{{ config(meta={'fabric': {'replaces': 'orders'}}) }}select 1 as one",
            "models/marts/sales/twice.sql": "{{ config(meta={'fabric': {'replaces': ['staging.stg_orders']}}) }}select 1 as one",
        },
    )
    with pytest.raises(ConfigurationError) as refused:
        prepare_project(project)
    for message in (
        "models/marts/sales/wrong.sql: its meta.fabric.replaces is not a list of <schema>.<name>; write such as replaces: [staging.stg_orders]",
        "it replaces staging.stg_orders, and so does models/",
        "it replaces staging.stg_contacts, which models/staging/crm/stg_contacts.sql makes; give that model a deprecation_date",
    ):
        assert message in str(refused.value)
