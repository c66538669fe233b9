"""A tenant whose YAML is wrong -> a failing asset check `<tenant>/config` that shows its errors; the other tenants load as ever."""

import re
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from fabric_assets.config.problems import Problem
from fabric_assets.factories.translators import TENANT_TAG

CHECK = "config"
SENSOR = "fabric__broken_config"


def build_broken_definitions(broken: Mapping[str, Sequence[Problem]]) -> dg.Definitions:
    """Make a check per broken tenant, and the sensor that reports it without anybody pressing a button."""
    if not broken:
        return dg.Definitions()
    specs = {tenant: _build_spec(tenant) for tenant in broken}
    checks = [_build_check(specs[tenant], problems) for tenant, problems in broken.items()]
    return dg.Definitions(assets=list(specs.values()), asset_checks=checks, sensors=[_build_sensor(specs, broken)])


def _build_spec(tenant: str) -> dg.AssetSpec:
    # The name itself may be what is wrong: Dagster takes only letters, digits and underscores.
    name = re.sub(r"\W", "_", tenant, flags=re.ASCII) or "unnamed"
    return dg.AssetSpec(
        [name, CHECK], group_name=name, tags={TENANT_TAG: name[:63]}, description="The tenant's YAML is wrong: its check says where. Run `fabric validate`."
    )


def _build_check(spec: dg.AssetSpec, problems: Sequence[Problem]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=spec.key, name=CHECK, description="The tenant's YAML can be loaded.")
    def config() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata=_build_metadata(problems))

    return config


def _build_sensor(specs: Mapping[str, dg.AssetSpec], broken: Mapping[str, Sequence[Problem]]) -> dg.SensorDefinition:
    @dg.sensor(name=SENSOR, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=60, description="Reports tenants whose YAML is wrong.")
    def report(context: dg.SensorEvaluationContext) -> Iterator[dg.SensorResult]:
        state = "\n".join(str(problem) for problems in broken.values() for problem in problems)
        if context.cursor == state:
            yield dg.SkipReason("nothing has changed since the last report")
            return
        events = [
            dg.AssetCheckEvaluation(asset_key=spec.key, check_name=CHECK, passed=False, metadata=_build_metadata(broken[tenant]))
            for tenant, spec in specs.items()
        ]
        yield dg.SensorResult(asset_events=events, cursor=state)

    return report


def _build_metadata(problems: Sequence[Problem]) -> dict[str, object]:
    return {"problems": len(problems), "errors": dg.MetadataValue.text("\n\n".join(str(problem) for problem in problems))}
