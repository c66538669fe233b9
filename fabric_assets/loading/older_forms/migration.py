"""Streams whose tables an earlier release has made -> their columns in the present names and forms (`fabric migrate-values`).

One transaction changes a stream's columns, tables, rejected rows and state. If the present values cannot be derived from the stored
ones, nothing is changed, and the stream has to be loaded anew.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.registry import plan_stream
from fabric_assets.drivers.kinds import Rewrite, get_kind
from fabric_assets.errors import FabricError
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.older_forms.lists import rewrite_lists
from fabric_assets.loading.older_forms.rejects import rewrite_rejects
from fabric_assets.quoting import quote, quote_text
from fabric_assets.rows.arrow_types import BINARY, TEXT
from fabric_assets.rows.column_names import SEPARATOR, is_of_family, join_names, normalize_column, spell_column
from fabric_assets.rows.named_tables import keep_named
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT, FIRST, WHOLE_STREAM, get_list_values, get_older_form
from fabric_assets.rows.variant_columns import find_variants, is_variant
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Session, Table
from fabric_assets.warehouse.warehouse import Warehouse, open_warehouse

# Columns that one message names.
_SHOWN = 5
Report = Callable[[str], None]


@dataclass(frozen=True)
class Migrated:
    """The outcome of one stream.

    Args:
        status: `current`: nothing to do. `migrated`, or `planned` in a dry run. `unknown`: no load since the upgrade has recorded which
            field a column belongs to. `reload`: the present values cannot be derived. `failed`.
        renamed: table.column, or table -> its new name.
        rewritten: columns whose values got their present form.
    """

    source: str
    stream: str
    status: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    message: str = ""


@dataclass
class _Plan:
    """The changes to one stream.

    Args:
        columns: table, by its former name -> former column -> present one.
        tables: former name -> present one.
        rewrites: column, by its present name -> type and SQL.
        lists: column, by its present name -> the type of the values of its lists, which are stored as text.
        layout: the stream's own table, by its present names.
        fields: field of the row itself -> its earlier form.
        kept: the names to save in the state.
    """

    columns: dict[str, dict[str, str]]
    tables: dict[str, str]
    rewrites: dict[str, tuple[str, str]]
    lists: dict[str, str]
    layout: Mapping[str, Any]
    fields: dict[str, str]
    kept: str


def describe_older_forms(names: StreamNames, tenant: str) -> list[str]:
    """Describe, for a run's summary, what a stream keeps in earlier forms."""
    found = _list_older_forms(names) if names.is_first else ""
    ways = f"rewrite them with `fabric migrate-values {tenant}`, or load the stream anew with --full-refresh"
    return [f"keeps forms of an earlier release: {found}; {ways}"] if found else []


def _list_older_forms(names: StreamNames) -> str:
    """List the columns whose names or values would differ in a table made today."""
    named = [f"the name of {name} ({'.'.join(path)})" for _, path, name in names.list_columns() if _is_older_name(path, name)]
    named += [f"the name of the table {name}" for _, path, name in names.list_tables() if any(map(_is_older_key, path))]
    return ", ".join(sorted(named) + [_describe_form(column, form) for column, form in sorted(names.older.forms.items())])


def _describe_form(column: str, form: str) -> str:
    words = get_older_form(form).words
    return words if column == WHOLE_STREAM else f"{words} in {column}"


def _is_older_key(key: str) -> bool:
    """Whether today's spelling of a key differs from dlt's."""
    return spell_column(key) != normalize_column(key)


def _is_older_name(path: tuple[str, ...], name: str) -> bool:
    """Whether a column of an earlier release would get another name today. A name that the YAML gives does not count."""
    return any(map(_is_older_key, path)) and name == join_names(map(normalize_column, path))


