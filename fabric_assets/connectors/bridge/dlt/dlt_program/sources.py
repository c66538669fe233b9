"""The function that an entry of the list names -> its source, its settings and its resources."""

import contextlib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from dlt_program.output import Refused


def find_function(name: str) -> Callable[..., Any]:
    """Import the function that `source` names."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise Refused(f"source: {name} cannot be imported: {type(error).__name__}: {error}") from None
    return found


def make_source(order: dict[str, Any]) -> Any:
    """Call the function with the tenant's settings."""
    import dlt
    from dlt.common.configuration.exceptions import ConfigurationException
    from dlt.extract.resource import DltResource
    from dlt.extract.source import DltSource

    function = find_function(order["source"])
    try:
        made = function(**order["settings"])
    except ConfigurationException as error:
        raise Refused(f"the source lacks settings, or does not take them: {shorten(error)}") from None
    except TypeError as error:
        raise Refused(f"the source does not take these settings: {error}") from None
    if isinstance(made, DltSource):
        return made
    if isinstance(made, DltResource):
        return DltSource(dlt.Schema(made.source_name or made.name), made.section or "", [made])
    raise Refused(f"{order['source']} returns {type(made).__name__}, not a dlt source or resource")


def shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])


def describe(order: dict[str, Any]) -> dict[str, Any]:
    """Describe the function's settings as a JSON Schema, and name its resources if it can be called without settings."""
    function = find_function(order["source"])
    properties, required = dict[str, Any](), list[str]()
    for name, parameter in inspect.signature(inspect.unwrap(function)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        described = _describe_parameter(parameter)
        if not described.pop("has_default"):
            required.append(name)
        properties[name] = described
    open_ended = any(parameter.kind == parameter.VAR_KEYWORD for parameter in inspect.signature(inspect.unwrap(function)).parameters.values())
    spec: dict[str, Any] = {"type": "object", "properties": properties, "required": required, "additionalProperties": open_ended}
    names = None
    if not required:
        with contextlib.suppress(Exception):
            names = sorted(make_source({**order, "settings": {}}).resources)
    return {"settings": spec, "resources": names}


def _describe_parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    import dlt

    default = parameter.default
    is_given = default is not parameter.empty
    is_marked = (
        default is dlt.secrets.value or default is dlt.config.value or (is_given and type(default).__name__ in ("SecretSentinel", "ConfigValueSentinel"))
    )
    hint = str(parameter.annotation)
    is_secret = default is dlt.secrets.value or "Secret" in hint or "Credentials" in hint
    described: dict[str, Any] = {"secret": True} if is_secret else {}
    for word, kind in (("bool", "boolean"), ("int", "integer"), ("float", "number"), ("str", "string")):
        if parameter.annotation in ({"bool": bool, "int": int, "float": float, "str": str}[word], word):
            described["type"] = kind
    if is_given and not is_marked and isinstance(default, str | int | float | bool | None):
        described["default"] = default
    return {**described, "has_default": is_given and not is_marked}
