"""A sensor per `csv_import` source: new files in the inbox -> one run of their streams and all that is built from them.

A look only lists the inbox; it opens no file and does not ask the warehouse. When a failed file is due again, and when the newest file came, is in the
results of the last run's checks. A source has one run at a time; the next run finds the files that came meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.selection import Key, select_keys
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.factories.failures import raised_to_dagster
from fabric_assets.factories.inbox.cursor import InboxCursor, Launch, digest, parse_cursor
from fabric_assets.factories.schedules import get_default_status
from fabric_assets.factories.translators import FAILED_CHECKS_TAG, SOURCE_TAG, TENANT_TAG, name_tenant, raw_key
from fabric_assets.loading.dropped_files.expectations import EXPECTED_FILES, NO_QUARANTINED_FILE, find_last_due
from fabric_assets.offboarded import find_offboarding
from fabric_assets.settings import Settings

BATCH_TAG = "fabric/import_batch"
_SECONDS = 30
_LONGEST_WAIT = timedelta(hours=1)
_DOUBLINGS = 10  # by then the longest wait is reached; a much larger 2**attempt would not fit into a timedelta
_FACTS = ("newest", "next_attempt_at")


def build_import_sensors(tenant: TenantConfig, parents: Mapping[Key, Iterable[Key]], *, settings: Settings) -> list[dg.SensorDefinition]:
    """Build the sensors of a tenant's inboxes.

    Args:
        parents: each asset key of the tenant with the keys that it is built from.
    """
    sources = {name: source for name, source in tenant.sources.items() if isinstance(source, CsvImportSource)}
    return [_build_sensor(tenant, name, source, parents, settings) for name, source in sources.items()]


def _build_sensor(tenant: TenantConfig, name: str, source: CsvImportSource, parents: Mapping[Key, Iterable[Key]], settings: Settings) -> dg.SensorDefinition:
    inbox = _Inbox(tenant, name, source, parents, settings)

    @dg.sensor(
        name=inbox.sensor,
        description=f"Looks for new files in the inbox of the source {name} of {name_tenant(tenant)}",
        asset_selection=dg.AssetSelection.assets(*inbox.select(source.streams)),
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus[get_default_status().name],
        tags={TENANT_TAG: tenant.tenant, SOURCE_TAG: name},
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if gone := find_offboarding(tenant.tenant, settings.data_dir):  # the code location was not reloaded since
            return dg.SensorResult(skip_reason=dg.SkipReason(f"the tenant {gone[0]}"))
        with raised_to_dagster(settings, tenant.tenant):
            return inbox.look(context.instance, context.cursor)

    return look


def get_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Inbox:
    tenant: TenantConfig
    name: str
    source: CsvImportSource
    parents: Mapping[Key, Iterable[Key]]
    settings: Settings

    @property
    def sensor(self) -> str:
        return naming.inbox_sensor(self.tenant.tenant, self.name)

    def select(self, streams: Iterable[str]) -> list[dg.AssetKey]:
        """List the assets of the streams and all assets that are built from them."""
        return [dg.AssetKey(key) for key in select_keys(self.parents, self.tenant.tenant, [f"raw/{self.name}/{stream}+" for stream in streams])]

    def look(self, instance: dg.DagsterInstance, text: str | None) -> dg.SensorResult:
        """Look at the inbox once.

        Raises:
            FabricError: the inbox cannot be reached; the cursor is not changed.
        """
        now = get_now()
        cursor = parse_cursor(text, now)
        files = self._list()
        cursor.handed &= files.keys()
        new = {mark: stream for mark, (stream, _) in files.items() if mark not in cursor.handed}
        ready = {mark for mark in new if files[mark][1] or (self.source.ready == "stable" and mark in cursor.seen)}
        self._read_facts(instance, cursor)
        request, words = self._decide(instance, cursor, {mark: new[mark] for mark in ready}, now)
        cursor.seen = new.keys() - cursor.handed
        requests = [request] if request else []
        if cursor.launch is None and (check := self._expect(cursor, now)):
            requests.append(check)
        waiting = f"{len(cursor.seen)} files wait" if cursor.seen else "no new file"
        return dg.SensorResult(run_requests=requests, cursor=cursor.dump(), skip_reason=None if requests else dg.SkipReason(words or waiting))

    def _list(self) -> dict[str, tuple[str, bool]]:
        """List the inbox: for each version of a file its stream, and whether it is known to be complete without a second look."""
        from fabric_assets.connectors.context import SourceContext
        from fabric_assets.connectors.csv_import.inbox import open_inbox

        inbox = open_inbox(SourceContext(self.tenant.tenant, self.name, self.source, tuple(self.source.streams), self.settings))
        found = {}
        for stream, config in self.source.streams.items():
            listing = inbox.find_all(config.glob)
            for file in listing.files:
                # In a bucket no file counts as touched, since it appears there only when it is complete.
                whole = file.name in listing.done if self.source.ready == "done_file" else not file.touched
                # The version alone is not enough: a file that was quarantined and released since the last look must be loaded again.
                mark = digest(stream, file.name, file.version, file.modified_at.isoformat(), file.touched)
                found[mark] = (stream, whole)
        return found

    def _decide(self, instance: dg.DagsterInstance, cursor: InboxCursor, ready: Mapping[str, str], now: datetime) -> tuple[dg.RunRequest | None, str]:
        """Decide which run to launch, if any; returns also the reason why not, in words."""
        streams = set(ready.values())
        if launch := cursor.launch:
            failed_at, is_running = _follow(instance, launch)
            if is_running:
                return None, f"the run for the files before goes on; {len(ready)} new files wait for its end"
            if failed_at is None:
                cursor.launch = None
            elif ready:
                streams |= set(launch.streams)
            elif (due := _find_next_launch(failed_at, launch.attempt)) > now:
                return None, f"the run has failed {launch.attempt} times; it is launched again at {due:%H:%M:%S} UTC"
            else:
                cursor.launch = Launch(launch.batch, launch.attempt + 1, launch.streams, now.isoformat())
                return self._request(cursor.launch), ""
        for stream, facts in cursor.facts.items():
            attempt = facts.get("next_attempt_at")
            if attempt and datetime.fromisoformat(attempt) <= now and cursor.answered.get(stream) != attempt:
                cursor.answered[stream] = attempt
                streams.add(stream)
        if not streams:
            return None, ""
        return self._request(cursor.begin(self.sensor, set(ready), sorted(streams), now)), ""

    def _request(self, launch: Launch) -> dg.RunRequest:
        tags = {TENANT_TAG: self.tenant.tenant, SOURCE_TAG: self.name, BATCH_TAG: launch.batch}
        known = [stream for stream in launch.streams if stream in self.source.streams]  # the YAML may have changed since
        return dg.RunRequest(run_key=launch.run_key, tags=tags, asset_selection=self.select(known or self.source.streams))

    def _read_facts(self, instance: dg.DagsterInstance, cursor: InboxCursor) -> None:
        """Read the last results of the streams' checks; an unfinished or lost run has no results."""
        checks = {key: stream for stream in self.source.streams for key in self._get_check_keys(stream)}
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
        said: dict[str, dict[str, str]] = {}
        for key, record in records.items():
            event = record.event.dagster_event if record.event else None
            if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                metadata = event.asset_check_evaluation_data.metadata
                found = {fact: str(metadata[fact].value) for fact in _FACTS if fact in metadata}
                said.setdefault(checks[key], {}).update(found)
                # A fact that a check no longer reports is dropped, for example of a failed file that was loaded meanwhile.
                gone = {"newest"} if key.name == EXPECTED_FILES else {"next_attempt_at"}
                for fact in gone - found.keys():
                    cursor.facts.get(checks[key], {}).pop(fact, None)
        cursor.facts = {stream: cursor.facts.get(stream, {}) | said.get(stream, {}) for stream in self.source.streams}

    def _get_check_keys(self, stream: str) -> Iterator[dg.AssetCheckKey]:
        asset = raw_key(self.tenant.tenant, self.name, stream)
        yield dg.AssetCheckKey(asset, NO_QUARANTINED_FILE)
        if self.source.streams[stream].expect:
            yield dg.AssetCheckKey(asset, EXPECTED_FILES)

    def _expect(self, cursor: InboxCursor, now: datetime) -> dg.RunRequest | None:
        """Build a run of only the checks for missing files, once for each time at which a file was due."""
        overdue = {}
        for stream, config in self.source.streams.items():
            if config.expect:
                newest = datetime.fromisoformat(cursor.facts.get(stream, {}).get("newest") or cursor.began_at)
                due = find_last_due(config.expect, newest, self.tenant.timezone, now)
                if due and cursor.checked.get(stream) != due.isoformat():
                    overdue[stream] = due.isoformat()
        if not overdue:
            return None
        cursor.checked |= overdue
        return dg.RunRequest(
            run_key=f"{digest(self.sensor, cursor.began_at, overdue)}-expected",
            tags={TENANT_TAG: self.tenant.tenant, SOURCE_TAG: self.name},
            asset_selection=[],
            asset_check_keys=[dg.AssetCheckKey(raw_key(self.tenant.tenant, self.name, stream), EXPECTED_FILES) for stream in overdue],
        )


