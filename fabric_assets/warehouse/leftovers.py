"""A tenant's schemas -> the tables and views that no config names any more, and what still reads them.

Streams are known by their state, models by the caller. A list and a later drop go by the same catalog, so the drop can check again.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fabric_assets import naming
from fabric_assets.drivers.asking import Ask, has_column
from fabric_assets.quoting import quote_text
from fabric_assets.rows.column_names import is_of_family
from fabric_assets.rows.named_tables import load_named
from fabric_assets.warehouse.session import Session, Table

Relation = tuple[str, str]
Origin = tuple[str, str]


@dataclass(frozen=True)
class Leftover:
    """A table or view that no config names.

    Args:
        what: what has made it.
        of: its stream (`shop.orders`), or the schema and name of its model.
        kept: why it is not dropped; empty if it can go.
    """

    schema: str
    name: str
    kind: Literal["table", "view"]
    what: Literal["stream", "model", "snapshot"]
    of: str
    kept: str = ""

    @property
    def relation(self) -> Relation:
        return self.schema, self.name


@dataclass(frozen=True)
class Declared:
    """What a tenant's config has.

    Args:
        streams: source and stream.
        models: relations of the models, seeds and snapshots that it builds.
        built: relations that earlier runs have built.
        read: relation -> the model of the config that reads it.
    """

    streams: frozenset[Origin]
    models: frozenset[Relation]
    built: frozenset[Relation]
    read: dict[Relation, str]


def find_leftovers(ask: Ask, tenant: str, declared: Declared) -> list[Leftover]:
    """Find what no config names, in the order of schemas and names; what something reads has its reason in `kept`."""
    existing = _list_relations(ask)
    found = [*_find_streams(ask, tenant, declared, existing), *_find_models(tenant, declared, existing)]
    readers = _list_readers(ask, {each.relation for each in found})
    kept = {each.relation: _find_reason(each, declared) for each in found}
    gone = {relation for relation, reason in kept.items() if not reason}
    # A view that stays keeps what it reads, and that may be a view itself.
    while blocked := {relation: view for relation in gone for view in readers.get(relation, ()) if view not in gone}:
        kept |= {relation: f"the view {view[0]}.{view[1]} reads it" for relation, view in blocked.items()}
        gone -= blocked.keys()
    return sorted((replace(each, kept=kept[each.relation]) for each in found), key=lambda each: each.relation)


def drop_leftovers(session: Session, tenant: str, leftovers: Sequence[Leftover]) -> None:
    """Drop tables and views, and the states of streams of which nothing is left. Nothing is dropped in cascade."""
    going = [each for each in leftovers if not each.kept]
    views = [each for each in going if each.kind == "view"]
    # A view comes before what it reads. Of two views the one that reads the other comes first.
    readers = _list_readers(session.ask, {each.relation for each in views})
    ordered: list[Leftover] = []
    while views:
        free = [each for each in views if not any(reader in {view.relation for view in views} for reader in readers.get(each.relation, ()))] or views
        ordered += free
        views = [each for each in views if each not in free]
    for each in [*ordered, *(each for each in going if each.kind == "table")]:
        session.execute(f"drop {each.kind} {Table(*each.relation)}")
    left = {each.of for each in leftovers if each.kept}
    states = Table(naming.platform_dataset(tenant), "stream_state")
    for of in dict.fromkeys(each.of for each in going if each.what == "stream" and each.of not in left):
        source, stream = of.split(".")
        session.execute(f"delete from {states} where source = {quote_text(source)} and stream = {quote_text(stream)}")


def _list_relations(ask: Ask) -> dict[Relation, Literal["table", "view"]]:
    rows = ask("select table_schema, table_name, table_type from information_schema.tables")
    return {(schema, name): "view" if "VIEW" in kind.upper() else "table" for schema, name, kind in rows}


def _find_streams(ask: Ask, tenant: str, declared: Declared, existing: Collection[Relation]) -> Iterable[Leftover]:
    """Find the tables of streams that the YAML no longer has, with those of their nested lists and those that their batches have named."""
    platform = naming.platform_dataset(tenant)
    if not has_column(ask, platform, "stream_state", "column_names"):
        return
    streams = {
        (source, stream): [stream, *load_named(names)] for source, stream, names in ask(f"select source, stream, column_names from {platform}.stream_state")
    }
    roots = {(source, root) for (source, stream), tables in streams.items() if (source, stream) in declared.streams for root in tables} | declared.streams
    for (source, stream), tables in streams.items():
        if (source, stream) in declared.streams:
            continue
        raw = naming.raw_dataset(tenant, source)
        for schema, name in existing:
            is_ours = schema == raw and any(is_of_family(name, root) for root in tables)
            if is_ours and not any(is_of_family(name, root) for other, root in roots if other == source):
                yield Leftover(schema, name, "table", "stream", f"{source}.{stream}")


def _find_models(tenant: str, declared: Declared, existing: dict[Relation, Literal["table", "view"]]) -> Iterable[Leftover]:
    snapshots = naming.dbt_schema(tenant, naming.SNAPSHOT_SCHEMA)
    for schema, name in declared.built - declared.models:
        if kind := existing.get((schema, name)):
            yield Leftover(schema, name, kind, "snapshot" if schema == snapshots else "model", f"{schema.removeprefix(f'{tenant}_')}.{name}")


def _find_reason(leftover: Leftover, declared: Declared) -> str:
    if leftover.what == "snapshot":
        return "it is a snapshot, whose history no run can build again; drop it by hand"
    reader = declared.read.get(leftover.relation)
    return f"the model {reader} reads it" if reader else ""


def _list_readers(ask: Ask, relations: Collection[Relation]) -> dict[Relation, list[Relation]]:
    """List the views that read each relation, by the text of their definitions: a name that only looks alike keeps a table, and loses none."""
    if not relations:
        return {}
    views = ask(
        "select table_schema, table_name, coalesce(view_definition, '') from information_schema.views"
        " where table_catalog = current_database() and table_schema not in ('pg_catalog', 'information_schema')"
    )
    return {relation: [(schema, name) for schema, name, text in views if (schema, name) != relation and _names(text, relation[1])] for relation in relations}


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
