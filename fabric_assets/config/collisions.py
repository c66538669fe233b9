"""The names of all tenants -> those that two tenants would share: in a shared schema one customer could read the other's data.

No two sources may share an inbox, not even two of one tenant: one would load, or move away, the other's files. The folder
inbox/<tenant> belongs to that tenant, whether or not its YAML names it, and is deleted with it.
"""

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import NamedTuple

from fabric_assets import naming
from fabric_assets.config.base import Path
from fabric_assets.config.references import TenantNames

_DBT_SCHEMAS = ("staging", "intermediate", "marts")


class _Inbox(NamedTuple):
    """An inbox.

    Args:
        steps: its path as `locate` splits it.
        source: empty for the folder inbox/<tenant>.
        path: as messages show it.
    """

    steps: tuple[str, ...]
    tenant: str
    source: str
    path: str


def find_collisions(tenants: Iterable[TenantNames], data_dir: PurePath) -> Iterator[tuple[str, Path, str]]:
    """Yield tenant, path and reason of each name or inbox that two tenants share, once for each of the two.

    Args:
        data_dir: what the paths of inboxes are relative to.
    """
    tenants = list(tenants)
    yield from _find_machine_folders(tenants, data_dir)
    yield from _find_shared_names(tenants)
    yield from _find_shared_inboxes(tenants, data_dir)
    yield from _find_read_inboxes(tenants, data_dir)


def _find_machine_folders(tenants: Iterable[TenantNames], data_dir: PurePath) -> Iterator[tuple[str, Path, str]]:
    """Yield the paths that lead to processes, devices and secrets.

    By `/proc/self/root` a path could also lead to any other folder, under a name that no comparison recognises.
    """
    for each in tenants:
        for source, path in {**(each.inboxes or {}), **(each.folders or {})}.items():
            if machine := get_machine_folder(locate(path, data_dir), data_dir):
                reason = f"lies in {machine}, where this machine keeps processes, devices and secrets"
                yield each.tenant, ("sources", source, "path"), f"{reason}: copy the files to a folder of their own, and name that"


def get_machine_folder(steps: tuple[str, ...], data_dir: PurePath) -> str:
    """Find the folder of the machine, such as /proc, in which a path lies; empty for none, and for a path in the data folder."""
    home = locate(".", data_dir)
    if steps[: len(home)] == home:
        return ""
    return next((root for root in naming.MACHINE_FOLDERS if steps[: root.count("/") + 1] == ("file", *root.strip("/").split("/"))), "")


def _find_shared_names(tenants: Iterable[TenantNames]) -> Iterator[tuple[str, Path, str]]:
    owners: dict[tuple[str, str], list[tuple[str, Path]]] = defaultdict(list)
    for names in tenants:
        for kind, name, path in _get_names(names):
            owners[kind, name].append((names.tenant, path))
    seen: set[tuple[str, Path, str]] = set()
    for (kind, name), holders in owners.items():
        for tenant, path in holders:
            for other in sorted({holder for holder, _ in holders} - {tenant}):
                if (tenant, path, other) not in seen:
                    seen.add((tenant, path, other))
                    yield tenant, path, f"makes the {kind} {name}, which is also tenant {other}'s: rename one of the two"


def _find_shared_inboxes(tenants: Iterable[TenantNames], data_dir: PurePath) -> Iterator[tuple[str, Path, str]]:
    """Yield each inbox that another source has, holds or lies in. It is yielded once, with one other source, also where a template gives all the same."""
    inboxes = [_Inbox(locate(path, data_dir), each.tenant, source, path) for each in tenants for source, path in (each.inboxes or {}).items()]
    holders: dict[tuple[str, ...], list[_Inbox]] = defaultdict(list)
    for inbox in inboxes:
        holders[inbox.steps].append(inbox)
    others: dict[_Inbox, tuple[str, _Inbox]] = {}
    for inbox in inboxes:
        if twin := next((other for other in holders[inbox.steps] if other != inbox), None):
            others[inbox] = ("is", twin)
        for depth in range(1, len(inbox.steps)):
            for outer in holders.get(inbox.steps[:depth], ()):
                others.setdefault(inbox, ("lies in", outer))
                others.setdefault(outer, ("holds", inbox))
    homes = {locate(str(naming.inbox_dir(data_dir, each.tenant)), data_dir): each.tenant for each in tenants}
    for inbox in inboxes:
        if found := _find_anothers_home(inbox, homes):
            others.setdefault(inbox, found)
    for inbox, (how, other) in others.items():
        owner = f"the inbox of tenant {other.tenant}'s source {other.source}" if other.source else f"tenant {other.tenant}'s"
        reason = f"{how} {other.path}, which is {'also ' if how == 'is' else ''}{owner}"
        yield inbox.tenant, ("sources", inbox.source, "path"), f"{reason}: give each its own folder, e.g. inbox/{inbox.tenant}/{inbox.source}"


