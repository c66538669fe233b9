"""Hand-written `@dlt_assets` and `@dbt_assets` of a tenant join its lineage: real pipelines and a real dbt project, in the fleet's definitions."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.execution import execute_job
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.own.dbt_translator import FabricDbtTranslator
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.factories.shop import get_tenant
from tests.support.lengths import AT_FULL_LENGTH

# The module of docs/own-definitions.md.
MODULE = (ROOT / "docs" / "own-definitions.md").read_text().split("<!-- own definitions -->\n```python\n")[1].split("```\n")[0]
PROJECT = {
    "dbt_project.yml": "name: reports\nversion: '1.0'\nprofile: reports\nflags: {send_anonymous_usage_stats: false}\nmodels: {+schema: finance}\n",
    "profiles.yml": "reports: {target: own, outputs: {own: {type: duckdb, path: FILE, schema: acme}}}\n",
    "models/sources.yml": "sources:\n"
    "  - {name: billing, schema: acme_raw_billing, tables: [{name: invoices}]}\n"
    "  - {name: shop, schema: acme_raw_shop, tables: [{name: orders}]}\n",
    "models/owed.sql": "{{ config(tags=['money']) }}select sum(amount) as owed from {{ source('billing', 'invoices') }}",
    "models/per_order.sql": "{{ config(enabled=true) }}select 1 as x where false\n-- depends_on: {{ source('shop', 'orders') }} {{ ref('owed') }}",
    "models/tests.yml": "models: [{name: owed, columns: [{name: owed, data_tests: [not_null]}]}]",
}


@pytest.fixture
def own(
    prepared: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, Path]:
    """Settings that name a module with pipelines of two tenants and a parsed dbt project; and the file that both write to."""
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(owners=["team:globex"], schedules={}))
    folder, file = tmp_path / "own", tmp_path / "own" / "own.duckdb"
    for name, text in {**PROJECT, "../operators_pipelines.py": MODULE}.items():
        path = folder / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("FILE", str(file)))
    dbt = [sys.executable, "-m", "dbt.cli.main", "parse", "--quiet", "--project-dir", str(folder / "reports"), "--profiles-dir", str(folder / "reports")]
    subprocess.run(dbt, check=True)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "operators_pipelines", raising=False)
    return replace(prepared, definitions="operators_pipelines"), file


@AT_FULL_LENGTH
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dagster-dbt's own
@pytest.mark.timeout(300)
def test_hand_written_assets_have_the_tenants_keys_groups_tags_and_owners_and_run(own: tuple[Settings, Path], isolated_home: object) -> None:
    settings, file = own
    definitions = build_definitions(settings)
    graph = definitions.resolve_asset_graph()
    invoices, other = dg.AssetKey(["acme", "raw", "billing", "invoices"]), dg.AssetKey(["globex", "raw", "billing", "invoices"])
    owed, per_order = dg.AssetKey(["acme", "finance", "owed"]), dg.AssetKey(["acme", "finance", "per_order"])
    assert "fabric/definitions" not in {key.to_user_string() for key in graph.get_all_asset_keys()}
    for key, owners in ((invoices, ["team:growth", "data@acme.example"]), (other, ["team:globex"])):
        node = graph.get(key)
        assert (node.group_name, node.owners, node.kinds, node.parent_keys) == (key.path[0], owners, {"dlt", "duckdb"}, set())
        assert {name: node.tags[name] for name in ("tenant", "source", "layer")} == {"tenant": key.path[0], "source": "billing", "layer": "raw"}
    node = graph.get(owed)
    assert (node.group_name, node.kinds, node.parent_keys) == ("acme", {"dbt", "duckdb"}, {invoices})
    assert {"tenant": "acme", "layer": "finance", "money": ""}.items() <= node.tags.items()
    assert graph.get(per_order).parent_keys == {dg.AssetKey(["acme", "raw", "shop", "orders"]), owed}
    assert dg.AssetCheckKey(owed, "not_null_owed_owed") in graph.asset_check_keys
    with dg.DagsterInstance.get() as instance:
        job, run_id = definitions.resolve_implicit_global_asset_job_def(), str(uuid.uuid4())
        assert execute_job(job, [invoices, owed], instance=instance, location="fabric", run_id=run_id, tags={}, run_config={}).success
        assert instance.get_run_by_id(run_id).tags["tenant"] == "acme"
        checks = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        assert [entry.dagster_event.asset_check_evaluation_data.passed for entry in checks] == [True]
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("select owed from acme_finance.owed").fetchall() == [(42,)]


def test_a_tenant_that_does_not_exist_or_is_broken_is_named(settings: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]) -> None:
    write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    with pytest.raises(ConfigurationError, match="there is no tenant acme"):
        FabricDbtTranslator("acme")
    with pytest.raises(ConfigurationError, match=r"the YAML of tenant globex is not valid:\n.*globex\.yaml:\d+:\d+: timezone"):
        FabricDbtTranslator("globex")
