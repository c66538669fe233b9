"""`type: airbyte`: a connector with a state for each stream, in an environment of its own."""

from typing import Any

from tests.contract.singer import SingerTap


class AirbyteConnector(SingerTap):
    """A connector that reads the files of the tap, and is told a secret."""

    type = "airbyte"
    fixture = "installed_airbyte"

    def build(self) -> dict[str, Any]:
        block = super().build()
        return {**block, "type": "airbyte", "streams": {name: {"cursor": {"field": "seq"}} for name in self.rows}}
