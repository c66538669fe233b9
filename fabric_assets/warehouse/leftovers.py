"""A tenant's schemas -> the tables and views that no config names any more, and what still reads them.

Streams are known by their state, models by the caller. A list and a later drop go by the same catalog, so the drop can check again.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fabric_assets import naming
from fabric_assets.drivers.asking import Ask, has_column
from fabric_assets.quoting import quote_text
from fabric_assets.rows.column_names import is_of_family
from fabric_assets.rows.named_tables import load_named
from fabric_assets.warehouse.leftovers_sql import LeftoversSql
from fabric_assets.warehouse.session import Session, Table

Relation = tuple[str, str]
Origin = tuple[str, str]


@dataclass(frozen=True)
class Leftover:
    """A table or view that no config names.

    Args:
        kind: table, view or materialized view.
        what: what has made it.
        of: its stream (`shop.orders`), or the schema and name of its model.
        kept: why it is not dropped; empty if it can go.
        renamed_to: schema and name of the model that has replaced its model (`staging.stg_shop__orders`).
    """

    schema: str
    name: str
    kind: str
    what: Literal["stream", "model", "snapshot"]
    of: str
    kept: str = ""
    renamed_to: str = ""

    @property
    def relation(self) -> Relation:
        return self.schema, self.name


@dataclass(frozen=True)
class Declared:
    """What a tenant's config has.

    Args:
        streams: source and stream.
        models: relations of the models, seeds and snapshots that it builds.
        built: relations that earlier runs have built, and that no prune has dropped since.
        read: relation -> the model of the config that reads it.
        renamed: earlier relation of a model -> schema and name of the model, without the tenant's prefix.
    """

    streams: frozenset[Origin]
    models: frozenset[Relation]
    built: frozenset[Relation]
    read: dict[Relation, str]
    renamed: dict[Relation, str] = field(default_factory=dict)


def find_leftovers(ask: Ask, sql: LeftoversSql, tenant: str, declared: Declared) -> list[Leftover]:
    """Find what no config names, in the order of schemas and names; what something reads has its reason in `kept`."""
    existing = {(schema, name): kind for schema, name, kind in ask(sql.relations)}
    found = [*_find_streams(ask, tenant, declared, existing), *_find_models(tenant, declared, existing)]
    readers = _list_readers(ask, sql, {each.relation for each in found})
    kept = {each.relation: _find_reason(each, declared) for each in found}
    families: dict[str, list[Leftover]] = {}
    for each in found:
        families.setdefault(f"{each.what} {each.of}", []).append(each)
    is_done = False
    while not is_done:
        before = dict(kept)
        gone = {relation for relation, reason in kept.items() if not reason}
        # A view that stays keeps what it reads, and that may be a view itself.
        for relation in gone:
            if reader := next((each for each in readers.get(relation, ()) if each not in gone), None):
                kept[relation] = f"{reader[0]}.{reader[1]} reads it"
        # Rows and their nested lists go together: a stream that comes back would lose or double the one without the other.
        for family in families.values():
            if stays := next((each for each in family if kept[each.relation]), None):
                for each in family:
                    kept[each.relation] = kept[each.relation] or f"it belongs to {stays.schema}.{stays.name}, which is kept"
        is_done = kept == before
    return sorted((replace(each, kept=kept[each.relation]) for each in found), key=lambda each: each.relation)


def drop_leftovers(session: Session, sql: LeftoversSql, tenant: str, leftovers: Sequence[Leftover], declared: Declared) -> None:
    """Drop tables and views, and the states of streams of which nothing is left. Nothing is dropped in cascade."""
    going = [each for each in leftovers if not each.kept]
    views = [each for each in going if each.kind != "table"]
    # A view comes before what it reads. Of two views the one that reads the other comes first.
    readers = _list_readers(session.ask, sql, {each.relation for each in views})
    ordered: list[Leftover] = []
    while views:
        left = {each.relation for each in views}
        free = [each for each in views if not left & {*readers.get(each.relation, ())}] or views
        ordered += free
        views = [each for each in views if each not in free]
    for each in [*ordered, *(each for each in going if each.kind == "table")]:
        session.execute(f"drop {each.kind} {Table(*each.relation)}")
    stay = {each.of for each in leftovers if each.kept and each.what == "stream"}
    states = Table(naming.platform_dataset(tenant), "stream_state")
    for source, stream in _read_streams(session.ask, tenant):
        if (source, stream) not in declared.streams and f"{source}.{stream}" not in stay:
            session.execute(f"delete from {states} where source = {quote_text(source)} and stream = {quote_text(stream)}")


def _read_streams(ask: Ask, tenant: str) -> dict[Origin, list[str]]:
    """Read the streams that loads have written, each with its root tables."""
    platform = naming.platform_dataset(tenant)
    if not has_column(ask, platform, "stream_state", "column_names"):
        return {}
    states = ask(f"select source, stream, column_names from {Table(platform, 'stream_state')}")
    return {(source, stream): [stream, *load_named(names)] for source, stream, names in states}


def _find_streams(ask: Ask, tenant: str, declared: Declared, existing: Mapping[Relation, str]) -> Iterable[Leftover]:
    """Find the tables of streams that the YAML no longer has, with those of their nested lists and those that their batches have named."""
    streams = _read_streams(ask, tenant)
    roots = {(source, root) for (source, stream), tables in streams.items() if (source, stream) in declared.streams for root in tables} | declared.streams
    # Every table of a load has a column of its own, but a table that people have made beside it has none.
    marked = set(ask("select table_schema, table_name from information_schema.columns where column_name in ('_dlt_id', '_dlt_load_id', '_dlt_parent_id')"))
    for (source, stream), tables in streams.items():
        if (source, stream) in declared.streams:
            continue
        raw = naming.raw_dataset(tenant, source)
        for (schema, name), kind in existing.items():
            is_ours = schema == raw and kind == "table" and any(name == root or ((schema, name) in marked and is_of_family(name, root)) for root in tables)
            if is_ours and not any(is_of_family(name, root) for other, root in roots if other == source):
                yield Leftover(schema, name, kind, "stream", f"{source}.{stream}")


def _find_models(tenant: str, declared: Declared, existing: Mapping[Relation, str]) -> Iterable[Leftover]:
    snapshots = naming.dbt_schema(tenant, naming.SNAPSHOT_SCHEMA)
    for schema, name in declared.built - declared.models:
        if kind := existing.get((schema, name)):
            what, of = "snapshot" if schema == snapshots else "model", f"{schema.removeprefix(f'{tenant}_')}.{name}"
            yield Leftover(schema, name, kind, what, of, renamed_to=declared.renamed.get((schema, name), ""))


def _find_reason(leftover: Leftover, declared: Declared) -> str:
    if leftover.what == "snapshot":
        return "it is a snapshot, whose history no run can build again; drop it by hand"
    reader = declared.read.get(leftover.relation)
    return f"the model {reader} reads it" if reader else ""


def _list_readers(ask: Ask, sql: LeftoversSql, relations: Collection[Relation]) -> dict[Relation, list[Relation]]:
    """List what reads each relation. Where only texts tell it, a name that only looks alike keeps a table, and loses none."""
    found: dict[Relation, list[Relation]] = {}
    if relations and sql.readers:
        for schema, name, *reader in ask(sql.readers):
            found.setdefault((schema, name), []).append((reader[0], reader[1]))
        return found
    views = ask(sql.definitions) if relations else []
    for relation in relations:
        found[relation] = [(schema, name) for schema, name, text in views if (schema, name) != relation and _names(text, relation[1])]
    return found


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
