"""Engines whose promise is taken away: the tests' negative controls.

Each is the engine with one guard removed. A test that stays green on the one that breaks its promise proves nothing.
"""

import contextlib
import json
import signal
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from fabric_assets import masking
from fabric_assets.connectors.bridge.process.connector import Connector
from fabric_assets.factories import offboarding
from fabric_assets.factories.instance.records import removal
from fabric_assets.loading import job, leased_load
from fabric_assets.quoting import quote_text
from fabric_assets.warehouse.platform_tables import ledger
from fabric_assets.warehouse.postgres import PostgresSession
from fabric_assets.warehouse.session import Table
from fabric_assets.warehouse.transaction import Transaction
from fabric_assets.warehouse.writing import StreamWriter

# Where an offboarding may forget to look.
FORGOTTEN = ("event_logs", "asset_keys", "asset_check_executions", "run_tags", "concurrency_limits", "job_ticks", "inbox", "secrets")


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by `around(original, *arguments)`."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return around(original, *arguments, **named)

    setattr(owner, name, wrapped)


def commit_rows_by_themselves() -> None:
    """Rows are committed first, then the state, the rejected rows and the ledger."""

    def finish(original: Callable[..., Any], writer: Any, **named: Any) -> Any:
        written = original(writer, **named)
        writer._session.commit()
        return written

    wrap(StreamWriter, "finish", finish)


def save_the_state_first() -> None:
    """The state is committed before the rows; the crash comes instead of the second commit."""

    def commit(_: Callable[..., Any], transaction: Any, commits: Any) -> None:
        transaction._session.rollback()
        states = [(found.record, found.writer.state.version, found.state) for found in commits]
        ledger.write_states(transaction._session, transaction._datasets.platform, states)
        transaction._session.commit()

    wrap(Transaction, "commit", commit)


def skip_leases() -> None:
    """Two loads of one source run at the same time."""
    leased_load.load_lease = lambda *arguments, **named: contextlib.nullcontext()  # type: ignore[assignment]


def let_everyone_commit() -> None:
    """The second one does not notice from the state that it is late."""

    def write_states(_: Callable[..., Any], session: Any, platform: str, loads: Any) -> None:
        for record, _, state in loads:
            where = f"source = {quote_text(record.source)} and stream = {quote_text(record.stream)}"
            session.execute(f"update {Table(platform, 'stream_state')} set version = version + 1, state = {quote_text(json.dumps(state))} where {where}")

    skip_leases()
    wrap(ledger, "write_states", write_states)


def make_tables_without_a_lock() -> None:
    """New sessions create schemas and tables without a lock. The pause lets another session do it at the same time."""
    wrap(PostgresSession, "lock_definitions", lambda original, session: time.sleep(0.5))


def trust_the_output() -> None:
    """What a connector has sent counts as whole, however the connector ended."""
    Connector._find_error = lambda self, ending: None  # type: ignore[method-assign]


def forget_the_deadline() -> None:
    """Loads take as long as they like."""
    wrap(job.Job, "__init__", lambda original, self, where, seconds: original(self, where, 1e6))


def drop_rejects() -> None:
    """Rows that do not fit are counted, but not kept."""
    wrap(StreamWriter, "write", lambda original, self, tables, rejects=(): original(self, tables, ()))


def forget(forgotten: str) -> Callable[[], None]:
    """An offboarding that leaves one table or folder alone.

    Args:
        forgotten: a table of Dagster's storage, or a folder.
    """

    def break_it() -> None:
        if forgotten in removal._TABLES or forgotten in removal._BODIES:
            removal._TABLES = {table: rule for table, rule in removal._TABLES.items() if table != forgotten}  # type: ignore[misc]
            removal._BODIES = {table: column for table, column in removal._BODIES.items() if table != forgotten}  # type: ignore[misc]
        else:
            wrap(offboarding, "delete_paths", lambda original, paths: original(path for path in paths if forgotten not in path.parts))

    return break_it


def show_secrets() -> None:
    """Nothing is masked."""
    masking._replace = lambda text, spellings: text
    masking._mask_forms = lambda text: text


def ignore_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


BREAKAGES: dict[str, Callable[[], None]] = {
    "autocommit": commit_rows_by_themselves,
    "deaf": ignore_signals,
    "drop_rejects": drop_rejects,
    "no_ddl_lock": make_tables_without_a_lock,
    "no_deadline": forget_the_deadline,
    "no_guard": let_everyone_commit,
    "no_lease": skip_leases,
    "no_mask": show_secrets,
    "state_first": save_the_state_first,
    "trusted_output": trust_the_output,
    **{f"forget_{forgotten}": forget(forgotten) for forgotten in FORGOTTEN},
}
