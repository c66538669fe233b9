"""What lies in a tenant's own folder concerns that tenant alone: it breaks nobody else's models, and changes, tests and describes none of them."""

import json
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.config.loader import load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.fingerprint import get_prepared_file
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.validation import find_problems
from tests.support.lengths import IS_FULL
from tests.transform.conftest import STREAMS, build_tenant, copy_project, get_raw_statements, make_tenant, run_duckdb

GLOBEX = "models/tenants/globex"
ONE = "select 1 as one"
REFUSED_KEYS = (
    *("exposures", "metrics", "semantic_models", "saved_queries", "groups", "macros"),
    *("analyses", "functions", "data_tests"),
)

# The files of an attempt, in the folder of a tenant ME; and words of the message to that tenant.
Attempts = dict[str, tuple[dict[str, str], tuple[str, ...]]]
# Each of these costs several parses.
UNPARSED: Attempts = {
    "unknown ref": ({"ME__broken.sql": "select * from {{ ref('nowhere') }}"}, ("models/tenants/ME/ME__broken.sql", "nowhere")),
    "broken template": ({"ME__broken.sql": "select {{ oops"}, ("models/tenants/ME/ME__broken.sql",)),
    "broken yaml": ({"x.yml": "models: [: {"}, ("models/tenants/ME/x.yml: ", "Syntax error near line 1")),
    "circle": ({"ME__a.sql": "select * from {{ ref('ME__b') }}", "ME__b.sql": "select * from {{ ref('ME__a') }}"}, ("in a circle: ME__",)),
    # dbt's message names another tenant's file, or none
    "wrong value": ({"ME__x.sql": ONE, "x.yml": "models: [{name: ME__x, deprecation_date: never}]"}, ("models/tenants/ME/x.yml", "invalid value 'never'")),
    "private": ({"ME__peeks.sql": "select * from {{ ref('secret') }}"}, ("private to the 'sales' group",)),
    "liar": ({"ME__x.sql": "{{ exceptions.raise_compiler_error('models/tenants/acme/x.sql') }}"}, ("models/tenants/acme/x.sql",)),
    "name of another's model": ({"acme__vip_customers.sql": ONE}, ("name the file ME__acme__vip_customers.sql",)),
    "description of another's model": ({"x.yml": "models: [{name: acme__vip_customers}]"}, ("models names acme__vip_customers",)),
}
REFUSED: Attempts = {
    "plain name": ({"plain.sql": ONE}, ("name the file ME__plain.sql",)),
    "python": ({"ME__python.py": "def model(dbt, session):\n    return None\n"}, ("ME__python.py: a tenant's own models are SQL",)),
    "hook": ({"ME__hooked.sql": f"{{{{ config(post_hook='drop table x') }}}}{ONE}"}, ("ME__hooked.sql: a tenant's own models have no hooks",)),
    "hook in yml": ({"ME__one.sql": ONE, "x.yml": "models: [{name: ME__one, config: {pre-hook: select 1}}]"}, ("own models have no hooks",)),
    "another database": ({"ME__far.sql": f"{{{{ config(database='acme') }}}}{ONE}"}, ("it names the database acme",)),
    "another's model": ({"ME__peeks.sql": "select * from {{ ref('acme__vip_customers') }}"}, ("acme__vip_customers",)),
    "another's schema": ({"ME__one.sql": f"{{{{ config(schema='eu_marts') }}}}{ONE}"}, ("its schema comes out as ME_eu_marts, which is tenant ME_eu's",)),
    "source": ({"x.yml": "sources: [{name: wild, schema: acme_raw_shop, tables: [{name: orders}]}]"}, ("sources would hold for the whole project",)),
    "no text": ({"ME__bytes.sql": "select\n'\xff' as x"}, ("models/tenants/ME/ME__bytes.sql: line 2 is no UTF-8 text: save the file as UTF-8",)),
    "no text in a note": ({"notes.md": "\xff\xfe"}, ("models/tenants/ME/notes.md: line 1 is no UTF-8 text",)),
    "no text in a yml": ({"x.yml": "models: []\n# \xe4"}, ("models/tenants/ME/x.yml: line 2 is no UTF-8 text",)),
    "docs block": ({"x.md": "{% docs shop %}A shop.{% enddocs %}"}, ("x.md: a docs block belongs to the whole project",)),
    **{key: ({"x.yml": f"{key}: [{{name: ME__x}}]"}, (f"{key} would hold for the whole project",)) for key in REFUSED_KEYS},
    # a yml about what is not the tenant's
    "shared model's hook": ({"x.yml": "models: [{name: people, config: {pre_hook: create table hooked as select 1 as x}}]"}, ("models names people",)),
    "shared model's name in Jinja": ({"x.yml": "models: [{name: \"{{ 'people' }}\", config: {enabled: false}}]"}, ("models names {{ 'people' }}",)),
    "shared model's file": ({"x.yml": "models: [{name: ME__x, versions: [{v: 1, defined_in: stg_orders}]}]"}, ("models names stg_orders",)),
    "shared model's unit test": ({"x.yml": "unit_tests: [{name: x, model: people, given: [], expect: {rows: []}}]"}, ("unit_tests names people",)),
    "shared model of the tenant's name": (
        {
            "x.yml": "models: [{name: ME__shared, config: {tags: [x]}, columns: [{name: one, data_tests: [unique]}]}]\n"
            "unit_tests: [{name: unit, model: ME__shared, given: [], expect: {rows: [{one: 2}]}}]",
        },
        ("it describes ME__shared", "unique_ME__shared_one: a tenant's tests are of", "unit: a tenant's tests are of"),
    ),
    "test of a model that is not there": (
        {"x.yml": "models: [{name: ME__no, data_tests: [{relationships: {arguments: {to: ref('people'), field: id}, config: {where: 1 = 1}}}]}]"},
        ("a tenant's tests are of models in that tenant's own folder",),
    ),
    "test against another's model": (
        {
            "ME__one.sql": ONE,
            "x.yml": "models: [{name: ME__one, data_tests: [{relationships: {arguments: {to: ref('acme__vip_customers'), field: customer_id}}}]}]",
        },
        ("it refers to acme__vip_customers, which only tenant acme has",),
    ),
}
# One that dbt's message names, and one that is looked for among all tenants.
ATTEMPTS = (UNPARSED if IS_FULL else {key: UNPARSED[key] for key in ("unknown ref", "circle")}) | REFUSED
TENANTS = {attempt: f"tenant{number}" for number, attempt in enumerate(ATTEMPTS)}
NAMED, PREFIX = TENANTS["shared model of the tenant's name"], TENANTS["another's schema"]
SHARED = {
    "marts/sales/group.yml": "groups: [{name: sales, owner: {name: sales}}]\nmodels: [{name: secret, access: private, group: sales}]",
    "marts/sales/secret.sql": ONE,
    f"marts/sales/{NAMED}__shared.sql": ONE,
    f"tenants/{PREFIX}_eu/{PREFIX}_eu__one.sql": ONE,
}


