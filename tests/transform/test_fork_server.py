"""Workers forked from one process that has imported dbt: real processes, killed for real."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import TransformError
from fabric_assets.settings import Settings
from fabric_assets.transform import fork_server
from fabric_assets.transform.build import BuildRequest, DbtWorker
from fabric_assets.transform.process import WorkerProcess, build_environment
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.support.lengths import AT_FULL_LENGTH
from tests.transform.conftest import build_tenant, get_raw_statements, make_tenant, run_duckdb
from tests.transform.test_build import assert_ended, wait_for


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment that no other test's server has."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return build_environment()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def get_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_one_process_imports_dbt_for_all_workers_and_each_of_them_serves_one_build(prepared: Settings, environment: dict[str, str]) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    first, second = DbtWorker.start(prepared), DbtWorker.start(prepared)
    pids = {first.pid, second.pid}
    server = get_parent(first.pid)
    assert (len(pids), get_parent(second.pid), get_parent(server)) == (2, server, os.getpid())
    assert fork_server.get_server(environment).pid == server
    for worker in (first, second):
        request = BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.stg_customers",), tests=(), settings=prepared, timeout_seconds=120)
        assert [result.status for result in worker.build(request)] == ["success"]
    for pid in pids:
        assert_ended(pid)


def test_a_worker_has_the_environment_and_the_folder_of_its_order(prepared: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    worker = DbtWorker.start(prepared)
    worker.wait_until_ready()
    environ = Path(f"/proc/{worker.pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    assert dict(line.split("=", 1) for line in environ) == environment
    assert environment["TMPDIR"] == str(tmp_path)
    assert Path(f"/proc/{worker.pid}/cwd").resolve() == Path.cwd()
    worker.close()
    assert_ended(worker.pid)


@pytest.mark.usefixtures("environment")
def test_where_the_server_is_killed_before_it_forks_the_build_starts_a_process_of_its_own(prepared: Settings, caplog: pytest.LogCaptureFixture) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    worker = DbtWorker.start(prepared)
    os.kill(fork_server.get_server(build_environment()).pid, signal.SIGKILL)
    request = BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.stg_customers",), tests=(), settings=prepared, timeout_seconds=120)
    assert [result.status for result in worker.build(request)] == ["success"]
    assert "dbt's fork server has ended or does not answer: a worker starts without it" in caplog.text
    # And the next one has a server again.
    next_worker = DbtWorker.start(prepared)
    assert get_parent(get_parent(next_worker.pid)) == os.getpid()
    next_worker.close()


@pytest.mark.usefixtures("environment")
def test_where_the_server_is_killed_its_workers_end_and_the_build_says_so(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    worker = DbtWorker.start(prepared)
    worker.wait_until_ready()
    os.kill(get_parent(worker.pid), signal.SIGKILL)
    request = BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.endless",), tests=(), settings=prepared, timeout_seconds=60)
    with pytest.raises(TransformError, match="the dbt process ended early, by signal SIGKILL"):
        list(worker.build(request))
    assert_ended(worker.pid)


def test_the_server_and_its_workers_end_with_their_owner(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    build_tenant(prepared, make_tenant("acme", select=["stg_customers"], exclude=["tenants"]))
    script = f"""
