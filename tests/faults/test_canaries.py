"""No secret is found in anything that a failing run leaves behind, shows or starts; and with the mask off, they are."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from cryptography.fernet import Fernet

from fabric_assets import naming
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.faults.canaries import CANARIES, Fleet, ProcessWatch, find, prepare_server, read_tables, search, serve_echo
from tests.faults.processes import wait_until
from tests.faults.webserver import Webserver
from tests.support.lengths import AT_FULL_LENGTH
from tests.support.services import PostgresServer, start_server

# One server and one process for all: these tests are about what is left behind.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("canaries")]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with start_server(asks_for_passwords=True) as server:
        prepare_server(server)
        yield server


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    with serve_echo() as url:
        yield url


def make_fleet(folder: Path, server: PostgresServer, echo: str) -> Fleet:
    for name in ("tenants", "data"):
        (folder / name).mkdir(parents=True)
    settings = Settings(folder / "tenants", folder / "project", folder / "data", secret_keys=(Fernet.generate_key().decode(),))
    return Fleet(folder, settings, server, echo)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer, echo: str) -> Fleet:
    fleet = make_fleet(tmp_path_factory.mktemp("canaries"), server, echo)
    # Definitions need dbt's graph, whichever test comes first. The one tenant that is refused has a secret in its YAML.
    prepared = run_fabric(fleet, "validate")
    assert b"15 of 16 tenants are fine" in prepared.stdout, prepared.stderr
    assert find(prepared.stdout + prepared.stderr) == set()
    return fleet


def run_fabric(fleet: Fleet, *arguments: str, breakage: str = "") -> subprocess.CompletedProcess[bytes]:
    begin = f"from tests.faults.breakages import BREAKAGES; BREAKAGES[{breakage!r}]()\n" if breakage else ""
    program = f"{begin}from fabric_assets.cli.main import main; main()"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "FABRIC"))} | fleet.environ
    return subprocess.run([sys.executable, "-c", program, *arguments], env=environ, cwd=ROOT, capture_output=True, check=False, timeout=300)


def read_rejects(fleet: Fleet) -> list[tuple[str, bool]]:
    with contextlib.closing(duckdb.connect(str(naming.warehouse_file(fleet.settings.data_dir, "rejected_row")), read_only=True)) as connection:
        return connection.execute("select raw, raw_truncated from rejected_row_fabric.rejected_rows").fetchall()


def read_errors(fleet: Fleet, *tenants: str) -> list[str]:
    errors = []
    for tenant in tenants:
        file = naming.warehouse_file(fleet.settings.data_dir, tenant)
        if file.exists():
            with contextlib.closing(duckdb.connect(str(file), read_only=True)) as connection:
                errors += [str(row) for row in connection.execute(f"select * from {tenant}_fabric.loads").fetchall()]
    return errors


@AT_FULL_LENGTH
def test_a_headless_run_in_which_everything_fails_shows_no_secret(fleet: Fleet, server: PostgresServer) -> None:
    data = fleet.settings.data_dir
    with ProcessWatch() as watch:
        run = run_fabric(fleet, "run", "--all", "--json")
    results = {result["tenant"]: result for result in json.loads(run.stdout)["tenants"]}
    # Each failed for the intended reason, and with the message of the server or library that refused it.
    assert sorted(name for name, result in results.items() if result["status"] == "success") == ["rejected_row"]
    reasons = {
        "login_refused": "password authentication failed for user",
        "cannot_connect": "Connection refused",
        "unescaped_at": 'could not translate host name "***@127.0.0.1"',
        "mysql_password": "Can't connect to MySQL server",
        "bearer": 'was answered with 401; it says: {"login": "Bearer ***", "query"',
        "query_key": "query parameters stand in logs: a credential belongs under auth",
        "signed_link": 'was answered with 400; it says: {"login": null, "query": {"access_token": ["***"]}',
        "header": 'was answered with 503, Retry-After: 1; it says: {"login": "***"',
        "client_secret": "client_id=acme&client_secret=***",
        "issued_token": 'was answered with 401; it says: {"login": "Bearer ***", "query"',
        "url_userinfo": "is not an http:// or https:// address without a login",
        "basic_password": '"decoded": "acme:***"',
        "s3_secret": "signed by ***",
        "destination_password": 'invalid input syntax for type integer: "*****"',  # dbt's own stars: it knows the password, too
        "destination_refused": "refuses the login",
    }
    assert {name: results[name]["error"] for name, reason in reasons.items() if reason not in results[name]["error"]} == {}
    assert "echo: *****" in results["destination_password"]["error"]
    assert read_rejects(fleet) == [('{"id": null, "note": "a row with *** in it"}', True)]
    assert find(run.stdout + run.stderr) == set()
    assert search(data, but=data / "mounted") == {}
    assert find("\n".join(read_errors(fleet, *fleet.tenants)).encode()) == set()
    tables = read_tables(server.get_url("canaries"), ["destination_password_fabric", "destination_password_raw_shop"])
    assert "destination_password_fabric.loads" in tables
    assert find(json.dumps(tables).encode()) == set()
    assert watch.dbt
    assert find(b"\n".join([*watch.seen, *watch.dbt.values()])) == set()


@AT_FULL_LENGTH
def test_without_the_mask_the_same_search_finds_them(tmp_path: Path, server: PostgresServer, echo: str) -> None:
    """The control: what the test above calls silence is no deafness of its own."""
    fleet = make_fleet(tmp_path, server, echo)
    tenants = ("unescaped_at", "bearer", "signed_link", "client_secret", "basic_password", "s3_secret", "rejected_row")
    run = run_fabric(fleet, "run", *tenants, breakage="no_mask")
    shown = find(run.stdout + run.stderr)
    assert set(tenants) - {"rejected_row"} <= shown, run.stderr.decode()
    hits = search(tmp_path / "data" / "dagster")
    assert set(tenants) - {"rejected_row"} <= set().union(*hits.values())
    assert CANARIES["rejected_row"] in read_rejects(fleet)[0][0]
    assert find("\n".join(read_errors(fleet, "bearer", "s3_secret")).encode()) == {"bearer", "s3_secret"}


@AT_FULL_LENGTH
def test_the_webserver_shows_no_secret_of_a_run_that_failed(fleet: Fleet) -> None:
    """Through Dagster's own processes: its event log, compute logs, GraphQL answers and metadata."""
    webserver = Webserver(fleet.environ)
    try:
        wait_until(webserver.is_up, 120)
        answers = [json.dumps(webserver.ask("{ assetNodes { assetKey { path } metadataEntries { label description __typename } tags { key value } } }"))]
        paths = [asset["assetKey"]["path"] for asset in json.loads(answers[0])["assetNodes"]]
        assert len(paths) >= len(CANARIES)
        run_id = webserver.launch(path for path in paths if path[1] == "raw")
        wait_until(lambda: webserver.get_status(run_id) in {"SUCCESS", "FAILURE"}, 240)
        answers.append(json.dumps(webserver.ask(EVENTS, id=run_id)))
        failures = answers[-1].count('"ExecutionStepFailureEvent"')
        assert failures == len(CANARIES) - 3, answers[-1]  # the one that rejects a row, and those whose models fail or whose destination takes the load
        assert "it says: {" in answers[-1] and "signed by ***" in answers[-1]
        assert find("\n".join(answers).encode()) == set()
        assert search(webserver.home) == {}
        assert search(fleet.settings.data_dir, but=fleet.settings.data_dir / "mounted") == {}
    finally:
        webserver.close()


EVENTS = """query ($id: ID!) { runOrError(runId: $id) { ... on Run {
    status runConfigYaml tags { key value }
    eventConnection { events {
        __typename
        ... on MessageEvent { message level eventType }
        ... on ExecutionStepFailureEvent {
            error { message className stack cause { message stack } }
            failureMetadata { label description metadataEntries { label description ... on TextMetadataEntry { text } } }
        }
        ... on MaterializationEvent { metadataEntries { label description ... on TextMetadataEntry { text } } }
    } }
} } }"""
