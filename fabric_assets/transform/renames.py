"""The rename table: earlier names of shared models -> the models that have replaced them.

A model's own yml has it, as `config: {meta: {fabric: {replaces: [<schema>.<name>]}}}`. There is no second list, so the table outlives the old model.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# The schema, without a tenant's prefix, and the name of a model's table.
Relation = tuple[str, str]

EXAMPLE = "write such as replaces: [staging.stg_orders]"
_SELECTOR = re.compile(r"(?P<before>@|\d*\+)?(?:(?P<method>fqn|file|path):)?(?P<value>[^:]+?)(?P<after>\+\d*)?")


def list_replaced(meta: Mapping[str, Any]) -> list[Relation]:
    """List the earlier names of a model.

    Raises:
        ValueError: the entry is not a list of `<schema>.<name>`.
    """
    own = meta.get("fabric", {})
    replaces = own.get("replaces", []) if isinstance(own, Mapping) else None
    if not isinstance(replaces, list) or not all(isinstance(name, str) and re.fullmatch(r"\w+\.\w+", name) for name in replaces):
        raise ValueError(f"its meta.fabric.replaces is not a list of <schema>.<name>; {EXAMPLE}")
    return [(schema, name) for schema, _, name in (each.partition(".") for each in replaces)]


def find_old_name(selector: str) -> str:
    """Give the model's name in a criterion of dbt's, which is a name, fqn, path or file; empty for other criteria."""
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        return ""
    value = match["value"]
    if match["method"] in {"file", "path"} or "/" in value or value.endswith(".sql"):
        return PurePosixPath(value).stem if value.endswith(".sql") or match["method"] == "file" else ""
    return value.rpartition(".")[2]


def rename_selector(selector: str, new: str) -> str:
    """Give the criterion for another model, with the same models upstream and downstream.

    Args:
        new: the other model's name or fqn.
    """
    match = _SELECTOR.fullmatch(selector)
    before, after = (match["before"] or "", match["after"] or "") if match else ("", "")
    return f"{before}{new}{after}"
