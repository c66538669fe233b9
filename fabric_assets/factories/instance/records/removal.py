"""Dagster's records of one tenant -> counted, then deleted; for each table the conditions on the tenant's rows.

Rows are deleted by the tenant's runs, asset keys, steps, pools, schedules and sensors, which no other tenant's row can have. A record of another tenant
that names this one is not deleted; the name in it is replaced (`sharing`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fabric_assets.factories.instance.records.databases import Database, Transaction, open_shard
from fabric_assets.factories.instance.records.runs import escape, get_key_pattern, read_owners, split
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher

_RUN = "run_id in :runs"
_KEY = "asset_key like :key escape '!'"
_STEP = "step_key like :step escape '!'"
_POOL = "concurrency_key like :step escape '!'"
# Table -> its name in the certificate, and conditions of which any one makes a row the tenant's. The runs come last: the other rows are found by them.
_TABLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "event_logs": ("events", (_RUN, _KEY, _STEP)),
    "asset_event_tags": ("event tags", (_KEY,)),
    "asset_check_executions": ("check evaluations", (_RUN, _KEY)),
    "asset_daemon_asset_evaluations": ("automation evaluations", (_KEY,)),
    "asset_keys": ("asset keys", (_KEY,)),
    "dynamic_partitions": ("dynamic partitions", ("partitions_def_name like :step escape '!'",)),
    "pending_steps": ("steps waiting for a pool", (_RUN, _POOL)),
    "concurrency_slots": ("slots of pools", (_RUN, _POOL)),
    "concurrency_limits": ("pools", (_POOL,)),
    "run_tags": ("run tags", (_RUN,)),
    "runs": ("runs", (_RUN,)),
}
_CALLED = {"jobs": "schedules and sensors", "instigators": "schedules and sensors", "job_ticks": "ticks"}
_BODIES = {"jobs": "job_body", "instigators": "instigator_body", "job_ticks": "tick_body"}


def count_history(databases: Sequence[Database], shards: Sequence[Path], runs: Sequence[str], matcher: TenantNameMatcher) -> dict[str, int]:
    """Count the tenant's records of each kind."""
    counts: Counter[str] = Counter({called: 0 for called, _ in _TABLES.values()})
    for database in [*databases, *_open_shards(shards, runs)]:
        with database.begin() as sql:
            for table, conditions in _list_conditions(database):
                called, _ = _TABLES[table]
                # SQLite also keeps a copy of some of a run's events outside its own file.
                mirrored = bool(shards) and table == "event_logs" and not database.shard
                counts[called] += _count(database, sql, table, conditions, runs, matcher, mirrored=mirrored)
            for table, ids in _find_by_content(database, sql, matcher):
                counts[_CALLED.get(table, "events" if table == "event_logs" else "other records")] += len(ids)
        if database.shard:
            database.dispose()
    return {called: number for called, number in counts.items() if number}


