"""Whatever a load raises -> one of our errors, in plain words, without a secret.

dlt wraps the cause several times over and prints its whole configuration with it; a reader needs the innermost one.
"""

import re
from collections.abc import Iterator, Sequence

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import DataError, DestinationError, DestinationUnavailable, FabricError, SourceError, SourceUnavailable

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_UNREACHABLE = (
    "could not connect",
    "connection refused",
    "connection to server",
    "connection reset",
    "server closed the connection",
    "timed out",
    "timeout expired",
    "could not translate host",
    "terminating connection",
    "too many clients",
    "the database system is",
    "could not set lock",
)
_REFUSED_LOGIN = ("authentication failed", "no password supplied", "no pg_hba.conf entry")


def build_error(error: Exception, *, tenant: TenantConfig, place: str, streams: Sequence[str]) -> FabricError:
    """Find the cause in a chain of exceptions and say it in our words; an error of ours comes out as it is."""
    chain = list(_walk(error))
    for part in chain:
        if isinstance(part, FabricError):
            return part
    step = getattr(error, "step", "")
    names = {type(part).__name__ for part in chain}
    reason = _describe(chain[-1])
    if step in {"load", "sync"}:
        return _build_destination_error(chain, names, reason, tenant, place)
    if names & {"NameNormalizationCollision", "SchemaIdentifierNormalizationCollision", "TableIdentifiersFrozen"}:
        return DataError(
            f"{place}: two column names become the same in the warehouse: {reason}",
            remedy="leave one of them out by the stream's columns, or rename it in a view",
        )
    if names & {"CannotCoerceColumnException", "DataValidationError", "UnsupportedArrowTypeException"}:
        return DataError(f"{place}: rows of {', '.join(streams)} do not fit: {reason}", remedy="correct them at the source, or load anew with --full-refresh")
    if names & {"ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "TimeoutError", "MaxRetryError"}:
        return SourceUnavailable(f"{place}: the source cannot be reached: {reason}", remedy="check that it runs and that this machine reaches it")
    return SourceError(f"{place}: reading {', '.join(streams)} failed: {reason}", remedy="check the source's settings against what it answers")


def _build_destination_error(chain: list[BaseException], names: set[str], reason: str, tenant: TenantConfig, place: str) -> FabricError:
    kind, low = tenant.destination.type, " ".join(str(part) for part in chain).lower()
    if any(word in low for word in _REFUSED_LOGIN):
        return DestinationError(f"{place}: the destination ({kind}) refuses the login: {reason}", remedy="check the user and password in the destination's url")
    if 'database "' in low and "does not exist" in low:
        return DestinationError(
            f"{place}: the destination ({kind}) lacks its database: {reason}", remedy="create the database, or correct the destination's url"
        )
    if any(word in low for word in _UNREACHABLE):
        return DestinationUnavailable(
            f"{place}: the destination ({kind}) cannot be reached: {reason}", remedy="check that it runs, and host, port and network of its url"
        )
    if "permission denied" in low:
        return DestinationError(f"{place}: the destination ({kind}) denies it: {reason}", remedy="grant the login the right to create schemas in the database")
    return DestinationError(
        f"{place}: the destination ({kind}) refuses the rows: {reason}",
        remedy="see the reason; load anew with --full-refresh where a column's type has changed",
    )


def _walk(error: BaseException) -> Iterator[BaseException]:
    """From the outermost to the innermost; dlt keeps a cause in `exception` as well as in the chain."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "exception", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _describe(error: BaseException) -> str:
    text = getattr(error, "failed_message", None) or str(error) or type(error).__name__
    text = _USERINFO.sub("***@", " ".join(str(text).split()))
    return text if len(text) <= 600 else text[:600] + "..."
