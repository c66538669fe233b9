"""The platform's errors -> Dagster's failures, which are retried only if another try can succeed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from fabric_assets.config.base import RetriesConfig
from fabric_assets.errors import FabricError, RetriableError
from fabric_assets.masking import mask
from fabric_assets.own_faults import keep_traceback, report_own_fault
from fabric_assets.security.redaction import describe_masked
from fabric_assets.settings import Settings

_BACKOFFS = {"constant": None, "linear": dg.Backoff.LINEAR, "exponential": dg.Backoff.EXPONENTIAL}
INTERRUPTED = "Cancelled. Committed streams are kept; the next run resumes."


class RunInterrupted(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """The run was cancelled. The step's retry policy would retry Dagster's own interrupt, but not an error of Dagster's."""


@contextmanager
def raised_to_dagster(settings: Settings, tenant: str) -> Iterator[None]:
    """Turn our errors into a step failure with the message and the remedy; the traceback of an internal fault is kept.

    The cause is dropped: a driver's own text may contain a URL with its password; ours never does. An unforeseen exception that contains a secret is
    replaced too: Dagster would write its text, and that of its causes, into the event log.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        raise RunInterrupted(INTERRUPTED) from None
    except FabricError as error:
        keep_traceback(error, data_dir=settings.data_dir, tenant=tenant)
        raise _build_failure(error) from None
    except Exception as error:
        if fault := report_own_fault(error, f"tenant {tenant}: this step", data_dir=settings.data_dir, tenant=tenant):
            raise _build_failure(fault) from None
        if (traceback := describe_masked(error)) is None:
            raise
        raise dg.Failure(
            description=f"{type(error).__name__}: {mask(str(error))}", metadata={"kind": type(error).__name__, "traceback": dg.MetadataValue.text(traceback)}
        ) from None


def _build_failure(error: FabricError) -> dg.Failure:
    metadata: dict[str, Any] = {"kind": type(error).__name__, "remedy": error.remedy or "see the message"}
    if error.traceback:
        metadata["traceback"] = dg.MetadataValue.text(error.traceback)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=isinstance(error, RetriableError))


def build_retry_policy(retries: RetriesConfig) -> dg.RetryPolicy | None:
    """Build the step's retry policy; None for no retries."""
    if not retries.max:
        return None
    return dg.RetryPolicy(max_retries=retries.max, delay=retries.delay.total_seconds(), backoff=_BACKOFFS[retries.backoff], jitter=dg.Jitter.PLUS_MINUS)
