"""`make reference`: YAML models, commands and tested types -> the tables between the markers in docs/tenants.md, docs/cli.md and docs/types.md.

What is generated cannot drift: tests/test_docs.py fails where a file differs from what this prints.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer.main

from fabric_assets.cli.app import app
from fabric_assets.config.base import FabricModel
from fabric_assets.config.tenant import TenantConfig
from scripts.type_matrix import build_types_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
REFERENCES = (DOCS / "tenants.md", DOCS / "cli.md", DOCS / "types.md")
BLOCK = re.compile(r"<!-- (fields|command|types): (.+?) -->\n.*?<!-- end -->", re.DOTALL)

Schema = Mapping[str, Any]


# --- YAML models


def get_models() -> dict[str, type[FabricModel]]:
    """Every model that a tenant's YAML can reach, by name."""
    schema = TenantConfig.model_json_schema()
    known = {model.__name__: model for model in _get_subclasses(FabricModel)}
    return {name: known[name] for name in ["TenantConfig", *schema["$defs"]] if name in known}


def _get_subclasses(model: type[FabricModel]) -> Iterator[type[FabricModel]]:
    for child in model.__subclasses__():
        yield child
        yield from _get_subclasses(child)


def build_fields_table(name: str) -> str:
    """One row per key of a model: what it is, what it takes, its default."""
    model = get_models()[name]
    schema = model.model_json_schema()
    properties = schema.get("properties") or schema["$defs"][name]["properties"]
    rows = [f'<a id="{name}"></a>', "", "| key | meaning | takes | default |", "| --- | --- | --- | --- |"]
    for field_name, field in model.model_fields.items():
        key = field.alias or field_name
        default = "required" if field.is_required() else _describe_default(field.get_default(call_default_factory=True))
        rows.append(f"| `{key}` | {_escape(field.description or '')} | {_escape(describe_values(properties[key]))} | {default} |")
    return "\n".join(rows)


def describe_values(schema: Schema) -> str:
    """Say in words what a JSON Schema accepts."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return "any value" if name == "JsonValue" else f"[{name}](#{name})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"]).replace("\t", "\\t")
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(describe_values(choice) for choice in choices if choice.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {describe_values(schema['items'])}"
    if schema.get("type") == "object":
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return f"mapping of names to {describe_values(next(value for value in values if value))}"
    if r"(s|m|h|d)" in schema.get("pattern", ""):
        return "duration"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[schema["type"]] + _describe_bounds(schema)


def _describe_bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    return f" from {low:,}" if low is not None else ""


def _describe_default(value: object) -> str:
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, FabricModel):
        return "`{" + ", ".join(f"{key}: {written.strip('`')}" for key, inner in value if (written := _describe_default(inner))) + "}`"
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit, size = next((unit, size) for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0)
        return f"`{seconds // size}{unit}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# --- commands


def get_commands() -> dict[str, Any]:
    """Every command, by what one types: `fabric run`, `fabric secrets set`."""
    return dict(_walk("fabric", typer.main.get_command(app)))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):  # a group; click itself is not named: typer may bring another one
        for child in command.commands.values():
            yield from _walk(f"{name} {child.name}", child)
    else:
        yield name, command


def build_command_table(name: str) -> str:
    """A command's usage, its help and a row per argument and option."""
    command = get_commands()[name]
    context = typer.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    rows = [f"`{usage}`", "", command.get_short_help_str(limit=400)]
    parameters = [parameter for parameter in command.get_params(context) if "--help" not in parameter.opts]
    if parameters:
        rows += ["", "| argument or option | meaning |", "| --- | --- |"]
    for parameter in parameters:
        shown, _ = parameter.get_help_record(context)
        rows.append(f"| `{_escape(shown)}` | {_escape(parameter.help or '')} |")
    return "\n".join(rows)


# --- files

BUILDERS: Mapping[str, Callable[[str], str]] = {"fields": build_fields_table, "command": build_command_table, "types": build_types_table}


def build_page(text: str) -> str:
    """A page whose marked blocks are written anew."""
    return BLOCK.sub(lambda match: f"<!-- {match[1]}: {match[2]} -->\n{BUILDERS[match[1]](match[2])}\n<!-- end -->", text)


def main() -> None:
    """Write the pages."""
    for page in REFERENCES:
        page.write_text(build_page(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {page.relative_to(DOCS.parent)}", file=sys.stderr)


if __name__ == "__main__":
    main()
