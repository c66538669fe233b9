"""A mistake of our own code -> a message that names a private file with its masked traceback. A problem with the file never hides the message."""

import json
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fabric_assets import masking
from fabric_assets.errors import DataError, FabricError, InternalError, RetriableError, SourceError, SourceUnavailable
from fabric_assets.loading.failures import build_error
from fabric_assets.own_faults import KEPT_FILES, find_own_fault, keep_traceback, prune_tracebacks, report_own_fault
from fabric_assets.rows.column_names import compose
from fabric_assets.settings import Settings
from tests.support.shop import Tenant
from tests.support.tracebacks import read_traceback

CANARY = "c4n4ry-c4n4ry"


def catch(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    raise AssertionError("nothing was raised")


def fail() -> None:
    compose(5)  # type: ignore[arg-type] - our own line fails at it


def get_files(data_dir: Path, tenant: str = "*") -> list[Path]:
    return sorted((data_dir / "errors").glob(f"{tenant}/*"))


def test_a_fault_has_a_private_file_that_its_message_names(tmp_path: Path) -> None:
    masking.remember(CANARY)
    local = f"local-{CANARY}"
    error = catch(lambda: [fail(), local])
    error.add_note(f"a note with {CANARY}")
    fault = report_own_fault(error, f"tenant acme {CANARY}", data_dir=tmp_path, tenant="acme")
    assert fault is not None
    assert fault.message.startswith("tenant acme ***: a fault of ETL Fabric (AttributeError at fabric_assets/rows/column_names.py:")
    (file,) = get_files(tmp_path)
    assert f"(traceback: FABRIC_DATA_DIR/errors/acme/{file.name})" in fault.message
    assert str(fault) == f"{fault.message}\n  remedy: report it with this message and its traceback"
    assert fault.args == (fault.message,)
    text = file.read_text()
    assert "tenant: acme\n" in text and "a note with ***\n" in text and "name.isascii()" in text
    assert "c4n4ry" not in text + file.name
    assert "local-" not in text  # no values of variables
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_file_below_the_current_folder_is_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fault = report_own_fault(catch(fail), "x", data_dir=tmp_path / ".fabric")
    assert fault is not None
    assert Path(re.findall(r"\(traceback: (\S+)\)", fault.message)[0]).read_text().startswith("time: ")
    assert fault.traceback_file.startswith(".fabric/errors/_platform/")


def test_a_fault_is_kept_once(tmp_path: Path) -> None:
    fault = report_own_fault(catch(fail), "x", data_dir=tmp_path)
    assert fault is not None
    message = fault.message
    keep_traceback(fault, data_dir=tmp_path)
    assert (fault.message, len(get_files(tmp_path))) == (message, 1)


def test_an_internal_error_that_was_raised_as_one_has_its_traceback_kept(tmp_path: Path) -> None:
    def refuse() -> None:
        raise InternalError("counts differ")

    error = catch(refuse)
    assert isinstance(error, FabricError)
    keep_traceback(error, data_dir=tmp_path)
    assert 'raise InternalError("counts differ")' in get_files(tmp_path)[0].read_text()
    refusal = SourceError("no such table")
    keep_traceback(refusal, data_dir=tmp_path)
    assert len(get_files(tmp_path)) == 1


def rollback_after_it() -> None:
    try:
        fail()
    finally:
        raise ConnectionError("the server has gone")


def wrap() -> None:
    try:
        fail()
    except AttributeError as error:
        raise ValueError("wrapped by a library") from error


@pytest.mark.parametrize("work", [rollback_after_it, wrap])
def test_a_mistake_of_ours_is_found_behind_a_drivers_error(work: Callable[[], None]) -> None:
    fault = find_own_fault(catch(work), "x")
    assert fault is not None
    assert "(AttributeError at fabric_assets/rows/column_names.py:" in fault.message


def test_a_drivers_mistake_is_not_ours(tmp_path: Path) -> None:
    assert report_own_fault(catch(lambda: {}["packet"]), "x", data_dir=tmp_path) is None
    assert report_own_fault(ValueError("bad date"), "x", data_dir=tmp_path) is None
    assert get_files(tmp_path) == []


def deal_with(known: FabricError) -> Callable[[], None]:
    def work() -> None:
        try:
            raise known
        except FabricError:
            fail()

    return work


def test_a_mistake_while_handling_a_refusal_is_ours_but_after_an_outage_the_outage_is_reported(settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    after_refusal = build_error(catch(deal_with(DataError("bad rows"))), tenant=tenant, settings=settings, where="acme")
    assert isinstance(after_refusal, InternalError)
    assert "DataError: bad rows" in read_traceback(settings, "acme", after_refusal.message)
    after_outage = build_error(catch(deal_with(SourceUnavailable("no connection"))), tenant=tenant, settings=settings, where="acme")
    assert isinstance(after_outage, RetriableError)


# --- what goes wrong with the file


def test_a_folder_that_cannot_be_written_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "errors").write_text("a file where the folder belongs")
    fault = report_own_fault(catch(fail), "x", data_dir=tmp_path, tenant="acme")
    assert fault is not None
    assert "x: a fault of ETL Fabric (AttributeError at" in fault.message
    assert "(its traceback is in the log: FABRIC_DATA_DIR/errors cannot be written: " in fault.message
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "name.isascii()" in record.getMessage()


def test_a_full_disk_hides_nothing_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from fabric_assets.own_faults import report_own_fault
from fabric_assets.rows.column_names import compose
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # each write fails, as on a full disk
try:
    compose(5)
except AttributeError as error:
    print(report_own_fault(error, "x", data_dir=Path(sys.argv[1]), tenant="acme"))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "FABRIC_DATA_DIR/errors cannot be written: File too large" in done.stdout
    assert "name.isascii()" in done.stderr
    assert get_files(tmp_path) == []


def test_without_a_data_folder_the_log_has_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    fault = report_own_fault(catch(fail), "x", data_dir=None)
    assert fault is not None and "(traceback:" not in fault.message
    assert "name.isascii()" in caplog.text


def test_the_debug_log_has_the_masked_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    masking.remember(CANARY)
    error = catch(fail)
    error.add_note(CANARY)
    with caplog.at_level(logging.DEBUG, logger="fabric_assets.own_faults"):
        report_own_fault(error, "x", data_dir=tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "name.isascii()" in record.getMessage() and "c4n4ry" not in record.getMessage()


# --- how long


def make_files(data_dir: Path, tenant: str, number: int, *, age: float) -> None:
    folder = data_dir / "errors" / tenant
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for index in range(number):
        file = folder / f"{index:04}.txt"
        file.touch()
        moment = time.time() - age + index
        os.utime(file, (moment, moment))


def test_files_older_than_thirty_days_are_deleted(tmp_path: Path) -> None:
    make_files(tmp_path, "acme", 1, age=30 * 86_400 + 60)
    make_files(tmp_path, "globex", 1, age=30 * 86_400 - 60)
    prune_tracebacks(tmp_path)
    assert [file.parent.name for file in get_files(tmp_path)] == ["globex"]


def test_two_hundred_files_are_kept_and_one_tenants_many_push_out_no_others(tmp_path: Path) -> None:
    make_files(tmp_path, "quiet", 2, age=10_000)
    make_files(tmp_path, "loud", KEPT_FILES, age=5_000)
    fault = report_own_fault(catch(fail), "x", data_dir=tmp_path, tenant="loud")
    assert fault is not None
    assert KEPT_FILES == 200
    assert len(get_files(tmp_path)) == KEPT_FILES
    assert [file.name for file in get_files(tmp_path, "quiet")] == ["0000.txt", "0001.txt"]
    left = [file.name for file in get_files(tmp_path, "loud")]
    assert "0002.txt" not in left and "0003.txt" in left
    assert read_traceback(Settings(tmp_path, tmp_path, tmp_path), "loud", fault.message)


def test_two_processes_at_once_keep_each_its_own_and_two_hundred_in_all(tmp_path: Path) -> None:
    make_files(tmp_path, "acme", KEPT_FILES, age=5_000)
    program = """
import sys
from pathlib import Path
from fabric_assets.own_faults import report_own_fault
from fabric_assets.rows.column_names import compose
sys.stdin.readline()
for _ in range(20):
    try:
        compose(5)
    except AttributeError as error:
        print(report_own_fault(error, "x", data_dir=Path(sys.argv[1]), tenant="acme").message)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        results = [future.result() for future in [pool.submit(process.communicate, "go\n") for process in processes]]
    named = {name for out, _ in results for name in re.findall(r"errors/acme/(\S+\.txt)\)", out)}
    assert [err for _, err in results] == ["", ""]
    assert len(named) == 40
    assert named <= {file.name for file in get_files(tmp_path)}
    assert len(get_files(tmp_path)) == KEPT_FILES


def test_threads_at_once_keep_each_its_own(tmp_path: Path) -> None:
    threads = [threading.Thread(target=lambda: report_own_fault(catch(fail), "x", data_dir=tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(get_files(tmp_path)) == 8


# --- the command line


def test_a_fault_in_a_command_is_an_error_with_a_file_and_no_traceback_on_the_terminal(settings: Settings, settings_environ: dict[str, str]) -> None:
    program = f"""
import sys
from fabric_assets.cli import config_commands
from fabric_assets.masking import remember
remember({CANARY!r})
config_commands.load_fleet = None  # so that our own line fails
sys.argv = ["fabric", "validate", "--json"]
from fabric_assets.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: this command: a fault of ETL Fabric (TypeError at fabric_assets/cli/config_commands.py:")
    assert "Traceback" not in done.stderr
    assert "load_fleet(" in read_traceback(settings, "", done.stderr)


def test_a_fault_in_a_command_for_each_tenant_has_a_file_of_the_tenant_and_stops_no_other(settings: Settings, settings_environ: dict[str, str]) -> None:
    for name in ("acme", "globex"):
        text = {"version": 1, "tenant": name, "sources": {"shop": {"type": "sql_database", "url": {"env": "X"}, "streams": {"orders": {}}}}}
        (settings.tenants_dir / f"{name}.yaml").write_text(json.dumps(text))
    program = """
import sys
from fabric_assets.loading.rejects import reader
from fabric_assets.rows.column_names import compose
reader.open_rejects = lambda *_, **__: compose(5)
sys.argv = ["fabric", "rejects", "list", "acme", "globex"]
from fabric_assets.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    first, second = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "error: tenant acme: a fault of ETL Fabric (AttributeError at" in first and read_traceback(settings, "acme", first)
    assert "error: tenant globex: a fault of ETL Fabric (AttributeError at" in second and read_traceback(settings, "globex", second)