import os, sys, time
from pathlib import Path
from fabric_assets.settings import Settings
from fabric_assets.transform.build import DbtWorker
settings = Settings(tenants_dir=Path("x"), dbt_project_dir=Path({str(prepared.dbt_project_dir)!r}), data_dir=Path({str(prepared.data_dir)!r}))
workers = [DbtWorker.start(settings) for _ in range(2)]
print(*(worker.pid for worker in workers), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        server = get_parent(pids[0])
        owner.kill()
    for pid in (server, *pids):
        assert_ended(pid)


@pytest.mark.usefixtures("environment")
def test_a_worker_that_is_not_needed_any_more_is_not_waited_for(prepared: Settings) -> None:
    server = fork_server.get_server(build_environment())
    begun = time.monotonic()
    worker = DbtWorker.start(prepared)
    worker.close()
    assert time.monotonic() - begun < 1  # dbt's imports take longer
    needed = DbtWorker.start(prepared)
    needed.wait_until_ready()
    wait_for(lambda: get_children(server.pid) == [needed.pid])
    needed.close()


def get_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_server_without_orders_ends_and_one_with_a_worker_does_not(environment: dict[str, str]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = "from fabric_assets.transform.worker import server; server.IDLE_SECONDS = 1; server.main()"
    with theirs:
        process = subprocess.Popen([sys.executable, "-P", "-c", script], env=environment | {"PYTHONPATH": str(ROOT)}, stdin=theirs.fileno())
    pipes: list[Any] = [os.pipe() for _ in range(4)]
    (stdin, to_stdin), *out = pipes
    order = json.dumps({"arguments": ["duckdb"], "folder": "/"}).encode()
    socket.send_fds(ours, [order], [stdin, *(write for _, write in out)])
    for handle in (stdin, *(write for _, write in out)):
        os.close(handle)
    reports = out[2][0]
    pid = fork_server.NUMBER.unpack(os.read(reports, 4))[0]
    time.sleep(4)
    assert process.poll() is None
    os.close(to_stdin)
    assert fork_server.NUMBER.unpack(os.read(reports, 4))[0] == 0
    assert process.wait(60) == 0
    assert_ended(pid)
    ours.close()
    for read, _ in out:
        os.close(read)


def test_the_schemas_made_ahead_are_all_that_a_parse_makes(prepared: Settings, tmp_path: Path) -> None:
    """Those that are missing would be made by each worker again."""
    script = f"""
import json, sys
from pathlib import Path
from fabric_assets.settings import Settings
from fabric_assets.transform import project
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.worker import warming
from fabric_assets.transform.worker.parse import parsing, preparing
import dbt_common.dataclass_schema as schemas

class Kept:
    def __init__(self, arguments): pass
    def close(self): pass
    def request(self, request, **_):
        warming.import_dbt("duckdb")
        warming.make_setting_schemas("duckdb")
        warming.make_file_schemas()
        made, build = [], schemas.build_json_schema
        schemas.build_json_schema = lambda kind: made.append(kind.__qualname__) or build(kind)
        parsing.run_limited = lambda work, limits, folder: work(FreeMeter())
        preparing.prepare(request, RunFolder(Path(request["folder"]), "x"))
        print(json.dumps(made))
        return iter(())

class FreeMeter:
    def measure(self, file):
        import contextlib
        return contextlib.nullcontext()

project.WorkerProcess = Kept
settings = Settings(tenants_dir=Path("x"), dbt_project_dir=Path({str(prepared.dbt_project_dir)!r}), data_dir=Path({str(tmp_path / "other")!r}))
project.prepare_project(settings)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.usefixtures("environment")
def test_a_process_with_more_than_a_thousand_open_files_gets_its_worker(prepared: Settings) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(1_100):
            opened.enter_context(Path(os.devnull).open())
        worker = DbtWorker.start(prepared)
        worker.wait_until_ready()
        worker.close()
    assert_ended(worker.pid)


# --- what a server suffers costs no build, and no worker outlives it


def build_one(settings: Settings, worker: DbtWorker, model: str = "stg_customers", *, seconds: float = 120) -> list[str]:
    request = BuildRequest(tenant=make_tenant("acme"), models=(f"model.fabric.{model}",), tests=(), settings=settings, timeout_seconds=seconds)
    return [result.status for result in worker.build(request)]


@AT_FULL_LENGTH
@pytest.mark.usefixtures("environment")
def test_workers_build_the_project_as_it_is_though_their_server_began_before_it_changed(own_project: Settings) -> None:
    run_duckdb(own_project, "acme", *get_raw_statements("acme", amounts=[60]))
    prepare_project(own_project)
    first, waiting = DbtWorker.start(own_project), DbtWorker.start(own_project)
    waiting.wait_until_ready()
    assert build_one(own_project, first) == ["success"]
    (model,) = own_project.dbt_project_dir.rglob("stg_customers.sql")
    model.write_text(model.read_text().rstrip() + "\nwhere false\n")
    prepare_project(own_project)
    later = DbtWorker.start(own_project)
    assert get_parent(later.pid) == get_parent(waiting.pid)
    for worker in (waiting, later):
        run_duckdb(own_project, "acme", "drop view if exists acme_staging.stg_customers")
        assert build_one(own_project, worker) == ["success"]
        assert run_duckdb(own_project, "acme", "select count(*) from acme_staging.stg_customers") == [(0,)]


@AT_FULL_LENGTH
@pytest.mark.usefixtures("environment")
@pytest.mark.timeout(300)
def test_a_server_that_is_stopped_costs_no_build_and_no_time_limit(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    forked, endless = DbtWorker.start(prepared), DbtWorker.start(prepared)
    server = get_parent(forked.pid)
    endless.wait_until_ready()
    ordered = DbtWorker.start(prepared)
    ordered.wait_until_ready()
    os.kill(server, signal.SIGSTOP)
    try:
        # The server does not report these ends.
        assert build_one(prepared, forked) == ["success"]
        with pytest.raises(TransformError, match="it took longer than 5 seconds"):
            build_one(prepared, endless, "endless", seconds=5)
        # Nor does it fork.
        monkeypatch.setattr(fork_server, "_START_SECONDS", 2)
        assert build_one(prepared, DbtWorker.start(prepared)) == ["success"]
        monkeypatch.undo()
        assert fork_server.get_server(build_environment()).pid != server
        assert build_one(prepared, ordered) == ["success"]
    finally:
        os.kill(server, signal.SIGCONT)


@pytest.mark.usefixtures("environment")
def test_a_worker_whose_server_is_killed_has_ended_before_its_build_is_given_up(prepared: Settings) -> None:
    """Otherwise the next try meets it in the warehouse."""
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    worker = DbtWorker.start(prepared)
    worker.wait_until_ready()
    pid = worker.pid
    # A worker that is stopped does not see that its server is gone.
    os.kill(pid, signal.SIGSTOP)
    os.kill(get_parent(pid), signal.SIGKILL)
    worker.close()
    assert not is_running(pid)


@pytest.mark.usefixtures("environment")
def test_a_worker_that_cannot_import_its_adapter_says_so_and_the_others_go_on(prepared: Settings, caplog: pytest.LogCaptureFixture) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    sound, other = DbtWorker.start(prepared), WorkerProcess(["missing"])
    with pytest.raises(TransformError, match="No module named 'dbt.adapters.missing'"):
        other.wait_until_ready()
        list(other.request({}))
    other.close()
    assert "a worker starts without it" not in caplog.text
    assert build_one(prepared, sound) == ["success"]


@AT_FULL_LENGTH
@pytest.mark.usefixtures("environment")
def test_a_server_that_may_open_no_more_files_drops_the_order_and_keeps_its_workers(prepared: Settings, caplog: pytest.LogCaptureFixture) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    first = DbtWorker.start(prepared)
    server = get_parent(first.pid)
    opened = len(list(Path(f"/proc/{server}/fd").iterdir()))
    resource.prlimit(server, resource.RLIMIT_NOFILE, (opened + 2, opened + 2))
    second = DbtWorker.start(prepared)
    assert get_parent(second.pid) == os.getpid()
    assert "a worker starts without it" in caplog.text
    assert build_one(prepared, second) == ["success"]
    assert build_one(prepared, first) == ["success"]


def test_a_server_that_cannot_fork_drops_the_order_and_takes_the_next(environment: dict[str, str]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = """
import os
from fabric_assets.transform.worker import server
fork, calls = os.fork, []

def fail_once():
    calls.append(1)
    if len(calls) == 1:
        raise BlockingIOError
    return fork()

os.fork = fail_once
server.main()
"""
    with theirs:
        process = subprocess.Popen([sys.executable, "-P", "-c", script], env=environment | {"PYTHONPATH": str(ROOT)}, stdin=theirs.fileno())
    reports = []
    for _ in range(2):
        stdin, to_stdin = os.pipe()
        os.close(to_stdin)  # it ends as it begins
        read, write = os.pipe()
        socket.send_fds(ours, [json.dumps({"arguments": ["duckdb"], "folder": "/"}).encode()], [stdin, 2, 2, write])
        os.close(stdin)
        os.close(write)
        reports.append(os.read(read, 4))
        os.close(read)
    assert reports[0] == b""
    assert fork_server.NUMBER.unpack(reports[1])[0] > 0
    ours.close()
    assert process.wait(60) == 0


def test_where_no_process_can_be_started_the_error_says_what_to_allow(prepared: Settings, environment: dict[str, str]) -> None:
    script = f"""
import resource
from pathlib import Path
from fabric_assets.settings import Settings
from fabric_assets.transform.build import DbtWorker
settings = Settings(tenants_dir=Path("x"), dbt_project_dir=Path({str(prepared.dbt_project_dir)!r}), data_dir=Path({str(prepared.data_dir)!r}))
opened = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 3, opened + 3))
try:
    DbtWorker.start(settings)
finally:
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1 == opened
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TransformError: no process can be started for dbt: Too many open files\n  remedy: let this user have more processes" in done.stderr
