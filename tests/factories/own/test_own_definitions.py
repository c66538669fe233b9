"""The module that FABRIC_DEFINITIONS names: its definitions join the fleet's, or a failing check says why not and the fleet loads."""

import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.execution import execute_job
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.settings import Settings, load_settings
from tests.factories.shop import get_tenant

CHECK = dg.AssetCheckKey(dg.AssetKey(["fabric", "definitions"]), "definitions")
GOOD = """
import dagster as dg

@dg.asset(key=["reports", "weekly"], deps=[dg.AssetKey(["acme", "raw", "shop", "orders"])], group_name="reports")
def weekly():
    return None

@dg.asset_check(asset=dg.AssetKey(["acme", "raw", "shop", "orders"]))
def looks_right():
    return dg.AssetCheckResult(passed=True)

@dg.definitions
def defs():
    load = dg.define_asset_job("load_acme", dg.AssetSelection.assets(["acme", "raw", "shop", "orders"]))
    return dg.Definitions(assets=[weekly], asset_checks=[looks_right], jobs=[load])
"""
ASSET = "import dagster as dg\ndefs = dg.Definitions(assets=[dg.AssetSpec({key})])\n"
CHECK_AGAIN = """
import dagster as dg

@dg.asset_check(asset=dg.AssetKey(["acme", "isolation"]), name="isolation")
def mine():
    return dg.AssetCheckResult(passed=True)

defs = dg.Definitions(asset_checks=[mine])
"""
SCHEDULE = """
import dagster as dg

job = dg.define_asset_job("j", "*")
defs = dg.Definitions(jobs=[job], schedules=[dg.ScheduleDefinition(name="acme__nightly", job=job, cron_schedule="@daily")])
"""
SENSOR = """
import dagster as dg

@dg.sensor(name="acme__nightly", target="*")
def one(context):
    return None

defs = dg.Definitions(sensors=[one])
"""
# The text of a module, the line that is named, and words of the message.
BROKEN: dict[str, tuple[str | None, int, str]] = {
    "not there": (None, 1, "ModuleNotFoundError: No module named 'MODULE'"),
    "import of what is not there": ("import dagster\nimport nowhere\n", 2, "ModuleNotFoundError: No module named 'nowhere'"),
    "syntax": ("import dagster\ndef broken(:\n", 2, "SyntaxError: invalid syntax"),
    "raises": ("def fail():\n    raise ValueError('postgresql://me:hunter2@db is down')\n\nfail()\n", 2, "ValueError: postgresql://***@db is down"),
    "raises in its function": ("import dagster as dg\n\n@dg.definitions\ndef defs():\n    return {}['x']\n", 5, "KeyError: 'x'"),
    "ends the process": ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    "no definitions": ("x = 1\n", 1, "it has no Definitions; it needs one"),
    "two definitions": ("import dagster as dg\na = dg.Definitions()\nb = dg.Definitions()\n", 1, "it has 2 Definitions; it needs one"),
    "raw table again": (ASSET.format(key=["acme", "raw", "shop", "orders"]), 1, "it repeats what the fleet has: the asset acme/raw/shop/orders"),
    "mart again": (ASSET.format(key=["acme", "marts", "orders"]), 1, "it repeats what the fleet has: the asset acme/marts/orders"),
    "config of a broken tenant": (ASSET.format(key=["globex", "config"]), 1, "it repeats what the fleet has: the asset globex/config"),
    "check again": (CHECK_AGAIN, 1, "it repeats what the fleet has: the check isolation of acme/isolation"),
    "schedule's name": (SCHEDULE, 1, "it repeats what the fleet has: the schedule acme__nightly"),
    "a schedule's name for a sensor": (SENSOR, 1, "acme__nightly"),
    "executor": ("import dagster as dg\ndefs = dg.Definitions(executor=dg.in_process_executor)\n", 1, "it has an executor, but the fleet's applies its rules"),
    "job of nothing": (
        "import dagster as dg\ndefs = dg.Definitions(jobs=[dg.define_asset_job('j', dg.AssetSelection.assets('nowhere'))])\n",
        1,
        "nowhere",
    ),
}  # fmt: skip


