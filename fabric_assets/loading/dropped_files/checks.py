"""The automatic checks of a stream of dropped files -> their outcomes, by the ledger `imported_files`.

They run over a read-only connection, like declared checks. Before the first load there is no ledger, and so no file that is wrong.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvStream, ExpectConfig
from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Ask, has_table
from fabric_assets.drivers.destinations import get_destination, open_ask
from fabric_assets.loading.checks import CheckOutcome, Metadata
from fabric_assets.loading.dropped_files.expectations import NO_QUARANTINED_FILE, REJECT_SHARE, ImportCheck, find_due
from fabric_assets.quoting import quote_table, quote_text
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, warehouse_lease

_SHOWN = 5


def run_import_checks(
    checks: Sequence[ImportCheck], *, tenant: TenantConfig, source: str, stream: str, settings: Settings, now: datetime | None = None
) -> tuple[CheckOutcome, ...]:
    """Run a stream's checks over one connection; the outcomes in the checks' order.

    Args:
        now: the time for which expected files are judged; by default the present.

    Raises:
        DestinationError, DestinationUnavailable, LeaseHeld: they could not run.
    """
    if not get_destination(tenant, settings).is_there():
        return tuple(_run(check, lambda _: [], tenant, source, stream, now or datetime.now(UTC)) for check in checks)
    with warehouse_lease(tenant.tenant, settings, timeout_seconds=LEASE_SECONDS), open_ask(tenant, settings) as ask:
        exists = has_table(ask, naming.platform_dataset(tenant.tenant), "imported_files")
        return tuple(_run(check, ask if exists else lambda _: [], tenant, source, stream, now or datetime.now(UTC)) for check in checks)


def _run(check: ImportCheck, ask: Ask, tenant: TenantConfig, source: str, stream: str, now: datetime) -> CheckOutcome:
    config = tenant.sources[source].streams[stream]
    assert isinstance(config, CsvStream)
    files = (
        f"from {quote_table(naming.platform_dataset(tenant.tenant), 'imported_files')} where source = {quote_text(source)} and stream = {quote_text(stream)}"
    )
    if check.name == NO_QUARANTINED_FILE:
        return _check_quarantine(ask, files, tenant.tenant, now)
    if check.name == REJECT_SHARE:
        return _check_rejects(ask, files, config.rejects)
    assert config.expect
    return _check_arrival(ask, files, config.expect, tenant.timezone, now)


def _check_quarantine(ask: Ask, files: str, tenant: str, now: datetime) -> CheckOutcome:
    # A file that was corrected and dropped again does not count, although its first version is still in quarantine.
    corrected = f"select name, max(updated_at) as at {files} and status in ('loaded', 'duplicate') group by name"
    found = ask(
        f"select f.name, status, reason, next_attempt_at from (select * {files} and status in ('quarantined', 'failed')) as f"
        f" left join ({corrected}) as c on c.name = f.name where c.at is null or c.at <= f.updated_at order by updated_at desc, f.name"
    )
    metadata: Metadata = {"quarantined": sum(status == "quarantined" for _, status, *_ in found), "failed": sum(status == "failed" for _, status, *_ in found)}
    if attempts := [attempt.astimezone(UTC) for *_, attempt in found if attempt is not None]:
        # A time in the past belongs to a file that no load has found again: show the next time to come instead.
        metadata["next_attempt_at"] = min([attempt for attempt in attempts if attempt > now] or attempts).isoformat()
    if found:
        named = ", ".join(f"{name} ({reason})" for name, _, reason, _ in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        metadata["message"] = f"{len(found)} files are not loaded: {named}{more}; `fabric imports list {tenant}` says why, and what to do with each"
    return CheckOutcome(not found, metadata)


def _check_rejects(ask: Ask, files: str, limit: RejectsConfig) -> CheckOutcome:
    loaded = ask(f"select coalesce(sum(rows_read), 0), coalesce(sum(rows_rejected), 0), coalesce(max(rows_rejected), 0) {files} and status = 'loaded'")
    read, rejected, most = map(int, loaded[0]) if loaded else (0, 0, 0)
    metadata: Metadata = {"read": read, "rejected": rejected, "share": round(rejected / read, 6) if read else 0.0, "max": limit.max}
    # A limit in rows applies to each file, as in the load itself; a share applies to all files together.
    exceeded = limit.is_exceeded(read, rejected if isinstance(limit.max, str) else most)
    if exceeded:
        subject = f"{rejected} of {read} rows" if isinstance(limit.max, str) else f"up to {most} rows of one file"
        metadata["message"] = f"{subject} are rejected, more than {limit.max}"
    return CheckOutcome(not exceeded, metadata)


def _check_arrival(ask: Ask, files: str, expect: ExpectConfig, timezone: str, now: datetime) -> CheckOutcome:
    arrived = ask(f"select max(updated_at) {files} and status in ('loaded', 'duplicate')")
    newest = arrived[0][0] if arrived else None
    metadata: Metadata = {"timezone": timezone}
    if newest is None:
        return CheckOutcome(False, metadata | {"message": "no file has come yet"})
    newest = newest.astimezone(UTC)
    due = find_due(expect, newest, timezone)
    metadata |= {"newest": newest.isoformat(), "due": due.isoformat()}
    if due <= now:
        metadata["message"] = f"no file has come since {newest:%Y-%m-%d %H:%M} UTC; one was due at {due:%Y-%m-%d %H:%M} ({timezone})"
    return CheckOutcome(due > now, metadata)
