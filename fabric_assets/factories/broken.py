"""A tenant whose YAML is wrong -> a failing asset check `<tenant>/config` that shows its errors; the other tenants still load.

The operators' own definitions that cannot be used are the failing check `fabric/definitions`; the fleet loads without them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from fabric_assets.config.problems import Problem
from fabric_assets.factories.run_tags import PLATFORM, TENANT_TAG

CHECK, DEFINITIONS_CHECK = "config", "definitions"
SENSOR = "fabric__broken_config"


@dataclass(frozen=True)
class _Broken:
    """What cannot be used: an asset that nothing materialises, whose check has the name of the key's last part."""

    spec: dg.AssetSpec
    problems: Sequence[Problem]

    @property
    def check(self) -> str:
        return self.spec.key.path[-1]


def build_broken_definitions(broken: Mapping[str, Sequence[Problem]], *, own: Sequence[Problem] = ()) -> dg.Definitions:
    """Build a check per broken tenant, and the sensor that reports the failed checks by itself.

    Args:
        own: what is wrong with the operators' own definitions.
    """
    listed = [_Broken(_build_spec(name), broken[tenant]) for tenant, name in _get_names(broken).items()]
    if own:
        described = "The operators' own definitions cannot be used: the check says why. The fleet is loaded without them."
        listed.append(_Broken(dg.AssetSpec([PLATFORM, DEFINITIONS_CHECK], group_name=PLATFORM, description=described), own))
    if not listed:
        return dg.Definitions()
    return dg.Definitions(assets=[each.spec for each in listed], asset_checks=[_build_check(each) for each in listed], sensors=[_build_sensor(listed)])


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


def _build_check(broken: _Broken) -> dg.AssetChecksDefinition:
    described = "The tenant's YAML can be loaded." if broken.check == CHECK else "The operators' own definitions can be used."

    @dg.asset_check(asset=broken.spec.key, name=broken.check, description=described)
    def config() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata=_build_metadata(broken.problems))

    return config


def _build_sensor(listed: Sequence[_Broken]) -> dg.SensorDefinition:
    described = "Reports what is broken: tenants' YAML, and the operators' own definitions."

    @dg.sensor(name=SENSOR, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=60, description=described)
    def report(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # With the files' times: a mistake that was corrected and made again is a new one.
        state = "\n".join(f"{problem} {_get_time(problem.file)}" for broken in listed for problem in broken.problems)
        if context.cursor == state:
            return dg.SkipReason("nothing has changed since the last report")
        events = [
            dg.AssetCheckEvaluation(asset_key=broken.spec.key, check_name=broken.check, passed=False, metadata=_build_metadata(broken.problems))
            for broken in listed
        ]
        return dg.SensorResult(asset_events=events, cursor=state)

    return report


def _get_time(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _build_metadata(problems: Sequence[Problem]) -> dict[str, int | dg.MetadataValue]:
    return {"problems": len(problems), "errors": dg.MetadataValue.text("\n\n".join(str(problem) for problem in problems))}