def migrate(tenant: TenantConfig, settings: Settings, *, dry_run: bool = False, report: Report = lambda message: None) -> Iterator[Migrated]:
    """Bring all streams of a tenant to the present forms.

    Raises:
        FabricError: the destination, or a lease, as a whole.
    """
    for source, config in tenant.sources.items():
        with load_lease(tenant, source, settings, timeout_seconds=LEASE_SECONDS, report=report), open_warehouse(tenant, source, settings) as warehouse:
            warehouse.prepare()
            states, layouts = warehouse.read_states(), warehouse.read_layouts()
            for stream in config.streams:
                family = {name: columns for name, columns in layouts.items() if is_of_family(name, stream)}
                state = states.get(stream, StreamState(0, {}))
                if not family or state.value_forms >= CURRENT:
                    yield Migrated(source, stream, "current")
                    continue
                yield _migrate_stream(tenant, settings, warehouse, source, stream, family, state, dry_run=dry_run)


def _migrate_stream(
    tenant: TenantConfig,
    settings: Settings,
    warehouse: Warehouse,
    source: str,
    stream: str,
    family: Mapping[str, Mapping[str, Any]],
    state: StreamState,
    *,
    dry_run: bool,
) -> Migrated:
    select = f"fabric run {tenant.tenant} --select raw/{source}/{stream}"
    former = StreamNames(stream, layout=family, kept=state.column_names, value_forms=FIRST)
    config = tenant.sources[source]
    if unread := _find_unread(former, stream, family, key=config.streams[stream].primary_key or (), is_json=plan_stream(config, stream).is_json):
        shown = f"{', '.join(unread[:_SHOWN])}{f' and {len(unread) - _SHOWN} more' if len(unread) > _SHOWN else ''}"
        return Migrated(
            source,
            stream,
            "unknown",
            message=f"no load since the upgrade has read a row with {shown}, so the form of its values is unknown. First load rows that have it: {select}."
            " If the source no longer has it, drop the column, or load the stream anew with --full-refresh",
        )
    rewrites = get_kind(tenant).rewrites
    lost = [_describe_form(column, form) for column, form in former.older.forms.items() if not _can_rewrite(form, rewrites)]
    lost += [f"the invisible characters in the name of {name}" for _, path, name in former.list_columns() if not "".join(path).isprintable()]
    if lost:
        return Migrated(source, stream, "reload", message=f"cannot be derived in the warehouse: {', '.join(lost)}; load it anew: {select} --full-refresh")
    plan = _plan(stream, former, family, rename=getattr(tenant.sources[source].streams[stream], "rename", {}), rewrites=rewrites)
    changed = [name for name in family[stream] if plan.columns.get(stream, {}).get(name, name) in {*plan.rewrites, *plan.lists}]
    views: dict[str, str] = {}
    renamed = {f"{table}.{old}": new for table, columns in plan.columns.items() for old, new in columns.items()} | plan.tables
    table = Table(naming.raw_dataset(tenant.tenant, source), stream)

    def work(session: Session) -> None:
        views.update(session.find_views(table, changed) if changed else {})
        if not dry_run:
            # As a full refresh does it: no column of a view can change its type.
            for name, kind in views.items():
                session.execute(f"drop {kind} if exists {name} cascade")
            _apply(session, tenant.tenant, source, stream, plan, state)

    try:
        warehouse.run(work)
    except Exception as error:  # noqa: BLE001 - the one boundary where drivers and servers become our errors
        where = f"tenant {tenant.tenant}, source {source}, stream {stream}"
        return Migrated(source, stream, "failed", message=str(build_error(error, tenant=tenant, settings=settings, where=where, writing=True)))
    gone = f"views on rewritten columns are dropped, and the next run builds those of models again: {', '.join(views)}" if views else ""
    return Migrated(source, stream, "planned" if dry_run else "migrated", renamed, (*plan.rewrites, *plan.lists), gone)


def _can_rewrite(form: str, rewrites: Mapping[str, Rewrite]) -> bool:
    return form in rewrites or get_list_values(form) is not None


def _find_unread(former: StreamNames, stream: str, family: Mapping[str, Mapping[str, Any]], *, key: Iterable[str], is_json: bool) -> list[str]:
    """Find the columns that no load since the upgrade has read, and that may have an earlier name or form.

    If such a column came back with new rows, it would mix two forms.

    Args:
        is_json: rows come as JSON, whose values have had one form in all releases.
    """
    keys = {former.find_column(field) for field in key}
    unread = []
    for table, columns in family.items():
        for name, kind in columns.items():
            is_ours = name.startswith(("_dlt_", "_fabric_")) or is_variant(name, columns)
            if not is_ours and name not in former.older.read.get(table, ()):
                may_differ = (table == stream and name in keys) or (not is_json and kind in (TEXT, BINARY)) or _may_be_older_name(name)
                unread += [name if table == stream else f"{table}.{name}"] if may_differ else []
    return unread


