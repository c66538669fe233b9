"""Any exception of a load -> one of our errors, in plain words, without a secret."""

import logging
import traceback
from collections.abc import Callable, Iterator

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import explain_damage
from fabric_assets.drivers.outages import is_outage
from fabric_assets.errors import ConfigurationError, DestinationError, DestinationUnavailable, FabricError, RetriableError, SourceError, SourceUnavailable
from fabric_assets.masking import mask
from fabric_assets.own_faults import is_own_fault, keep_traceback, report_own_fault
from fabric_assets.settings import Settings

_log = logging.getLogger(__name__)
_REFUSED_LOGIN = ("authentication failed", "no password supplied", "no pg_hba.conf entry")


def build_error(
    error: BaseException, *, tenant: TenantConfig, settings: Settings, where: str, writing: bool = False, after: BaseException | None = None
) -> FabricError:
    """Find the cause in a chain of exceptions and build an error from it; an error of ours is returned as it is.

    Args:
        writing: it was raised where rows are written, not where they are read.
        after: an earlier error that was being handled when this one was raised; it is not the cause.
    """
    chain = list(_walk(error, after))
    known = next((part for part in chain if isinstance(part, FabricError)), None)
    # An internal error while an outage is handled does not matter: another try may succeed. After any other error, it may be the cause.
    if known is not None and (isinstance(known, RetriableError) or not is_own_fault(error)):
        keep_traceback(known, data_dir=settings.data_dir, tenant=tenant.tenant)
        return known
    names = {type(part).__name__ for part in chain}
    reason = _describe(chain[-1])
    # DuckDB's error is not a MemoryError of Python. It is recognised by its name, of a source as of a destination.
    if isinstance(error, MemoryError) or "OutOfMemoryException" in names:
        return SourceUnavailable(
            f"{where}: this machine's memory is used up: {reason}", remedy="free memory, or let fewer loads run at a time (pools, max_connections)"
        )
    if isinstance(error, ImportError):
        return ConfigurationError(f"{where}: a Python package is missing or damaged: {reason}", remedy="install the project's packages again: make setup")
    if fault := report_own_fault(error, where, data_dir=settings.data_dir, tenant=tenant.tenant):
        return fault
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s: %s", where, mask("".join(traceback.format_exception(error))))
    if writing:
        return _build_destination_error(chain, reason, tenant, where)
    if names & {"ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "MaxRetryError"} or any(map(is_outage, chain)):
        return SourceUnavailable(f"{where}: the source cannot be reached: {reason}", remedy="check that it runs and that this machine reaches it")
    return SourceError(f"{where}: reading failed: {reason}", remedy="check the source's settings against what it answers")


def report_unrecorded(error: Exception, failure: BaseException, *, tenant: TenantConfig, settings: Settings, where: str, report: Callable[[str], None]) -> None:
    """Report that the ledger lacks a stream's failure, because it could not be written.

    Args:
        error: why it could not be written.
        failure: why the stream failed.
    """
    reason = build_error(error, tenant=tenant, settings=settings, where=where, writing=True, after=failure).message
    report(f"{where}: the failure could not be written to the ledger: {reason.removeprefix(f'{where}: ')}")


def _build_destination_error(chain: list[BaseException], reason: str, tenant: TenantConfig, where: str) -> FabricError:
    kind, low = tenant.destination.type, " ".join(str(part) for part in chain).lower()
    if damage := explain_damage(tenant, reason, low, where):
        return damage
    if any(word in low for word in _REFUSED_LOGIN):
        return DestinationError(f"{where}: the destination ({kind}) refuses the login: {reason}", remedy="check the user and password in the destination's url")
    if 'database "' in low and "does not exist" in low:
        return DestinationError(
            f"{where}: the destination ({kind}) lacks its database: {reason}", remedy="create the database, or correct the destination's url"
        )
    if any(map(is_outage, chain)):
        return DestinationUnavailable(
            f"{where}: the destination ({kind}) cannot be reached: {reason}", remedy="check that it runs, and host, port and network of its url"
        )
    if "permission denied" in low:
        return DestinationError(f"{where}: the destination ({kind}) denies it: {reason}", remedy="grant the login the right to create schemas in the database")
    return DestinationError(
        f"{where}: the destination ({kind}) refuses the rows: {reason}",
        remedy="see the reason; load anew with --full-refresh where a column's type has changed",
    )


def _walk(error: BaseException, until: BaseException | None) -> Iterator[BaseException]:
    """Yield the exceptions of a chain, from the outermost to the innermost."""
    seen = {id(until)}
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _describe(error: BaseException) -> str:
    # Masked before it is cut: a cut could leave half of a secret.
    text = mask(" ".join((str(error) or type(error).__name__).split()))
    return text if len(text) <= 600 else text[:600] + "..."
