"""dbt's Jinja -> the part of it that models may use: values and the documented calls, not the objects behind them.

dbt renders in Jinja's sandbox, which closes only Python's own internals. A model could get from `ref.config` to the login's password. From a query's result it
could get to `to_csv()` and every file of this machine, and from `config.model` to `write_node()`. So all that is not listed here is closed, for all templates.
"""

from argparse import Namespace as FlagValues
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from re import Match, Pattern
from typing import Any

from agate import MappedSequence, Table
from dbt.adapters.base.column import Column
from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.base.query_headers import QueryHeaderContextWrapper
from dbt.adapters.base.relation import BaseRelation
from dbt.adapters.contracts.connection import AdapterResponse
from dbt.adapters.contracts.relation import FakeAPIObject
from dbt.context.base import Var
from dbt.context.providers import BaseDatabaseWrapper, ParseConfigObject, RelationProxy, RuntimeConfigObject
from dbt_common.behavior_flags import Behavior, BehaviorFlagRendered
from dbt_common.clients.jinja import MacroFuzzEnvironment
from dbt_common.exceptions import DbtRuntimeError
from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter, formatter_field_name_split  # pyright: ignore[reportAttributeAccessIssue]
from jinja2.utils import Cycler, Joiner, Namespace

# All their attributes are open: values, and what builds values from them.
_PLAIN: tuple[type, ...] = (
    *(str, bytes, int, float, complex, type(None), Decimal, date, time, timedelta, tzinfo, range, Enum, Pattern, Match),
    *(list, tuple, set, frozenset, dict),
    *(Undefined, LoopContext, Macro, Namespace, Cycler, Joiner, MappedSequence),
)
# A format string sees these objects as they are, and any other as its text.
_FORMATTED = (str, bytes, int, float, complex, type(None), Decimal, date, time, timedelta, list, tuple, set, frozenset, dict, Undefined)
# Without what makes a relation of a node: dbt-duckdb formats texts of the node's choice with Python objects there.
_OF_RELATIONS = frozenset(
    {
        *("Table", "View", "CTE", "External", "MaterializedView", "Function", "PointerTable", "get_relation_type", "type", "is_table", "is_view", "is_cte"),
        *("is_materialized_view", "is_pointer", "is_function", "database", "schema", "identifier", "name", "table", "catalog", "external", "limit"),
        *(
            "create",
            "incorporate",
            "include",
            "quote",
            "quoted",
            "quote_character",
            "without_identifier",
            "replace_path",
            "matches",
            "render",
            "render_limited",
        ),
        *("information_schema", "information_schema_only", "can_be_renamed", "can_be_replaced", "require_alias", "dbt_created"),
        *("relation_max_name_length", "scd_args", "get_materialized_view_config_change_collection", "quote_policy", "include_policy", "add_ephemeral_prefix"),
    }
)
_OF_COLUMNS = frozenset(
    {
        *("TYPE_LABELS", "column", "name", "quoted", "dtype", "data_type", "expanded_data_type", "char_size", "numeric_precision", "numeric_scale", "fields"),
        *("is_string", "is_number", "is_numeric", "is_integer", "is_float", "is_struct", "string_size", "string_type", "numeric_type", "translate_type"),
        *("can_expand_to", "create", "from_description", "literal", "flatten"),
    }
)
# The methods that dbt calls available to templates, without those that reach the driver, a plugin, a file or Python.
_OF_ADAPTERS = frozenset(
    {
        *("type", "dispatch", "commit", "Relation", "behavior", "execute", "add_query", "quote", "quote_as_configured", "quote_seed_column", "convert_type"),
        *("already_exists", "check_schema_exists", "get_relation", "get_columns_in_relation", "get_columns_in_table", "get_missing_columns", "verify_database"),
        *("create_schema", "drop_schema", "drop_relation", "rename_relation", "truncate_relation", "expand_target_column_types"),
        *("cache_added", "cache_dropped", "cache_renamed", "get_column_schema_from_query", "get_partitions_metadata", "parse_index", "warn_once"),
        *("get_hard_deletes_behavior", "get_incremental_strategy_macro", "valid_incremental_strategies", "standardize_grants_dict", "batch_id_for_model"),
        *("valid_snapshot_target", "assert_valid_snapshot_target_given_strategy", "render_raw_columns_constraints", "render_raw_model_constraints"),
        *("build_catalog_relation", "get_catalog_integration", "catalog_supports_foreign_keys", "existing_key_constraint_types", "escape_sql_string"),
        *("disable_transactions", "ensure_transaction", "is_ducklake", "is_motherduck", "use_ducklake_table_workarounds", "get_binding_char"),
        *("convert_datetimes_to_strs", "external_root", "external_read_location", "external_write_options", "location_exists", "get_temp_relation_path"),
    }
)
# The methods of what is a mapping and a node of dbt's at once.
_OF_MAPPINGS = frozenset({"get", "items", "keys", "values", "update", "pop", "setdefault"})
# Of these, the attributes named.
_NAMED: tuple[tuple[type, frozenset[str]], ...] = (
    (BaseDatabaseWrapper, _OF_ADAPTERS),
    (BaseRelation, _OF_RELATIONS),
    (RelationProxy, _OF_RELATIONS),
    (Column, _OF_COLUMNS),
    (AdapterResponse, frozenset({"code", "query_id", "rows_affected"})),
    (QueryHeaderContextWrapper, frozenset({"unique_id", "name", "alias", "database", "schema", "package_name", "resource_type"})),
    (Var, frozenset({"has_var"})),
    (BehaviorFlagRendered, frozenset({"setting", "no_warn"})),  # merge on Postgres asks for one
    *(
        (config, frozenset({"get", "set", "require", "meta_get", "meta_require", "persist_relation_docs", "persist_column_docs"}))
        for config in (ParseConfigObject, RuntimeConfigObject)
    ),
    (Table, frozenset({"columns", "rows", "column_names", "row_names", "print_table", "select", "exclude", "where", "find", "limit", "order_by", "distinct"})),
)
# dbt's description of indexes and the like, which materializations read; their methods make SQL of them.
_DESCRIPTIONS = ("dbt.adapters.postgres.", "dbt.adapters.duckdb.", "dbt.adapters.relation_configs")
# dbt's description of nodes and results: their fields are open, their methods are not: some write files.
_NODES = ("dbt.artifacts.", "dbt.contracts.", "dbt_common.contracts.")