@pytest.fixture
def own(prepared: Settings, write_tenant: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], Settings]:
    """Write a module of the operators' own; gives settings that name it. The fleet has the healthy tenant acme and the broken globex."""
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    name = "operators_definitions"
    (folder := tmp_path / "own").mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)

    def write(text: str | None) -> Settings:
        if text is not None:
            (folder / f"{name}.py").write_text(text)
        return replace(prepared, definitions=name)

    return write


def _list_assets(definitions: dg.Definitions) -> set[dg.AssetKey]:
    return set(definitions.resolve_asset_graph().get_all_asset_keys())


def test_the_setting_is_the_environments() -> None:
    assert load_settings({"FABRIC_DEFINITIONS": " acme.dagster "}).definitions == "acme.dagster"
    assert load_settings({}).definitions == ""


def test_own_definitions_join_the_fleets_lineage(own: Callable[[str | None], Settings], prepared: Settings, isolated_home: object) -> None:
    fleet, merged = build_definitions(prepared), build_definitions(own(GOOD))
    weekly, orders = dg.AssetKey(["reports", "weekly"]), dg.AssetKey(["acme", "raw", "shop", "orders"])
    assert _list_assets(merged) - _list_assets(fleet) == {weekly}
    graph = merged.resolve_asset_graph()
    assert graph.get(weekly).parent_keys == {orders}
    assert dg.AssetCheckKey(orders, "looks_right") in graph.asset_check_keys
    assert CHECK not in graph.asset_check_keys
    assert merged.resolve_job_def("load_acme").asset_layer.executable_asset_keys >= {orders}
    with dg.DagsterInstance.get() as instance:
        job, run_id = merged.resolve_implicit_global_asset_job_def(), str(uuid.uuid4())
        assert execute_job(job, [weekly], instance=instance, location="fabric", run_id=run_id, tags={}, run_config={}).success
        assert "tenant" not in instance.get_run_by_id(run_id).tags


@pytest.mark.parametrize("case", BROKEN)
def test_a_module_that_cannot_be_used_is_a_failing_check_and_the_fleet_loads_without_it(
    own: Callable[[str | None], Settings], prepared: Settings, tmp_path: Path, case: str
) -> None:
    text, line, words = BROKEN[case]
    settings = own(text)
    definitions = build_definitions(settings)
    assert _list_assets(definitions) == _list_assets(build_definitions(prepared)) | {CHECK.asset_key}
    with dg.DagsterInstance.ephemeral() as instance:
        tick = definitions.resolve_sensor_def("fabric__broken_config").evaluate_tick(dg.build_sensor_context(instance=instance))
    events: dict[Any, Any] = {event.asset_check_key: event for event in tick.asset_events}
    assert events.keys() == {CHECK, dg.AssetCheckKey(dg.AssetKey(["globex", "config"]), "config")}
    told = events[CHECK].metadata["errors"].value
    file = "operators_definitions" if text is None else str(tmp_path / "own" / "operators_definitions.py")
    assert told.startswith(f"{file}:{line}:1: FABRIC_DEFINITIONS: operators_definitions: ")
    assert words.replace("MODULE", "operators_definitions") in told
    assert "correct the module and reload, or unset FABRIC_DEFINITIONS" in told
    assert "hunter2" not in told
    assert not events[CHECK].passed


def test_strict_settings_refuse_the_fleet_for_a_module_that_cannot_be_used(own: Callable[[str | None], Settings]) -> None:
    settings = replace(own("raise RuntimeError('no')"), tenants=("acme",), strict=True)
    with pytest.raises(ConfigurationError, match=r"FABRIC_STRICT=1 and the operators' definitions cannot be used:\n.*operators_definitions\.py:1:1"):
        build_definitions(settings)
