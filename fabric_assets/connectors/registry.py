"""Source type -> the connector module that reads it: one literal mapping (house rule 5).

Module names instead of functions: a load imports the one connector that it needs, and nothing registers itself on import.
"""

from collections.abc import Generator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError
from fabric_assets.suggestions import suggest

if TYPE_CHECKING:
    from fabric_assets.rows.batches import SourceReader, StreamPlan

CONNECTORS: dict[str, str] = {
    "sql_database": "fabric_assets.connectors.sql_database.source",
    "rest_api": "fabric_assets.connectors.rest_api.source",
    "files": "fabric_assets.connectors.files.source",
    "csv_import": "fabric_assets.connectors.csv_import.source",
    "singer": "fabric_assets.connectors.bridge.singer.source",
    "dlt": "fabric_assets.connectors.bridge.dlt.source",
    "airbyte": "fabric_assets.connectors.bridge.airbyte.source",
}


def open_source(context: SourceContext[AnySource]) -> "SourceReader":
    """Open the source that the context's chosen streams are read from; connects, so only inside a running load."""
    return import_module(get_connector(context.config.type)).open_source(context)


def stage_source(context: SourceContext[AnySource], states: Mapping[str, Mapping[str, Any]]) -> Generator["SourceReader", None, None]:
    """Read the context's chosen streams, and yield a reader of each commit unit as soon as its rows are complete. For sources that are `is_staged`.

    Args:
        states: stream -> what earlier loads have left.
    """
    return import_module(get_connector(context.config.type)).stage_source(context, states)


def plan_stream(config: AnySource, name: str, state: Mapping[str, Any] | None = None) -> "StreamPlan":
    """Plan a stream by what its YAML declares, without opening the source.

    Args:
        state: what the last load has left of the stream. A source that `is_staged` tells its keys only when it is read.
    """
    module = import_module(get_connector(config.type))
    return module.plan_stream(config, name, state or {}) if config.is_staged else module.plan_stream(config, name)


def get_connector(source_type: str) -> str:
    """Get the module that reads a source type.

    Raises:
        ConfigurationError: the type is unknown; the message names the known types and the nearest one.
    """
    if source_type in CONNECTORS:
        return CONNECTORS[source_type]
    raise ConfigurationError(f"no connector for the source type {source_type!r}{suggest(source_type, CONNECTORS)}")
