"""A tenant's `destination:` block -> connections to its data, for every type."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Ask, build_ask
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import FabricError
from fabric_assets.settings import Settings

Report = Callable[[str], None]


class Destination(ABC):
    """One tenant's destination. Its login is resolved at the first use and then kept, so that one object serves a whole load.

    Args:
        report: called if a connection has to wait for another program.
    """

    def __init__(self, tenant: TenantConfig, settings: Settings, *, report: Report | None = None) -> None:
        self.tenant, self.settings, self.report = tenant, settings, report

    @property
    @abstractmethod
    def database(self) -> str:
        """The first part of a fully qualified table name."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether there may be data; False if nothing has been loaded yet. Opens no socket."""

    @abstractmethod
    def connect(self, *, read_only: bool = False) -> Any:
        """Open a DB-API connection (duckdb or psycopg2), its session in UTC.

        Raises:
            DestinationError: nothing has been loaded yet, or the login is refused.
            DestinationUnavailable: no connection.
        """

    @abstractmethod
    def get_dbt_login(self) -> dict[str, Any]:
        """Return what dbt's adapter needs to connect."""


def get_destination(tenant: TenantConfig, settings: Settings, *, report: Report | None = None) -> Destination:
    """Get the tenant's destination; nothing is connected or resolved yet.

    Args:
        report: see `Destination`.
    """
    return import_module(get_kind(tenant).driver).open_destination(tenant, settings, report=report)


def explain_damage(tenant: TenantConfig, reason: str, text: str, where: str) -> FabricError | None:
    """Build the error of damaged data; None if the driver does not report damage.

    Args:
        reason: the cause, for people.
        text: all messages of the driver.
    """
    return import_module(get_kind(tenant).driver).explain_damage(reason, text, where)


def connect(tenant: TenantConfig, settings: Settings, *, read_only: bool = False) -> Any:
    """Open one connection to the tenant's data.

    Raises:
        DestinationError: nothing has been loaded yet, or the login is refused.
        DestinationUnavailable: no connection.
    """
    return get_destination(tenant, settings).connect(read_only=read_only)


@contextlib.contextmanager
def open_ask(tenant: TenantConfig, settings: Settings) -> Iterator[Ask]:
    """Connect to read a tenant's data; if nothing has been loaded into a file yet, each answer is empty.

    Raises:
        DestinationError, DestinationUnavailable: the connection.
    """
    destination = get_destination(tenant, settings)
    if not destination.is_there():
        yield lambda _: []
        return
    with contextlib.closing(destination.connect(read_only=True)) as connection:
        yield build_ask(connection)
