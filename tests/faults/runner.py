"""Loads in a process of their own, which may be killed, starved or broken: what the fault tests start.

The case (see `tests.faults.processes.Case`) says what to load and what goes wrong. A kill is a SIGKILL that the process sends to itself, at a named
call of the engine or at a random moment. A broken engine does not keep one of its guarantees, to show that a test would notice. Both exist only here.
Each line printed is a JSON object: `ready`, then an `outcome` per load.
"""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.csv_import.inbox import FolderInbox
from fabric_assets.factories import offboarding
from fabric_assets.factories.instance.records import removal, sharing
from fabric_assets.loading.load import load_streams
from fabric_assets.loading.older_forms import migration as older_forms
from fabric_assets.loading.rejects import replay_file
from fabric_assets.loading.shaping.shaper import Shaper
from fabric_assets.offboarding import export
from fabric_assets.offboarding.journal import Journal
from fabric_assets.rows.reports import LoadRequest, StreamFailure
from fabric_assets.security.roles.server import Server
from fabric_assets.settings import Settings
from fabric_assets.warehouse.duckdb import DuckDbSession
from fabric_assets.warehouse.postgres import PostgresSession
from fabric_assets.warehouse.session import Session
from fabric_assets.warehouse.transaction import Transaction
from fabric_assets.warehouse.warehouse import Warehouse
from fabric_assets.warehouse.writing import StreamWriter
from tests.faults.breakages import BREAKAGES, wrap

_POINTS: dict[str, tuple[Any, str]] = {
    "shape": (Shaper, "shape"),
    "write": (StreamWriter, "write"),
    "finish": (StreamWriter, "finish"),
    "commit": (Transaction, "commit"),
    "duckdb_commit": (DuckDbSession, "commit"),
    "postgres_commit": (PostgresSession, "commit"),
    "move": (FolderInbox, "move"),
    "corrected": (replay_file, "archive_corrected"),
    "apply": (older_forms, "_apply"),
    "run": (Warehouse, "run"),
    "journal": (Journal, "finish"),
    "destination": (offboarding, "delete_destination"),
    "exported": (export, "_export"),
    "drop": (Server, "run"),
    "renamed": (Session, "rename_columns"),
    "files": (offboarding, "delete_paths"),
    "history": (removal, "delete_history"),
    "rename": (sharing, "rename_in_databases"),
    "search": (offboarding, "search_folders"),
    "certificate": (offboarding, "write_certificate"),
}


def main(file: Path) -> int:
    case = json.loads(file.read_text())
    if case["broken"]:
        BREAKAGES[case["broken"]]()
    if case["kill"]:
        _kill_at(case["kill"])
    if case["hold"]:
        _hold_commits(case["hold"])
    _say(ready=os.getpid())
    if case["wait"]:
        sys.stdin.readline()
    for name, value in case["limits"].items():
        _limit(name, value)
    if case["within"] is not None:
        _kill_after(random.Random(case["seed"]).uniform(0, case["within"]))
    if case["command"]:
        from fabric_assets.cli.main import main as run_command

        sys.argv[1:] = case["command"]
        run_command()
        return 0
    settings = Settings(**{name: Path(value) for name, value in case["settings"].items()}, secret_keys=tuple(case["keys"]))
    if len(case["loads"]) == 1:
        return int(not _load(settings, **case["loads"][0]))
    start = threading.Barrier(len(case["loads"]))
    with ThreadPoolExecutor(len(case["loads"])) as pool:
        futures = [pool.submit(_load, settings, **load, start=start) for load in case["loads"]]
    return int(not all(future.result() for future in futures))


def _load(settings: Settings, *, tenant: dict[str, Any], source: str, streams: list[str], start: threading.Barrier | None = None) -> bool:
    request = LoadRequest(TenantConfig.model_validate(tenant), source, tuple(streams), settings)
    if start:
        start.wait()
    began, loaded, failed, messages = time.perf_counter(), dict[str, int](), dict[str, str](), list[str]()
    try:
        for outcome in load_streams(request, report=messages.append):
            if isinstance(outcome, StreamFailure):
                failed[outcome.stream] = f"{type(outcome.error).__name__}: {outcome.error}"
            else:
                loaded[outcome.stream] = outcome.rows_loaded
    except Exception as error:  # noqa: BLE001 - the test looks at it
        failed[""] = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    _say(outcome={"tenant": request.tenant.tenant, "loaded": loaded, "failed": failed, "seconds": seconds, "messages": messages})
    return not failed


_SPEAKING = threading.Lock()


def _say(**line: Any) -> None:
    with _SPEAKING:
        sys.stdout.write(json.dumps(line, default=str) + "\n")
        sys.stdout.flush()


def _kill_at(spec: str) -> None:
    """Args:
    spec: `commit.after:2` kills after the second call of the engine's commit has returned, `commit.before:2` before it is made.
    """
    point, _, number = spec.partition(":")
    name, _, side = point.partition(".")
    owner, attribute = _POINTS[name]
    calls, lock = [0], threading.Lock()

    def count_down(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with lock:
            calls[0] += 1
            hit = calls[0] == int(number or 1)
        if hit and side == "before":
            _die()
        result = original(*arguments, **named)
        if hit:
            _die()
        return result

    wrap(owner, attribute, count_down)


def _hold_commits(seconds: float) -> None:
    def wait(original: Callable[..., Any], *arguments: Any) -> Any:
        _say(committing=True)
        time.sleep(seconds)
        return original(*arguments)

    wrap(Transaction, "commit", wait)


def _kill_after(seconds: float) -> None:
    timer = threading.Timer(seconds, _die)
    timer.daemon = True
    timer.start()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit(name: str, value: int) -> None:
    """Args:
    name: FSIZE (bytes of a file), or AS (bytes of memory) and NOFILE (handles): these beyond what the process has already.
    """
    if name == "AS":
        value += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if name == "NOFILE":
        value += sum(1 for _ in Path("/proc/self/fd").iterdir())
    kind = getattr(resource, f"RLIMIT_{name}")
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
