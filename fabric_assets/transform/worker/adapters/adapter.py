"""The interface of a destination type for dbt and the worker. Each type has a module here, named as dbt's adapter (drivers/kinds.py)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

# The login of a request: what drivers/destinations.py gives for dbt, and the adapter's name as `type`.
Login = Mapping[str, Any]
# dbt reads variables of this prefix only for profiles.
PASSWORD_VARIABLE = "DBT_ENV_SECRET_FABRIC_PASSWORD"  # noqa: S105 - a name


class Adapter(ABC):
    """One of dbt's adapters.

    Args:
        name: dbt's name for it, which is also sqlglot's name of the dialect.

    Attributes:
        credentials: the class of dbt's settings for a connection, `module:name`.
        folds_names: whether quoted names that differ only in case are one name.
        columns_query: gives schema, table, column and type of everything in the schemas `{}`, in the table's order.
    """

    credentials: ClassVar[str]
    folds_names: ClassVar[bool]
    columns_query: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def get_database(self, login: Login) -> str:
        """Give the first part of a fully qualified table name."""

    @abstractmethod
    def build_placeholder(self, folder: Path) -> dict[str, Any]:
        """Build a login for parsing the project. Nothing connects with it."""

    @abstractmethod
    def build_output(self, login: Login, *, spill: Path) -> dict[str, Any]:
        """Build the profile's output without the password, which `get_password` gives.

        Args:
            spill: the folder that the engine may spill to.

        Raises:
            ConfigurationError: the URL has a parameter that dbt cannot pass on.
        """

    @abstractmethod
    def get_password(self, login: Login) -> str | None:
        """Give the value of PASSWORD_VARIABLE, if the profile names it."""

    @abstractmethod
    def connect(self, login: Login, *, spill: Path, read_only: bool) -> Any:
        """Open a connection with the same session settings and lock as for the models.

        Args:
            read_only: whether nothing is written, so that a file is not opened for writing.
        """

    @abstractmethod
    def release(self) -> None:
        """Close what dbt would keep open, and so block for others, until its process ends."""


def get_adapter(name: str) -> Adapter:
    """Get an adapter by its name."""
    return import_module(f"fabric_assets.transform.worker.adapters.{name}").ADAPTER(name)
