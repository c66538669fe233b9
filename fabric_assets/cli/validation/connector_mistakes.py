"""Sources of connectors -> mistakes of `fabric validate`: a connector that is not in the list, or settings that it does not have. Nothing is run."""

from collections.abc import Iterator
from functools import lru_cache

from fabric_assets.config.connectors_file import ConnectorEntry, get_entry, load_connectors
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import Problem
from fabric_assets.config.sources.connectors import AnyConnectorSource
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings


def find_connector_mistakes(loaded: LoadedTenant, settings: Settings) -> Iterator[Problem]:
    """Find the mistakes of each source that names a connector.

    Raises:
        ConfigurationError: connectors.yaml itself has mistakes.
    """
    from fabric_assets.connectors.bridge.installing.environments import get_environment
    from fabric_assets.connectors.bridge.installing.specs import find_mistakes, find_unknown_streams

    for name, source in loaded.config.sources.items():
        if not isinstance(source, AnyConnectorSource):
            continue
        connectors = _load(settings)
        try:
            entry = get_entry(connectors, source.connector, settings)
        except ConfigurationError as error:
            yield loaded.make_problem(("sources", name, "connector"), f"{error.message}; {error.remedy}")
            continue
        if entry.type != source.type:
            yield loaded.make_problem(("sources", name, "connector"), f"{source.connector} is a connector of type {entry.type}, not {source.type}")
            continue
        try:
            environment = get_environment(settings, source.connector)
        except ConfigurationError:
            # It may be installed on the machines that run it alone.
            continue
        for path, message in (*find_mistakes(environment.spec, source), *find_unknown_streams(environment.streams, source)):
            yield loaded.make_problem(("sources", name, *path), message)


@lru_cache(maxsize=1)
def _load(settings: Settings) -> dict[str, ConnectorEntry]:
    return load_connectors(settings)
