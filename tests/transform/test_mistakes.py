"""Mistakes in what all tenants share: each names its file and line, and stops the models that are built on it and nothing else."""

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import Mistake, load_graph
from fabric_assets.transform.project import prepare_project
from tests.support.lengths import AT_FULL_LENGTH
from tests.transform.conftest import build_tenant, get_raw_statements, make_tenant, run_duckdb

MODELS = {
    "wrong_ref.sql": "{{ config(tags=['daily'], materialized='view') }}\n\nselect * from {{ ref('stg_orderz') }}",
    "below.sql": "select * from {{ ref('wrong_ref') }}",
    "wrong_source.sql": "select 1\nfrom {{ source('shop', 'order') }}",
    "wrong_jinja.sql": "select 1 as number\n{% if %}",
    "right.sql": "select order_id from {{ ref('stg_orders') }}",
}


def write(settings: Settings, files: dict[str, str]) -> None:
    for name, text in files.items():
        (settings.dbt_project_dir / "models" / "marts" / "sales" / name).write_text(text)


def test_a_mistake_in_a_shared_model_stops_only_what_is_built_on_it(own_project: Settings) -> None:
    write(own_project, MODELS)
    for adapter in ("duckdb", "postgres"):
        prepare_project(own_project, adapter)
    graph = load_graph(own_project)
    ref = Mistake("models/marts/sales/wrong_ref.sql", 3, "ref('stg_orderz') does not exist; did you mean 'stg_orders'?")
    source = Mistake("models/marts/sales/wrong_source.sql", 2, "source('shop', 'order') does not exist; did you mean 'shop.orders'?")
    stopped = {unique_id.rsplit(".", 1)[-1]: mistake for unique_id, mistake in graph.stopped.items()}
    jinja = stopped.pop("wrong_jinja")
    assert stopped == {"wrong_ref": ref, "below": ref, "wrong_source": source}
    assert (jinja.file, jinja.line) == ("models/marts/sales/wrong_jinja.sql", 2)
    assert "Expected an expression" in jinja.message
    assert graph.models["model.fabric.wrong_ref"].tags == ("daily",)  # what selects it still does
    run_duckdb(own_project, "acme", *get_raw_statements("acme", amounts=[60]))
    outcome = build_tenant(own_project, make_tenant("acme", select=["staging", "right"], exclude=["tenants"]))
    assert {model.status for model in outcome.models.values()} == {"success"}


@AT_FULL_LENGTH
def test_a_model_that_is_put_right_is_built_again(own_project: Settings) -> None:
    write(own_project, {name: MODELS[name] for name in ("wrong_ref.sql", "below.sql")})
    prepare_project(own_project)
    assert len(load_graph(own_project).stopped) == 2
    write(own_project, {"wrong_ref.sql": MODELS["wrong_ref.sql"].replace("stg_orderz", "stg_orders")})
    prepare_project(own_project)
    assert load_graph(own_project).stopped == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models:\n  - [x\n", r"project/models/marts/sales/broken.yml:\d: "),
        # dbt's own message names no file.
        ("models:\n  - name: orders\n    deprecation_date: never\n", r'project/models/marts/sales/broken.yml:3: Field "deprecation_date" .* \'never\''),
    ],
    ids=["no YAML", "wrong value"],
)
def test_a_shared_yml_that_is_not_valid_is_named_with_its_line(own_project: Settings, text: str, told: str) -> None:
    write(own_project, {"broken.yml": text})
    with pytest.raises(ConfigurationError, match=told):
        prepare_project(own_project)
