"""docs/models.md: its example is a project that builds, its sensitive column shows what the page says, and each line of what works has a test."""

import ast
import re

from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.transform.conftest import build_tenant, make_tenant, run_duckdb

PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_example_builds_and_hides_the_values_of_its_sensitive_column(own_project: Settings) -> None:
    files = re.findall(r"^```(?:yml|sql|csv)\n(?:#|--) ((?:models|seeds|snapshots)/\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(files) == 9
    for name, text in files:
        file = own_project.dbt_project_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    prepare_project(own_project)
    run_duckdb(
        own_project,
        "acme",
        "create schema acme_raw_helpdesk",
        "create table acme_raw_helpdesk.people (id bigint, email varchar, country varchar)",
        "insert into acme_raw_helpdesk.people values (1, 'ada@x.example', 'DE'), (2, 'ada@x.example', 'FR'), (3, 'bob@x.example', 'XX')",
    )
    tenant = make_tenant("acme", streams={"helpdesk": ["people"]}, select=["+marts.support", "countries", "people_history"], exclude=["tenants"])
    outcome = build_tenant(own_project, tenant)
    assert {name: (outcome.models[name].status, outcome.models[name].rows) for name in ("stg_helpdesk__people", "countries")} == {
        "stg_helpdesk__people": ("success", 3),
        "countries": ("success", 2),
    }
    assert outcome.models["people_history"].status == "skipped"  # its rows come from a model whose tests fail
    found = {name: test.message for name, test in outcome.tests.items() if test.status != "pass"}
    shown = re.search(r"<!-- findings -->\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    assert found == dict(line.split(": ", 1) for line in shown[1].splitlines())
    assert load_graph(own_project).streams["helpdesk"]["people"].sensitive == ("email",)


def test_each_line_of_what_works_of_dbt_names_a_test_that_exists() -> None:
    lines = re.findall(r"^\| .* \| .* \| `(\S+)::(\w+)` \|$", PAGE, re.MULTILINE)
    table = PAGE.split("## What works of dbt")[1].split("\n## ")[0]
    assert len(lines) == len(re.findall(r"^\| ", table, re.MULTILINE)) - 2 > 15
    for file, name in lines:
        module = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}, file