def delete_history(databases: Sequence[Database], shards: Sequence[Path], runs: Sequence[str], matcher: TenantNameMatcher) -> None:
    """Delete the tenant's records; after a failure or a kill it can be called again."""
    own = set(runs)
    for file in shards:
        if file.stem in own:
            for path in (file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm"), file.with_name(f"{file.name}-journal"), file):
                path.unlink(missing_ok=True)
    shared = [open_shard(file) for file in shards if file.stem not in own and matcher.found_in_file(file)]
    for database in [*shared, *databases]:
        with database.begin() as sql:
            for table, ids in list(_find_by_content(database, sql, matcher)):
                for portion in split(ids):
                    sql.change(f"delete from {table} where id in :ids", ids=portion)
            for table, conditions in _list_conditions(database):
                for condition in conditions:
                    if condition == _RUN:
                        for portion in split(list(runs)):
                            sql.change(f"delete from {table} where {_RUN}", runs=portion)
                    else:
                        sql.change(f"delete from {table} where {condition}", **_get_parameters(condition, matcher))
        if database.shard:
            database.dispose()


def _list_conditions(database: Database) -> Iterator[tuple[str, list[str]]]:
    for table, (_, conditions) in _TABLES.items():
        if known := [condition for condition in conditions if database.has(table, condition.split()[0])]:
            yield table, known


def _get_parameters(condition: str, matcher: TenantNameMatcher) -> dict[str, str]:
    return {"key": get_key_pattern(matcher.tenant)} if ":key" in condition else {"step": f"{escape(matcher.tenant)}!_!_%"}


def _count(
    database: Database, sql: Transaction, table: str, conditions: Sequence[str], runs: Sequence[str], matcher: TenantNameMatcher, *, mirrored: bool
) -> int:
    own, total = set(runs), 0
    if _RUN in conditions and not mirrored:
        total += sum(sql.ask(f"select count(*) from {table} where {_RUN}", runs=portion)[0][0] for portion in split(list(runs)))
    others = [condition for condition in conditions if condition != _RUN]
    if others:
        parameters = {name: value for condition in others for name, value in _get_parameters(condition, matcher).items()}
        run = "run_id" if database.has(table, "run_id") else "null"
        found = sql.ask(f"select {run}, count(*) from {table} where {' or '.join(others)} group by 1", **parameters)
        total += sum(number for owner, number in found if owner not in own and not (mirrored and owner))
    return total


def _find_by_content(database: Database, sql: Transaction, matcher: TenantNameMatcher) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rows whose owner is only in their JSON, by table."""
    some = f"%{escape(matcher.tenant)}%"
    for table, column in _BODIES.items():
        if database.has(table, "id", column):
            rows = sql.stream(f"select id, {column} from {table} where {column} like :some escape '!'", some=some)
            yield table, [number for number, body in rows if is_own(table, body, matcher.tenant)]
    if database.has("event_logs", "id", "asset_key", "dagster_event_type"):
        # The key of a check's asset is in the event's JSON only. The event has no step where nothing ran.
        rows = sql.stream(
            "select id, event from event_logs where asset_key is null and step_key is null and dagster_event_type like 'ASSET!_%' escape '!'"
            " and event like :some escape '!'",
            some=some,
        )
        yield "event_logs", [number for number, event in rows if set(read_owners(json.loads(event))) == {matcher.tenant}]
    if database.has("kvs", "id", "key"):
        yield "kvs", [number for number, key in sql.stream("select id, key from kvs where key like :some escape '!'", some=some) if matcher.found_in(key)]
    if database.has("bulk_actions", "id", "key", "body"):
        rows = sql.ask("select id, key, body from bulk_actions where body like :some escape '!'", some=some)
        own = {number: key for number, key, body in rows if is_own("bulk_actions", body, matcher.tenant)}
        if database.has("backfill_tags", "id", "backfill_id") and own:
            found = sql.ask("select id from backfill_tags where backfill_id in :keys", keys=list(own.values()))
            yield "backfill_tags", [number for (number,) in found]
        yield "bulk_actions", list(own)


def is_own(table: str, text: str, tenant: str) -> bool:
    """Whether a record is about the tenant alone, as far as its JSON says."""
    if table in ("jobs", "instigators", "job_ticks"):
        return _get_instigator(json.loads(text)).startswith(f"{tenant}__")
    return table == "bulk_actions" and set(read_owners(json.loads(text))) == {tenant}


def _get_instigator(body: Mapping[str, Any]) -> str:
    """Return the name of the record's schedule or sensor: a tick has it, and the origin of a state."""
    origin = body.get("origin")
    for part in (body, origin if isinstance(origin, Mapping) else {}):
        for key in ("instigator_name", "job_name"):
            if isinstance(name := part.get(key), str):
                return name
    return ""


def _open_shards(shards: Iterable[Path], runs: Iterable[str]) -> list[Database]:
    own = set(runs)
    return [open_shard(file) for file in shards if file.stem in own]
