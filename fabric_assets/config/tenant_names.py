"""A merged tree, which may have mistakes -> the names in it, as far as they can be read."""

from collections.abc import Iterator

from fabric_assets.config.base import Path
from fabric_assets.config.references import TenantNames
from fabric_assets.config.sources.rest import Templates, find_orphans
from fabric_assets.config.yaml_tree import Node


def get_tenant_names(tenant: str, root: Node) -> TenantNames:
    """Read the names from a tree.

    Args:
        tenant: the stem of the file's name; the tenant's name in the file may be wrong.
    """
    targets = {name: get_texts(_get(schedule, "target")) for name, schedule in _get_items(_get(root, "schedules"))}
    sources = {name: tuple(stream for stream, _ in _get_items(_get(source, "streams"))) for name, source in _get_items(_get(root, "sources"))}
    inboxes, folders = dict[str, str](), dict[str, str]()
    for name, source in _get_items(_get(root, "sources")):
        if (path := _get(source, "path")) and isinstance(path.value, str):
            (inboxes if (kind := _get(source, "type")) and kind.value == "csv_import" else folders)[name] = path.value
    return TenantNames(tenant, sources, tuple(key for key, _ in _get_items(_get(root, "checks"))), targets, inboxes, folders)


def find_missing_parents(root: Node) -> Iterator[tuple[Path, str]]:
    """Yield the streams of all APIs whose parent is not declared."""
    for source, node in _get_items(_get(root, "sources")):
        kind = _get(node, "type")
        if kind is None or kind.value != "rest_api":
            continue
        streams = {stream: _get_templates(item) for stream, item in _get_items(_get(node, "streams"))}
        for below, message in find_orphans(streams):
            yield ("sources", source, *below), message


def get_texts(node: Node | None) -> tuple[str, ...]:
    """List the texts in a list; anything else is left out."""
    return tuple(item.value for item in node.value if isinstance(item.value, str)) if node and isinstance(node.value, list) else ()


def _get_templates(stream: Node) -> Templates:
    texts = {("path",): _get(stream, "path"), **{("params", name): value for name, value in _get_items(_get(stream, "params"))}}
    return {where: node.value for where, node in texts.items() if node and isinstance(node.value, str)}


def _get(node: Node | None, key: str) -> Node | None:
    return node.value.get(key) if node and isinstance(node.value, dict) else None


def _get_items(node: Node | None) -> list[tuple[str, Node]]:
    return list(node.value.items()) if node and isinstance(node.value, dict) else []
