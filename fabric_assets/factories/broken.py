"""A tenant whose YAML is wrong -> a failing asset check `<tenant>/config` that shows its errors; the other tenants still load."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dagster as dg

from fabric_assets.config.problems import Problem
from fabric_assets.factories.translators import TENANT_TAG

CHECK = "config"
SENSOR = "fabric__broken_config"


def build_broken_definitions(broken: Mapping[str, Sequence[Problem]]) -> dg.Definitions:
    """Build a check per broken tenant, and the sensor that reports the failed checks by itself."""
    if not broken:
        return dg.Definitions()
    specs = {tenant: _build_spec(name) for tenant, name in _get_names(broken).items()}
    checks = [_build_check(specs[tenant], problems) for tenant, problems in broken.items()]
    return dg.Definitions(assets=list(specs.values()), asset_checks=checks, sensors=[_build_sensor(specs, broken)])


def build_offboarded_specs(gone: Mapping[str, Sequence[Problem]]) -> list[dg.AssetSpec]:
    """Build an asset for each offboarded tenant whose YAML still exists. Nothing materialises, checks or reports it, so nothing is recorded."""
    return [dg.AssetSpec([name, CHECK], group_name=name, description="\n\n".join(str(problem) for problem in problems)) for name, problems in gone.items()]


def _get_names(tenants: Iterable[str]) -> dict[str, str]:
    """Build a name that Dagster accepts for each tenant. The file's name may be wrong itself, and two wrong names must not become one."""
    names: dict[str, str] = {}
    for tenant in sorted(tenants):
        plain = re.sub(r"\W", "_", tenant, flags=re.ASCII)[:60] or "unnamed"
        taken = sum(name == plain or name.startswith(f"{plain}_is_") for name in names.values())
        names[tenant] = f"{plain}_is_{taken + 1}" if taken else plain
    return names


def _build_spec(name: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        [name, CHECK], group_name=name, tags={TENANT_TAG: name}, description="The tenant's YAML is wrong: its check says where. Run `fabric validate`."
    )


def _build_check(spec: dg.AssetSpec, problems: Sequence[Problem]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=spec.key, name=CHECK, description="The tenant's YAML can be loaded.")
    def config() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata=_build_metadata(problems))

    return config


def _build_sensor(specs: Mapping[str, dg.AssetSpec], broken: Mapping[str, Sequence[Problem]]) -> dg.SensorDefinition:
    @dg.sensor(name=SENSOR, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=60, description="Reports tenants whose YAML is wrong.")
    def report(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # With the files' times: a mistake that was corrected and made again is a new one.
        state = "\n".join(f"{problem} {_get_time(problem.file)}" for problems in broken.values() for problem in problems)
        if context.cursor == state:
            return dg.SkipReason("nothing has changed since the last report")
        events = [
            dg.AssetCheckEvaluation(asset_key=spec.key, check_name=CHECK, passed=False, metadata=_build_metadata(broken[tenant]))
            for tenant, spec in specs.items()
        ]
        return dg.SensorResult(asset_events=events, cursor=state)

    return report


def _get_time(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _build_metadata(problems: Sequence[Problem]) -> dict[str, int | dg.MetadataValue]:
    return {"problems": len(problems), "errors": dg.MetadataValue.text("\n\n".join(str(problem) for problem in problems))}
