"""Marks of microbatch models that a run has begun and not finished. The next run rebuilds such a model completely.

dbt commits each batch by itself, and its next run begins at the newest batches. So batches that failed, or that a killed run did not reach, would be missing
permanently in a table that looks complete. The remedy of dbt itself is a command that a person has to type.
"""

from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

_SUFFIX = ".unfinished"


class UnfinishedModels:
    """The marks of one tenant: a file for each model, beside the folders of its runs.

    Args:
        folder: the tenant's dbt folder.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        models = {key: node for key, node in manifest.nodes.items() if node.resource_type == "model" and _is_in_batches(node)}
        self._files = {key: folder / f"{node.schema}.{node.alias}{_SUFFIX}" for key, node in models.items()}
        for key, file in self._files.items():
            if file.exists():
                models[key].config.full_refresh = True

    def begin(self, unique_id: str) -> None:
        if file := self._files.get(unique_id):
            file.touch(mode=0o600)

    def finish(self, unique_id: str) -> None:
        if file := self._files.get(unique_id):
            file.unlink(missing_ok=True)


def _is_in_batches(node: Any) -> bool:
    return node.config.materialized == "incremental" and node.config.incremental_strategy == "microbatch"
