"""Records that several tenants share -> the same records without the name of the offboarded tenant.

Other tenants need runs over assets of several tenants, snapshots of a whole code location, and cursors of sensors for all tenants. These records stay
valid; the name in them is replaced by a meaningless word.
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fabric_assets.factories.instance.records.databases import Database, Transaction, open_shard
from fabric_assets.factories.instance.records.removal import is_own
from fabric_assets.factories.instance.records.runs import escape, get_key_pattern
from fabric_assets.offboarding.journal import write_durably
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher

_ID = re.compile(r'"(?:execution_plan_snapshot_id|pipeline_snapshot_id|job_snapshot_id|parent_snapshot_id)": "([0-9a-f]+)"')
# Table -> the columns in which the name is replaced, and a condition. It leaves out the tenant's own rows, which the removal should have deleted. Tables
# that are not listed are not shared; the proof finds a name that is left in them.
_SHARED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "runs": (("run_body",), "run_id not in :own"),
    "run_tags": (("key", "value"), "run_id not in :own"),
    "event_logs": (
        ("event",),
        "run_id <> '' and run_id not in :own and coalesce(asset_key, '') not like :key escape '!' and coalesce(step_key, '') not like :step escape '!'",
    ),
    # The isolation check of another tenant may name this tenant.
    "asset_check_executions": (("evaluation_event",), "run_id not in :own and asset_key not like :key escape '!'"),
    "asset_keys": (("last_materialization",), "asset_key not like :key escape '!'"),
    "bulk_actions": (("body",), "1 = 1"),
    "backfill_tags": (("key", "value"), "1 = 1"),
    "jobs": (("job_body",), "1 = 1"),
    "instigators": (("instigator_body",), "1 = 1"),
    "job_ticks": (("tick_body",), "1 = 1"),
    "daemon_heartbeats": (("body",), "1 = 1"),
    "kvs": (("value",), "1 = 1"),
}


def rename_in_databases(databases: Sequence[Database], shards: Sequence[Path], own: Sequence[str], matcher: TenantNameMatcher, substitute: str) -> None:
    """Replace the tenant's name in every shared record, and remove deleted and changed data from the files.

    Args:
        own: the runs of the tenant alone.
        substitute: replaces the name; each tenant needs a different one, so that two tenants' records stay apart.
    """
    parameters = {"own": list(own) or [""], "key": get_key_pattern(matcher.tenant), "step": f"{escape(matcher.tenant)}!_!_%"}
    for database in [*databases, *(open_shard(file) for file in shards if matcher.found_in_file(file))]:
        with database.begin() as sql:
            if database.has("snapshots", "id", "snapshot_id", "snapshot_body"):
                _clean_snapshots(sql, matcher, substitute)
            for table, (columns, condition) in _SHARED.items():
                if database.has(table, "id", *columns):
                    used = {name: value for name, value in parameters.items() if f":{name}" in condition}
                    for column in columns:
                        _rename(sql, table, column, matcher, substitute, condition, used)
        database.compact()
        if database.shard:
            database.dispose()


def rename_in_files(files: Iterable[Path], matcher: TenantNameMatcher, substitute: str) -> None:
    """Replace the tenant's name in the captured output of processes."""
    for file in files:
        if not matcher.found_in_file(file):
            continue
        text = file.read_bytes().decode(errors="surrogateescape")
        write_durably(file, matcher.replace(text, substitute).encode(errors="surrogateescape"))


def _rename(sql: Transaction, table: str, column: str, matcher: TenantNameMatcher, substitute: str, condition: str, parameters: Mapping[str, Any]) -> None:
    some = f"%{escape(matcher.tenant)}%"
    rows = sql.stream(f"select id, {column} from {table} where {column} like :some escape '!' and {condition}", some=some, **parameters)
    for number in [number for number, text in rows if _names_it(text, matcher) and not is_own(table, text, matcher.tenant)]:
        ((text,),) = sql.ask(f"select {column} from {table} where id = :id", id=number)
        renamed = substitute if text == matcher.tenant else matcher.replace(text, substitute)
        sql.change(f"update {table} set {column} = :text where id = :id", text=renamed, id=number)


def _names_it(text: str, matcher: TenantNameMatcher) -> bool:
    """Whether a text names the tenant, or is its name, as the value of the tag `tenant` is."""
    return text == matcher.tenant or matcher.found_in(text)


def _clean_snapshots(sql: Transaction, matcher: TenantNameMatcher, substitute: str) -> None:
    """Delete the snapshots of jobs and plans of the tenant alone, and replace its name in those that other runs need."""
    named, parents = {}, {}
    for number, snapshot, body in sql.stream("select id, snapshot_id, snapshot_body from snapshots"):
        text = zlib.decompress(body).decode()
        parents[snapshot] = set(_ID.findall(text))
        if matcher.found_in(text):
            named[snapshot] = number
    if not named:
        return
    needed: set[str] = set()
    for run_snapshot, body in sql.stream("select snapshot_id, run_body from runs"):
        needed |= {run_snapshot, *_ID.findall(body)}
    waiting = list(needed)
    while waiting:
        fresh = parents.get(waiting.pop(), set()) - needed
        needed |= fresh
        waiting += fresh
    for snapshot, number in named.items():
        if snapshot not in needed:
            sql.change("delete from snapshots where id = :id", id=number)
            continue
        ((body,),) = sql.ask("select snapshot_body from snapshots where id = :id", id=number)
        text = matcher.replace(zlib.decompress(body).decode(), substitute)
        sql.change("update snapshots set snapshot_body = :body where id = :id", body=zlib.compress(text.encode()), id=number)
