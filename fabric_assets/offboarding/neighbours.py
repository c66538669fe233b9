"""The inboxes to delete -> refused where another tenant's files could be deleted with them. A mistake in its YAML, a guess without YAML, or a link can cause
that."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fabric_assets import naming
from fabric_assets.config.collisions import locate
from fabric_assets.config.references import TenantNames
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.offboarding.local_data import find_inboxes, get_csv_sources

Location = tuple[str, ...]


def refuse_shared_inboxes(tenant: str, data_dir: Path, config: TenantConfig | None, tenants: Iterable[TenantNames]) -> None:
    """Refuse to delete an inbox that is another tenant's, contains one or is inside one.

    Args:
        tenants: the names of all tenants, served here or elsewhere.

    Raises:
        ConfigurationError: there is such an inbox, or another tenant's YAML cannot be read, so its inboxes are unknown.
    """
    going = list(_list_going(tenant, data_dir, config))
    for folder in naming.PLATFORM_FOLDERS:
        _refuse(tenant, going, "the platform's own", str(data_dir / folder), data_dir)
    for names in tenants:
        other = names.tenant
        if other == tenant:
            continue
        if names.inboxes is None and going:
            raise ConfigurationError(
                f"the YAML of {other} cannot be read, so it is not known whether {going[0][0]}, which is to go with {tenant}, is its inbox as well",
                remedy=f"correct the YAML of {other} first (`fabric validate {other}`), or remove it if that tenant is no more",
            )
        _refuse(tenant, going, f"tenant {other}'s", str(naming.inbox_dir(data_dir, other)), data_dir)
        for source, path in (names.inboxes or {}).items():
            _refuse(tenant, going, f"the inbox of tenant {other}'s source {source}", path, data_dir)
        for source, path in (names.folders or {}).items():
            _refuse(tenant, going, f"what tenant {other}'s source {source} reads", path, data_dir, is_wide=True)


def _list_going(tenant: str, data_dir: Path, config: TenantConfig | None) -> Iterator[tuple[str, set[Location]]]:
    for folder in find_inboxes(tenant, data_dir, config):
        if os.path.lexists(folder):
            # The link itself is deleted, not its target; links in the path before it are followed.
            yield str(folder), {locate(str(path), data_dir) for path in (folder, folder.parent.resolve() / folder.name)}
    for source in get_csv_sources(config).values():
        if (location := locate(source.path, data_dir))[0] != "file":
            yield source.path, {location}


def _refuse(tenant: str, going: Iterable[tuple[str, set[Location]]], owner: str, path: str, data_dir: Path, *, is_wide: bool = False) -> None:
    """Refuse if one of the paths to delete contains a path, or is inside it.

    Args:
        is_wide: whether the path may contain what is not its owner's: a source of a whole bucket need not read all of it.
    """
    taken = locate(path, data_dir)
    locations = {taken, locate(str(Path("/", *taken[1:]).resolve()), data_dir)} if taken[0] == "file" else {taken}
    for name, own in going:
        for mine in own:
            for other in locations:
                if other[: len(mine)] == mine or (not is_wide and mine[: len(other)] == other):
                    how = "is" if mine == other else "holds" if len(mine) < len(other) else "lies in"
                    raise ConfigurationError(
                        f"{name}, which is to go with {tenant}, {how} {path}, {owner}",
                        remedy="nothing was deleted: give each a folder of its own, e.g. inbox/<tenant>/<source>, move the files there, then call this again",
                    )
