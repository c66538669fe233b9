"""The names in one part of a tenant's YAML that refer to another part -> findings. Checks and schedules name streams; datasets are named after sources.

The rules read names, not the model: a file with mistakes has no model, but all of its mistakes are shown at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fabric_assets import naming
from fabric_assets.config.base import Path
from fabric_assets.suggestions import suggest

# The bytes that Postgres keeps of a name.
_LONGEST = 63


@dataclass(frozen=True)
class TenantNames:
    """The names in a tenant's YAML.

    Args:
        sources: each source with its streams.
        targets: each schedule with its selections.
        inboxes: each source of dropped files with its path; None where the YAML cannot be read.
        folders: each source of other files with its path.
    """

    tenant: str
    sources: Mapping[str, tuple[str, ...]]
    checks: tuple[str, ...] = ()
    targets: Mapping[str, tuple[str, ...]] | None = None
    inboxes: Mapping[str, str] | None = None
    folders: Mapping[str, str] | None = None


def find_dangling(names: TenantNames) -> Iterator[tuple[Path, str]]:
    """Yield the path and the reason of each name that is unknown or too long."""
    for source in names.sources:
        longest = naming.load_staging_dataset(names.tenant, source)
        if len(longest) > _LONGEST:
            yield (
                ("sources", source),
                f"makes the dataset {longest}, and databases keep {_LONGEST} characters of a name: shorten the source's by {len(longest) - _LONGEST}",
            )
    streams = [f"raw/{source}/{stream}" for source, its_streams in names.sources.items() for stream in its_streams]
    known = frozenset(streams)
    for key in names.checks:
        if key not in known:
            yield ("checks", key), f"'{key}' is no stream of this tenant{suggest(key, streams)}"
    for schedule, selections in (names.targets or {}).items():
        for index, selection in enumerate(selections):
            if error := _get_target_error(selection, names):
                yield ("schedules", schedule, "target", index), error


def _get_target_error(selection: str, names: TenantNames) -> str | None:
    layer, *parts = selection.removeprefix("+").removesuffix("+").split("/")
    if layer == names.tenant and parts:
        return f"the tenant's name is implied: write {'/'.join(parts)}"
    if layer != "raw" or not parts or any(sign in selection for sign in "*?"):
        return None  # dbt's part is checked against the dbt project
    source = parts[0]
    if source not in names.sources:
        return f"'{source}' is no source of this tenant{suggest(source, names.sources)}"
    if len(parts) > 1 and parts[1] not in names.sources[source]:
        return f"'{parts[1]}' is no stream of {source}{suggest(parts[1], names.sources[source])}"
    return None
