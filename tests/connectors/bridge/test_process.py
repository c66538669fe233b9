"""A connector's process: what it may read and reach, what it may use, and that nothing of it is left."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from fabric_assets.connectors.bridge.process.confinement import find_gap
from fabric_assets.connectors.bridge.process.connector import Command, Connector, Limits
from fabric_assets.errors import FabricError, SourceError, SourceUnavailable
from fabric_assets.masking import remember
from tests.conftest import ROOT
from tests.faults.processes import wait_until

PYTHON = (Path(sys.prefix), Path(sys.base_prefix))
confined = pytest.mark.skipif(find_gap() is not None, reason="this kernel has no Landlock that covers the network")


TRIED = """
import os, resource, socket, subprocess, urllib.request
try:
    print("value", {code})
except BaseException as error:
    print(type(error).__name__)
"""


def build(code: str, *arguments: str | bytes, limits: Limits | None = None, readable: tuple[Path, ...] = (), **options: bool) -> Command:
    return Command(sys.executable, ("-I", "-c", code, *arguments), readable=(*PYTHON, *readable), limits=limits or Limits(), **options)


def run(command: Command, folder: Path) -> list[str]:
    """Run a connector to its end; return its output."""
    folder.mkdir(exist_ok=True)
    with Connector(command, name="own", where="tenant acme, source shop", folder=folder) as connector:
        lines = [line for block in connector.read_lines() for line in block]
        rest = connector.finish()
    return [line.decode() for line in (*lines, rest) if line]


def try_out(code: str, folder: Path, **options: object) -> str:
    """Run one statement in a connector; return its value or its error."""
    (line,) = run(build(TRIED.format(code=code), **options), Path(tempfile.mkdtemp(dir=folder)))  # type: ignore[arg-type]
    return line


# --- what it is told


def test_a_connector_gets_its_own_environment_and_a_file_that_lies_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_SECRET_KEYS", "hush-hush")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    code = "import os, sys; [print(open(sys.argv[1]).read()) for _ in range(2)]; print(*os.environ); print(os.environ['HOME'], os.getcwd(), os.environ['TZ'])"
    first, second, names, places = run(build(code, b'{"token": "abc"}'), tmp_path / "home")
    assert first == second == '{"token": "abc"}'
    assert set(names.split()) <= {
        *("PATH", "HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
    }
    assert places == f"{tmp_path / 'home'} {tmp_path / 'home'} Europe/Berlin"
    assert [file for file in (tmp_path / "home").rglob("*") if file.is_file()] == []


def test_its_last_words_are_in_the_error_and_its_secrets_are_not(tmp_path: Path) -> None:
    remember("c4n4ry-token")
    code = "import sys; [print('line', n, file=sys.stderr) for n in range(20)]; sys.exit('refused: c4n4ry-token, password=hunter2')"
    with pytest.raises(SourceUnavailable) as caught:
        run(build(code), tmp_path / "home")
    assert "tenant acme, source shop: the connector own ended with exit code 1" in caught.value.message
    assert "line 19" in caught.value.message
    assert "line 5\n" not in caught.value.message
    assert not any(secret in str(caught.value) for secret in ("c4n4ry", "hunter2"))


# --- what it may use

LIMITS = {
    "memory": ("x = b'a' * 400_000_000; import time; time.sleep(60)", Limits(memory=150_000_000), "of memory, more than it may"),
    "cpu": ("while True: pass", Limits(cpu=1), "of processor time, more than it may"),
    "seconds": ("import time; time.sleep(60)", Limits(seconds=1), "more time than it may"),
    "line": ("print('a' * 5_000_000)", Limits(line=1_000_000), "wrote a line of over"),
    "processes": (
        "import os, time\nfor _ in range(9):\n    if not os.fork(): time.sleep(60)\ntime.sleep(60)",
        Limits(processes=4),
        "more processes than it may",
    ),
}


@pytest.mark.parametrize(("code", "limits", "said"), LIMITS.values(), ids=LIMITS)
def test_a_connector_that_uses_more_than_it_may_is_ended_and_told_so(code: str, limits: Limits, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        run(build(code, limits=limits), tmp_path / "home")
    assert caught.value.remedy


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="could not be started: FileNotFoundError"):
        run(Command("/nowhere/tap"), tmp_path)


# --- what is left of it

# A process that has left its session and its parent.
SURVIVOR = """
import os, sys, time
if not os.fork():
    os.setsid()
    if not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
{then}
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("then", ["time.sleep(0.3)", "time.sleep(0.3); os.kill(os.getpid(), 9)"], ids=["ended", "died"])
def test_a_descendant_that_has_left_its_session_ends_with_the_connector(then: str, tmp_path: Path) -> None:
    with Connector(build(SURVIVOR.format(then=then)), name="own", where="x", folder=tmp_path) as connector:
        pid = int(next(connector.read_lines())[0])
        assert is_alive(pid)
        for _ in connector.read_lines():
            pass
        if "kill" in then:
            with pytest.raises(SourceUnavailable, match="was ended by signal 9"):
                connector.finish()
        else:
            connector.finish()
    assert not is_alive(pid)


def test_a_load_that_stops_reading_ends_its_connector(tmp_path: Path) -> None:
    with Connector(build(SURVIVOR.format(then="time.sleep(600)")), name="own", where="x", folder=tmp_path) as connector:
        pid = int(next(connector.read_lines())[0])
    assert not is_alive(pid)


def list_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


LOAD = """
import sys
from pathlib import Path
from fabric_assets.connectors.bridge.process.connector import Command, Connector
command = Command(sys.executable, ("-I", "-c", sys.argv[1]), readable=(Path(sys.prefix), Path(sys.base_prefix)))
with Connector(command, name="own", where="x", folder=Path(sys.argv[2])) as connector:
    for lines in connector.read_lines():
        print(*(line.decode() for line in lines), flush=True)
"""


