"""Destination type -> its modules and what it declares of itself: one literal mapping (house rule 5).

Code outside of warehouse/ and drivers/ asks for one of these capabilities, not for a type by name. Modules are named, not imported:
building definitions must not import an engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fabric_assets.errors import ConfigurationError
from fabric_assets.suggestions import suggest

if TYPE_CHECKING:
    # dbt's processes import this module too; the models of the YAML would cost each of them 0.1 s.
    from fabric_assets.config.tenant import TenantConfig

# The column's type and the SQL of its present values, of `{column}`.
Rewrite = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The modules and capabilities of a destination type.

    Args:
        driver: the module whose `open_destination` reaches the tenant's data.
        sessions: the module of warehouse/ whose `open_sessions` writes a load's rows, and whose `LEFTOVERS` lists tables and what reads them.
        walls: the module of isolation/ whose `try_walls` tries to reach other tenants' data.
        dbt_adapter: dbt's name for it, and the module's below transform/worker/adapters.
        has_file: the data is in a file of the tenant below FABRIC_DATA_DIR, whose stem is the database's name; else it is on a server.
        has_one_writer: one process at a time writes; else each source of a tenant has a lease of its own, which the server holds.
        may_be_managed: `fabric provision` can make the tenant's role and schemas.
        needs_staging_dataset: rows are collected in a dataset of their own before they are written to their tables.
        waits_for_locks: a transaction waits for locks of another one.
        takes_nul_in_text: a text may hold the character NUL.
        reserved_columns: names that the destination keeps for its own columns.
        rewrites: a word of rows/value_forms.OLDER_FORMS -> how a column's stored values become the present ones.
    """

    driver: str
    sessions: str
    walls: str
    dbt_adapter: str
    has_file: bool
    has_one_writer: bool
    may_be_managed: bool
    needs_staging_dataset: bool
    waits_for_locks: bool
    takes_nul_in_text: bool
    reserved_columns: frozenset[str] = frozenset()
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "duckdb": Kind(
        driver="fabric_assets.drivers.duckdb_destination",
        sessions="fabric_assets.warehouse.duckdb",
        walls="fabric_assets.isolation.duckdb_walls",
        dbt_adapter="duckdb",
        has_file=True,
        has_one_writer=True,
        may_be_managed=False,
        needs_staging_dataset=False,
        waits_for_locks=False,
        takes_nul_in_text=True,
        # A binary key is stored as hexadecimal text, other UUIDs as bytes: the expression handles both.
        rewrites={
            "uuid": ("varchar", "cast(cast(if(typeof({column}) = 'BLOB', hex({column}), cast({column} as varchar)) as uuid) as varchar)"),
            "json": ("json", "cast({column} as json)"),
        },
    ),
    "postgres": Kind(
        driver="fabric_assets.drivers.postgres_destination",
        sessions="fabric_assets.warehouse.postgres",
        walls="fabric_assets.isolation.postgres_walls",
        dbt_adapter="postgres",
        has_file=False,
        has_one_writer=False,
        may_be_managed=True,
        needs_staging_dataset=True,
        waits_for_locks=True,
        takes_nul_in_text=False,
        reserved_columns=frozenset({"xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"}),
        rewrites={
            "uuid": ("text", "replace({column}::text, '\\x', '')::uuid::text"),
            "json": ("jsonb", "{column}::jsonb"),
        },
    ),
}

# dbt's names for all types, each once.
ADAPTERS = tuple(dict.fromkeys(kind.dbt_adapter for kind in KINDS.values()))
# The type for a tenant whose YAML names no destination, and for checks of the dbt project without a tenant.
DEFAULT_ADAPTER = KINDS["duckdb"].dbt_adapter


def get_kind(tenant: "TenantConfig") -> Kind:
    """Get the kind of a tenant's destination."""
    return get_kind_of_type(tenant.destination.type)


def get_kind_of_type(name: str) -> Kind:
    """Get the kind of a destination type.

    Raises:
        ConfigurationError: no type has this name; the message lists the known types and suggests the nearest.
    """
    if name in KINDS:
        return KINDS[name]
    raise ConfigurationError(f"no destination type {name!r}{suggest(name, KINDS)}")
