"""A tenant's transform block against the project: problems with a file, a line and a path."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.config.loader import load_fleet
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import evaluate_selections, prepare_graph
from fabric_assets.transform.fleet import validate_fleet
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.validation import find_problems
from tests.transform.conftest import STREAMS, copy_project

SOURCES = {
    source: {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {stream: {"primary_key": "id"} for stream in streams}}
    for source, streams in STREAMS.items()
}


@pytest.fixture
def problems(prepared_project: Settings, settings: Settings, write_tenant: Callable[..., Path]) -> Callable[..., list[str]]:
    """`problems({"select": [...]}, sources)` -> what is wrong with such a tenant, as `line: path: message`."""

    def find(transform: dict[str, Any], sources: dict[str, Any] = SOURCES, **more: Any) -> list[str]:
        write_tenant("acme", {"sources": sources, "transform": transform, **more})
        loaded = load_fleet(replace(settings, dbt_project_dir=prepared_project.dbt_project_dir)).tenants["acme"]
        found = find_problems(loaded, evaluate_selections([loaded.config], load_graph(prepared_project), prepared_project))
        lines = loaded.file.read_text().splitlines()
        return [f"{lines[problem.line - 1].strip()} | {problem.path}: {problem.message}" for problem in found]

    return find


def test_a_tenant_whose_models_have_all_they_need_has_no_problem(problems: Callable[..., list[str]]) -> None:
    assert problems({"select": ["staging", "marts"]}) == []


def test_a_model_whose_source_is_not_loaded_names_model_source_and_tenant(problems: Callable[..., list[str]]) -> None:
    without = {"shop": {**SOURCES["shop"], "streams": {"orders": {"primary_key": "id"}}}}
    found = problems({"select": ["staging.shop", "customers"]}, without)
    assert len(found) == 1
    assert "model staging.stg_customers needs source shop.customers, which tenant acme does not load" in found[0]
    assert "| transform.select: " in found[0]


def test_a_model_whose_upstream_model_is_not_selected_names_both(problems: Callable[..., list[str]]) -> None:
    found = problems({"select": ["staging.shop", "orders"], "exclude": ["stg_customers"]})
    assert any("model marts.orders needs model staging.stg_customers, which tenant acme does not select; write +orders" in problem for problem in found)


def test_each_wrong_selector_is_reported_at_its_own_line(problems: Callable[..., list[str]]) -> None:
    found = problems({"select": ["staging", "martz"], "exclude": ["tag:peple"]})
    assert [problem.rsplit(": the selector", 1)[0] for problem in found] == ["- martz | transform.select.1", "- tag:peple | transform.exclude.0"]
    assert "did you mean 'marts'?" in found[0]
    assert "did you mean 'tag:people'?" in found[1]


def test_tables_whose_names_differ_by_case_alone_are_one(prepared_project: Settings, settings: Settings, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", {"sources": SOURCES, "transform": {"select": ["staging", "marts"]}})
    loaded = load_fleet(replace(settings, dbt_project_dir=prepared_project.dbt_project_dir)).tenants["acme"]
    graph = evaluate_selections([loaded.config], load_graph(prepared_project), prepared_project)
    renamed = {key: replace(model, name="ORDERS") if model.name == "customers" else model for key, model in graph.models.items()}
    (problem,) = find_problems(loaded, replace(graph, models=renamed))
    assert "make the same table marts.orders" in problem.message.lower()


def test_a_schema_to_publish_that_no_model_is_in_is_named_with_its_place(problems: Callable[..., list[str]]) -> None:
    destination = {"type": "duckdb", "publish": {"schemas": ["marts", "mart"]}}
    (found,) = problems({"select": ["staging", "marts"]}, destination=destination)
    assert found.startswith("- mart | destination.publish.schemas.1: no dbt model is in a schema 'mart'; did you mean 'marts'? known: ")
    assert problems({"select": ["staging", "marts"]}, destination={"type": "duckdb", "publish": {"max": "1GB"}}) == []


def test_a_schema_that_would_be_another_tenants_by_its_name_is_refused(settings: Settings, tmp_path: Path, write_tenant: Callable[..., Path]) -> None:
    settings = replace(settings, dbt_project_dir=copy_project(tmp_path / "project"), tenants=("acme", "globex"))
    own = settings.dbt_project_dir / "models" / "tenants" / "acme" / "acme__takings.sql"
    own.write_text("{{ config(schema='eu_marts') }}\nselect 1 as id")
    for name in ("acme", "globex"):
        write_tenant(name, {"sources": SOURCES, "transform": {"select": ["staging", "marts"]}})
    graph = prepare_graph([loaded.config for loaded in load_fleet(settings).tenants.values()], settings)
    assert validate_fleet(load_fleet(settings), graph).broken == {}
    # Served elsewhere, and not even healthy: its tables are in the same warehouse all the same.
    write_tenant("acme_eu", {"destination": "nowhere"})
    fleet = validate_fleet(load_fleet(settings), graph)
    assert list(fleet.tenants) == ["globex"]
    assert [problem.message for problem in fleet.broken["acme"]] == [
        "model eu_marts.takings makes the schema acme_eu_marts, which is tenant acme_eu's by its name; give the model another schema"
    ]