@pytest.fixture(scope="module")
def attempted(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The project with all attempts at once, each in the folder of a tenant of its own."""
    root = tmp_path_factory.mktemp("attempted")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=copy_project(root / "project"), data_dir=root / "data")
    models = settings.dbt_project_dir / "models"
    files = {f"tenants/ME/{name}".replace("ME", TENANTS[key]): text.replace("ME", TENANTS[key]) for key in ATTEMPTS for name, text in ATTEMPTS[key][0].items()}
    for name, text in {**SHARED, **files}.items():
        file = models / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1"))
    prepare_project(settings)
    return settings


# One worker, so that the project is parsed once.
@pytest.mark.xdist_group("own_files")
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_is_wrong_in_a_tenants_folder_is_said_to_that_tenant(attempted: Settings, attempt: str) -> None:
    for words in ATTEMPTS[attempt][1]:
        assert words.replace("ME", TENANTS[attempt]) in load_graph(attempted).broken[TENANTS[attempt]]


@pytest.mark.xdist_group("own_files")
def test_what_is_wrong_in_a_tenants_folder_stops_nobody_else(attempted: Settings, prepared_project: Settings) -> None:
    graph, sound = load_graph(attempted), load_graph(prepared_project)
    assert set(graph.broken) == set(TENANTS.values())
    assert graph.sources == sound.sources
    assert {key: graph.models[key] for key in sound.models} == sound.models
    assert len(graph.models) == len(sound.models) + sum(name.endswith(".sql") for name in SHARED)


@pytest.mark.xdist_group("own_files")
def test_the_problem_is_shown_as_that_tenants(attempted: Settings, tmp_path: Path) -> None:
    broken = TENANTS["plain name"]
    sources = {
        source: {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {stream: {"primary_key": "id"} for stream in streams}}
        for source, streams in STREAMS.items()
    }
    for name in ("acme", broken):
        body = {"version": 1, "tenant": name, "sources": sources, "transform": {"select": ["staging", "marts"]}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(body, indent=2))
    fleet = load_fleet(replace(attempted, tenants_dir=tmp_path))
    graph = prepare_graph([loaded.config for loaded in fleet.tenants.values()], attempted)
    assert find_problems(fleet.tenants["acme"], graph) == ()
    (problem,) = find_problems(fleet.tenants[broken], graph)
    assert problem.message.startswith(
        f"tenant {broken}'s own dbt models cannot be used; correct them: models/tenants/{broken}/plain.sql: name the file {broken}__plain.sql"
    )


def test_what_another_tenants_files_define_is_not_in_a_tenants_manifest(prepared: Settings) -> None:
    """The second wall: even a test that was chosen by mistake does not run."""
    from fabric_assets.transform.worker.manifest import load_manifest

    [test] = (check.unique_id for check in load_graph(prepared).models["model.fabric.acme__vip_customers"].checks)
    for tenant, visible in (("acme", True), ("globex", False)):
        manifest = load_manifest(get_prepared_file(prepared), tenant=tenant, selected=(test,))
        assert (test in manifest.nodes) is visible
        assert any("models/tenants/acme/" in node.original_file_path for node in manifest.nodes.values()) is visible


@pytest.fixture
def small_files() -> Iterator[None]:
    """A device that is copied all the same fills no disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


OWN_YML = """
version: 2
models:
  - name: globex__vip_customers
    description: Customers who came back.
    data_tests: [{relationships: {arguments: {to: ref('customers'), field: customer_id}, config: {where: 1 = 1}}}]
unit_tests:
  - name: coming_back_counts
    model: globex__vip_customers
    given:
      - {input: ref('customers'), format: sql, rows: 'select 7 as customer_id, 2 as order_count'}
    expect: {rows: [{customer_id: 7}]}
"""


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("small_files")
def test_too_large_and_irregular_files_in_a_tenants_folder_hold_up_no_other_tenant(own_project: Settings, tmp_path: Path) -> None:
    """A device has no end and a pipe waits for a writer: neither is opened or copied. Where a tenant is left out, the others' files are copied.

    A tenant's yml describes and tests that tenant's own models all the same.
    """
    (tmp_path / "secret").write_text("select 'of the operator' as stolen")
    (own_project.dbt_project_dir / GLOBEX / "README.md").write_text("What globex has.\n")
    (own_project.dbt_project_dir / GLOBEX / "own.yml").write_text(OWN_YML)
    own = own_project.dbt_project_dir / "models" / "tenants"
    wrong = {}
    irregular = {
        "pipe": "it is no regular file",
        "device": "it is a link",
        "dangling": "it is a link",
        "secret": "it is a link",
        "data": "it has 17 MB, more than 16",
    }
    for tenant, words in irregular.items():
        for name in (f"{tenant}__x.sql", "x.yml", ".x.sql"):
            # dbt reads no file whose name begins with a dot: editors' own.
            owner = f"{tenant}_{'hidden' if name.startswith('.') else name[-3:]}"
            file = own / owner / name.replace(tenant, owner)
            file.parent.mkdir()
            if tenant == "pipe":
                os.mkfifo(file)
            elif tenant == "data":
                file.touch()
                os.truncate(file, 17 * 2**20)
            else:
                file.symlink_to({"device": "/dev/zero", "secret": str(tmp_path / "secret")}.get(tenant, "/nowhere"))
            if not name.startswith("."):
                wrong[owner] = f"models/tenants/{owner}/{file.name}: {words}"
    # Models that read each other twice: the ways from the last one to the first double with every step.
    for step in range(40):
        for name in "ab":
            below = " union all ".join(f"select * from {{{{ ref('globex__{each}{step - 1}') }}}}" for each in "ab") if step else ONE
            (own / "globex" / f"globex__{name}{step}.sql").write_text(f"{{{{ config(materialized='ephemeral') }}}}{below}\n")
    (own / "globex" / "globex__last.sql").write_text("select * from {{ ref('globex__a39') }} cross join {{ ref('customers') }}\n")
    prepare_project(own_project)
    graph = load_graph(own_project)
    assert set(graph.broken) == set(wrong)
    assert [owner for owner, words in wrong.items() if words not in graph.broken[owner]] == []
    assert graph.models["model.fabric.globex__last"].depends_on_models == ("model.fabric.customers",)
    assert graph.models["model.fabric.globex__vip_customers"].description == "Customers who came back."
    run_duckdb(own_project, "globex", *get_raw_statements("globex", amounts=[1, 2, 3]))
    outcome = build_tenant(own_project, make_tenant("globex", exclude=["globex__last"]))
    assert outcome.tests["coming_back_counts"].status == "pass"
    assert outcome.models["vip_customers"].status == "success"
    # What a link leads to is no part of the project, but that there is one is.
    (own / "device_sql" / "device_sql__x.sql").unlink()
    with pytest.raises(ConfigurationError, match="has changed"):
        load_graph(own_project)