def _find_next_launch(failed_at: datetime, attempt: int) -> datetime:
    """Compute when a failed run is launched again: after longer and longer waits, at most an hour. It never gives up, since the cause may be fixed any day."""
    from fabric_assets.rows.imported_file import find_next_attempt

    return min(find_next_attempt(failed_at, min(attempt, _DOUBLINGS)), failed_at + _LONGEST_WAIT)


def _follow(instance: dg.DagsterInstance, launch: Launch) -> tuple[datetime | None, bool]:
    """Return when the launch's run has failed, None if nothing more is to be done; and whether it is still running.

    Dagster itself repeats a run whose process died, under the same tag. A run that somebody has cancelled is not launched again.
    """
    records = instance.get_run_records(dg.RunsFilter(tags={BATCH_TAG: launch.batch}))
    if any(not record.dagster_run.is_finished for record in records):
        return None, True
    # A run whose checks failed has loaded the files; another run would only find the same.
    if any(record.dagster_run.is_success or FAILED_CHECKS_TAG in record.dagster_run.tags for record in records):
        return None, False
    if not records:  # the run was deleted, or could not be created
        return datetime.fromisoformat(launch.asked_at), False
    if records[0].dagster_run.status == dg.DagsterRunStatus.CANCELED:
        return None, False
    ended = records[0].end_time
    return datetime.fromtimestamp(ended, UTC) if ended else datetime.fromisoformat(launch.asked_at), False
