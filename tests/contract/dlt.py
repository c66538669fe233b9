"""`type: dlt`: a source whose resources are merged by key and read from an incremental cursor, in an environment of its own."""

from typing import Any

from tests.contract.singer import SingerTap


class DltSource(SingerTap):
    """A source that reads the files of the tap, and is told a secret."""

    type = "dlt"
    fixture = "installed_dlt"

    def build(self) -> dict[str, Any]:
        block = super().build()
        return {**block, "type": "dlt", "streams": {name: {} for name in self.rows}}
