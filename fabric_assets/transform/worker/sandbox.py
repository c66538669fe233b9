"""dbt's Jinja -> the part of it that models may use: values and the documented calls, not the objects behind them.

dbt renders in Jinja's sandbox, which closes Python's own internals and no more: from `ref.config` a model comes to the login's password, from a query's result
to `to_csv()` and every file of this machine, from `config.model` to `write_node()`. So what is not known here is closed, whoever wrote the template.
"""

from argparse import Namespace as FlagValues
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from re import Match, Pattern
from typing import Any

from agate import MappedSequence, Table
from dbt.adapters.base.column import Column
from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.base.query_headers import QueryHeaderContextWrapper
from dbt.adapters.base.relation import BaseRelation
from dbt.adapters.contracts.connection import AdapterResponse
from dbt.context.base import Var
from dbt.context.providers import BaseDatabaseWrapper, ParseConfigObject, RelationProxy, RuntimeConfigObject
from dbt_common.behavior_flags import Behavior, BehaviorFlagRendered
from dbt_common.clients.jinja import MacroFuzzEnvironment
from dbt_common.exceptions import DbtRuntimeError
from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

# All their attributes are open: values, and what makes values of them.
_PLAIN: tuple[type, ...] = (
    *(str, bytes, int, float, complex, type(None), Decimal, date, time, timedelta, tzinfo, range, Enum, Pattern, Match),
    *(list, tuple, set, frozenset, Mapping),
    *(Undefined, LoopContext, Macro, Namespace, Cycler, Joiner),
    *(BaseRelation, RelationProxy, Column, AdapterResponse, Behavior, MappedSequence, QueryHeaderContextWrapper),
)
# Of these, the attributes named.
_NAMED: tuple[tuple[type, frozenset[str]], ...] = (
    (Var, frozenset({"has_var"})),
    (BehaviorFlagRendered, frozenset({"setting", "no_warn"})),  # merge on Postgres asks for one
    *(
        (config, frozenset({"get", "set", "require", "meta_get", "meta_require", "persist_relation_docs", "persist_column_docs"}))
        for config in (ParseConfigObject, RuntimeConfigObject)
    ),
    (Table, frozenset({"columns", "rows", "column_names", "row_names", "print_table", "select", "exclude", "where", "find", "limit", "order_by", "distinct"})),
)
# The adapter's own list of what is for models, without what reaches the driver, a plugin or Python.
_CLOSED_OF_ADAPTERS = frozenset({"config", "store_relation", "submit_python_job"})
# dbt's description of indexes and the like, which materializations read; their methods make SQL of them.
_DESCRIPTIONS = ("dbt.adapters.postgres.", "dbt.adapters.duckdb.", "dbt.adapters.relation_configs")
# dbt's description of nodes and results: their fields are open, their methods are not: some write files.
_NODES = ("dbt.artifacts.", "dbt.contracts.", "dbt_common.contracts.")


def close_sandbox() -> None:
    """Hold every template of this process to what is open."""
    MacroFuzzEnvironment.is_safe_attribute = _is_safe_attribute
    MacroFuzzEnvironment.unsafe_undefined = _refuse


def close_python(owners: Collection[str]) -> None:
    """Let no Python model run: with its own node changed, a template of a tenant's could pass for one.

    Args:
        owners: the tenants whose own models this process may render; none of them, and Python models of the shared project run as ever.
    """
    if owners:

        def submit_python_job(*_: Any, **__: Any) -> None:
            raise DbtRuntimeError(
                f"no Python model runs for tenant {', '.join(owners)}, since the tenant has models of its own: they are SQL, and so is what they use"
            )

        for adapter in _list_classes(BaseAdapter):
            adapter.submit_python_job = submit_python_job  # type: ignore[method-assign]


def _list_classes(base: type) -> list[Any]:
    return [base, *(found for child in base.__subclasses__() for found in _list_classes(child))]


def _is_safe_attribute(self: SandboxedEnvironment, obj: Any, attr: str, value: Any) -> bool:
    return SandboxedEnvironment.is_safe_attribute(self, obj, attr, value) and _is_open(obj, attr, value)


def _is_open(obj: Any, attr: str, value: Any) -> bool:
    kind = obj if isinstance(obj, type) else type(obj)
    if issubclass(kind, BaseDatabaseWrapper):
        return attr not in _CLOSED_OF_ADAPTERS
    for owner, names in _NAMED:
        if issubclass(kind, owner):
            return attr in names
    if issubclass(kind, FlagValues):
        return isinstance(value, str | int | float | None | list | tuple)
    return issubclass(kind, _PLAIN) or _is_description(kind) or (_is_node(kind) and not callable(value))


@lru_cache(maxsize=1000)
def _is_description(kind: type) -> bool:
    return is_dataclass(kind) and kind.__module__.startswith(_DESCRIPTIONS) and "redentials" not in kind.__name__


@lru_cache(maxsize=1000)
def _is_node(kind: type) -> bool:
    return is_dataclass(kind) and kind.__module__.startswith(_NODES)


def _refuse(self: SandboxedEnvironment, obj: Any, attribute: str) -> Undefined:
    kind = obj.__name__ if isinstance(obj, type) else type(obj).__name__
    raise SecurityError(f"models have no access to the attribute {attribute!r} of a {kind}")
