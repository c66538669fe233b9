"""dbt's parsed manifest -> a file, and back again in one tenant's names.

A pickle, not dbt's manifest.json: reading that back takes ten times as long, and turns generic tests into singular ones. Every text with a placeholder in it
is pickled as a persistent id, which is what makes the replacement complete and as quick as reading.
"""

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.private_files import write_atomically

TENANT_PLACEHOLDER = "fabric_tenant_placeholder"
DATABASE_PLACEHOLDER = "fabric_database_placeholder"

# Marks what a run builds: one exact selector, however long the list is.
SELECTED_TAG = "fabric_selected"

_PARTS = ("nodes", "sources", "macros", "groups", "metadata", "unit_tests", "fixtures")


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj if type(obj) is str and (TENANT_PLACEHOLDER in obj or DATABASE_PLACEHOLDER in obj) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, *, tenant: str, database: str) -> None:
        super().__init__(stream)
        self._tenant, self._database = tenant, database

    def persistent_load(self, pid: Any) -> Any:
        return pid.replace(TENANT_PLACEHOLDER, self._tenant).replace(DATABASE_PLACEHOLDER, self._database)


def save_manifest(manifest: Manifest, file: Path, *, fingerprint: str) -> None:
    """Write the manifest under its fingerprint, which is the first line."""

    def write(stream: Any) -> None:
        stream.write(f"{fingerprint}\n".encode())
        _Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump({part: getattr(manifest, part) for part in _PARTS})

    write_atomically(file, write)


def load_manifest(file: Path, *, tenant: str = TENANT_PLACEHOLDER, database: str = DATABASE_PLACEHOLDER, selected: Collection[str] = ()) -> Manifest:
    """Read the manifest in a tenant's names, as far as the tenant may see it.

    Args:
        selected: unique ids of the models and tests to build. Tests that are not among them are left out, and so are other tenants' own models: nothing
            that a model refers to at run time can then reach them.
    """
    with file.open("rb") as stream:
        stream.readline()
        parts = _Unpickler(stream, tenant=tenant, database=database).load()
    parts["nodes"] = {key: node for key, node in parts["nodes"].items() if _is_visible(node, tenant, selected)}
    parts["unit_tests"] = {key: test for key, test in parts["unit_tests"].items() if key in selected}
    for unique_id in selected:
        node = parts["nodes"].get(unique_id) or parts["unit_tests"][unique_id]
        (node.config if unique_id in parts["unit_tests"] else node).tags = [*node.tags, SELECTED_TAG]
    manifest = Manifest(**parts)
    manifest.build_flat_graph()
    return manifest


def _is_visible(node: Any, tenant: str, selected: Collection[str]) -> bool:
    if node.resource_type == "test":
        return node.unique_id in selected
    return get_own_tenant(node) in {None, tenant}


def get_own_tenant(node: Any) -> str | None:
    """The tenant in whose folder a model lies, if it lies in one."""
    return node.fqn[2] if node.resource_type == "model" and len(node.fqn) > 3 and node.fqn[1] == "tenants" else None
