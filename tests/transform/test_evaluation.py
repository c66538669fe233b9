"""Tenants' selections: evaluated once, kept beside the prepared project, and read when definitions are built."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.config.loader import load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform import evaluation
from fabric_assets.transform.evaluation import evaluate_selections, list_unknown, prepare_graph
from fabric_assets.transform.fingerprint import get_prepared_dir, get_selections_file
from fabric_assets.transform.fleet import validate_fleet
from fabric_assets.transform.graph import ProjectGraph, load_graph
from fabric_assets.transform.selection import get_evaluation, select_models
from tests.transform.conftest import STREAMS, make_tenant

SOURCES = {
    source: {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {stream: {"primary_key": "id"} for stream in streams}}
    for source, streams in STREAMS.items()
}


def read_entries(settings: Settings) -> list[dict[str, object]]:
    return json.loads(get_selections_file(settings).read_text())["selections"]


def find_wrong(graph: ProjectGraph, tenant: str, *selectors: str) -> list[str]:
    transform = make_tenant(tenant, select=list(selectors)).transform
    assert transform
    found = get_evaluation(graph, tenant=tenant, transform=transform)
    assert found
    return [wrong.message for wrong in found.wrong]


def test_a_selection_that_was_not_evaluated_breaks_its_tenant_alone_and_names_the_command(prepared: Settings, tmp_path: Path) -> None:
    prepared = replace(prepared, tenants_dir=tmp_path / "tenants")
    prepared.tenants_dir.mkdir()
    for name, selector in (("initech", "staging"), ("hooli", "+marts")):
        (prepared.tenants_dir / f"{name}.yaml").write_text(
            json.dumps({"version": 1, "tenant": name, "sources": SOURCES, "transform": {"select": [selector]}}), encoding="utf-8"
        )
    fleet = load_fleet(prepared)
    evaluate_selections([fleet.tenants["initech"].config], load_graph(prepared), prepared)
    checked = validate_fleet(fleet, load_graph(prepared))
    assert list(checked.tenants) == ["initech"]
    [problem] = checked.broken["hooli"]
    assert (problem.file.name, problem.line, problem.path) == ("hooli.yaml", 1, "transform.select")
    assert "dbt has not evaluated this selection yet: run `fabric prepare`" in problem.message
    with pytest.raises(ConfigurationError, match="tenant hooli: dbt has not evaluated this selection yet: run `fabric prepare`"):
        select_models(load_graph(prepared), tenant="hooli", transform=fleet.tenants["hooli"].config.transform)
    evaluate_selections([loaded.config for loaded in fleet.tenants.values()], load_graph(prepared), prepared)
    assert validate_fleet(fleet, load_graph(prepared)).broken == {}


def test_tenants_that_select_alike_share_an_entry_unless_they_have_models_of_their_own(prepared: Settings) -> None:
    get_selections_file(prepared).unlink(missing_ok=True)
    tenants = [make_tenant(f"tenant_{letter}", select=["staging"]) for letter in "abcdefgh"]
    evaluate_selections([*tenants, make_tenant("acme", select=["staging"])], load_graph(prepared), prepared)
    assert [(entry["tenant"], entry["select"]) for entry in read_entries(prepared)] == [("", ["staging"]), ("acme", ["staging"])]
    assert get_selections_file(prepared).stat().st_mode & 0o777 == 0o600


def test_what_is_known_is_evaluated_by_no_process_again_and_outlives_other_tenants(prepared: Settings) -> None:
    folder = get_prepared_dir(prepared) / "selecting"
    first, second = make_tenant("initech", select=["staging"]), make_tenant("hooli", select=["marts", "staging"])
    evaluate_selections([first], load_graph(prepared), prepared)
    evaluate_selections([second], load_graph(prepared), prepared)
    assert list_unknown([first, second], load_graph(prepared)) == []
    shutil.rmtree(folder)
    graph = prepare_graph([first, second], prepared)
    assert not folder.exists()
    assert {model.name for model in select_models(graph, tenant="initech", transform=first.transform)} == {"stg_contacts", "stg_customers", "stg_orders"}


def test_two_processes_at_once_lose_no_answer(prepared: Settings) -> None:
    tenants = [make_tenant("initech", select=[selector]) for selector in ("customers", "+customers", "people", "+people")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda tenant: evaluate_selections([tenant], load_graph(prepared), prepared), tenants))
    assert list_unknown(tenants, load_graph(prepared)) == []


@pytest.mark.parametrize("content", ["", "{", '{"fingerprint": 1}', '{"fingerprint": "x", "selections": [{"tenant": ""}]}'])
def test_a_damaged_file_is_as_good_as_none_and_is_made_anew(prepared: Settings, content: str) -> None:
    tenant = make_tenant("initech", select=["staging.crm"])
    get_selections_file(prepared).write_text(content)
    graph = load_graph(prepared)
    assert graph.selections == {}
    assert len(list_unknown([tenant], graph)) == 1
    if content == "{":
        evaluate_selections([tenant], graph, prepared)
        assert [entry["models"] for entry in read_entries(prepared)] == [["model.fabric.stg_contacts"]]


def test_answers_hold_for_one_state_of_the_project(own_project: Settings) -> None:
    tenant = make_tenant("initech", select=["tag:fresh"])
    assert "did you mean" not in "".join(find_wrong(prepare_graph([tenant], own_project), "initech", "tag:fresh"))
    model = own_project.dbt_project_dir / "models" / "staging" / "crm" / "stg_contacts.sql"
    model.write_text("{{ config(tags=['fresh']) }}\n" + model.read_text())
    graph = prepare_graph([tenant], own_project)
    assert [model.name for model in select_models(graph, tenant="initech", transform=tenant.transform)] == ["stg_contacts"]
    assert [entry["select"] for entry in read_entries(own_project)] == [["tag:fresh"]]


def test_a_selector_that_takes_too_long_is_refused_and_the_other_tenants_are_answered(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SELECTION_SECONDS", 1)
    endless = f"path:{'**/' * 60}zzz"
    tenants = [make_tenant(name, select=["staging", endless]) for name in ("initech", "acme")] + [make_tenant("globex", select=["orders"])]
    graph = evaluate_selections(tenants, load_graph(prepared), prepared)
    for name in ("initech", "acme"):
        [message] = find_wrong(graph, name, "staging", endless)
        assert "takes more than 1 s of processor time to evaluate; write a simpler one" in message
        assert len(message) < 250
    assert find_wrong(graph, "globex", "orders") == []


def test_a_tenant_that_selects_nothing_needs_no_answer(prepared: Settings) -> None:
    tenant = make_tenant("acme", select=[])
    graph = load_graph(prepared)
    assert list_unknown([tenant], graph) == []
    assert [model.name for model in select_models(graph, tenant="acme", transform=tenant.transform)] == ["vip_customers"]
