"""A connector's own description of its settings, read once when it is installed -> mistakes in a tenant's settings, found without running it."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fabric_assets.config.base import Path as KeyPath
from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.config.sources.connectors import ConnectorSource
from fabric_assets.connectors.bridge.process.connector import Command, Connector, Limits
from fabric_assets.errors import FabricError
from fabric_assets.suggestions import suggest

_SECONDS = 60


def read_spec(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry) -> Mapping[str, Any] | None:
    """Ask a tap for its settings: a JSON Schema, or None from a tap that knows no `--about`. The tap runs confined, with a private folder."""
    with tempfile.TemporaryDirectory() as home:
        limits = Limits(memory=entry.limits.memory, cpu=_SECONDS, seconds=_SECONDS, line=entry.limits.line)
        program = str(folder / "bin" / entry.executable)
        command = Command(
            str(folder / "bin" / "python"),
            ("-I", program, "--about", "--format=json"),
            readable=(folder, base_prefix),
            is_confined=not entry.trusted,
            limits=limits,
        )
        try:
            with Connector(command, name=name, where="connectors.yaml", folder=Path(home)) as connector:
                lines = [line for block in connector.read_lines() for line in block]
                found = json.loads(b"\n".join([*lines, connector.finish()]))["settings"]
        except (FabricError, ValueError, KeyError, TypeError):
            # Taps that are older than the option refuse it, each in its own way.
            return None
    return found if isinstance(found, dict) else None


def find_mistakes(spec: Mapping[str, Any] | None, source: ConnectorSource) -> Iterator[tuple[KeyPath, str]]:
    """Find settings that the connector does not have, secrets that are not references, and required settings that are missing.

    Args:
        spec: None if nothing is known, and nothing is wrong.
    """
    if spec is None:
        return
    properties = spec.get("properties", {})
    for name in source.arguments:
        if name not in properties and spec.get("additionalProperties") is not True:
            yield ("arguments", name), f"the connector {source.connector} has no setting '{name}'{suggest(name, properties)}"
        elif _is_secret(properties.get(name)):
            yield ("arguments", name), "is a secret, says the connector: it belongs under secrets, as a reference"
    for name in source.secrets:
        if (top := name.partition(".")[0]) not in properties and spec.get("additionalProperties") is not True:
            yield ("secrets", name), f"the connector {source.connector} has no setting '{top}'{suggest(top, properties)}"
    given = {*source.arguments, *(name.partition(".")[0] for name in source.secrets)}
    for name in spec.get("required", ()):
        if name not in given and "default" not in properties.get(name, {}):
            yield ("arguments",), f"lacks '{name}', which the connector {source.connector} needs"


def _is_secret(declared: Any) -> bool:
    return isinstance(declared, Mapping) and bool(declared.get("secret") or declared.get("airbyte_secret") or declared.get("writeOnly"))
