"""docs/models.md: its example is a project that builds, and its sensitive column shows what the page says."""

import re

from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.transform.conftest import build_tenant, make_tenant, run_duckdb

PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_example_builds_and_hides_the_values_of_its_sensitive_column(own_project: Settings) -> None:
    files = re.findall(r"^```(?:yml|sql)\n(?:#|--) (models/\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(files) == 4
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
    tenant = make_tenant("acme", streams={"helpdesk": ["people"]}, select=["+marts.support"], exclude=["tenants"])
    outcome = build_tenant(own_project, tenant)
    assert outcome.models["stg_people"].status == "success"
    found = {name: test.message for name, test in outcome.tests.items() if test.status != "pass"}
    shown = re.search(r"<!-- findings -->\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    assert found == dict(line.split(": ", 1) for line in shown[1].splitlines())
    assert load_graph(own_project).streams["helpdesk"]["people"].sensitive == ("email",)