def _find_anothers_home(inbox: _Inbox, homes: Mapping[tuple[str, ...], str]) -> tuple[str, _Inbox] | None:
    """Find the folder inbox/<tenant> of another tenant that an inbox is, lies in or holds."""
    (*root, _) = next(iter(homes))
    home = inbox.steps[: len(root) + 1]
    holds = home == tuple(root[: len(home)])
    tenant = next((tenant for tenant in homes.values() if tenant != inbox.tenant), "") if holds else homes.get(home, inbox.tenant)
    if tenant in ("", inbox.tenant):
        return None
    how = "holds" if holds else "is" if home == inbox.steps else "lies in"
    return how, _Inbox(home, tenant, "", f"inbox/{tenant}")


def _find_read_inboxes(tenants: Iterable[TenantNames], data_dir: PurePath) -> Iterator[tuple[str, Path, str]]:
    """Yield the sources that read files which are dropped for another tenant; a tenant may read its own inboxes."""
    held, below = defaultdict[tuple[str, ...], list[_Inbox]](list), defaultdict[tuple[str, ...], list[_Inbox]](list)
    for each in tenants:
        for source, path in (each.inboxes or {}).items():
            inbox = _Inbox(locate(path, data_dir), each.tenant, source, path)
            held[inbox.steps].append(inbox)
            for depth in range(1, len(inbox.steps)):
                below[inbox.steps[:depth]].append(inbox)
    for each in tenants:
        for source, path in (each.folders or {}).items():
            steps = locate(path, data_dir)
            around = [("lies in", held.get(steps[:depth], ())) for depth in range(1, len(steps))]
            pairs = [("is", held.get(steps, ())), *around, ("holds", below.get(steps, ()))]
            if found := next(((how, inbox) for how, inboxes in pairs for inbox in inboxes if inbox.tenant != each.tenant), None):
                how, inbox = found
                reason = f"{how} {inbox.path}, which is the inbox of tenant {inbox.tenant}'s source {inbox.source}"
                yield each.tenant, ("sources", source, "path"), f"{reason}: name a folder of this tenant's own"


def locate(path: str, data_dir: PurePath) -> tuple[str, ...]:
    """Split a path into the steps that lead to it from the root of its machine or store. Two spellings of one path give the same steps."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme != "file":
        return (scheme, *filter(None, rest.split("/")))
    folder = posixpath.normpath(posixpath.join(data_dir.as_posix(), rest if separator else path))
    return ("file", *filter(None, folder.split("/")))


def get_rivals(served: Iterable[str], all_: Mapping[str, object]) -> list[str]:
    """List the tenants that are not served here but could share a name with one that is.

    Two tenants can share a name only if one is called like the other with _raw, _ro or _bi after it. So only few other files must be read.
    """
    mine = set(served)
    rivals = set()
    for name in all_:
        for head in _get_heads(name):
            if head in all_ and (head in mine) != (name in mine):
                rivals.add(name if head in mine else head)
    return sorted(rivals)


def get_longer_names(names: Collection[str]) -> dict[str, list[str]]:
    """Map each tenant to those whose names begin with its name, as acme_eu begins with acme: a schema acme_eu_… counts as acme_eu's."""
    longer: dict[str, list[str]] = defaultdict(list)
    for name in names:
        words = name.split("_")
        for count in range(1, len(words)):
            if (head := "_".join(words[:count])) in names:
                longer[head].append(name)
    return longer


def _get_heads(name: str) -> Iterator[str]:
    for suffix in ("_ro", "_bi"):
        if name.endswith(suffix):
            yield name.removesuffix(suffix)
    ended = f"{name}_"  # acme_raw is a rival of acme, too: its `marts` and acme's source `marts` both make acme_raw_marts
    start = ended.find("_raw_")
    while start > 0:
        yield ended[:start]
        start = ended.find("_raw_", start + 1)


def _get_names(names: TenantNames) -> Iterator[tuple[str, str, Path]]:
    tenant = names.tenant
    for source in names.sources:
        yield "dataset", naming.raw_dataset(tenant, source), ("sources", source)
        yield "dataset", naming.load_staging_dataset(tenant, source), ("sources", source)
    yield "dataset", naming.platform_dataset(tenant), ("tenant",)
    for schema in _DBT_SCHEMAS:
        yield "dataset", naming.dbt_schema(tenant, schema), ("tenant",)
    yield "DuckDB file", f"{tenant}.duckdb", ("tenant",)
    for role in naming.list_roles(tenant):
        yield "role", role, ("tenant",)
