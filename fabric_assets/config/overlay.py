"""Defaults, templates and a tenant's own file -> one tree: deep merge by key, the upper layer wins.

Values keep the file that they come from, so an error in a template is shown in the template. The layers below the tenant's own file are merged once
for all tenants that share them.
"""

from fabric_assets.config.yaml_tree import Node


def overlay(below: Node, above: Node) -> Node:
    """Lay one tree over another.

    Mappings are merged key by key; lists and scalars are replaced. There are two exceptions, in which the merged result could never be valid. A mapping
    of another `type` replaces the one below it, and `null` removes a mapping or list below it.
    """
    lower, upper = below.value, above.value
    if not isinstance(lower, dict) or not isinstance(upper, dict) or _has_another_type(lower, upper):
        return above
    merged = dict(lower)
    for key, node in upper.items():
        under = merged.get(key)
        if under is None:
            merged[key] = node
        elif node.value is None and isinstance(under.value, dict | list):
            del merged[key]
        else:
            merged[key] = overlay(under, node)
    return Node(merged, above.file, above.at, above.key_at)


def _has_another_type(lower: dict[str, Node], upper: dict[str, Node]) -> bool:
    return "type" in lower and "type" in upper and lower["type"].value != upper["type"].value
