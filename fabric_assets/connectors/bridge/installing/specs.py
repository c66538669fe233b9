"""A connector's own description of its settings, read once when it is installed -> mistakes in a tenant's settings, found without running it."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fabric_assets.config.base import Path as KeyPath
from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.config.sources.connectors import AnyConnectorSource, ConnectorSource
from fabric_assets.connectors.bridge.installing.programs import get_manifest, get_own_files, get_program, list_readable
from fabric_assets.connectors.bridge.process.connector import Command, Connector, Limits
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.suggestions import suggest

_SECONDS = 60


def read_spec(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry) -> dict[str, Any]:
    """Ask a connector for its settings. It runs confined, with a private folder.

    Returns:
        `spec`, a JSON Schema, or None from a tap that knows no `--about`; and `streams`, the names of a dlt source's resources, or None.

    Raises:
        ConfigurationError: a dlt source cannot be imported, or a manifest is not one.
    """
    if entry.type == "dlt":
        return _describe_dlt_source(folder, base_prefix, name, entry)
    if (manifest := get_manifest(folder, entry)) is not None:
        return {"spec": _read_manifest(manifest, name)}
    if entry.type == "airbyte":
        return {"spec": _ask_connector(folder, base_prefix, name, entry)}
    return {"spec": _ask_tap(folder, base_prefix, name, entry)}


def _ask_tap(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry) -> Mapping[str, Any] | None:
    try:
        found = json.loads(_run(folder, base_prefix, name, entry, "--about", "--format=json"))["settings"]
    except (FabricError, ValueError, KeyError, TypeError):
        # Taps that are older than the option refuse it, each in its own way.
        return None
    return found if isinstance(found, dict) else None


def _ask_connector(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry) -> Mapping[str, Any]:
    try:
        for line in _run(folder, base_prefix, name, entry, "spec").splitlines():
            if line.strip() and (message := json.loads(line))["type"] == "SPEC":
                return message["spec"]["connectionSpecification"]
    except (FabricError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"the connector {name} does not say its settings: {error}", remedy="correct `executable` or `requirements`") from None
    raise ConfigurationError(f"the connector {name} does not say its settings", remedy="correct `executable` or `requirements`")


def _read_manifest(manifest: Path, name: str) -> Mapping[str, Any] | None:
    try:
        found = yaml.safe_load(manifest.read_text())
        if not isinstance(found, dict) or not {"version", "streams"} <= found.keys():
            raise ValueError("it lacks `version` or `streams`")
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"the manifest of the connector {name} is not a low-code manifest: {error}", remedy="correct the file") from None
    return (found.get("spec") or {}).get("connection_specification")


def _describe_dlt_source(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry) -> dict[str, Any]:
    order = {"source": entry.source, "path": [str(get_own_files(folder))], "settings": {}}
    try:
        found = json.loads(_run(folder, base_prefix, name, entry, "describe", json.dumps(order).encode()).splitlines()[-1])
    except (FabricError, ValueError, IndexError) as error:
        raise ConfigurationError(f"the connector {name} cannot be described: {error}", remedy="correct `source`, `requirements` or `path`") from None
    if found["type"] == "ERROR":
        raise ConfigurationError(f"the connector {name}: {found['message']}", remedy="correct `source`, `requirements` or `path`")
    return {"spec": found["settings"], "streams": found["resources"]}


def _run(folder: Path, base_prefix: Path, name: str, entry: ConnectorEntry, *arguments: str | bytes) -> bytes:
    """Run a connector's program, and return its output."""
    program = get_program(folder, entry)
    limits = Limits(memory=entry.limits.memory, cpu=_SECONDS, seconds=_SECONDS, line=entry.limits.line)
    readable = list_readable(folder, base_prefix, program)
    command = Command(str(folder / "bin" / "python"), ("-I", str(program), *arguments), readable=readable, is_confined=not entry.trusted, limits=limits)
    with tempfile.TemporaryDirectory() as home, Connector(command, name=name, where="connectors.yaml", folder=Path(home)) as connector:
        lines = [line for block in connector.read_lines() for line in block]
        # A refusal has a message of its own, and an exit code.
        return b"\n".join(lines) if any(line.startswith(b'{"type": "ERROR"') for line in lines) else b"\n".join([*lines, connector.finish()])


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
        else:
            yield from _find_secrets(properties.get(name), source.arguments[name], ("arguments", name))
    for name in source.secrets:
        if (top := name.partition(".")[0]) not in properties and spec.get("additionalProperties") is not True:
            yield ("secrets", name), f"the connector {source.connector} has no setting '{top}'{suggest(top, properties)}"
    given = {*source.arguments, *(name.partition(".")[0] for name in source.secrets)}
    for name in spec.get("required", ()):
        if name not in given and "default" not in properties.get(name, {}):
            yield ("arguments",), f"lacks '{name}', which the connector {source.connector} needs"


def find_unknown_streams(streams: Sequence[str] | None, source: AnyConnectorSource) -> Iterator[tuple[KeyPath, str]]:
    """Find streams that the connector does not have.

    Args:
        streams: None if they are known only to a run.
    """
    for name, stream in source.streams.items() if streams is not None else ():
        if (own := stream.own_name or name) not in (streams or ()):
            yield ("streams", name), f"the connector {source.connector} has no stream {own!r}{suggest(own, streams or ())}"


def _find_secrets(declared: Any, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Find values that are secrets, also within objects."""
    if not isinstance(declared, Mapping):
        return
    if declared.get("secret") or declared.get("airbyte_secret") or declared.get("writeOnly"):
        yield path, "is a secret, says the connector: it belongs under secrets, as a reference"
    elif isinstance(value, dict):
        # Of several kinds of a setting, such as logins, each may have the field.
        kinds = [declared, *(each for word in ("oneOf", "anyOf") for each in declared.get(word) or () if isinstance(each, Mapping))]
        for name, inner in value.items():
            found = [each for kind in kinds for each in _find_secrets((kind.get("properties") or {}).get(name), inner, (*path, name))]
            yield from found[:1]
