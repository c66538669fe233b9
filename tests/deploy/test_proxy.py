"""deploy/nginx in a real nginx before a real webserver of Dagster's: what comes through, and what does not.

The commands of docs/production.md put it in place. Names, ports and folders are the test's own; every rule is the file's.
"""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.certificates import Authority
from tests.support.services import get_free_port, report_missing

OPERATORS, VIEWERS = "fabric.door.example", "view.fabric.door.example"
# Changes the instance, and nothing that a test would miss.
MUTATION = "mutation { setNuxSeen }"

pytestmark = pytest.mark.xdist_group("deploy_proxy")


@dataclass(frozen=True)
class Proxy:
    """nginx before a webserver.

    Args:
        port: the port of nginx.
        behind: the port of the webserver.
    """

    port: int
    behind: int
    trust: ssl.SSLContext

    def ask(self, method: str, path: str, body: str | None = None, *, host: str = OPERATORS, login: str = "ann:right", **headers: str) -> tuple[int, str]:
        """Send a request, and return the status and the body of the answer.

        Args:
            headers: their names with _ for -.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Host": host}
        if login:
            named["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection = HTTPSConnection("127.0.0.1", self.port, context=self.trust, timeout=20)
        connection.sock = self.trust.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 20), server_hostname=host)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def mutate(self, **options: str) -> tuple[int, str]:
        return self.ask("POST", "/graphql", json.dumps({"query": MUTATION}), **{"Content_Type": "application/json", **options})

    def open_socket(self, **options: str) -> int:
        """Open a WebSocket, return the status of its handshake, and close it."""
        handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
        host, login = options.pop("host", OPERATORS), options.pop("login", "ann:right")
        lines = [f"GET /graphql HTTP/1.1\r\nHost: {host}\r\nSec-WebSocket-Protocol: graphql-ws\r\n"]
        lines += [f"Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"]
        lines += [f"{name.replace('_', '-')}: {value}\r\n" for name, value in {**handshake, **options}.items()]
        with self.trust.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 20), server_hostname=host) as connection:
            connection.sendall(("".join(lines) + "\r\n").encode())
            return int(connection.recv(4096).split()[1])


def install(folder: Path, chain: Path, key: Path) -> None:
    """Run the commands of docs/production.md below a folder that stands for /, with the password `right` for everyone."""
    section = (ROOT / "docs" / "production.md").read_text().partition("\n## Reverse proxy and login\n")[2].partition("\n## ")[0]
    *commands, last = [line.removeprefix("# ") for line in section.splitlines() if line.startswith("# ")]
    assert last == "nginx -t && systemctl reload nginx"
    ours = {"/etc/": f"{folder}/etc/", "-g www-data": f"-g {os.getgid()}", "openssl passwd -6": "openssl passwd -6 right"}
    for path in ("etc/nginx/conf.d", "etc/etl-fabric"):
        (folder / path).mkdir(parents=True)
    environ = {**os.environ, "NAME": OPERATORS, "CHAIN": str(chain), "KEY": str(key)}
    subprocess.run(["sh", "-eu", "-c", substitute("\n".join(commands), ours)], cwd=ROOT, env=environ, check=True, capture_output=True, text=True)


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None or shutil.which("openssl") is None:
        report_missing("nginx", "neither it nor openssl's passwd is a must on a developer's machine")
    folder = tmp_path_factory.mktemp("nginx")
    port, plain, behind = get_free_port(), get_free_port(), get_free_port()
    authority = Authority(folder / "tls")
    certificate, key = authority.issue("server", OPERATORS, VIEWERS)
    install(folder, certificate, key)
    replacements = {
        "/etc/": f"{folder}/etc/",
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "127.0.0.1:3000": f"127.0.0.1:{behind}",
        "127.0.0.1:3001": f"127.0.0.1:{behind}",
    }
    for file in (folder / "etc" / "nginx").rglob("*.conf"):
        file.write_text(substitute(file.read_text(), replacements))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/etc/nginx/conf.d/*.conf; }}\n"
    )
    (home := folder / "home").mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "--host", "127.0.0.1", "--port", str(behind), "--empty-workspace"]
    log = (folder / "log").open("wb")
    options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
    webserver = subprocess.Popen(command, cwd=home, env={**os.environ, "DAGSTER_HOME": str(home)}, **options)
    checked = subprocess.run([nginx, "-t", "-c", str(folder / "nginx.conf")], capture_output=True, text=True, check=False)
    server = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")], **options)
    try:
        assert checked.returncode == 0, checked.stderr
        found = Proxy(port, behind, ssl.create_default_context(cafile=str(authority.certificate)))
        deadline = time.monotonic() + 60
        while not is_up(found):
            assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield found
    finally:
        for process in (server, webserver):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
        log.close()


def is_up(proxy: Proxy) -> bool:
    try:
        return proxy.ask("GET", "/server_info")[0] == 200
    except OSError:
        return False


def test_without_the_proxy_dagster_takes_a_mutation_by_get_and_from_any_site(proxy: Proxy) -> None:
    """The reason for the proxy: the webserver itself accepts these requests."""
    url = f"http://127.0.0.1:{proxy.behind}/graphql?query=" + urllib.request.quote(MUTATION)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Origin": "https://evil.example"}), timeout=20) as answer:
        assert json.load(answer) == {"data": {"setNuxSeen": True}}


@pytest.mark.parametrize("origin", [{}, {"Origin": f"https://{OPERATORS}", "Sec_Fetch_Site": "same-origin"}])
def test_an_operator_may_run_a_mutation_from_the_pages_own_site(proxy: Proxy, origin: dict[str, str]) -> None:
    status, body = proxy.mutate(**origin)
    assert (status, json.loads(body)) == (200, {"data": {"setNuxSeen": True}})


def test_the_pages_and_a_link_to_them_from_elsewhere_open(proxy: Proxy) -> None:
    for path in ("/", "/runs", "/server_info"):
        assert proxy.ask("GET", path, Sec_Fetch_Site="cross-site")[0] == 200


@pytest.mark.parametrize("login", ["", "ann:wrong", "vic:right"])
def test_requests_without_the_servers_own_login_are_refused(proxy: Proxy, login: str) -> None:
    assert proxy.ask("GET", "/", login=login)[0] == 401
    assert proxy.mutate(login=login)[0] == 401


@pytest.mark.parametrize("path", [f"/graphql?query={urllib.request.quote(MUTATION)}", "/graphql", "/%67raphql?query=x"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_graphql_takes_no_verb_but_post(proxy: Proxy, method: str, path: str) -> None:
    assert proxy.ask(method, path)[0] == 405


def test_a_query_in_the_address_is_refused(proxy: Proxy) -> None:
    path = f"/graphql?query={urllib.request.quote(MUTATION)}"
    assert proxy.ask("POST", path, "{}", Content_Type="application/json")[0] == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/graphql", ""])
def test_a_body_that_a_form_can_send_is_refused(proxy: Proxy, kind: str) -> None:
    assert proxy.mutate(Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{OPERATORS}"},
        {"Origin": f"https://{OPERATORS}.evil.example"},
        {"Origin": f"https://{VIEWERS}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_site_may_not_act_for_the_operator(proxy: Proxy, headers: dict[str, str]) -> None:
    assert proxy.mutate(**headers)[0] == 403
    assert proxy.open_socket(**headers) == 403
    assert proxy.ask("POST", "/report_asset_materialization/acme", "{}", Content_Type="application/json", **headers)[0] == 403


def test_a_websocket_of_the_page_itself_opens(proxy: Proxy) -> None:
    assert proxy.open_socket(Origin=f"https://{OPERATORS}") == 101
    assert proxy.open_socket(Origin=f"https://{VIEWERS}", host=VIEWERS, login="vic:right") == 101


@pytest.mark.parametrize("path", ["/report_asset_materialization/acme", "/report_asset_check/acme", "/report_asset_observation/acme"])
def test_a_viewer_reports_nothing_and_an_operator_only_as_json(proxy: Proxy, path: str) -> None:
    assert proxy.ask("POST", path, "{}", host=VIEWERS, login="vic:right", Content_Type="application/json")[0] == 403
    assert proxy.ask("POST", path, "{}", Content_Type="text/plain")[0] == 415
    assert proxy.ask("GET", path)[0] == 403


@pytest.mark.parametrize(
    "path", ["/download_debug/x", "//download_debug/x", "/%64ownload_debug/x", "/x/../download_debug/x", "/notebook?path=x", "/dagit/notebook"]
)
def test_a_viewer_downloads_no_debug_files_and_no_notebooks(proxy: Proxy, path: str) -> None:
    assert proxy.ask("GET", path, host=VIEWERS, login="vic:right")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_no_other_page_accepts_a_request_that_changes_something(proxy: Proxy, method: str) -> None:
    assert proxy.ask(method, "/", "{}", Content_Type="application/json")[0] == 403


def test_a_name_that_is_not_ours_gets_no_answer(proxy: Proxy) -> None:
    with pytest.raises(OSError, match="(?i)unrecognized|alert|reset"):
        proxy.ask("GET", "/", host="127.0.0.1")
