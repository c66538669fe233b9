"""dbt's parsed manifest -> a file, and back with one tenant's names.

The file is a pickle, because reading dbt's manifest.json takes ten times as long and turns generic tests into singular ones. Every text with a placeholder is
pickled as a persistent id. So the replacement of placeholders is complete, and costs no more than reading.
"""

import hashlib
import io
import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.private_files import write_atomically
from fabric_assets.transform.fingerprint import OWN_FOLDERS, PACKAGES_FOLDER

TENANT_PLACEHOLDER = "fabric_tenant_placeholder"
DATABASE_PLACEHOLDER = "fabric_database_placeholder"

# The tag of all that a run builds: one exact selector, however long the list is.
SELECTED_TAG = "fabric_selected"

# The types of nodes that have a table or view of their own, or are part of one: the graph's models.
MODEL_TYPES = frozenset({"model", "seed", "snapshot"})

_OWN_FILE = re.compile(rf"(?:{'|'.join(OWN_FOLDERS)})/([^/]+)/")

PARTS = (
    *("nodes", "sources", "macros", "groups", "metadata", "unit_tests", "fixtures"),
    # These are not built, but selectors such as +exposure:dashboard go through them.
    *("exposures", "metrics", "semantic_models", "saved_queries"),
)


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
    """Write the manifest below a line with the fingerprint of what was parsed and the content's digest, so that a damaged file is noticed."""
    content = io.BytesIO()
    _Pickler(content, protocol=pickle.HIGHEST_PROTOCOL).dump({part: getattr(manifest, part) for part in PARTS})
    heading = f"{fingerprint} {hashlib.sha256(content.getbuffer()).hexdigest()}\n".encode()
    write_atomically(file, lambda stream: stream.write(heading + content.getbuffer()))


def load_manifest(file: Path, *, tenant: str = TENANT_PLACEHOLDER, database: str = DATABASE_PLACEHOLDER, selected: Collection[str] = ()) -> Manifest:
    """Read the manifest with a tenant's names, without what the tenant may not see.

    Args:
        selected: unique ids of the models and tests to build. Other tests are left out, and so is the content of other tenants' own files. So no model can
            refer to it at run time.
    """
    parts = load_parts(file, tenant=tenant, database=database)
    for part in ("nodes", "unit_tests"):
        parts[part] = {key: node for key, node in parts[part].items() if _is_visible(node, tenant, selected)}
    for unique_id in selected:
        if node := parts["nodes"].get(unique_id) or parts["unit_tests"].get(unique_id) or parts["sources"].get(unique_id):
            (node.config if unique_id in parts["unit_tests"] else node).tags = [*node.tags, SELECTED_TAG]
    manifest = Manifest(**parts)
    manifest.build_flat_graph()
    return manifest


def load_parts(file: Path, *, tenant: str = TENANT_PLACEHOLDER, database: str = DATABASE_PLACEHOLDER) -> dict[str, Any]:
    """Read all parts of the manifest, with every tenant's own files."""
    with file.open("rb") as stream:
        stream.readline()
        return _Unpickler(stream, tenant=tenant, database=database).load()


def _is_visible(node: Any, tenant: str, selected: Collection[str]) -> bool:
    return get_owner(node.original_file_path) in {None, tenant} and (node.unique_id in selected or node.resource_type not in {"test", "unit_test"})


def get_file(node: Any, root: str | None) -> str:
    """Give a node's file, relative to the project; dbt gives that of a package's node relative to the package.

    Args:
        root: the project's name.
    """
    return node.original_file_path if node.package_name == root else f"{PACKAGES_FOLDER}/{node.package_name}/{node.original_file_path}"


def get_owner(file: str) -> str | None:
    """Give the tenant whose own file it is; None for a shared file."""
    found = _OWN_FILE.match(file)
    return found[1] if found else None