@pytest.mark.parametrize("victim", ["load", "guard", "supervisor"])
def test_a_killed_load_or_supervisor_leaves_no_connector(victim: str, tmp_path: Path) -> None:
    code = SURVIVOR.format(then="time.sleep(600)")
    load = subprocess.Popen([sys.executable, "-c", LOAD, code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    assert load.stdout
    with load, load.stdout:
        pid = int(load.stdout.readline())
        (guard,) = list_children(load.pid)
        (supervisor,) = list_children(guard)
        os.kill({"load": load.pid, "guard": guard, "supervisor": supervisor}[victim], signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), 10)
        load.kill()


# --- what it may reach


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file of another tenant."""
    file = tmp_path / "globex.duckdb"
    file.write_text("rows of globex")
    return file


REFUSED = {
    "a file of another tenant": "open({other!r}).read()",
    "a list of its folder": "os.listdir({folder!r})",
    "the environment of the load": "open('/proc/{load}/environ').read()",
    "a signal to the load": "os.kill({load}, 0)",
    "a limit of the load": "resource.prlimit({load}, resource.RLIMIT_CPU)",
    "a server of this machine": "socket.create_connection(('127.0.0.1', {port}))",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "datagrams": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a local datagram socket": "socket.socketpair(type=socket.SOCK_DGRAM)",
    "multipath TCP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
    "TCP Fast Open": "socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', {port}))",
    "a server of its own": "socket.create_server(('127.0.0.1', 0))",
    "the platform's code": "open({root!r}).read()",
    "a link out of its folder": "[os.symlink({other!r}, 'link'), open('link').read()]",
    "the shared memory of others": "os.listdir('/dev/shm')",
}


@confined
@pytest.mark.parametrize("attack", REFUSED)
def test_a_confined_connector_reaches_nothing_but_its_own(attack: str, other: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = REFUSED[attack].format(other=str(other), folder=str(tmp_path), load=os.getpid(), port=server.getsockname()[1], root=str(ROOT / "Makefile"))
        assert try_out(code, tmp_path) == "PermissionError"


@confined
def test_the_same_attacks_succeed_on_a_trusted_connector(other: Path, tmp_path: Path) -> None:
    assert try_out(f"open({str(other)!r}).read()", tmp_path, is_confined=False) == "value rows of globex"
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]})) and 1"
        assert try_out(code, tmp_path, is_confined=False) == "value 1"


@confined
def test_a_confined_connector_works_in_its_folder_and_with_processes_of_its_own(tmp_path: Path) -> None:
    assert try_out("[open('own', 'w').write('abc'), open(os.environ['HOME'] + '/own').read()]", tmp_path) == "value [3, 'abc']"
    assert try_out("subprocess.run(['ls', '/usr'], capture_output=True).returncode", tmp_path) == "value 0"
    assert try_out("[line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')]", tmp_path) == "value ['0000000000000000']"
    declared = tmp_path / "declared"
    declared.mkdir()
    (declared / "rows").write_text("12")
    assert try_out(f"open({str(declared / 'rows')!r}).read()", tmp_path, readable=(declared,)) == "value 12"
    assert try_out(f"open({str(declared / 'rows')!r}, 'a')", tmp_path, readable=(declared,)) == "PermissionError"


# --- what it may ask for


@pytest.fixture
def api(httpserver: HTTPServer) -> Iterator[str]:
    httpserver.expect_request("/rows", query_string="page=1").respond_with_data("rows")
    yield httpserver.url_for("/rows?page=1")


def test_requests_go_through_the_proxy_to_allowed_addresses_alone(api: str, tmp_path: Path) -> None:
    fetch = f"urllib.request.urlopen({api!r}).read()"
    assert try_out(fetch, tmp_path, allow_private_network=True) == "value b'rows'"
    assert try_out(fetch, tmp_path) == "HTTPError"
    assert try_out("urllib.request.urlopen('http://169.254.169.254/latest/').read()", tmp_path, allow_private_network=True) == "HTTPError"
    code = f"import urllib.request; urllib.request.urlopen({api!r})"
    with pytest.raises(FabricError, match=r"the load did not connect to (127\.0\.0\.1|localhost):\d+ is a loopback address") as caught:
        run(build(code), tmp_path / "home")
    assert "allow_private_network: true" in caught.value.remedy


def test_a_tunnel_carries_bytes_both_ways_and_only_for_who_has_the_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=echo, daemon=True).start()
        code = """
import base64, os, socket, sys
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["HTTPS_PROXY"])
def ask(token):
    client = socket.create_connection((proxy.hostname, proxy.port))
    login = base64.b64encode(f"{proxy.username}:{token}".encode()).decode()
    client.sendall(f"CONNECT 127.0.0.1:%d HTTP/1.1\\r\\nProxy-Authorization: Basic {login}\\r\\n\\r\\n".encode())
    return client, client.recv(4096).split(b"\\r\\n")[0].decode()
print(ask("guessed")[1])
client, answer = ask(proxy.password)
print(answer)
client.sendall(b"x" * 1_000_000)
client.shutdown(socket.SHUT_WR)
found = 0
while block := client.recv(65536):
    found += len(block)
print(found)
"""
        assert run(build(code % port, allow_private_network=True), tmp_path) == ["HTTP/1.1 407 Refused", "HTTP/1.1 200 Connection established", "1000000"]


def test_the_supervisor_imports_the_standard_library_alone() -> None:
    code = "import sys; import fabric_assets.connectors.bridge.process.supervisor; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in found if name not in sys.stdlib_module_names and not name.startswith("_")} == {"fabric_assets"}
