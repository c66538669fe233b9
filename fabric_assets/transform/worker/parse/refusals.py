"""The tenants whose own files needed too much time or memory to parse -> a file, so that the next parse refuses them at once.

An entry is valid until something changes on which it depends: the tenant's files, the shared ones, the limit, or the versions of the parser.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from fabric_assets.private_files import write_atomically
from fabric_assets.transform.fingerprint import digest_project
from fabric_assets.transform.worker.manifest import get_owner


class Refusals:
    """The refused tenants of a project, in a file.

    Args:
        limit: what a tenant's files may use, as a text.
    """

    def __init__(self, file: Path, project: Path, limit: str) -> None:
        self._file, self._project, self._limit = file, project, limit

    def read(self) -> dict[str, str]:
        """Read the tenants that are still refused, each with the reason."""
        try:
            known = json.loads(self._file.read_text())
            return {tenant: message for tenant, (digest, message) in known.items() if digest == self._digest(tenant)}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write(self, refused: Mapping[str, str]) -> None:
        if refused or self._file.exists():
            text = json.dumps({tenant: (self._digest(tenant), message) for tenant, message in refused.items()}, indent=2)
            write_atomically(self._file, lambda stream: stream.write(text.encode()))

    def _digest(self, tenant: str) -> str:
        return digest_project(self._project, left_out=lambda name: get_owner(name) not in {None, tenant}, limit=self._limit)