def close_sandbox() -> None:
    """Refuse every template of this process all that is not open."""
    MacroFuzzEnvironment.is_safe_attribute = _is_safe_attribute
    MacroFuzzEnvironment.getattr = _get_attribute
    MacroFuzzEnvironment.getitem = _get_item
    MacroFuzzEnvironment.unsafe_undefined = _refuse
    SandboxedFormatter.get_field = _get_plain_field


def close_python(owners: Collection[str]) -> None:
    """Let no Python model run: a template of a tenant's could change its own node, and so pass for one.

    Args:
        owners: the tenants whose own models this process may render. If it is empty, Python models of the shared project run as usual.
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


def _get_attribute(self: SandboxedEnvironment, obj: Any, attribute: str) -> Any:
    # dbt_utils asks each relation like this whether it is one. The method itself would give every attribute.
    if attribute == "get" and isinstance(obj, BaseRelation):
        return partial(_get_of_relation, self, obj)
    return SandboxedEnvironment.getattr(self, obj, attribute)


def _get_item(self: SandboxedEnvironment, obj: Any, argument: Any) -> Any:
    """Give what `obj[argument]` stands for. A relation is a mapping of all its attributes, so its items are as closed as these."""
    if isinstance(obj, FakeAPIObject):
        return self.getattr(obj, str(argument))
    return SandboxedEnvironment.getitem(self, obj, argument)


def _get_of_relation(self: SandboxedEnvironment, relation: BaseRelation, key: Any, default: Any = None) -> Any:
    if key == "metadata":
        return relation.get(key)
    value = self.getattr(relation, str(key))
    return default if isinstance(value, Undefined) else value


def _is_open(obj: Any, attr: str, value: Any) -> bool:
    kind = obj if isinstance(obj, type) else type(obj)
    for owner, names in _NAMED:
        if issubclass(kind, owner):
            return attr in names
    if issubclass(kind, FlagValues):
        return isinstance(value, str | int | float | None | list | tuple)
    if issubclass(kind, Behavior):  # a flag of dbt's, by its name
        return not callable(value)
    if issubclass(kind, Mapping) and attr in _OF_MAPPINGS:
        return True
    return issubclass(kind, _PLAIN) or _is_description(kind) or (_is_node(kind) and not callable(value))


def _get_plain_field(self: SandboxedFormatter, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
    """What `{0.name[key]}` of a format string stands for."""
    first, rest = formatter_field_name_split(field_name)
    found = self.get_value(first, args, kwargs)
    for is_attribute, part in rest:
        if not isinstance(found, _FORMATTED):
            raise SecurityError(_describe(found, str(part)))
        found = self._env.getattr(found, part) if is_attribute else self._env.getitem(found, part)
    return (found if isinstance(found, _FORMATTED) else str(found)), first


@lru_cache(maxsize=1000)
def _is_description(kind: type) -> bool:
    return is_dataclass(kind) and kind.__module__.startswith(_DESCRIPTIONS) and "redentials" not in kind.__name__


@lru_cache(maxsize=1000)
def _is_node(kind: type) -> bool:
    return is_dataclass(kind) and kind.__module__.startswith(_NODES)


def _refuse(self: SandboxedEnvironment, obj: Any, attribute: str) -> Undefined:
    raise SecurityError(_describe(obj, attribute))


def _describe(obj: Any, attribute: str) -> str:
    kind = obj.__name__ if isinstance(obj, type) else type(obj).__name__
    return f"models have no access to the attribute {attribute!r} of a {kind}"
