"""The models -> the JSON Schema that editors and validators use.

A file that extends templates holds only a part of a tenant. For it the schema checks every key and value, but requires none that a template may
bring. So each model is in the schema twice: as a whole, and as a part.
"""

import json
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from fabric_assets.config.tenant import TenantConfig

URI = "https://json-schema.org/draft/2020-12/schema"
_PART = "Part"
# No template brings half of a reference.
_ALWAYS_WHOLE = frozenset({"SecretRef"})
_NAMED = frozenset({"properties", "patternProperties", "$defs"})


class _PlainSchema(GenerateJsonSchema):
    """A JSON Schema without the titles that pydantic makes of field names: an editor would show them instead of the description."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False for every field."""
        return False


def build_schema() -> dict[str, Any]:
    """Build the schema of a tenant's file."""
    whole = _tidy(TenantConfig.model_json_schema(schema_generator=_PlainSchema))
    models: dict[str, Any] = whole.pop("$defs")
    models["SecretRef"] |= {"minProperties": 1, "maxProperties": 1}
    models["DuckDbDestination"]["required"] = ["type"]  # its default is for Python; YAML tells destinations apart by it
    models["Tenant"] = whole
    parts = {f"{name}{_PART}": _make_part(schema) for name, schema in models.items()}
    parts[f"Tenant{_PART}"]["required"] = ["tenant", "extends"]
    used = _get_used(models | parts, ["Tenant", f"Tenant{_PART}"])
    return {
        "$schema": URI,
        "title": "A tenant of ETL Fabric",
        "description": whole["description"],
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": f"#/$defs/Tenant{_PART}"},
        "else": {"$ref": "#/$defs/Tenant"},
        "$defs": {name: (models | parts)[name] for name in sorted(used)},
    }


def get_described_properties(schema: dict[str, Any]) -> dict[str, str]:
    """List every property of every model with its description, which may be empty."""
    return {f"{name}.{key}": field.get("description", "") for name, model in schema["$defs"].items() for key, field in model.get("properties", {}).items()}


def _tidy(value: Any, *, named: bool = False) -> Any:
    """Forbid other keys in mappings whose keys have a pattern, and drop what only makes the file longer.

    Args:
        named: the keys of `value` are names of ours, not words of JSON Schema.
    """
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {key: _tidy(item, named=not named and key in _NAMED) for key, item in value.items() if named or key != "title"}
    if not named:
        if tidy.get("default", "") in (None, [], {}):
            del tidy["default"]
        if "patternProperties" in tidy:
            tidy["additionalProperties"] = False
    return tidy


def _make_part(value: Any, *, named: bool = False) -> Any:
    """Copy a schema without the rules that only a whole tenant must fulfil. Lists keep theirs: a list replaces the one of the template."""
    if not isinstance(value, dict):
        return [_make_part(item) for item in value] if isinstance(value, list) else value
    if named:
        return {key: _make_part(item) for key, item in value.items()}
    part = {
        key: item if key == "items" else _make_part(item, named=key in _NAMED)
        for key, item in value.items()
        if key not in {"required", "minProperties", "discriminator"}
    }
    if "discriminator" in value:
        part["anyOf"] = part.pop("oneOf")  # without its `type`, which the template has, a part may fit several
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.rpartition("/")[2] not in _ALWAYS_WHOLE:
        part["$ref"] = reference + _PART
    for pattern, below in part.get("patternProperties", {}).items():
        part["patternProperties"][pattern] = {"anyOf": [below, {"type": "null", "description": "Takes away what the template has."}]}
    return part


def _get_used(models: dict[str, Any], waiting: list[str]) -> set[str]:
    used: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += re.findall(r"#/\$defs/(\w+)", json.dumps(models[name]))
    return used
