"""What a worker does before it has a request: dbt's imports."""

from collections.abc import Sequence
from importlib import import_module

_MODULES = ("dbt.cli.main", "dbt.task.build", "sqlglot.optimizer.qualify")


def warm(arguments: Sequence[str]) -> None:
    """Import what a build needs.

    Args:
        arguments: the kind of warehouse to get ready for, then the dbt project's folder if there is one to look at.
    """
    for module in _MODULES:
        import_module(module)
    for adapter in arguments[:1]:
        import_module(f"dbt.adapters.{adapter}")
