"""Dagster's records -> the runs that are a tenant's own, and those that it shares with other tenants.

A run that somebody starts in the UI over assets of several tenants belongs to none of them. So its tag is not enough: the owners are read from its
selection and its events too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fabric_assets.factories.instance.records.databases import Database, Transaction
from fabric_assets.factories.translators import TENANT_TAG
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher

_PORTION = 500
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
# The name of a step or a job begins with its tenant's name, which cannot contain two underscores.
_OWNER = re.compile(r"^([a-z][a-z0-9_]*?)__[a-z]")
# The beginning of the names of the whole fleet's steps and jobs; no tenant can have this name.
_FLEET = "fabric"


@dataclass(frozen=True)
class TenantRuns:
    own: tuple[str, ...]
    shared: tuple[str, ...]


def find_runs(databases: Iterable[Database], matcher: TenantNameMatcher) -> TenantRuns:
    """Find the runs that have to do with the tenant: its own, and those that it shares."""
    databases = list(databases)
    candidates: dict[str, set[str]] = {}
    for database in databases:
        with database.begin() as sql:
            for run in _find_candidates(database, sql, matcher):
                candidates.setdefault(run, set())
    for database in databases:
        with database.begin() as sql:
            for portion in split(sorted(candidates)):
                for run, owner in _find_owners(database, sql, portion):
                    candidates[run].add(owner)
    own = sorted(run for run, owners in candidates.items() if owners == {matcher.tenant})
    return TenantRuns(tuple(own), tuple(sorted(candidates.keys() - set(own))))


def find_unfinished(databases: Iterable[Database], runs: Iterable[str]) -> list[str]:
    """List those of the runs that have not ended in Dagster's records."""
    found = list[str]()
    for database in databases:
        if database.has("runs", "run_id", "status"):
            with database.begin() as sql:
                for portion in split(list(runs)):
                    asked = sql.ask("select run_id from runs where run_id in :runs and status not in :ended", runs=portion, ended=list(_ENDED))
                    found += [run for (run,) in asked]
    return found


def split(values: list[str]) -> Iterable[list[str]]:
    """Split values into portions that every database accepts as the parameters of one statement."""
    return (values[start : start + _PORTION] for start in range(0, len(values), _PORTION))


def get_key_pattern(tenant: str) -> str:
    """Build the `like` pattern for a tenant's asset keys as Dagster stores them."""
    return f'["{escape(tenant)}",%'


def escape(text: str) -> str:
    """Escape text for `like ... escape '!'`."""
    return re.sub(r"([!%_])", r"!\1", text)


def _find_candidates(database: Database, sql: Transaction, matcher: TenantNameMatcher) -> Iterable[str]:
    tenant = matcher.tenant
    if database.has("runs", "run_id", "run_body"):
        yield from (run for (run,) in sql.ask("select run_id from run_tags where key = :key and value = :tenant", key=TENANT_TAG, tenant=tenant))
        for run, job, body in sql.stream("select run_id, pipeline_name, run_body from runs where run_body like :some escape '!'", some=f"%{escape(tenant)}%"):
            if matcher.found_in(body) or (job or "").startswith(f"{tenant}__"):
                yield run
    if database.has("event_logs", "run_id", "asset_key", "step_key"):
        found = sql.ask(
            "select distinct run_id from event_logs where asset_key like :key escape '!' or step_key like :step escape '!'",
            key=get_key_pattern(tenant),
            step=f"{escape(tenant)}!_!_%",
        )
        yield from (run for (run,) in found if run)


def _find_owners(database: Database, sql: Transaction, runs: list[str]) -> Iterable[tuple[str, str]]:
    """Yield each run with the tenants that its record and its events are about."""
    if database.has("runs", "run_id", "run_body"):
        for run, job, body in sql.ask("select run_id, pipeline_name, run_body from runs where run_id in :runs", runs=runs):
            yield from ((run, owner) for owner in _read_run_owners(job or "", json.loads(body)))
    if database.has("event_logs", "run_id", "asset_key", "step_key"):
        found = sql.ask(
            "select distinct run_id, asset_key, step_key from event_logs where run_id in :runs and (asset_key is not null or step_key is not null)", runs=runs
        )
        for run, key, step in found:
            if key:
                yield run, json.loads(key)[0]
            elif (match := _OWNER.match(step)) and match[1] != _FLEET:
                yield run, match[1]


def read_owners(value: object) -> Iterable[str]:
    """Yield the tenants of all asset keys, and of the tag, in a part of Dagster's JSON."""
    if isinstance(value, Mapping):
        if value.get("__class__") == "AssetKey" and value.get("path"):
            yield value["path"][0]
            return
        if isinstance(tags := value.get("tags"), Mapping) and isinstance(tag := tags.get(TENANT_TAG), str):
            yield tag
        for inner in value.values():
            yield from read_owners(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from read_owners(inner)


def _read_run_owners(job: str, body: Mapping[str, Any]) -> Iterable[str]:
    selected = {*read_owners({name: body.get(name) for name in ("asset_selection", "asset_check_selection")})}
    yield from selected
    yield from read_owners({"tags": body.get("tags")})
    names = [job, *(step for step in body.get("step_keys_to_execute") or () if isinstance(step, str))]
    owners = {match[1] for name in names if (match := _OWNER.match(name))}
    # A job of the whole fleet works for the selected tenants only; without a selection, for all.
    yield from owners - ({_FLEET} if selected else set())