def _may_be_older_name(name: str) -> bool:
    """Whether today's name of a column may differ: dlt's rule wrote an underscore for each letter of another script, and x at the end."""
    return not name.isascii() or name.endswith("x") or "_" in name


def _plan(stream: str, former: StreamNames, family: Mapping[str, Mapping[str, Any]], *, rename: Mapping[str, str], rewrites: Mapping[str, Rewrite]) -> _Plan:
    present = StreamNames(stream, layout={}, rename=rename)
    tables = {stream: stream}
    # Parents first: a nested table's name begins with its parent's.
    for parent, path, name in sorted(former.list_tables(), key=lambda entry: entry[2].count(SEPARATOR)):
        wanted = join_names((tables.get(parent, parent), *map(spell_column, path)))
        tables[name] = present.get_table(tables.get(parent, parent), path, wanted, name)
    columns: dict[str, dict[str, str]] = {}
    for table in family:
        new = tables.setdefault(table, table)
        known = [(path, name) for each, path, name in former.list_columns() if each == table and name in family[table]]
        kept = {name: path for path, name in known if not _is_older_name(path, name)}
        # Columns that keep their names come first.
        for name in family[table]:
            if name in kept or (not is_variant(name, family[table]) and all(name != other for _, other in known)):
                present.keep_column(new, kept.get(name, (name,)), name)
        for path, name in sorted(known):
            if name not in kept and (column := present.get_column(new, path)) != name:
                columns.setdefault(table, {}).update({name: column, **find_variants(name, column, family[table])})
    layout = {tables[table]: {columns.get(table, {}).get(name, name): kind for name, kind in each.items()} for table, each in family.items()}
    names = columns.get(stream, {})
    forms = {names.get(column, column): form for column, form in former.older.forms.items() if names.get(column, column) in layout[stream]}
    lists = {column: values for column, form in forms.items() if (values := get_list_values(form)) is not None}
    return _Plan(
        columns,
        {old: new for old, new in tables.items() if old != new and old in family},
        {column: rewrites[form] for column, form in forms.items() if column not in lists},
        lists,
        layout[stream],
        {path[0]: former.older.forms[name] for table, path, name in former.list_columns() if table == stream and name in former.older.forms},
        present.export(layout),
    )


def _apply(session: Session, tenant: str, source: str, stream: str, plan: _Plan, state: StreamState) -> None:
    raw, platform = naming.raw_dataset(tenant, source), naming.platform_dataset(tenant)
    for table, names in plan.columns.items():
        session.rename_columns(Table(raw, table), names)
    session.rewrite_columns(Table(raw, stream), {column: (kind, sql.format(column=quote(column))) for column, (kind, sql) in plan.rewrites.items()})
    rewrite_lists(session, Table(raw, stream), plan.lists, plan.layout)
    rewrite_rejects(session, tenant, source, stream, plan.fields)
    for table, name in plan.tables.items():
        session.execute(f"alter table {Table(raw, table)} rename to {quote(name)}")
    of_stream = f"source = {quote_text(source)} and stream = {quote_text(stream)}"
    values = f"value_forms = {CURRENT}, column_names = {quote_text(keep_named(state.column_names, plan.kept))}"
    changed = session.execute(f"update {Table(platform, 'stream_state')} set version = version + 1, {values} where {of_stream} and version = {state.version}")
    if changed != 1:
        raise FabricError(f"{session.where}: another run has loaded {source}.{stream} meanwhile; nothing was changed", remedy="try again")
    # If the state is lost, the forms are read from the last load.
    last = f"select max(loaded_at) from {Table(platform, 'loads')} where {of_stream} and status = 'success'"
    session.execute(f"update {Table(platform, 'loads')} set {values} where {of_stream} and status = 'success' and loaded_at = ({last})")
